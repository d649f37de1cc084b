"""Whether a client takes what it is sent: measured at its socket, below every buffer of ours."""

import asyncio
import socket
import struct
from typing import Final

INFO_BYTES: Final = 160
UNACKED, BYTES_ACKED, NOT_SENT = 24, 120, 144  # offsets in Linux's struct tcp_info: segments, bytes, bytes


class Reader:
    """Of one connection: since when it has taken nothing although something waits. Times in seconds."""

    __slots__ = ("_since", "_socket", "_taken", "_transport")

    def __init__(self, transport: asyncio.Transport, now: float) -> None:
        self._transport = transport
        self._socket: socket.socket | None = transport.get_extra_info("socket")
        self._taken = -1
        self._since = now

    def idle_s(self, now: float) -> float:
        """For how long the client has taken nothing; 0 when nothing waits, or when it took something since the last
        look. A window that stays shut counts, and so does a peer that no longer acknowledges."""
        waiting, taken = self._state()
        if not waiting or taken != self._taken:
            self._taken, self._since = taken, now
        return now - self._since

    def _state(self) -> tuple[bool, int]:
        """Whether anything waits, and a number that moves when the client takes some."""
        held = self._transport.get_write_buffer_size()
        info = self._tcp_info()
        if info is None:  # not TCP, or not Linux: our own buffer alone
            return held > 0, held
        unacked = struct.unpack_from("I", info, UNACKED)[0]
        not_sent = struct.unpack_from("I", info, NOT_SENT)[0]
        return held > 0 or unacked > 0 or not_sent > 0, struct.unpack_from("Q", info, BYTES_ACKED)[0]

    def _tcp_info(self) -> bytes | None:
        option = getattr(socket, "TCP_INFO", None)
        if option is None or self._socket is None:
            return None
        try:
            info = self._socket.getsockopt(socket.IPPROTO_TCP, option, INFO_BYTES)
        except OSError:
            return None
        return info if len(info) >= NOT_SENT + 4 else None
