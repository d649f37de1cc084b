"""The most that one call can cost: what a hard budget holds back before somebody is asked.

Source of the rule: RELIABILITY S11. No text has more tokens than bytes, and no answer is longer than the caller's
limit, or the model's own; where that bounds the answer alone, what the model may think comes to it. Every token is
taken at the dearest price that its side has. Whose cost has no such bound is not held, so that a hard budget refuses
it. Pure.
"""

from typing import Final

from keystore.money import nano_of
from router.catalogue import Capability, Offer
from router.charge import price_of
from router.needs import Needs
from router.prices import PriceClass, Prices, ServiceTier, prices_at
from router.thinking import thoughts_beyond

_BYTES: Final = 4  # to a token, in the estimate of an input
_AROUND: Final = 500  # tokens that providers put around a text: templates, a prompt for tools (Anthropic's: 346)
_PICTURE: Final = 50_000  # tokens of one: gpt-4o-mini reads 48,169 of the largest (OpenAI's vision guide), others fewer
_WINDOW: Final = 1_000_000  # tokens that a model reads at most that tells no limit
_LONGEST: Final = 128_000  # tokens of an answer whose model tells no limit
_READ: Final = (
    PriceClass.INPUT,
    PriceClass.CACHED_INPUT,
    PriceClass.CACHE_WRITE,
    PriceClass.CACHE_WRITE_1H,
    PriceClass.AUDIO_INPUT,
    PriceClass.IMAGE_INPUT,
    PriceClass.VIDEO_INPUT,
)
_WRITTEN: Final = (PriceClass.OUTPUT, PriceClass.REASONING, PriceClass.AUDIO_OUTPUT, PriceClass.IMAGE_OUTPUT)


def most_written(offer: Offer, needs: Needs) -> int:
    """The most tokens that an answer can have, what is thought for it included."""
    limit = needs.max_output_tokens or offer.max_output_tokens or _LONGEST
    return (limit + thoughts_beyond(offer, needs)) * needs.answers


def most_nano(offer: Offer, needs: Needs) -> int | None:
    """In whole nano-dollars; None when nobody knows: the model has no price, or it or the request asks for what is
    charged apart from tokens. A tier that is asked for may not be had, so that the standard one counts as well."""
    if offer.fee_unknown or needs.beyond.fees or Capability.WEB_SEARCH in needs.capabilities:
        return None
    read = _most_read(offer, needs)
    written = most_written(offer, needs)
    tiers = {needs.service, ServiceTier.STANDARD}
    found = [_at(prices_at(offer.prices.of(tier), read), offer, read, written) for tier in tiers]
    known = [nano for nano in found if nano is not None]
    return max(known) if len(known) == len(found) else None


def _most_read(offer: Offer, needs: Needs) -> int:
    """Tokens of the input. No text has more of them than bytes; what is not there is as long as the model reads."""
    if needs.size is None:
        return _BYTES * needs.uncorrected_tokens
    asks, window = needs.beyond, offer.max_input_tokens or _WINDOW
    text = max(needs.size - asks.picture_bytes, 0) + asks.tool_tokens + _AROUND
    if asks.elsewhere:
        return max(text, window)
    return max(text, min(text + _PICTURE * asks.pictures, window))


def _at(at: Prices, offer: Offer, read: int, written: int) -> int | None:
    if at.empty:
        return None
    found = [[price for each in side if (price := price_of(at, each)) is not None] for side in (_READ, _WRITTEN)]
    if not found[0] or (not found[1] and offer.is_chat):
        return None
    fee = at.price(PriceClass.REQUEST) or 0
    return nano_of(read * max(found[0]) + written * max(found[1], default=0) + fee) + 2  # a nano for each rounding
