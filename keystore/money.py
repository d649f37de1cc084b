"""Money as whole nano-dollars: 10^9 are a US dollar. The one place where dollars become these and back. Pure."""

from decimal import ROUND_HALF_UP, Decimal
from typing import Final

NANO: Final = 1_000_000_000  # of a dollar
MOST: Final = 2**63 - 1  # that a database's whole numbers hold
_NANO: Final = Decimal("1e-9")


def nano_of(usd: Decimal) -> int:
    """The nearest nano-dollar, half of one upwards."""
    return int(usd.quantize(_NANO, ROUND_HALF_UP).scaleb(9)) if usd else 0


def usd_of(nano: int) -> Decimal:
    """Exactly so many dollars, with no zeros behind."""
    return Decimal(nano).scaleb(-9).normalize() if nano else Decimal(0)
