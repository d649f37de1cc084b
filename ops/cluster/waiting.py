"""What the parts of the cluster wait with, and the one error that they raise."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")
Say = Callable[[str], None]


class ClusterError(Exception):
    """The cluster could not do what it was told; its text is a sentence."""


async def until(met: Callable[[], bool], within_s: float, look_s: float = 0.02) -> bool:
    """Whether `met` came true in time."""
    loop = asyncio.get_running_loop()
    end = loop.time() + within_s
    while not met():
        if loop.time() > end:
            return False
        await asyncio.sleep(look_s)
    return True


async def in_thread(work: Callable[[], Result]) -> Result:
    """Done in a thread, and to its end even when we are cancelled meanwhile: what it starts is then known."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait((task,))
        raise
