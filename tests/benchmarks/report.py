"""How a run's document is shown: tables for people. Measures nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.benchmarks.goals import Document
from tests.benchmarks.load import Load
from tests.benchmarks.served import LOADS
from tests.benchmarks.sides import BARE_LOOP, BARE_RELAY, DIRECT, LITELLM, NGINX

WIDTH = 180  # of what is piped on
BASES = (DIRECT, NGINX, LITELLM, BARE_LOOP, BARE_RELAY)  # that others are compared with
Figures = Mapping[str, Any]


def print_tables(document: Document) -> None:
    """The tables, then the line that says what was measured on."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    for load in LOADS:
        if load.name in document["served"]:
            console.print(_load_table(load, document["served"][load.name]))
    for name in ("starts", "memory", "inside", "goals"):
        if document[name]:
            console.print(TABLES[name](document[name]))
    console.print()
    facts = document["machine"]
    console.print(
        f"Python {facts['python']}, litellm {facts['litellm']}, wardgate {facts['wardgate']}, {facts['system']}, "
        f"{facts['cores']} cores, load average {facts['load_average_before']} before, {facts['date']}. "
        f"{document['pinned']}",
        soft_wrap=True,
    )
    for name in document["left_out"]:
        console.print(f"Left out: {name} is not to be had; see python -m tests.benchmarks.fetch", soft_wrap=True)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=f"\n{title}", title_justify="left", title_style="bold", box=None, pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left", no_wrap=not place)
    return table


def _load_table(load: Load, sides: Sequence[Figures]) -> Table:
    bases = [base for base in BASES if any(each["side"] == base for each in sides)]
    compared = [] if load.rate or load.gap_ms else [base for base in bases if base != BARE_LOOP or not load.chunks]
    times = "first token" if load.chunks else "answer"
    columns = ["side", "a second", *(f"to {base}" for base in compared)]
    columns += [f"{times} p50 ms", "p99", "p50 added", "p99 added", "CPU each µs"]
    columns += ["CPU a chunk µs", "to nginx", "gap p99 ms"] if load.chunks else []
    columns += ["core busy", "load core", "rounds ±"]
    columns += ["not in time"] if load.rate else []
    table = _table(f"{load.name}: {load.title}", *columns)
    for each in sides:
        table.add_row(*_row(load, each, sides, compared))
    return table


def _row(load: Load, each: Figures, sides: Sequence[Figures], compared: Sequence[str]) -> list[str]:
    kind = "first_" if load.chunks else ""
    direct = _named(DIRECT, sides)
    row = [each["side"], f"{each['per_second']:,.0f}"]
    row += [_ratio(each["per_second"] / _named(base, sides)["per_second"]) for base in compared]
    row += [_number(each[f"{kind}{percent}_ms"]) for percent in ("p50", "p99")]
    row += [_difference(each, direct, f"{kind}{percent}_ms") for percent in ("p50", "p99")]
    row.append(_number(each["cpu_us_each"], 1))
    if load.chunks:
        nginx = _named(NGINX, sides).get("cpu_us_per_event")
        mine = each["cpu_us_per_event"]
        row += [_number(mine), _number(mine / nginx if mine and nginx else None), _number(each["gap_p99_ms"])]
    row += [_percent(each["core_busy"]), _percent(each["load_core_busy"]), f"{each['rounds_differ']:.0%}"]
    return [*row, str(each["unfinished"])] if load.rate else row


def _named(name: str, sides: Sequence[Figures]) -> Figures:
    return next((each for each in sides if each["side"] == name), {})


def _difference(each: Figures, direct: Figures, figure: str) -> str:
    if each is direct or each[figure] is None or direct.get(figure) is None:
        return "-"
    return f"{each[figure] - direct[figure]:+.2f}"


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _ratio(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _starts(starts: Sequence[Figures]) -> Table:
    table = _table(
        "processes", "process", "starts", "listens after s", "ready after s", "resident MB", "after the loads MB"
    )
    for one in starts:
        numbers = (one["listens_s"], one["ready_s"], one["ready_mb"], one["loaded_mb"])
        table.add_row(one["name"], str(one["times"]), *(_number(number) for number in numbers))
    return table


def _memory(memory: Sequence[Figures]) -> Table:
    table = _table("memory over many requests", "side", "requests", "MB at first", "MB at last", "grown after a tenth")
    for one in memory:
        first, last = one["samples"][0][1], one["samples"][-1][1]
        table.add_row(one["side"], f"{one['requests']:,}", _number(first, 1), _number(last, 1), f"{one['grown']:+.2%}")
    return table


def _inside(inside: Sequence[Figures]) -> Table:
    table = _table("inside one process, one at a time", "what", "a second", "p50 µs", "p99 µs", "ratio to the first")
    for timed in inside:
        ratio = timed["per_second"] / inside[0]["per_second"]
        times = (f"{timed['p50_us']:,.0f}", f"{timed['p99_us']:,.0f}")
        table.add_row(timed["title"], f"{timed['per_second']:,.0f}", *times, f"{ratio:.4f}")
    return table


def _goals(goals: Sequence[Figures]) -> Table:
    table = _table("the figures to reach, in this run", "what", "to reach", "measured", "by processor time", "reached")
    for goal in goals:
        by_cpu = _number(goal["by_cpu"])
        table.add_row(
            goal["title"], goal["bound"], _number(goal["measured"]), by_cpu, "yes" if goal["reached"] else "no"
        )
    return table


TABLES = {"starts": _starts, "memory": _memory, "inside": _inside, "goals": _goals}
