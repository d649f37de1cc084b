"""What a cluster is told, and the `wardgate.toml` and environment that its gateways get from that."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ops.cluster.child import Spawn, spawned

FOLDER: Final = Path("var/cluster")
MOST: Final = 16  # replicas; a machine has an end
PLANS: Final = ("free", "solo", "pro", "team", "enterprise")
NO_LIMITS: Final = "requests_per_minute = 10_000_000\ntokens_per_minute = 10_000_000_000\nconcurrency = 100_000\n"


@dataclass(frozen=True, slots=True)
class Plan:
    """`database_url`, `redis_url` and `upstream` are started where they are not given. `tables` are more rows for
    `wardgate.toml`; without any of `[plans]` there, the plans' limits are out of the way. `spawn` starts a gateway."""

    replicas: int = 3
    folder: Path = FOLDER
    port: int = 0  # the proxy's; 0: any free one
    notice_s: float = 1.0
    drain_s: float = 10.0
    database_url: str = ""
    redis_url: str = ""
    upstream: str = ""
    tables: str = ""
    spawn: Spawn = spawned

    def config(self, upstream: str) -> str:
        """The `wardgate.toml` of all replicas: MiniMax is the upstream."""
        host = upstream.removeprefix("http://")
        tables = [
            f'[providers.minimax]\nbase_url = "{upstream}/v1"\nhosts = ["{host}"]\n',
            f"[limits]\ndrain_notice_s = {self.notice_s}\ndrain_s = {self.drain_s}\n",
        ]
        if "[plans" not in self.tables:
            tables += [f"[plans.{name}]\n{NO_LIMITS}" for name in PLANS]
        return "\n".join([*tables, self.tables])

    def environment(self, name: str, database_url: str, redis_url: str) -> dict[str, str]:
        """Of one replica: all share the database, Redis, the ring and the configuration; the journal is its own."""
        folder = self.folder.resolve()
        return plain_environment() | {
            "WARDGATE_DATABASE_URL": database_url,
            "WARDGATE_REDIS_URL": redis_url,
            "WARDGATE_SEALING_KEYS_FILE": str(folder / "sealing-keys"),
            "WARDGATE_CONFIG": str(folder / "wardgate.toml"),
            "WARDGATE_JOURNAL": str(folder / name / "journal"),
            "WARDGATE_PORT": "0",
            "WARDGATE_METRICS_PORT": "0",
        }


def plain_environment() -> dict[str, str]:
    """What a child needs of ours, and none of our own settings or keys."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}


def wardgate(*arguments: str) -> list[str]:
    """The command line, by the Python that runs us."""
    return [sys.executable, "-m", "gateway.entry", *arguments]
