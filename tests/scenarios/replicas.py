"""Several gateways on one PostgreSQL, and one Valkey where they have one, over one upstream."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.harness import RunningGateway


@contextmanager
def replicas(
    folder: Path, config: str, database_url: str, redis_url: str | None = None, count: int = 2
) -> Iterator[list[RunningGateway]]:
    """So many, running, with one ring; each has a journal of its own."""
    with ExitStack() as stack:
        running: list[RunningGateway] = []
        for number in range(count):
            home = folder / f"replica-{number}"
            home.mkdir()
            gateway = RunningGateway(home, config, database_url, redis_url)
            if running:
                shutil.copy(running[0].folder / "sealing-keys", home / "sealing-keys")
            running.append(stack.enter_context(gateway))
        yield running
