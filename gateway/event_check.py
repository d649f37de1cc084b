"""Reads along a stream of server-sent events and finds the first one whose data is not JSON.

LiteLLM ends some streams with an invented `stop` at such an event and drops what follows; so it is found here, on the
bytes. Pure; the framing is that of the HTML standard, section "Server-sent events".
"""

import orjson

MAX_EVENT = 16 * 1024 * 1024  # bytes; an event without an end is an attack on memory


class EventCheck:
    """Feed it the bytes as they come."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> int | None:
        """The position in `chunk` behind the first bad event; None when there is none."""
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            self._line += chunk[start:end]
            start = end + 1
            if not self._take_line():
                return start
        self._line += chunk[start:]
        return len(chunk) if len(self._line) + self._size > MAX_EVENT else None

    def _take_line(self) -> bool:
        """Digest the completed line; False when it completes an event that is not JSON."""
        line = bytes(self._line).rstrip(b"\r")
        self._line.clear()
        if line.startswith(b"data:"):
            self._data.append(line[5:].removeprefix(b" "))
            self._size += len(line)
            return self._size <= MAX_EVENT
        if line:
            return True
        payload, self._data, self._size = b"\n".join(self._data).strip(), [], 0
        return not payload or payload == b"[DONE]" or _is_json(payload)


def _is_json(payload: bytes) -> bool:
    try:
        orjson.loads(payload)
    except orjson.JSONDecodeError:
        return False
    return True
