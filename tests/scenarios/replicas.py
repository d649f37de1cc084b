"""Several gateways on one PostgreSQL, and one Valkey where they have one, over one upstream."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from keystore.keystore import Keystore
from tests.harness import RunningGateway


@contextmanager
def replicas(
    folder: Path, config: str, database_url: str, redis_url: str | None = None, count: int = 2
) -> Iterator[list[RunningGateway]]:
    """So many, running, with one ring; each has a journal of its own."""
    with ExitStack() as stack:
        running: list[RunningGateway] = []
        for number in range(count):
            gateway = replica(folder, config, database_url, redis_url, number)
            if running:
                share_ring(running[0], gateway)
            running.append(stack.enter_context(gateway))
        yield running


def replica(folder: Path, config: str, database_url: str, redis_url: str | None, number: int) -> RunningGateway:
    """One in a folder of its own, not started."""
    home = folder / f"replica-{number}"
    home.mkdir()
    return RunningGateway(home, config, database_url, redis_url)


def share_ring(made: RunningGateway, other: RunningGateway) -> None:
    shutil.copy(made.folder / "sealing-keys", other.folder / "sealing-keys")


def know_each_other(running: Sequence[RunningGateway]) -> bool:
    """Each has looked for others since the last of them was there."""

    async def work(keystore: Keystore) -> bool:
        found = await keystore.replicas.live()
        return len(found) == len(running) and min(one.seen_at for one in found) >= max(one.started_at for one in found)

    return running[0].operate(work)
