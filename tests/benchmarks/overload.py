"""On demand: what a flood of bulk does to another tenant's answers, and what three and ten times the load does to all.

    python -m tests.benchmarks.overload [--seconds 5]

A real `wardgate serve`, and an upstream stand-in that answers after a while, each in a process of its own; the load
comes from this one. Clients that are turned away come again when they were told to, as the SDKs do.
"""

import argparse
import asyncio
import contextlib
import json
import math
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from tests.harness import RunningGateway, sandbox_config

KEY: Final = {"MINIMAX_API_KEY": "sk-sandbox-a"}
UPSTREAM_S: Final = 0.2
TURNS: Final = 3
ANSWER: Final = json.dumps(
    {
        **{"id": "1", "object": "chat.completion", "created": 1, "model": "MiniMax-M2"},
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hi"}}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6},
    }
).encode()
BODY: Final = json.dumps(
    {"model": "minimax/MiniMax-M2", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 20}
).encode()


@dataclass
class Seen:
    """What one load saw: seconds of answers and of refusals, and the statuses of refusals without retry-after."""

    took: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    bare: list[int] = field(default_factory=list)


class Line:
    """A connection that is kept for as long as the gateway keeps it."""

    def __init__(self, port: int, head: bytes) -> None:
        self._port = port
        self._asking = head + BODY
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self) -> tuple[int, float | None]:
        """The status, and after how many seconds to come again."""
        reader, writer = self._streams = self._streams or await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(self._asking)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
        if b"connection: close" in head:
            self.close()
        again = head.split(b"retry-after: ")[1].split(b"\r\n")[0] if b"retry-after: " in head else None
        return int(head.split(b" ")[1]), None if again is None else float(again)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


@dataclass
class Site:
    """A running gateway and the tokens of its tenants."""

    port: int
    upstream: int
    tokens: dict[str, str]
    log: Path | None = None
    read: int = 0  # bytes of the log

    def refusals_s(self) -> list[float]:
        """How long each refusal since the last time took the gateway itself, by its log."""
        assert self.log is not None
        text = self.log.read_bytes()
        lines = text[self.read :].splitlines()
        self.read = len(text)
        found = [json.loads(line) for line in lines if b'"overloaded"' in line and b"request.completed" in line]
        return [each["duration_s"] for each in found]

    def head(self, tenant: str, *, bulk: bool = False) -> bytes:
        lines = ["POST /v1/chat/completions HTTP/1.1", "host: x", f"authorization: Bearer {self.tokens[tenant]}"]
        lines += [f"content-length: {len(BODY)}", *(["x-wardgate-priority: bulk"] if bulk else [])]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    async def client(self, head: bytes, seen: Seen, until: float, think_s: float = 0.0) -> None:
        """Asks again and again, each time when it was answered, or when it was told to come again."""
        line = Line(self.port, head)
        while (began := time.perf_counter()) < until:
            status, again = await line.ask()
            took = time.perf_counter() - began
            if status == 200:
                seen.took.append(took)
                await asyncio.sleep(think_s)
                continue
            seen.refused.append(took)
            if again is None:
                seen.bare.append(status)
            await asyncio.sleep(again or 0.1)
        line.close()

    async def clients(
        self, heads: Sequence[bytes], seconds: float, seen: Seen | None = None, think_s: float = 0.0
    ) -> Seen:
        seen = seen or Seen()
        until = time.perf_counter() + seconds
        await asyncio.gather(*[self._later(number, head, seen, until, think_s) for number, head in enumerate(heads)])
        return seen

    async def _later(self, number: int, head: bytes, seen: Seen, until: float, think_s: float) -> None:
        await asyncio.sleep(number % 100 / 100)  # they do not all come at once
        await self.client(head, seen, until, think_s)


def centile_ms(which: int, took: Sequence[float]) -> float:
    return statistics.quantiles(took, n=100)[which - 1] * 1000 if len(took) > 1 else math.nan


p99_ms = partial(centile_ms, 99)


def flooding(port: int, head: bytes, clients: int, seconds: float, told: "multiprocessing.Queue[int]") -> None:
    """So many bulk clients, in a process of their own so that they are in nobody's way but the gateway's."""

    async def run() -> None:
        seen, site = Seen(), Site(port, port, {})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await site.clients([head] * clients, seconds, seen)
        told.put(len(seen.took))

    asyncio.run(run())


