"""How long a model may think beyond the limit of its answer, where that limit bounds the answer alone.

Owns which models heed a request that says how long they may think, or not at all. A name that is taken for such wrongly
lets a hard budget be overrun; one that is missing has more held than need be. Must not know prices or whose key it is.
"""

from typing import Final

from router.catalogue import Capability, Offer
from router.needs import Needs

# The last part of a name begins with it. Of other models that Alibaba and SiliconFlow serve, both documents leave open
# whether they stop: "Qwen3 series will stop ...; for other reasoning models, reasoning content may continue".
_HEEDS: Final = "qwen"
# Of those, whoever has no switch, or of whom nobody says so; anywhere in the name.
_ALWAYS: Final = ("-thinking", "qwen3.8-max")
# Of qwen3.8-max a budget is taken for the effort that it is worth, and may be used up to the end of that.
_STEPS: Final = (4_096, 16_384)
_END: Final = 100  # tokens of the words by which thinking that is too long is ended


def thoughts_beyond(offer: Offer, needs: Needs) -> int:
    """The most tokens of it; 0 where the limit bounds them, or the model does not think."""
    if not offer.thoughts_beyond_limit or not offer.is_chat or offer.capabilities.get(Capability.REASONING) is False:
        return 0
    most, asked, name = max(offer.thoughts_beyond_limit, offer.max_output_tokens or 0), needs.thoughts, offer.name.base
    if asked is None or not name.startswith(_HEEDS):
        return most + _END
    if not asked:
        return most + _END if any(each in name for each in _ALWAYS) else 0
    return min(most, next((step for step in _STEPS if asked <= step), most)) + _END
