"""From what a provider counted to what is charged: each token in the class that has its price, at its service tier.

Must not know prices.
"""

from gateway.events import TokenUsage
from router.charge import Usage
from router.needs import service_tier
from router.prices import ServiceTier


def metered(tokens: TokenUsage, asked: ServiceTier = ServiceTier.STANDARD) -> Usage:
    """The usage record of one answered call, at the service tier that the answer says, else the one that was asked
    for."""
    hour = min(tokens.cache_write_1h_tokens, tokens.cache_write_tokens)
    return Usage(
        input_tokens=tokens.input_tokens,
        output_tokens=tokens.output_tokens,
        cached_input_tokens=tokens.cached_input_tokens,
        cache_write_tokens=tokens.cache_write_tokens - hour,
        cache_write_1h_tokens=hour,
        audio_input_tokens=tokens.audio_input_tokens,
        audio_output_tokens=tokens.audio_output_tokens,
        reasoning_tokens=tokens.reasoning_tokens,
        service=service_tier(tokens.service_tier) or asked,
    )
