"""Whether the task that asks was told to end. A client that waits with asyncio.wait_for loses the exception on Python
3.11 when its answer comes at the same moment, a driver may raise its own in its place: the request stays noted."""

import asyncio


def is_cancelled() -> bool:
    """Of the task that is running."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
