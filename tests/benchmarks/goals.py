"""The figures that the data plane is held to, each read from one run's document; what was not measured is left out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.sides import (
    ANTHROPIC,
    BARE_ANTHROPIC,
    BARE_LOOP,
    BARE_RELAY,
    DIRECT,
    LANE,
    LITELLM,
    NGINX,
    WARDGATE,
)

Document = Mapping[str, Any]
ENOUGH = 100_000  # requests, to speak of growth


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound and how it is measured; `by_cpu` is the same from processor time, which a busy machine hardly moves."""

    title: str
    bound: float
    at_least: bool
    unit: str
    measured: Callable[[Document], float]
    by_cpu: Callable[[Document], float] | None = None


def reached(document: Document) -> list[dict[str, object]]:
    """Each goal that this run measured, and whether it is reached: by both measures where there are two, since on a
    busy machine the first alone may flatter."""
    found: list[dict[str, object]] = []
    for goal in GOALS:
        value = _or_none(goal.measured, document)
        if value is None:
            continue
        by_cpu = None if goal.by_cpu is None else _or_none(goal.by_cpu, document)
        both = [one for one in (value, by_cpu) if one is not None]
        found.append(
            {
                "title": goal.title,
                "bound": f"{'>=' if goal.at_least else '<='} {goal.bound:g}{goal.unit}",
                "measured": value,
                "by_cpu": by_cpu,
                "reached": min(both) >= goal.bound if goal.at_least else max(both) <= goal.bound,
            }
        )
    return found


def _or_none(measure: Callable[[Document], float], document: Document) -> float | None:
    try:
        return measure(document)
    except (LookupError, StopIteration, TypeError, ZeroDivisionError):
        return None  # a side or a load that did not take part


def _of(document: Document, load: str, side: str, figure: str) -> float:
    value: float = next(each for each in document["served"][load] if each["side"] == side)[figure]
    return value


def _over(load: str, figure: str, other: str, side: str = WARDGATE) -> Callable[[Document], float]:
    return lambda document: _of(document, load, side, figure) / _of(document, load, other, figure)


def _under(load: str, figure: str, other: str, side: str = WARDGATE) -> Callable[[Document], float]:
    return lambda document: _of(document, load, other, figure) / _of(document, load, side, figure)


def _added(load: str, figure: str) -> Callable[[Document], float]:
    return lambda document: _of(document, load, WARDGATE, figure) - _of(document, load, DIRECT, figure)


def _start(figure: str) -> Callable[[Document], float]:
    return lambda document: next(one for one in document["starts"] if one["name"] == WARDGATE)[figure]


def _grown(document: Document) -> float:
    """In percent; after too few requests it says nothing."""
    if document["memory"][0]["requests"] < ENOUGH:
        raise LookupError
    grown: float = document["memory"][0]["grown"]
    return grown * 100


RATE, CPU, EVENT = "per_second", "cpu_us_each", "cpu_us_per_event"
GOALS = (
    Goal("plain answers, to nginx", 0.35, True, "", _over("plain-64", RATE, NGINX), _under("plain-64", CPU, NGINX)),
    Goal(
        "plain answers, to LiteLLM proxy",
        60,
        True,
        "",
        _over("plain-64", RATE, LITELLM),
        _under("plain-64", CPU, LITELLM),
    ),
    Goal("CPU for a chunk at a pace, 600 streams, to nginx", 2, False, "", _over("paced-600", EVENT, NGINX)),
    Goal("CPU for a chunk at a pace, LiteLLM proxy to ours", 20, True, "", _under("paced-100", EVENT, LITELLM)),
    Goal("first token of 600 streams, p99 added", 20, False, " ms", _added("paced-600", "first_p99_ms")),
    Goal("the same at a token each 50 ms", 20, False, " ms", _added("paced-600-50ms", "first_p99_ms")),
    Goal("plain answer at 500 a second, p50 added", 0.3, False, " ms", _added("rate-500", "p50_ms")),
    Goal("plain answer at 500 a second, p99 added", 2, False, " ms", _added("rate-500", "p99_ms")),
    Goal("start to ready", 1, False, " s", _start("ready_s")),
    Goal("resident when ready", 100, False, " MB", _start("ready_mb")),
    Goal("memory grown over the requests", 1, False, " %", _grown),
    Goal(
        "body of 10 MB, p50 to the bare relay's",
        1.3,
        False,
        "",
        _over("body-10mb", "p50_ms", BARE_RELAY),
        _over("body-10mb", CPU, BARE_RELAY),
    ),
    Goal(
        "LiteLLM lane, to the bare loop",
        0.95,
        True,
        "",
        _over("plain-64", RATE, BARE_LOOP, LANE),
        _under("plain-64", CPU, BARE_LOOP, LANE),
    ),
    Goal(
        "Anthropic, to the bare loop",
        3,
        True,
        "",
        _over("plain-64", RATE, BARE_ANTHROPIC, ANTHROPIC),
        _under("plain-64", CPU, BARE_ANTHROPIC, ANTHROPIC),
    ),
)
