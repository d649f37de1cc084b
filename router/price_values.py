"""One value of the price map: an amount of dollars, a whole number; and the causes that are counted when one is wrong.

Owns the bounds. Numbers are Decimal or int as the loader made them; a binary float is a fault, and so is a truth. Must
not know fields or rows.
"""

from collections import Counter
from decimal import Decimal
from enum import StrEnum
from typing import Final

# More than a dollar for one token is a price per million written into the wrong field. More digits than this would not
# multiply exactly within Decimal's 28, and an exponent far below zero would make a text of as many zeros.
MAX_USD_PER_TOKEN: Final = Decimal(1)
MAX_USD_PER_PIECE: Final = Decimal(1000)  # of an image, a second, a page, a search
_MAX_DIGITS: Final = 17
_LEAST_EXPONENT: Final = -24
_ZERO: Final = Decimal(0)
_MAX_WHOLE: Final = 10**12


class Cause(StrEnum):
    """Why a row of the price map became no offer, or an offer with less than the row says."""

    RESERVED = "reserved"
    NOT_A_TABLE = "not_a_table"
    ODD_NAME = "odd_name"
    PROVIDER_NOT_REGISTERED = "provider_not_registered"
    MODE_MISSING = "mode_missing"
    TEMPLATE = "template"  # a price for models that the caller's account makes: "ft:gpt-4o-2024-08-06", "x/*"
    PRICE_CLASS = "price_class"  # a price by size or quality, not a model: "together-ai-4.1b-8b", "low/1024-x-1024/x"
    SAYS_NOTHING = "says_nothing"  # a chat row with no token, size or ability in it: "openai/container"
    DUPLICATE = "duplicate"
    PRICE_MALFORMED = "price_malformed"
    PRICE_ZERO = "price_zero"
    PRICE_CONFLICT = "price_conflict"  # two fields that say one price differently: the dearer counts
    PRICE_UNREAD = "price_unread"  # a price of a kind that Wardgate does not know
    SIZE_MALFORMED = "size_malformed"
    CAPABILITY_MALFORMED = "capability_malformed"
    DATE_MALFORMED = "date_malformed"
    OVERRIDE_UNMATCHED = "override_unmatched"  # the operator's row is over a model that the map no longer has


Notes = Counter[Cause]


class Malformed(Exception):
    """A value is not what it should be; never leaves the reading of a row."""


def amount(value: object, most: Decimal) -> Decimal:
    """A finite amount of dollars from 0 to `most`. Raises Malformed."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = Decimal(value)
    if not isinstance(value, Decimal):
        raise Malformed
    if not value.is_finite() or not _ZERO <= value <= most:
        raise Malformed
    if not value:
        return _ZERO
    if value.adjusted() < _LEAST_EXPONENT:
        raise Malformed
    if len(str(value)) > _MAX_DIGITS and len(value.as_tuple().digits) > _MAX_DIGITS:
        raise Malformed
    return value


def whole(value: object) -> int:
    """A whole number from zero to a million million, also written with a point. Raises Malformed."""
    if isinstance(value, Decimal) and value.is_finite() and 0 <= value <= _MAX_WHOLE and value == int(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_WHOLE:
        raise Malformed
    return value
