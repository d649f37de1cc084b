"""5,000 hostile JSON documents (RELIABILITY.md T27): each is refused as the caller's mistake, soon, and nobody waits.

Over HTTP go 300 of them; WARDGATE_TEST_JSON_BOMBS=5000 sends all.
"""

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

from gateway.chat_request import read_chat_request
from gateway.errors import ApiError
from gateway.sandbox.server import SandboxServer
from tests.harness import RunningGateway, sandbox_config

GOOD = '"model": "auto", "messages": [{"role": "user", "content": "a"}]'
SEVERAL = 5_000
OVER_HTTP = int(os.environ.get("WARDGATE_TEST_JSON_BOMBS", "300"))
MEAN_S = 0.05

# How a document is hostile -> one of its kind; `n` grows from a few to some thousands.
KINDS: dict[str, Callable[[random.Random, int], bytes]] = {
    "lists too deep": lambda _, n: b"[" * (65 + n) + b"]" * (65 + n),
    "objects too deep": lambda _, n: b'{"a":' * (65 + n) + b"1" + b"}" * (65 + n),
    "too deep in a field": lambda _, n: f'{{{GOOD}, "tools": {"[" * (65 + n)}{"]" * (65 + n)}}}'.encode(),
    "never closed": lambda _, n: b'{"a":[' * (1 + n),
    "closed too often": lambda _, n: f"{{{GOOD}}}".encode() + b"}" * (1 + n),
    "a name twice": lambda _, n: f'{{{GOOD}, "user": "{"x" * n}", "user": "b"}}'.encode(),
    "a name twice, escaped": lambda _, n: f'{{{GOOD}, "metadata": {{"ab": "{"y" * n}", "a\\u0062": "2"}}}}'.encode(),
    "model twice": lambda _, n: f'{{{GOOD}, "model": "{"m" * (1 + n)}"}}'.encode(),
    "one name very often": lambda _, n: ("{" + ",".join(['"a":1'] * (2 + n)) + "}").encode(),
    "NaN": lambda _, n: f'{{{GOOD}, "temperature": {" " * n}NaN}}'.encode(),
    "infinity": lambda _, n: f'{{{GOOD}, "temperature": {" " * n}-Infinity}}'.encode(),
    "huge number": lambda _, n: f'{{{GOOD}, "seed": {"9" * (20 + n)}}}'.encode(),
    "huge exponent": lambda _, n: f'{{{GOOD}, "temperature": 1e{"9" * (4 + n % 100)}}}'.encode(),
    "zero in front": lambda _, n: f'{{{GOOD}, "seed": 0{"0" * n}1}}'.encode(),
    "plus in front": lambda _, n: f'{{{GOOD}, "seed": +{n}}}'.encode(),
    "hexadecimal": lambda _, n: f'{{{GOOD}, "seed": 0x{n:x}}}'.encode(),
    "lone surrogate": lambda _, n: f'{{{GOOD}, "user": "{"x" * n}\\ud800"}}'.encode(),
    "surrogates in the wrong order": lambda _, n: f'{{{GOOD}, "user": "{"x" * n}\\udc00\\ud800"}}'.encode(),
    "not UTF-8": lambda chance, n: f'{{{GOOD}, "{"x" * n}'.encode() + bytes([chance.randint(0x80, 0xBF)]) + b'":1}',
    "UTF-16": lambda _, n: f'{{{GOOD}, "user": "{"x" * n}"}}'.encode("utf-16"),
    "mark of UTF-8": lambda _, n: b"\xef\xbb\xbf" + f'{{{GOOD}, "user": "{"x" * n}"}}'.encode(),
    "control character": lambda chance, n: f'{{{GOOD}, "user": "{"x" * n}{chr(chance.randint(0, 31))}"}}'.encode(),
    "NUL between": lambda _, n: f"{{{GOOD}{chr(0) * (1 + n)}}}".encode(),
    "comment": lambda _, n: f"{{{GOOD} /* {'x' * n} */}}".encode(),
    "single quotes": lambda _, n: f"{{'model': '{'x' * n}'}}".encode(),
    "comma behind": lambda _, n: f"{{{GOOD}{',' * (1 + n)}}}".encode(),
    "two documents": lambda _, n: f"{{{GOOD}}}{' ' * n}{{{GOOD}}}".encode(),
    "white space alone": lambda _, n: b" \t\r\n" * (1 + n),
    "a number": lambda _, n: str(n).encode(),
    "a text": lambda _, n: f'"{"x" * n}"'.encode(),
    "a list of bodies": lambda _, n: ("[" + ",".join([f"{{{GOOD}}}"] * (1 + n % 50)) + "]").encode(),
    "names that hash": lambda _, n: ("{" + ",".join(f'"{GOOD[0]}{i}"' for i in range(1 + n)) + "}").encode(),
    "fields for libraries": lambda _, n: ("{" + GOOD + f',"f{n}_api_key":{n}' + "}").encode(),
    "too many messages": lambda _, n: b'{"model":"auto","messages":[' + b"0," * (10_000 + n) + b"0]}",
    "messages of no kind": lambda _, n: f'{{"model":"auto","messages":[{",".join(["null"] * (1 + n))}]}}'.encode(),
    "empty objects": lambda _, n: f'{{"model":"auto","messages":[{",".join(["{}"] * (1 + n))}]}}'.encode(),
    "model too long": lambda _, n: f'{{"model":"{"m" * (2_000 + n)}","messages":[]}}'.encode(),
    "cut anywhere": lambda chance, n: f"{{{GOOD}}}".encode()[: chance.randint(1, len(GOOD))],
    "one byte changed": lambda chance, n: changed(chance, n),
    "random bytes": lambda chance, n: b"\xff" + chance.randbytes(1 + n),
}  # fmt: skip


