"""What a call that was made costs at other prices: from the units of its lines, which say all that was used.

Owns that a call's own lines are reckoned again as router.charge reckons them: at the same prices the same nano-dollars.
Pure. Must not know rows, releases or tenants.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from router.charge import READ_CLASSES, reckoned
from router.prices import PriceClass, Prices, ServiceTier, prices_at


@dataclass(frozen=True, slots=True)
class Used:
    """So many units of each class that one call used, on this service tier. A fee for the call itself is none of
    them."""

    units: tuple[tuple[PriceClass, Decimal], ...]
    service: ServiceTier = ServiceTier.STANDARD

    @classmethod
    def of_lines(cls, lines: Iterable[tuple[str, str]], service: str | None) -> "Used":
        """From class and units as they are written down; ValueError for what is none."""
        units = [(PriceClass(word), Decimal(count)) for word, count in lines]
        own = tuple((each, count) for each, count in units if each is not PriceClass.REQUEST)
        return cls(own, ServiceTier.STANDARD if service is None else ServiceTier(service))


def again(prices: Prices, used: Used) -> int | None:
    """In whole nano-dollars; None where a class that was used has no price, or the model has none at all."""
    read = sum((count for each, count in used.units if each in READ_CLASSES), Decimal(0))
    call = (PriceClass.REQUEST, Decimal(1))
    return reckoned(prices_at(prices.of(used.service), int(read)), [call, *used.units]).nano
