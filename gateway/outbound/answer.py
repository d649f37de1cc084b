"""One answer of a provider while it arrives: its head, then its body in the pieces in which it came.

Bounded: what was received and not yet read is at most WAITING bytes, after which the connection reads no more. Knows
neither HTTP's syntax nor what a body means.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final

import httpx

WAITING: Final = 256 * 1024  # bytes that are received ahead of the reader


class Answer:
    """Filled by its connection; read by one task. Reading raises httpx.HTTPError when the answer broke."""

    __slots__ = (
        "_close",
        "_error",
        "_pause",
        "_paused",
        "_pieces",
        "_size",
        "_waiter",
        "complete",
        "headers",
        "status",
    )

    def __init__(self, pause: Callable[[bool], None], close: Callable[[], None]) -> None:
        self.status = 0  # until the head has come
        self.headers: dict[bytes, bytes] = {}  # names in lower case; of a repeated header, the last
        self.complete = False
        self._pieces: list[bytes] = []
        self._size = 0
        self._paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._error: httpx.HTTPError | None = None
        self._pause = pause
        self._close = close

    async def head(self) -> None:
        """Wait until status and headers are there."""
        while not self.status:
            await self._wait()

    async def piece(self) -> bytes | None:
        """What has come since, at least one byte; None at the end."""
        while not self._pieces:
            if self.complete:
                return None
            await self._wait()
        pieces, self._pieces, self._size = self._pieces, [], 0
        if self._paused:
            self._paused = False
            self._pause(False)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def pieces(self) -> AsyncIterator[bytes]:
        """All pieces, to the end."""
        while (piece := await self.piece()) is not None:
            yield piece

    def aclose(self) -> None:
        """Read no more: an answer that is not complete takes its connection with it, so that the provider notices.
        Whoever still reads it is told."""
        if not self.complete:
            self.fail(httpx.ReadError("the answer was closed"))
            self._close()

    # What the connection calls.

    def begin(self, status: int, headers: dict[bytes, bytes]) -> None:
        self.status, self.headers = status, headers
        self._wake()

    def feed(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > WAITING and not self._paused:
            self._paused = True
            self._pause(True)
        self._wake()

    def end(self) -> None:
        """The connection is read again at once: it is not this answer's any more."""
        self.complete = True
        if self._paused:
            self._paused = False
            self._pause(False)
        self._wake()

    def fail(self, error: httpx.HTTPError) -> None:
        """What came before is still read first."""
        if self._error is None and not self.complete:
            self._error = error
            self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def _wait(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
