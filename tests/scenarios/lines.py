"""A lean HTTP client for loads: the same request again and again over connections that are kept.

An SDK's client takes more processor for a request than the gateway does; where clients share a machine with what they
measure, that is what would be measured.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Lines:
    """Connections to one port; as many as there are requests at a time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._free: list[Line] = []

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """The status and the body of the answer, which has a content-length."""
        reader, writer = line = await self._line()
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        body = await reader.readexactly(int(_field(head, b"content-length")))
        if _field(head, b"connection") == b"close":
            writer.close()
            await writer.wait_closed()
        else:
            self._free.append(line)
        return int(head.split(b" ", 2)[1]), body

    async def _line(self) -> Line:
        """One that is free; those that were closed for having been idle are not."""
        while self._free:
            reader, writer = self._free.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
            await writer.wait_closed()
        return await asyncio.open_connection("127.0.0.1", self._port)

    async def close(self) -> None:
        for _, writer in self._free:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for _, writer in self._free), return_exceptions=True)
        self._free = []


def _field(head: bytes, name: bytes) -> bytes:
    return head.partition(b"\r\n" + name + b": ")[2].partition(b"\r\n")[0]


def post(path: str, token: str, body: Mapping[str, Any]) -> bytes:
    """A whole request."""
    content = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "host: gateway", f"authorization: Bearer {token}"]
    lines += ["content-type: application/json", f"content-length: {len(content)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content
