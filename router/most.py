"""The most that one call can cost: what a hard budget holds back before somebody is asked.

Source of the rule: RELIABILITY S11. No text has more tokens than bytes, and no answer is longer than the caller's
limit, or the model's own. Every token is taken at the dearest price that its side has. Pure.
"""

from typing import Final

from keystore.money import nano_of
from router.catalogue import Offer
from router.charge import price_of
from router.needs import Needs
from router.prices import PriceClass, prices_at

_BYTES: Final = 4  # to a token, in the estimate of an input
_LONGEST: Final = 128_000  # tokens of an answer whose model tells no limit
_READ: Final = (
    PriceClass.INPUT,
    PriceClass.CACHE_WRITE,
    PriceClass.CACHE_WRITE_1H,
    PriceClass.AUDIO_INPUT,
    PriceClass.IMAGE_INPUT,
)
_WRITTEN: Final = (PriceClass.OUTPUT, PriceClass.REASONING, PriceClass.AUDIO_OUTPUT, PriceClass.IMAGE_OUTPUT)


def most_written(offer: Offer, needs: Needs) -> int:
    """The most tokens that an answer can have."""
    return (needs.max_output_tokens or offer.max_output_tokens or _LONGEST) * needs.answers


def most_nano(offer: Offer, needs: Needs) -> int | None:
    """In whole nano-dollars; None when the price of the model is not known."""
    read = _BYTES * (needs.input_tokens if needs.estimated_tokens is None else needs.estimated_tokens)
    written = most_written(offer, needs)
    at = prices_at(offer.prices.of(needs.service), read)
    if at.empty:
        return None
    found = [[price for each in side if (price := price_of(at, each)) is not None] for side in (_READ, _WRITTEN)]
    if not found[0] or (not found[1] and offer.is_chat):
        return None
    fee = at.price(PriceClass.REQUEST) or 0
    return nano_of(read * max(found[0]) + written * max(found[1], default=0) + fee) + 2  # a nano for each rounding
