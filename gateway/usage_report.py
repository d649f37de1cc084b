"""What was used, for people and their programs: how a question is read, and how its answer is shaped, JSON and CSV.

Owns the names of what may be asked and of what is told. Pure. Must not know who asks, nor where sums are kept.
"""

import base64
import csv
import io
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import Final

import orjson

from gateway.events import Outcome
from keystore.errors import did_you_mean
from keystore.ledger_row import LOST
from keystore.ledger_usage import Sums
from keystore.providers import Provider
from keystore.token_format import is_token_id
from keystore.usage import Group, UsagePage, UsageQuestion
from router.query import KeySource

MOST: Final = 5_000  # rows of one answer
USUAL: Final = 1_000
LONGEST: Final = 8_000  # characters of a value
NEXT: Final = "x-wardgate-next-cursor"  # where CSV, which has no place for it, says how to go on
GROUPS: Final = tuple(group for group in Group if group is not Group.TENANT)  # of a tenant's own question
FIELDS: Final = ("since", "until", "by", *(group.value for group in GROUPS), "format", "limit", "cursor")
OPERATORS_FIELDS: Final = (*FIELDS, Group.TENANT.value)
_FORMATS: Final = ("json", "csv")
_CLOSED: Final[Mapping[Group, tuple[str, ...]]] = MappingProxyType(
    {
        Group.OUTCOME: (*(each.value for each in Outcome), LOST),
        Group.KEY_SOURCE: tuple(each.value for each in KeySource),
    }
)
_FILTERS: Final = frozenset(Group) - {Group.DAY, Group.MONTH, Group.TENANT}  # by values; the others say when, and whose
_DAY: Final = re.compile(r"2\d{3}-\d\d-\d\d")
_MONTH: Final = re.compile(r"2\d{3}-\d\d")
_RISKY: Final = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")  # a spreadsheet takes a cell that begins so for a formula


class UsageRefused(Exception):
    """A question that cannot be answered: the field, and the rule that it broke. What was sent is in neither."""

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"`{field}`: {rule}" + ("" if rule.endswith("?") else "."))
        self.field = field
        self.rule = rule


@dataclass(frozen=True, slots=True)
class Wanted:
    """A question that was read, and the form of its answer."""

    question: UsageQuestion
    as_csv: bool = False


@dataclass(frozen=True, slots=True)
class Rendered:
    """An answer as it is sent."""

    body: bytes
    headers: Mapping[str, str]


# --- the question ----------------------------------------------------------------------------------------------------


def check_names(names: Sequence[str], known: Collection[str]) -> None:
    """UsageRefused for a parameter that is not known, or stands twice."""
    for name in names:
        if name not in known:
            near = did_you_mean(name, known) or f"; known are {', '.join(sorted(known))}"
            raise UsageRefused("query", f"there is a parameter that is not known{near}")
    if len(names) > len(set(names)):
        raise UsageRefused("query", "a parameter stands twice; send it once")


def read_wanted(given: Mapping[str, str], today: date, *, groups: Sequence[Group] = GROUPS, most: int = MOST) -> Wanted:
    """The question of these fields, whose names are known; UsageRefused. `groups` are those that the caller may tell
    apart; a tenant is named elsewhere."""
    for name, value in given.items():
        if len(value) > LONGEST or not value.isprintable():
            raise UsageRefused(name, f"it must be at most {LONGEST} printable characters")
    by = _by(given.get("by", Group.DAY.value), groups)
    since, until = _time(given, today)
    after = None if "cursor" not in given else _place(given["cursor"], by)
    where = tuple((group, _value(group, given[group])) for group in groups if group in given and group in _FILTERS)
    form = _one_of("format", given.get("format", "json"), _FORMATS)
    return Wanted(UsageQuestion(since, until, by, where, after, _limit(given.get("limit"), most)), form == "csv")


def _by(text: str, groups: Sequence[Group]) -> tuple[Group, ...]:
    known = [group.value for group in groups]
    words = [word.strip() for word in text.split(",")]
    for word in words:
        _one_of("by", word, known, "takes words of this list, with commas between")
    if len(words) > len(set(words)):
        raise UsageRefused("by", "a word stands twice")
    return tuple(Group(word) for word in words)


def _time(given: Mapping[str, str], today: date) -> tuple[date, date]:
    """The first day, and the one behind the last: this month, when nothing is said."""
    named = [name for name in ("day", "month", "since", "until") if name in given]
    if len(named) > 1 and named != ["since", "until"]:
        raise UsageRefused(named[0], "it says the whole time; leave the other out")
    if "day" in given:
        day = _date("day", given["day"])
        return day, day + timedelta(days=1)
    if "month" in given:
        if not _MONTH.fullmatch(given["month"]):
            raise UsageRefused("month", "it must be a month such as 2026-11")
        month = _date("month", given["month"] + "-01")
        return month, _next_month(month)
    until = _date("until", given["until"]) if "until" in given else _next_month(today)
    since = _date("since", given["since"]) if "since" in given else (until - timedelta(days=1)).replace(day=1)
    if since >= until:
        named_one = "until" if "until" in given else "since"
        raise UsageRefused(named_one, f"nothing lies from {since} until {until}; `until` is the day behind the last")
    return since, until


def _date(name: str, text: str) -> date:
    try:
        if _DAY.fullmatch(text):
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise UsageRefused(
        name, f"it must be a {'month such as 2026-11' if name == 'month' else 'date such as 2026-11-21'}"
    )


