"""Lists in pages: `limit` and an opaque `cursor`, in an order that inserts do not disturb.

A cursor is the place of the last item, not a number of items, so that nothing is shown twice or left out when something
is added or removed between two pages. It is no secret and gives no right.
"""

import base64
import binascii
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Final, Generic, Literal, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field

from gateway.admin.problems import invalid
from gateway.errors import ApiError

Item = TypeVar("Item")
Out = TypeVar("Out", bound=BaseModel)
MOST: Final = 200
LONGEST_CURSOR: Final = 1000


class PageQuery(BaseModel):
    """Which page."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    limit: Annotated[int, Field(ge=1, le=MOST, description="At most so many items.")] = 50
    cursor: Annotated[str | None, Field(max_length=LONGEST_CURSOR, description="`next_cursor` of the page before.")] = (
        None
    )


class Page(BaseModel, Generic[Out]):
    """One page. `next_cursor` is null on the last."""

    object: Literal["list"] = "list"
    data: list[Out]
    has_more: bool
    next_cursor: str | None


Place = tuple[str | int, ...]


def page_of(
    found: Sequence[Item], query: PageQuery, show: Callable[[Item], Out], place: Callable[[Item], Place]
) -> Page[Out]:
    """The page of what was asked for with one item more than the limit."""
    shown = found[: query.limit]
    more = len(found) > query.limit
    cursor = _encode(place(shown[-1])) if more else None
    return Page(data=[show(each) for each in shown], has_more=more, next_cursor=cursor)


def cut(
    items: Iterable[Item], query: PageQuery, show: Callable[[Item], Out], place: Callable[[Item], Place]
) -> Page[Out]:
    """The page of a list that is in memory as a whole; its order is that of `place`, which tells any two apart."""
    rows = sorted(items, key=place)
    if query.cursor is not None:
        kinds = tuple(type(part) for part in place(rows[0])) if rows else ()
        after = place_after(query, *kinds) if kinds else None
        rows = [each for each in rows if after is None or place(each) > after]
    return page_of(rows[: query.limit + 1], query, show, place)


def place_after(query: PageQuery, *kinds: type) -> Place | None:
    """The place in the cursor, whose parts must be of these kinds; None for the first page. ApiError 400."""
    if query.cursor is None:
        return None
    try:
        place = orjson.loads(base64.urlsafe_b64decode(query.cursor + "=" * (-len(query.cursor) % 4)))
    except (ValueError, binascii.Error):
        raise bad_cursor() from None
    if not isinstance(place, list) or [type(part) for part in place] != list(kinds):
        raise bad_cursor()
    if not all(part.isprintable() if isinstance(part, str) else 0 <= part < 2**63 for part in place):
        raise bad_cursor()
    return tuple(place)


def _encode(place: Place) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(list(place))).rstrip(b"=").decode()


def bad_cursor() -> ApiError:
    """400: the cursor is not one of ours."""
    return ApiError(invalid([{"field": "cursor", "rule": "it is not a cursor of this list"}]))
