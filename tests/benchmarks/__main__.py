"""`make bench`: compares the gateway with other ways to the same upstream, in one run on one machine.

No test: nothing here fails for being slow. The default run takes about 80 seconds.
"""

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from types import FrameType

from tests.benchmarks import inside, served
from tests.benchmarks.children import BenchmarkError
from tests.benchmarks.machine import choose_cores, describe, pinned
from tests.benchmarks.report import Results, print_tables, to_json
from tests.benchmarks.sides import opened

SECONDS = 3.0
INSIDE_SHARE = 0.3  # of those seconds, for each measurement inside one process
LOAD_NAMES = tuple(load.name for load in served.LOADS)
GROUPS = {"served": LOAD_NAMES, "processes": (), "inside": inside.NAMES}
NAMES = (*GROUPS, *LOAD_NAMES, *inside.NAMES)


def main() -> int:
    """Measure what was asked for; 1 when a side could not be measured."""
    chosen = _arguments()
    _end_what_was_started_on_signals()
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - started:5.1f} s] {text}", file=sys.stderr, flush=True)

    try:
        results = run(chosen.only or list(GROUPS), chosen.seconds, say)
    except BenchmarkError as error:
        print(f"the benchmark stopped: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if chosen.json:
        print(json.dumps(to_json(results), indent=2))
    else:
        print_tables(results)
    return 0


def run(names: Sequence[str], seconds: float, say: served.Say) -> Results:
    """Measure `names`, each a group or one measurement; raises BenchmarkError."""
    wanted = {name for each in names for name in (each, *GROUPS.get(each, ()))}
    loads = [load for load in served.LOADS if load.name in wanted]
    cores = choose_cores()
    results = Results(describe(), cores, seconds)
    with pinned(cores.load):
        if loads or "processes" in wanted:
            say("starting the sandbox, the bare loop and Wardgate")
            with opened(cores) as sides:
                results.loads, results.processes = served.measure(sides, loads, seconds, say)
        within = [name for name in inside.NAMES if name in wanted]
        if within:
            results.inside = inside.measure(within, seconds * INSIDE_SHARE, say)
    return results


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--seconds", type=_seconds, default=SECONDS, help="for each measurement on each side")
    parser.add_argument(
        "--only", action="append", choices=NAMES, metavar="NAME", help=f"repeatable; one of {', '.join(NAMES)}"
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
