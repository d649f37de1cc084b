"""One answer on its way out, as uvicorn writes it; for HTTP/1.0 without chunks, which that version does not know."""

from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


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
