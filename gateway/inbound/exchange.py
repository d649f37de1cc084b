"""One answer on its way out: nearly all in few steps, the rest as uvicorn writes it; for HTTP/1.0 without chunks, which
that version does not know.
"""

import re
from collections.abc import Sequence
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

CHUNKED: Final = b"transfer-encoding: chunked\r\n"
CLOSE: Final = b"connection: close\r\n"
UVICORNS: Final = frozenset({b"connection", b"transfer-encoding"})  # headers that say how the answer is framed
CONTROLS: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")  # that no header may hold, line ends apart
BODILESS: Final = frozenset({204, 304})


class Exchange(RequestResponseCycle):
    """An answer of HTTP/1.1. uvicorn looks at each header with two patterns; here they are looked at together."""

    async def send(self, message: Any) -> None:
        if self.disconnected or self.flow.write_paused or self.access_log or not self._sent(message):
            await super().send(message)

    def _sent(self, message: Any) -> bool:
        """Whether it was one of the usual messages, which went out."""
        if not self.response_started:
            return message["type"] == "http.response.start" and self._begun(
                message["status"], message.get("headers", ())
            )
        body = message.get("body")
        if not self.chunked_encoding or not body or not message.get("more_body") or self.response_complete:
            return False
        if self.scope["method"] == "HEAD" or message["type"] != "http.response.body":
            return False
        self.transport.write(b"%x\r\n%b\r\n" % (len(body), body))
        return True

    def _begun(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> bool:
        lines, length = [STATUS_LINE[status]], None
        for name, value in (*self.default_headers, *headers):
            word = name.lower()
            if word in UVICORNS or (word == b"content-length" and length is not None):
                return False
            if word == b"content-length":
                length = int(value)
            lines += (word, b": ", value, b"\r\n")
        ends = 1 + len(self.default_headers) + len(headers)
        if not self.keep_alive:
            lines.append(CLOSE)
            ends += 1
        chunked = length is None and self.scope["method"] != "HEAD" and status not in BODILESS
        if chunked:
            lines.append(CHUNKED)
            ends += 1
        head = b"".join(lines)
        if head.count(b"\r") != ends or head.count(b"\n") != ends or CONTROLS.search(head):
            return False  # uvicorn says which header it is
        self.response_started, self.waiting_for_100_continue = True, False
        self.chunked_encoding = chunked or (None if length is None else False)
        self.expected_content_length = length or 0
        self.transport.write(head + b"\r\n")
        return True


class OldExchange(RequestResponseCycle):
    """An answer without a length ends with its connection."""

    _until_close = False

    async def send(self, message: Any) -> None:
        if not self.response_started:
            lengths = [name for name, _ in message.get("headers", ()) if name.lower() == b"content-length"]
            if not lengths:
                self._until_close = True
                self.chunked_encoding = False
        elif self._until_close:
            self.expected_content_length = len(message.get("body", b""))
        await super().send(message)