def _next_month(day: date) -> date:
    return (day.replace(day=1) + timedelta(days=31)).replace(day=1)


def _value(group: Group, text: str) -> str:
    if not text:
        raise UsageRefused(group, "it is empty")
    if group is Group.TOKEN and not is_token_id(text):
        raise UsageRefused(group, "it must be a token's id: 12 letters and digits, as lists of tokens have it")
    return _one_of(group, text, _CLOSED[group]) if group in _CLOSED else text


def _one_of(name: str, word: str, known: Sequence[str], rule: str = "it must be one word of this list") -> str:
    if word not in known:
        raise UsageRefused(name, f"{rule}: {', '.join(known)}{did_you_mean(word, known)}")
    return word


def _limit(text: str | None, most: int) -> int:
    if text is None:
        return min(USUAL, most)
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and 1 <= int(text) <= most):
        raise UsageRefused("limit", f"it must be a whole number from 1 to {most}")
    return int(text)


def check_provider(question: UsageQuestion, page: UsagePage, rows: Iterable[Provider]) -> None:
    """UsageRefused where a provider was named that has no row and of which nothing was used: it is a slip. What went to
    one that is not there any more is told."""
    name = dict(question.where).get(Group.PROVIDER)
    ids = {each for row in rows for each in (row.id, *row.former_ids)}
    if name is not None and not page.total.requests and name not in ids:
        raise UsageRefused("provider", f"there is no such provider{did_you_mean(name, ids)}")


# --- pages -----------------------------------------------------------------------------------------------------------


def _cursor(page: UsagePage, by: Sequence[Group]) -> str | None:
    """The place of the last row, bound to what rows were told apart by."""
    if not page.has_more:
        return None
    place = orjson.dumps([*by, *page.rows[-1].keys])
    return base64.urlsafe_b64encode(place).rstrip(b"=").decode()


def _place(cursor: str, by: Sequence[Group]) -> tuple[str, ...]:
    try:
        place = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except ValueError:
        place = None
    fits = isinstance(place, list) and len(place) == 2 * len(by) and place[: len(by)] == list(by)
    if not fits or not all(isinstance(each, str) and "\0" not in each for each in place):
        raise UsageRefused("cursor", "it is not a cursor of this list")
    return tuple(place[len(by) :])


# --- the answer ------------------------------------------------------------------------------------------------------


def dollars(nano: int) -> str:
    """Nano-dollars as dollars, exactly: "0.00012", "12"."""
    return format(Decimal(nano).scaleb(-9).normalize(), "f")


def numbers(sums: Sums) -> dict[str, int | str | None]:
    """The sums by the names that they are told by. The cost is text, as everywhere: a number of JSON is a float to most
    readers, which loses cents of large sums. It is null where nobody knows the cost of any of the requests."""
    unknown = 0 < sums.requests == sums.unpriced
    return {
        "requests": sums.requests,
        "prompt_tokens": sums.input_tokens,
        "completion_tokens": sums.output_tokens,
        "cached_tokens": sums.cached_input_tokens,
        "cache_write_tokens": sums.cache_write_tokens,
        "reasoning_tokens": sums.reasoning_tokens,
        "total_tokens": sums.input_tokens + sums.output_tokens,
        "cost_usd": None if unknown else dollars(sums.cost_nano),
        "unpriced_requests": sums.unpriced,
        "estimated_requests": sums.estimated,
    }


NUMBERS: Final = tuple(numbers(Sums()))


def document(question: UsageQuestion, page: UsagePage) -> dict[str, object]:
    """The answer as JSON. A value that there is none of is null: the model of a request that nobody was asked for."""
    names = [group.value for group in question.by]
    rows = [{**_values(names, row.keys), **numbers(row.sums)} for row in page.rows]
    return {
        "object": "usage",
        "since": question.since.isoformat(),
        "until": question.until.isoformat(),
        "currency": "USD",
        "by": names,
        "total": numbers(page.total),
        "rows": rows,
        "has_more": page.has_more,
        "next_cursor": _cursor(page, question.by),
    }


def _values(names: Sequence[str], keys: Sequence[str]) -> dict[str, str | None]:
    return {name: key or None for name, key in zip(names, keys, strict=True)}


def as_csv(question: UsageQuestion, page: UsagePage) -> str:
    """The rows as RFC 4180 has them, with a line of names. No cell is a formula to a spreadsheet: names of models come
    from callers."""
    written = io.StringIO(newline="")
    writer = csv.writer(written, lineterminator="\r\n")
    writer.writerow([*question.by, *NUMBERS])
    for row in page.rows:
        writer.writerow([*map(harmless, row.keys), *numbers(row.sums).values()])
    return written.getvalue()


def harmless(text: str) -> str:
    """A name that no spreadsheet takes for a formula."""
    return "'" + text if text.startswith(_RISKY) else text


def rendered(wanted: Wanted, page: UsagePage) -> Rendered:
    """The answer in the form that was asked for."""
    question, headers = wanted.question, {"cache-control": "no-store"}
    if not wanted.as_csv:
        return Rendered(orjson.dumps(document(question, page)), headers | {"content-type": "application/json"})
    name = f"usage-{question.since}-{question.until}.csv"
    headers |= {"content-type": "text/csv; charset=utf-8; header=present"}
    headers |= {"content-disposition": f'attachment; filename="{name}"'}
    cursor = _cursor(page, question.by)
    return Rendered(as_csv(question, page).encode(), headers | ({NEXT: cursor} if cursor else {}))
