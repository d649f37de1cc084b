"""The socket by which a later command reaches the cluster that runs: one line of JSON in, lines of JSON out.

Owns the words. The socket is in a folder that only its user may enter. Must not know what a command does.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from ops.cluster.waiting import ClusterError, Say

ORDER_S: Final = 5.0
DONE_S: Final = 900.0  # the longest order: a rolling restart of all
Obey = Callable[[dict[str, Any], Say], Awaitable[object]]


@asynccontextmanager
async def listening(path: Path, obey: Obey) -> AsyncIterator[None]:
    """Orders that come to `path` are obeyed; what `obey` says is passed on as it is said."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def tell(kind: str, what: object) -> None:
            writer.write(json.dumps({kind: what}).encode() + b"\n")

        with suppress(OSError, TimeoutError, ValueError):
            order = json.loads(await asyncio.wait_for(reader.readline(), ORDER_S))
            try:
                tell("done", await obey(order, lambda text: tell("said", text)))
            except ClusterError as error:
                tell("failed", str(error))
            await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(serve, str(path))
    try:
        yield
    finally:
        server.close()


async def order(path: str, what: dict[str, Any], say: Say) -> Any:
    """What the cluster answers. Raises ClusterError, also when there is none."""
    try:
        reader, writer = await asyncio.open_unix_connection(path)
    except OSError:
        raise ClusterError("the cluster does not answer; `down` ends what is left of it") from None
    try:
        writer.write(json.dumps(what).encode() + b"\n")
        async with asyncio.timeout(DONE_S):
            while line := await reader.readline():
                told = json.loads(line)
                if "failed" in told:
                    raise ClusterError(told["failed"])
                if "done" in told:
                    return told["done"]
                say(told["said"])
    except TimeoutError:
        raise ClusterError(f"the cluster was not done within {DONE_S:.0f} s") from None
    finally:
        writer.close()
    raise ClusterError("the cluster ended meanwhile")
