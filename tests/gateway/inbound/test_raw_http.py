"""Shapes of raw HTTP (tests/vectors/raw_http.toml): each is served as it was meant, or refused; none is guessed at."""

import re
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.inbound.conftest import Running, answers, drained, echo, running

SHAPES: list[dict[str, Any]] = tomllib.loads(
    (Path(__file__).parents[2] / "vectors" / "raw_http.toml").read_text(encoding="utf-8")
)["shape"]
REPEATED = re.compile(r"\{((?:[^{}]|\r\n)+)\*(\d+)\}")
AGAIN = b"GET /again HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n"


def raw(text: str) -> bytes:
    return REPEATED.sub(lambda found: found.group(1) * int(found.group(2)), text).encode("latin-1")


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(echo) as started:
        yield started


def exchanged(server: Running, data: bytes, step: int) -> list[Any]:
    """Send `data` in pieces of `step` bytes, and read until the server closes."""
    with server.connect() as connection:

        def send() -> None:
            try:
                for at in range(0, len(data), step):
                    connection.sendall(data[at : at + step])
            except OSError:
                pass  # closed: what it said is read below

        sender = threading.Thread(target=send)
        sender.start()
        came = drained(connection)
        sender.join()
    return answers(came)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape["name"])
def test_shape_is_served_or_refused(server: Running, shape: dict[str, Any]) -> None:
    data = raw(shape["send"])
    expected = list(shape["answers"])
    if shape.get("stays"):
        data += AGAIN
        expected.append("200 GET /again ")
    for step in (len(data), 1) if len(data) < 400 else (len(data),):
        found = exchanged(server, data, step)
        assert [answer.told for answer in found] == expected
        refused = [answer for answer in found if answer.status != 200]
        for answer in refused:
            assert answer.headers["connection"] == "close"
            assert re.fullmatch("req_[0-9a-f]{32}", answer.headers["x-request-id"])
            assert answer.headers["content-type"] == "application/json"


def test_there_are_enough_shapes() -> None:
    assert len(SHAPES) >= 150
    assert len({shape["name"] for shape in SHAPES}) == len(SHAPES)


def test_refusals_are_counted_and_logged_without_what_was_sent() -> None:
    with running(echo) as server:
        exchanged(server, b"GET /canary-1 HTTP/1.1\r\nhost: h\r\ncanary-2: a\nb\r\n\r\n", 10_000)
        exchanged(server, b"canary-3 /x HTTP/1.1\r\n\r\n", 10_000)
        assert sum(server.refused.values()) == 2
        (line,) = server.logs.records("connection.refused")  # the second within the same second is counted in the next
        assert line["reason"] == "malformed"
        assert "canary" not in server.logs.getvalue()
