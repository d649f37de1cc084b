"""A replica of its own for the tests of repeats: a process that sends the same request many times at once.

Arguments: database URL, ring file, folder, tenant, how many, and whether it asks and then never answers. Each call to
the upstream adds a line to `calls` in the folder; the answers are printed as JSON.
"""

import asyncio
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from gateway.repeats import CALM, Pace, Repeats, Replay
from keystore.clock import Clock, utc_now
from keystore.errors import KeystoreError
from keystore.keystore import Keystore, SealingSource
from keystore.providers import load_registry
from keystore.tenants import Tenant

QUICK = Pace(first_s=0.005, most_s=0.02)
BODY = b'{"model": "gpt-5", "messages": [{"role": "user", "content": "hello"}]}'
ENDPOINT = "chat.completions"


@dataclass
class Upstream:
    """Answers each call differently, and knows how many there were and how many at a time."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    calls: int = 0
    running: int = 0
    most: int = 0
    failing: int = 0  # so many of the next calls fail
    size: int = 0

    async def ask(self) -> bytes:
        self.calls += 1
        number, self.running = self.calls, self.running + 1
        self.most = max(self.most, self.running)
        try:
            await self.gate.wait()
        finally:
            self.running -= 1
        if self.failing:
            self.failing -= 1
            raise ConnectionError
        return b'{"answer": %d, "of": "%s"}' % (number, os.urandom(8).hex().encode()) + os.urandom(self.size)


@dataclass
class Replica:
    """One process's part: a keystore and its repeats."""

    keystore: Keystore
    repeats: Repeats
    reported: list[BaseException]
    asked: int = 0

    async def send(
        self,
        tenant: Tenant,
        upstream: Upstream,
        key: str = "k",
        body: bytes = BODY,
        *,
        within_s: float = 60.0,
        stream: bool = False,
    ) -> Replay:
        """As the gateway serves a request with a key."""
        self.asked += 1
        request_id = f"req_{id(self):x}_{self.asked}"
        begun = await self.repeats.begin(
            tenant, ENDPOINT, key, body, request_id=request_id, within_s=within_s, stream=stream
        )
        if isinstance(begun, Replay):
            return begun
        async with begun as ticket:
            answer = await upstream.ask()
            headers = {"x-wardgate-request-id": request_id, "x-request-id": "its own"}
            if stream:
                await ticket.streamed()
            elif not await ticket.done(200, headers, answer):
                headers["x-wardgate-idempotency"] = "not-kept"
            return Replay(request_id, 200, headers, answer)

    async def close(self) -> None:
        await self.repeats.close()
        await self.keystore.close()


def replica_of(keystore: Keystore, pace: Pace = QUICK) -> Replica:
    reported: list[BaseException] = []
    report: Callable[[str, BaseException], None] = lambda _, error: reported.append(error)  # noqa: E731
    return Replica(keystore, Repeats(keystore.answers, report, pace=pace), reported)


async def opened(url: str, ring: Path, now: Clock) -> Replica:
    registry, source = load_registry(), SealingSource(None, ring)
    plans = ("free", "solo", "team")
    keystore = await Keystore.open(
        database_url=url, sealing=source, registry=registry, known_plans=plans, create=False, now=now
    )
    return replica_of(keystore, CALM)


class _Noting(Upstream):
    """Notes each call where every process sees it."""

    def __init__(self, folder: Path, *, never: bool) -> None:
        super().__init__()
        self._calls = folder / "calls"
        self._never = never

    async def ask(self) -> bytes:
        with self._calls.open("a") as calls:
            calls.write(f"{os.getpid()}\n")
        await asyncio.sleep(3600 if self._never else 0.3)
        return json.dumps({"from": os.getpid(), "random": os.urandom(8).hex()}).encode()


async def main(url: str, ring: str, folder: str, slug: str, count: int, *, never: bool) -> None:
    replica = await opened(url, Path(ring), utc_now)
    tenant, upstream = await replica.keystore.tenants.get(slug), _Noting(Path(folder), never=never)
    answers = await asyncio.gather(*(replica.send(tenant, upstream) for _ in range(count)))
    sys.stdout.write(json.dumps([answer.body.decode() for answer in answers]))
    await replica.close()


if __name__ == "__main__":
    try:
        _, url, ring, folder, slug, count, how = sys.argv
        asyncio.run(main(url, ring, folder, slug, int(count), never=how == "never"))
    except KeystoreError as error:
        sys.exit(str(error))
