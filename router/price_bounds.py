"""What of a new price list may go live: every row is held against the one that is live.

Owns the bounds and the reasons for which a row is quarantined. A quarantined row keeps its live value, or stays away
when it is new, while the others go on; a list that lost too much is refused whole. Works on any field that is a price
by its name, so that a price class that nobody reads yet is held to the bounds too. Must not know where rows come from.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Final

from router.price_feeds import RESERVED, Doubled, Feed
from router.price_rows import Row

_MARKS: Final = ("cost", "multiplier")  # a field that is a price, or holds prices, has one of them in its name
_PER_TOKEN: Final = ("per_token", "token_cost")
_MOST_PER_TOKEN: Final = Decimal(1)  # dollars; above it a price per million was written into the wrong field
_MOST_DIGITS: Final = 17  # more would not multiply exactly within Decimal's 28 (router.price_rows reads no more)
_WHOLE: Final = 2**63  # a whole number that no 64 bits hold is no size and no price
_SPECIAL: Final = re.compile(r"_above_\d{1,7}k?_tokens|_(?:priority|flex|batches)\Z")
_CACHED: Final = "cache_read_input_token_cost"
_LONGEST: Final = 300  # characters of a name
_DEEPEST: Final = 8


class Why(StrEnum):
    """Why a row is quarantined."""

    NOT_A_TABLE = "not_a_table"
    MALFORMED = "malformed"  # a price that is text, NaN, infinite, or beyond all measure
    NEGATIVE = "negative"
    DUPLICATE = "duplicate"
    JUMPED = "jumped"
    BECAME_FREE = "became_free"
    LOST_PRICE = "lost_price"
    VANISHED = "vanished"

    @property
    def approvable(self) -> bool:
        """Whether an operator may let the row in: it may be true. What cannot be a price never is."""
        return self in _APPROVABLE


_APPROVABLE: Final = frozenset({Why.JUMPED, Why.BECAME_FREE, Why.LOST_PRICE, Why.VANISHED})


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may change without a person: a price by `max_factor` up or down, the list by the share `max_lost` of its
    rows, or to `max_growth` times its size."""

    max_factor: Decimal = Decimal(3)
    max_lost: Decimal = Decimal("0.1")
    max_growth: Decimal = Decimal(3)


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A row that was not taken over. `proposed` is the row as it would be, None when it is to go or cannot be one."""

    name: str
    why: Why
    detail: str
    proposed: Row | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """What would be live, what waits, and how many names were left out since no model can have them. With `refused`,
    a sentence, nothing of the list is taken."""

    rows: Mapping[str, Row]
    quarantined: tuple[Quarantined, ...] = ()
    odd_names: int = 0
    refused: str | None = None


def judge(live: Mapping[str, Row], feed: Feed, bounds: Bounds) -> Judgement:
    """Hold a list against the live rows. The order of rows does not matter."""
    refused = refusal(set(live) - RESERVED, set(feed.rows), bounds)
    if refused is not None:
        return Judgement(live, refused=refused)
    rows: dict[str, Row] = {}
    waiting: list[Quarantined] = []
    odd = 0
    for name in sorted(set(live) | set(feed.rows)):
        if name in RESERVED:
            continue
        if not _is_name(name):
            odd += 1
            continue
        verdict = _verdict(name, live.get(name), feed, bounds)
        taken = live.get(name) if isinstance(verdict, Quarantined) else verdict
        if isinstance(verdict, Quarantined):
            waiting.append(verdict)
        if taken is not None:
            rows[name] = taken
    return Judgement(rows, tuple(waiting), odd)


def refusal(live: set[str], offered: set[str], bounds: Bounds) -> str | None:
    """Why a list with these names is refused whole, or None."""
    if not offered:
        return "it holds no model"
    lost, known = len(live - offered), len(live)
    if known and Decimal(lost) > bounds.max_lost * known:
        return f"it lacks {lost} of {known} models, more than the share {_plain(bounds.max_lost)} that may go at once"
    if known and Decimal(len(offered)) > bounds.max_growth * known:
        most = _plain(bounds.max_growth)
        return f"it holds {len(offered)} models where {known} are live, more than {most} times as many"
    return None


def _is_name(name: str) -> bool:
    return 0 < len(name) <= _LONGEST and name.isprintable()


def _verdict(name: str, live: Row | None, feed: Feed, bounds: Bounds) -> Row | Quarantined:
    """The row as it may go live, or why it waits."""
    if name not in feed.rows:
        return Quarantined(name, Why.VANISHED, "the list no longer has it")
    row = feed.rows[name]
    if name in feed.doubled:
        return Quarantined(name, Why.DUPLICATE, "the list has it more than once, with different values")
    if not isinstance(row, dict):
        return Quarantined(name, Why.NOT_A_TABLE, f"its row is {_kind(row)}, not a table")
    if row == live:
        return row
    fault = _fault(row)
    if fault is not None:
        return Quarantined(name, *fault)
    moved = _moved(live, row, bounds) if live is not None else None
    return row if moved is None else Quarantined(name, *moved, proposed=row)


# --- one row ---------------------------------------------------------------------------------------------------------


def points(row: Row) -> Mapping[str, object]:
    """Every price of a row by its path, e.g. "tiered_pricing[1].input_cost_per_token"; what is null is absent."""
    return {path: value for path, value, priced in _leaves(row, "", False, 0) if priced and value is not None}


def _leaves(value: object, path: str, priced: bool, depth: int) -> Iterator[tuple[str, object, bool]]:
    """Each value that holds no other, with its path and whether a name on the way says that it is a price."""
    if depth > _DEEPEST:
        yield path, "...", True  # no row of either list is that deep
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            at = f"{path}.{name}" if path else name
            yield from _leaves(inner, at, priced or any(mark in name for mark in _MARKS), depth + 1)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{index}]", priced, depth + 1)
    else:
        yield path, value, priced


def _fault(row: Row) -> tuple[Why, str] | None:
    """What makes a row impossible whatever was live before."""
    if _doubled(row):
        return Why.DUPLICATE, "a field stands in it more than once, with different values"
    for path, value, priced in _leaves(row, "", False, 0):
        said = (_wrong(path, value) if priced else _unkept(value)) or _unkept(path)
        if said is not None:
            return said[0], f"{_shown(path)} {said[1]}"
    return None


def _doubled(value: object) -> bool:
    if isinstance(value, Doubled):
        return True
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return any(_doubled(each) for each in inner)


def _wrong(path: str, value: object) -> tuple[Why, str] | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return Why.MALFORMED, f"is {_kind(value)}, not a number"
    amount = Decimal(value)
    if not amount.is_finite():
        return Why.MALFORMED, "is no finite number"
    if amount < 0:
        return Why.NEGATIVE, "is negative"
    if amount > _MOST_PER_TOKEN and any(mark in path for mark in _PER_TOKEN):
        return Why.MALFORMED, f"is more than {_MOST_PER_TOKEN} dollar for one token"
    if amount >= _WHOLE:
        return Why.MALFORMED, "is beyond all measure"
    long = len(amount.as_tuple().digits) > _MOST_DIGITS
    return (Why.MALFORMED, f"has more than {_MOST_DIGITS} digits") if long else None


def _unkept(value: object) -> tuple[Why, str] | None:
    """What is no price and yet cannot be kept: no JSON has it, or no database."""
    if isinstance(value, Decimal) and not value.is_finite():
        return Why.MALFORMED, "is no finite number"
    if isinstance(value, int) and abs(value) >= _WHOLE:
        return Why.MALFORMED, "is beyond all measure"
    if isinstance(value, str) and not value.isascii() and not _encodes(value):
        return Why.MALFORMED, "is not text"
    return None


def _encodes(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _moved(live: Row, row: Row, bounds: Bounds) -> tuple[Why, str] | None:
    """What a price did that a person should see: went, became nothing, or moved too far."""
    known, after = _amounts(live), _amounts(row)
    before = known | {path: known[of] for path in after.keys() - known.keys() if (of := _instead(path)) in known}
    for path in sorted(before):
        old, new = before[path], after.get(path)
        if new is None and old > 0:
            return Why.LOST_PRICE, f"{_shown(path)} was {_plain(old)} and is gone"
        if new is None or new == old:
            continue
        if new == 0:
            return Why.BECAME_FREE, f"{_shown(path)} was {_plain(old)} and is 0"
        if path == _CACHED and path not in known:
            continue  # what a cache had costs a tenth, or a twentieth
        if old > 0 and (new > old * bounds.max_factor or old > new * bounds.max_factor):
            return Why.JUMPED, f"{_shown(path)} went from {_plain(old)} to {_plain(new)}"
    return None


def _instead(path: str) -> str:
    """The price that held so far in the place of a new one: of an input of any size, at the usual service tier, and not
    from a cache."""
    usual = _SPECIAL.sub("", path)
    return "input_cost_per_token" if usual == _CACHED and usual == path else usual


def _amounts(row: Row) -> dict[str, Decimal]:
    return {
        path: Decimal(value)
        for path, value in points(row).items()
        if isinstance(value, int | Decimal) and not isinstance(value, bool) and Decimal(value).is_finite()
    }


def amounts(row: Row) -> Mapping[str, Decimal]:
    """Every price of a row that is a number, by its path."""
    return _amounts(row)


def _kind(value: object) -> str:
    kinds = {str: "text", bool: "true or false", type(None): "null", list: "a list", dict: "a table"}
    return kinds.get(type(value), "a number")


def _shown(path: str) -> str:
    """A path as it may be told: a name from outside is not endless and holds nothing odd."""
    return "".join(one if one.isprintable() else "?" for one in path[:120])


def _plain(amount: Decimal) -> str:
    return format(amount.normalize(), "f") if -40 < amount.adjusted() < 40 else str(amount)
