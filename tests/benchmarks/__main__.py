"""`make bench`: compares the gateway with other ways to the same stand-in, in one run on one machine.

No test: nothing here fails for being slow. The default run takes about four minutes.
"""

import argparse
import asyncio
import json
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

import uvloop

from tests.benchmarks import goals, inside, memory, served
from tests.benchmarks.charts import draw
from tests.benchmarks.children import BenchmarkError
from tests.benchmarks.load import Load, Say
from tests.benchmarks.machine import Cores, choose_cores, describe, pinned
from tests.benchmarks.report import print_tables
from tests.benchmarks.sides import OTHERS, OURS, WARDGATE, Opened, opened

SECONDS = 3.0
INSIDE_SHARE = 0.3  # of those seconds, for each measurement inside one process
REQUESTS = 1_000_000
MEMORY_SHARE = 7  # times those seconds at most, when the number of requests was not asked for
LOAD_NAMES = tuple(load.name for load in served.LOADS)
GROUPS = {"served": LOAD_NAMES, "starts": (), "memory": (), "inside": inside.NAMES}
NAMES = (*GROUPS, *LOAD_NAMES, *inside.NAMES)
SIDE_NAMES = tuple(dict.fromkeys(name for load in served.LOADS for name in load.sides))


def main() -> int:
    """Measure what was asked for; 1 when a side could not be measured."""
    chosen = _arguments()
    _end_what_was_started_on_signals()
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - started:5.1f} s] {text}", file=sys.stderr, flush=True)

    try:
        document = run(chosen, say)
    except BenchmarkError as error:
        print(f"the benchmark stopped: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if chosen.plots:
        draw(document, chosen.plots)
    if chosen.json:
        print(json.dumps(document, indent=2))
    else:
        print_tables(document)
    return 0


def run(chosen: argparse.Namespace, say: Say) -> dict[str, Any]:
    """Measure what was chosen, each a group or one measurement; raises BenchmarkError."""
    wanted = {name for each in chosen.only or list(GROUPS) for name in (each, *GROUPS.get(each, ()))}
    cores = choose_cores()
    document: dict[str, Any] = {
        "machine": describe(),
        "pinned": cores.sentence,
        "seconds_per_measurement": chosen.seconds,
        "left_out": [],
        **{"served": {}, "starts": [], "memory": [], "inside": []},
    }
    with pinned(cores.load):
        if wanted & {*LOAD_NAMES, "starts", "memory"}:
            _served(document, chosen, wanted, cores, say)
        within = [name for name in inside.NAMES if name in wanted]
        if within:
            document["inside"] = [asdict(one) for one in inside.measure(within, chosen.seconds * INSIDE_SHARE, say)]
    document["goals"] = goals.reached(document)
    return document


def _served(document: dict[str, Any], chosen: argparse.Namespace, wanted: set[str], cores: Cores, say: Say) -> None:
    loads = [load for load in served.LOADS if load.name in wanted]
    names = {name for load in loads for name in load.sides}
    if "starts" in wanted:
        names |= {*OTHERS, *OURS}
    if "memory" in wanted:
        names.add(WARDGATE)
    asked = [name for name in names if not chosen.side or name in chosen.side]
    with opened(cores, asked, say) as sides:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_over_http(document, sides, loads, chosen, wanted, say))
        after = served.resident(sides)
        processes = list({side.process.pid: side.process for side in sides.sides.values()}.values())
        document["left_out"] = list(sides.left_out)
    if "starts" in wanted:
        with tempfile.TemporaryDirectory(prefix="wardgate-benchmark-") as folder:
            starts = memory.starts(cores, Path(folder), processes, say)
        document["starts"] = [asdict(one) | {"loaded_mb": after.get(one.name)} for one in starts]


async def _over_http(
    document: dict[str, Any],
    sides: Opened,
    loads: Sequence[Load],
    chosen: argparse.Namespace,
    wanted: set[str],
    say: Say,
) -> None:
    found = await served.measure(sides, loads, chosen.seconds, say)
    document["served"] = {name: [each.figures() for each in measured] for name, measured in found.items()}
    if "memory" in wanted and WARDGATE in sides.sides:
        requests, most_s = (chosen.requests, 86_400.0) if chosen.requests else (REQUESTS, chosen.seconds * MEMORY_SHARE)
        document["memory"] = [asdict(one) for one in await memory.over_requests(sides, requests, most_s, say)]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="draw the figures as SVG files into this folder")
    parser.add_argument("--seconds", type=_seconds, default=SECONDS, help="for each measurement on each side")
    parser.add_argument("--requests", type=int, default=0, help="of the measurement of memory, however long they take")
    parser.add_argument(
        "--only", action="append", choices=NAMES, metavar="NAME", help=f"repeatable; one of {', '.join(NAMES)}"
    )
    parser.add_argument(
        "--side",
        action="append",
        choices=SIDE_NAMES,
        metavar="SIDE",
        help=f"repeatable; one of {', '.join(SIDE_NAMES)}",
    )
    return parser.parse_args()


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0.1 to 600")
    return seconds


def _end_what_was_started_on_signals() -> None:
    """Every signal to leave becomes an interrupt, which the event loop knows how to end for; also where a shell in the
    background had interrupts ignored."""

    def leave(_number: int, _frame: FrameType | None) -> None:
        signal.raise_signal(signal.SIGINT)

    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)


if __name__ == "__main__":
    sys.exit(main())
