"""One price list, fetched: over HTTP or from a file, with a limit on size and time.

Owns the only connections that Wardgate makes for prices: no proxy, no cookie, no key, no redirect to another host, no
compressed answer (which could unfold without end). Must not know formats.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urljoin, urlsplit

import httpx

_REDIRECTS: Final = 3
_MOST_HEADER: Final = 500  # characters of an ETag or a date that are kept
_CONNECT_S: Final = 10.0
_IDLE_S: Final = 20.0


class FetchFailed(Exception):
    """A list did not come; the sentence says why and quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A list as it came."""

    content: bytes
    etag: str | None = None
    last_modified: str | None = None


async def fetch(
    url: str, *, etag: str | None, last_modified: str | None, max_bytes: int, timeout_s: float
) -> Fetched | None:
    """The list at `url`; None when the server says that it did not change. FetchFailed."""
    if urlsplit(url).scheme == "file":
        return await asyncio.to_thread(_read_file, url, max_bytes)
    try:
        async with asyncio.timeout(timeout_s):
            return await _get(url, _headers(etag, last_modified), max_bytes)
    except TimeoutError:
        raise FetchFailed(f"it took longer than {timeout_s:g} seconds") from None
    except httpx.RemoteProtocolError:
        raise FetchFailed("the answer broke off, or is no HTTP") from None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise FetchFailed(f"the server does not answer as one should ({type(error).__name__})") from None


def _headers(etag: str | None, last_modified: str | None) -> dict[str, str]:
    headers = {"accept": "application/json", "accept-encoding": "identity", "user-agent": "wardgate"}
    headers |= {"if-none-match": etag} if etag else {}
    return headers | ({"if-modified-since": last_modified} if last_modified else {})


async def _get(url: str, headers: dict[str, str], max_bytes: int) -> Fetched | None:
    timeout = httpx.Timeout(_IDLE_S, connect=_CONNECT_S)
    async with httpx.AsyncClient(timeout=timeout, trust_env=False, follow_redirects=False) as client:
        for _ in range(_REDIRECTS + 1):
            async with client.stream("GET", url, headers=headers) as answer:
                if not answer.has_redirect_location:
                    return await _read(answer, max_bytes)
                url = _same_host(url, answer.headers["location"])
    raise FetchFailed("it redirects again and again")


def _same_host(url: str, location: str) -> str:
    to, here = urlsplit(urljoin(url, location)), urlsplit(url)
    if (to.scheme, to.netloc) != (here.scheme, here.netloc):
        raise FetchFailed("it redirects to another host; write that URL into [prices] if you trust it")
    return to.geturl()


async def _read(answer: httpx.Response, max_bytes: int) -> Fetched | None:
    if answer.status_code == httpx.codes.NOT_MODIFIED:
        return None
    if answer.status_code != httpx.codes.OK:
        raise FetchFailed(f"the server answered {answer.status_code}")
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise FetchFailed("the answer is compressed, which was not asked for")
    body = bytearray()
    async for part in answer.aiter_raw():
        body += part
        if len(body) > max_bytes:
            raise FetchFailed(f"it is larger than {max_bytes} bytes")
    return Fetched(bytes(body), _kept(answer.headers.get("etag")), _kept(answer.headers.get("last-modified")))


def _kept(header: str | None) -> str | None:
    return header if header and len(header) <= _MOST_HEADER and header.isprintable() else None


def _read_file(url: str, max_bytes: int) -> Fetched:
    path = Path(unquote(urlsplit(url).path))
    try:
        if not path.is_file():
            raise FetchFailed("there is no such file")
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise FetchFailed(f"the file cannot be read: {error.strerror}") from None
    if len(content) > max_bytes:
        raise FetchFailed(f"it is larger than {max_bytes} bytes")
    return Fetched(content)