def changed(chance: random.Random, n: int) -> bytes:
    """A good body with a structural character replaced."""
    data = bytearray(f'{{{GOOD}, "user": "{"x" * n}"}}'.encode())
    at = chance.choice([i for i, byte in enumerate(data) if byte in b"{}[]:"])
    data[at] = ord("~")
    return bytes(data)


def documents(count: int) -> Iterator[tuple[str, bytes]]:
    """`count` of them, the same in every run."""
    chance = random.Random(27)
    kinds = list(KINDS.items())
    for number in range(count):
        name, kind = kinds[number % len(kinds)]
        yield name, kind(chance, int(2 ** chance.uniform(0, 11)))


async def test_hostile_documents_are_refused_soon_and_stop_nobody() -> None:
    accepted: Counter[str] = Counter()
    took: list[float] = []
    stalls: list[float] = []
    ended = asyncio.Event()

    async def tick() -> None:
        while not ended.is_set():
            before = time.perf_counter()
            await asyncio.sleep(0)
            stalls.append(time.perf_counter() - before)

    ticking = asyncio.create_task(tick())
    for name, raw in documents(SEVERAL):
        began = time.perf_counter()
        try:
            read_chat_request(raw)
            accepted[name] += 1
        except ApiError as error:
            assert error.problem.status == 400, name
        took.append(time.perf_counter() - began)
        await asyncio.sleep(0)
    ended.set()
    await ticking
    assert accepted == {}
    assert sum(took) / len(took) < MEAN_S
    assert sorted(stalls)[int(len(stalls) * 0.999)] < 0.1


def test_hostile_documents_over_http(tmp_path: Path, sandbox: SandboxServer) -> None:
    with RunningGateway(tmp_path, sandbox_config(sandbox.url)) as gateway:
        token = gateway.tenant("acme", "team", {"MINIMAX_API_KEY": "sk-sandbox-a"})
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        with httpx.Client(base_url=gateway.url, headers=headers, timeout=30) as client:
            began = time.perf_counter()
            for name, raw in documents(OVER_HTTP):
                answer = client.post("/v1/chat/completions", content=raw)
                assert 400 <= answer.status_code < 500, (name, answer.text)
                assert answer.json()["error"]["fault"] == "caller"
            mean_s = (time.perf_counter() - began) / OVER_HTTP
            assert client.get("/readyz").status_code == 200
    assert mean_s < MEAN_S
    assert not sandbox.requests()