async def bulk_beside(site: Site, seconds: float) -> None:
    """The interactive answers of two tenants beside the bulk flood of one of them; in turns with the same beside a
    flood that asks the upstream itself, about as often, so that the machine has as much to do."""
    quiet, busy = {"mine": Seen(), "other": Seen()}, {"mine": Seen(), "other": Seen()}
    told: multiprocessing.Queue[int] = multiprocessing.Queue()
    answered = {True: 0, False: 0}
    clients = 30
    for number in range(2 * TURNS):
        bulk = number % 2 == 0
        port, clients = (site.port, 150) if bulk else (site.upstream, clients)
        args = (port, site.head("mine", bulk=True), clients, seconds + 3, told)
        flood = multiprocessing.Process(target=flooding, args=args)
        flood.start()
        await asyncio.sleep(2)
        seen = busy if bulk else quiet
        await asyncio.gather(*[site.clients([site.head(name)] * 10, seconds, seen[name], 0.05) for name in seen])
        await asyncio.to_thread(flood.join)
        count = told.get()
        answered[bulk] += count
        clients = max(1, round(count / (seconds + 3) * UPSTREAM_S))
    for bulk, count in answered.items():
        print(f"{'bulk' if bulk else 'asked of the upstream'}: {count / (TURNS * (seconds + 3)):.0f} a second")
    for name in quiet:
        before, after = quiet[name].took, busy[name].took
        figures = [
            f"{what} {of(before):.0f} -> {of(after):.0f} ms ({of(after) / of(before):.3f})"
            for what, of in (("p50", partial(centile_ms, 50)), ("p95", partial(centile_ms, 95)), ("p99", p99_ms))
        ]
        print(f"{name:>6}: {', '.join(figures)}; {len(before)} and {len(after)} answers")


async def overloaded(site: Site, at_once: int, seconds: float) -> None:
    """So many clients are all that fit; then three and ten times as many; then as many as at first."""
    peak = 0.0
    for times in (1, 3, 10, 1):
        seen = await site.clients([site.head("other")] * at_once * times, seconds)
        goodput = len(seen.took) / seconds
        peak = max(peak, goodput)
        print(
            f"x{times:<2} {at_once * times:>5} clients: {goodput:6.0f} a second ({goodput / peak:.0%} of the peak),"
            f" p99 {p99_ms(seen.took):.0f} ms; {len(seen.refused) / seconds:.0f} refusals a second,"
            f" p99 {p99_ms(seen.refused):.0f} ms ({p99_ms(site.refusals_s()):.1f} of it in the gateway),"
            f" without retry-after {len(seen.bare)}"
        )


# --- the processes ---------------------------------------------------------------------------------------------------


def upstream(port: "multiprocessing.Queue[int]", delay_s: float) -> None:
    """Answers every request alike, after a while."""
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(ANSWER)}\r\n\r\n".encode()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                asked = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                size = int(asked.split("content-length:")[1].split("\r\n")[0])
                await reader.readexactly(size)
                await asyncio.sleep(delay_s)
                writer.write(head + ANSWER)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def run() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=4096)
        port.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


def on_a_site(delay_s: float, limits: str, work: Callable[[Site], Coroutine[Any, Any, None]]) -> None:
    told: multiprocessing.Queue[int] = multiprocessing.Queue()
    child = multiprocessing.Process(target=upstream, args=(told, delay_s), daemon=True)
    child.start()
    with tempfile.TemporaryDirectory() as folder:
        asked = told.get()
        config = sandbox_config(f"http://127.0.0.1:{asked}", f"[limits]\n{limits}\n")
        gateway = RunningGateway(Path(folder), config)
        tokens = {name: gateway.tenant(name, "team", KEY) for name in ("mine", "other")}
        env = gateway.environment() | {"WARDGATE_PORT": "0", "WARDGATE_METRICS_PORT": "0", "PATH": os.environ["PATH"]}
        command = [str(Path(sys.executable).with_name("wardgate")), "serve"]
        with (Path(folder) / "log").open("w") as log:
            process = subprocess.Popen(command, env=env, cwd=folder, stdout=log, stderr=subprocess.PIPE, text=True)
        try:
            assert process.stderr is not None
            said = process.stderr.readline()
            site = Site(int(said.split("http://127.0.0.1:")[1].split(",")[0]), asked, tokens, Path(log.name))

            async def run() -> None:
                await site.clients([site.head("mine"), site.head("other")] * 5, 1.0)
                await work(site)

            asyncio.run(run())
        finally:
            process.kill()
            process.communicate()
            child.kill()


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--seconds", type=float, default=5.0, help="of each step")
    seconds = asked.parse_args().seconds
    print(f"# bulk beside interactive; an upstream that takes {UPSTREAM_S} s")
    on_a_site(UPSTREAM_S, "", lambda site: bulk_beside(site, seconds))
    print(f"# 50 at a time are all that fit; an upstream that takes {UPSTREAM_S} s")
    on_a_site(UPSTREAM_S, "max_in_flight = 50", lambda site: overloaded(site, 50, seconds))
    print("# the processor is all that fits; an upstream that takes 5 ms, the limits as shipped")
    on_a_site(0.005, "", lambda site: overloaded(site, 64, seconds))


if __name__ == "__main__":
    main()
