"""How the figures are shown: tables for people, or one JSON document. Measures nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from rich.console import Console
from rich.table import Table

from tests.benchmarks.inside import Timed
from tests.benchmarks.load import Load
from tests.benchmarks.machine import Cores
from tests.benchmarks.served import LOADS, Measured, Process
from tests.benchmarks.sides import BARE_LOOP, DIRECT

WIDTH = 120  # of what is piped on


@dataclass(slots=True)
class Results:
    """All that one run measured."""

    machine: Mapping[str, object]
    cores: Cores
    seconds: float
    loads: dict[str, list[Measured]] = field(default_factory=dict)
    processes: list[Process] = field(default_factory=list)
    inside: list[Timed] = field(default_factory=list)


def to_json(results: Results) -> dict[str, object]:
    """Everything, with the numbers as they are."""
    return {
        "machine": dict(results.machine),
        "pinned": results.cores.sentence,
        "seconds_per_measurement": results.seconds,
        "served": {name: [_side(each, sides) for each in sides] for name, sides in results.loads.items()},
        "processes": [asdict(process) for process in results.processes],
        "inside": [asdict(timed) for timed in results.inside],
    }


def _side(each: Measured, sides: Sequence[Measured]) -> dict[str, object]:
    direct, bare = _named(DIRECT, sides), _named(BARE_LOOP, sides)
    return {
        "side": each.side,
        "answers": len(each.answers),
        "answers_per_second": each.rate,
        "answers_per_second_by_round": each.rates,
        "events_per_second": each.event_rate,
        "rate_over_direct": each.rate / direct.rate,
        "rate_over_bare_loop": each.rate / bare.rate,
        "p50_ms": each.took_ms(50),
        "p99_ms": each.took_ms(99),
        "p50_added_to_direct_ms": each.took_ms(50) - direct.took_ms(50),
        "p99_added_to_direct_ms": each.took_ms(99) - direct.took_ms(99),
        "first_token_p50_ms": each.first_token_ms(50),
        "first_token_p99_ms": each.first_token_ms(99),
        "cpu_ms_per_answer": each.cpu_ms,
    }


def _named(name: str, sides: Sequence[Measured]) -> Measured:
    return next(each for each in sides if each.side == name)


def print_tables(results: Results) -> None:
    """The tables, then the line that says what was measured on."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    for load in LOADS:
        if load.name in results.loads:
            console.print(_load_table(load, results.loads[load.name]))
    if results.processes:
        console.print(_process_table(results.processes))
    if results.inside:
        console.print(_inside_table(results.inside))
    console.print()
    facts = results.machine
    console.print(
        f"Python {facts['python']}, litellm {facts['litellm']}, wardgate {facts['wardgate']}, {facts['system']}, "
        f"{facts['cores']} cores, load average {facts['load_average_at_start']} before, {facts['date']}. "
        f"{results.cores.sentence}",
        soft_wrap=True,
    )


def _table(title: str, *columns: str) -> Table:
    table = Table(title=f"\n{title}", title_justify="left", title_style="bold", box=None, pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left", no_wrap=not place)
    return table


def _load_table(load: Load, sides: Sequence[Measured]) -> Table:
    direct, bare = _named(DIRECT, sides), _named(BARE_LOOP, sides)
    what = "first token" if load.stream else "whole answer"
    table = _table(
        f"{load.name}: {load.title}; times in ms, to the {what}",
        *("side", "events/s" if load.stream else "answers/s", "ratio to direct", "ratio to bare loop"),
        *("p50", "p99", "p50 added to direct", "p99 added to direct", "CPU for each", "rounds differ"),
    )
    for each in sides:
        rate = _rate(each, load)
        table.add_row(
            *(each.side, f"{rate:,.0f}", f"{rate / _rate(direct, load):.3f}", f"{rate / _rate(bare, load):.2f}"),
            *(f"{_time(each, load, 50):.2f}", f"{_time(each, load, 99):.2f}"),
            *(_added(each, direct, load, 50), _added(each, direct, load, 99)),
            *("-" if each.cpu_ms is None else f"{each.cpu_ms:.2f}", f"±{each.spread / 2:.0%}"),
        )
    return table


def _rate(each: Measured, load: Load) -> float:
    return each.event_rate if load.stream else each.rate


def _time(each: Measured, load: Load, percent: float) -> float:
    """To the first token where there are streams, else to the end of the answer."""
    return (each.first_token_ms(percent) or 0.0) if load.stream else each.took_ms(percent)


def _added(each: Measured, direct: Measured, load: Load, percent: float) -> str:
    return "-" if each is direct else f"+{_time(each, load, percent) - _time(direct, load, percent):.2f}"


def _process_table(processes: Sequence[Process]) -> Table:
    table = _table(
        "processes", "process", "start to ready, s", "ratio to bare loop", "resident MB", "after the loads, MB"
    )
    bare = next(process for process in processes if process.name == BARE_LOOP)
    for process in processes:
        ratio = f"{process.ready_s / bare.ready_s:.2f}"
        table.add_row(process.name, f"{process.ready_s:.2f}", ratio, _mb(process.idle_mb), _mb(process.loaded_mb))
    return table


def _mb(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _inside_table(inside: Sequence[Timed]) -> Table:
    table = _table("inside one process, one at a time", "what", "a second", "p50 µs", "p99 µs", "ratio to the first")
    for timed in inside:
        ratio = timed.per_second / inside[0].per_second
        table.add_row(
            timed.title, f"{timed.per_second:,.0f}", f"{timed.p50_us:,.0f}", f"{timed.p99_us:,.0f}", f"{ratio:.4f}"
        )
    return table
