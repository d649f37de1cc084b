"""What journal and shipper cost, alone in one process on one core: `python -m tests.benchmarks.journal [FOLDER]`.

The store takes rows and does nothing with them, so that what is measured is the journal's own part. FOLDER decides
which disk is meant. Processor time, the best of five rounds; waiting for the disk in wall time.
"""

import asyncio
import gc
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from keystore.journal import Journal
from keystore.ledger_row import LedgerRow, State
from keystore.shipping import Shipper

ROUNDS = 5
ROWS = 20_000
TOGETHER = 500
BEGAN = datetime(2026, 11, 21, tzinfo=UTC)


class Nowhere:
    """Takes every row."""

    def __init__(self) -> None:
        self.at: dict[str, int] = {}

    async def position(self, journal_id: str) -> int:
        return self.at.get(journal_id, 0)

    async def write_at(self, journal_id: str, lines: range, rows: Mapping[int, LedgerRow]) -> None:
        self.at[journal_id] = lines.stop

    async def secured(self) -> bool:
        return True


def request(number: int) -> tuple[bytes, bytes]:
    """What a request appends, in full: when it begins, and when it has ended."""
    lines = '{"lines":[["input",1200,"0.3",360000],["output",300,"1.2",360000]],"attempts":[["minimax","ok",360000]]}'
    known = {"tenant_id": "t" * 32, "token_id": "tok_" + "k" * 16, "endpoint": "chat_completions", "stream": True}
    named = {"provider": "minimax", "model": "MiniMax-M2", "key_source": "byok", "key_via": "own"}
    counted = {"input_tokens": 1_200, "output_tokens": 300, "cached_input_tokens": 0, "cost_nano": 720_000}
    timed = {"duration_ms": 1_200, "upstream_ms": 1_190, "first_token_ms": 210, "attempts": 1}
    first = LedgerRow(
        request_id=f"req_{number:032x}",
        began_at=BEGAN,
        state=State.RESERVED,
        outcome="",
        **known,  # type: ignore[arg-type]
    )
    last = LedgerRow(
        request_id=first.request_id,
        began_at=BEGAN,
        state=State.SETTLED,
        outcome="ok",
        model_asked="minimax/MiniMax-M2",
        setting_key="MINIMAX_API_KEY",
        status=200,
        catalogue="2026-11-20.1",
        detail=lines,
        **(known | named | counted | timed),  # type: ignore[arg-type]
    )
    return first.line(), last.line()


async def measure(folder: Path) -> None:
    """Print one line for each figure."""
    lines = [request(number) for number in range(ROWS)]
    gc.collect()
    gc.freeze()
    print(f"line: {len(lines[0][0])} bytes when it begins, {len(lines[0][1])} when it ended")
    journal = Journal(folder, database="benchmark")
    shipper = Shipper(journal, Nowhere(), print, now=lambda: datetime.now(UTC))
    appended, shipped = [], []
    for _ in range(ROUNDS):
        appended.append(spent(journal, lines))
        await journal.durable()
        before = time.process_time()
        await shipper.flush()
        shipped.append(time.process_time() - before)
    line_us, row_us = min(appended) / ROWS / 2 * 1e6, min(shipped) / ROWS * 1e6
    print(f"append: {line_us:.1f} us a line of processor time (target: 6)")
    print(f"shipping: {row_us:.1f} us a row, with its line of the beginning")
    print(f"both: {1e6 / (2 * line_us + row_us):,.0f} rows/s on one core")
    await waiting(journal, lines)
    await journal.close(finished=await shipper.close(30))


def spent(journal: Journal, lines: list[tuple[bytes, bytes]]) -> float:
    """Seconds of processor time to append all of them."""
    before = time.process_time()
    for first, last in lines:
        journal.append(first)
        journal.append(last)
    return time.process_time() - before


async def waiting(journal: Journal, lines: list[tuple[bytes, bytes]]) -> None:
    """How long `durable` takes, for one alone and for many at once."""
    times: list[float] = []

    async def one(line: bytes) -> None:
        journal.append(line)
        before = time.perf_counter()
        await journal.durable()
        times.append(time.perf_counter() - before)

    for _, line in lines[:300]:
        await one(line)
    told("one alone", times)
    times.clear()
    before = (time.perf_counter(), time.process_time())
    for start in range(0, ROWS, TOGETHER):
        await asyncio.gather(*(one(line) for _, line in lines[start : start + TOGETHER]))
    wall, processor = time.perf_counter() - before[0], time.process_time() - before[1]
    told(f"{TOGETHER} at once", times)
    print(f"appended and durable, {TOGETHER} at once: {ROWS / wall:,.0f} /s, {processor / ROWS * 1e6:.1f} us each")


def told(what: str, times: list[float]) -> None:
    cut = statistics.quantiles(times, n=100)
    print(f"durable, {what}: p50 {cut[49] * 1e3:.2f} ms, p95 {cut[94] * 1e3:.2f} ms, p99 {cut[98] * 1e3:.2f} ms")


if __name__ == "__main__":
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if sys.argv[1:] else None) as made:
        uvloop.run(measure(Path(made) / "journal"))
