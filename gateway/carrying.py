"""What of a request travels to a candidate: all of it, or, where the caller allows it, all but what does no harm.

Owns which parameters may be left out. Nothing but hints to a provider's own cache is left out unless
`provider.require_parameters` is false, and what was is told in a header. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from gateway.chat_request import ChatRequest
from gateway.embedding_wires import DROPPABLE as EMBEDDING_NOTES
from gateway.embedding_wires import embedding_refused
from gateway.refusals import Refused
from gateway.surface import CHAT, EMBEDDINGS
from gateway.surfaces.own_fields import own_name, own_refusal
from gateway.translation import refused_by
from keystore.providers import Provider
from router.catalogue import Offer
from router.price_rows import Capability

# Hints of how to answer, and notes for the provider: an answer without them is another sample of the same kind. What
# decides what an answer is (tools, formats, limits, n, stop) is never left out.
DROPPABLE: Final = frozenset(
    {
        "chat_template_kwargs",
        "enable_thinking",
        "frequency_penalty",
        "include_reasoning",
        "logit_bias",
        "logprobs",
        "metadata",
        "min_p",
        "parallel_tool_calls",
        "prediction",
        "presence_penalty",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning",
        "reasoning_effort",
        "reasoning_split",
        "repetition_penalty",
        "safety_identifier",
        "seed",
        "service_tier",
        "store",
        "temperature",
        "thinking",
        "thinking_budget",
        "top_k",
        "top_logprobs",
        "top_p",
        "user",
        "verbosity",
    }
)
# Hints to the cache of providers that have one: they change what an answer costs, never the answer. A wire that has no
# place for them loses nothing, and clients that always send one (Codex) have no way to say that it may be left out.
CACHE_HINTS: Final = frozenset({"prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"})
# Parameters that a model without the ability would refuse.
NEEDS: Final[Mapping[Capability, str]] = MappingProxyType(
    {Capability.REASONING: "reasoning_effort", Capability.PARALLEL_TOOLS: "parallel_tool_calls"}
)


@dataclass(frozen=True, slots=True)
class Carried:
    """What is sent to a candidate, and the parameters that were left out of it, in alphabetical order."""

    request: ChatRequest
    dropped: tuple[str, ...] = ()


def carried(provider: Provider, offer: Offer, request: ChatRequest, *, may_drop: bool) -> Carried | Refused:
    """The request as this candidate's wire carries it, or what it cannot carry."""
    if request.lacking and request.surface is CHAT:  # a Responses body on chat's path: it is said as chat for everybody
        return request.lacking[0]
    lacking = _lacking(offer, request) if may_drop else set()
    if request.surface.native(provider):
        spared = lacking if request.surface is CHAT else set()
        return request.surface.unfit(request.asked) or Carried(without(request, spared), tuple(sorted(spared)))
    if request.surface is EMBEDDINGS:
        return _embeddings_carried(provider, request, may_drop=may_drop)
    if not request.surface.by_chat:
        return Refused("model", f"{provider.name} does not speak {request.surface.path} itself.")
    if offer.mode not in CHAT.modes:
        text = (
            f"{offer.id} answers no chat completions, and {provider.name} does not speak {request.surface.path} itself."
        )
        return Refused("model", text)
    if request.lacking:
        return request.lacking[0]
    surface, asked, dropped = request.surface, request.asked, lacking
    request = request.as_chat()
    while True:
        left = without(request, dropped)
        refused = refused_by(provider, offer.model, left)
        if refused is None:
            return Carried(left, tuple(sorted(own_name(name, surface.endpoint, asked) for name in dropped)))
        if refused.param not in (DROPPABLE if may_drop else CACHE_HINTS) or refused.param in dropped:
            return refused if surface is CHAT else own_refusal(refused, surface.endpoint, asked)
        dropped.add(refused.param)


def _embeddings_carried(provider: Provider, request: ChatRequest, *, may_drop: bool) -> Carried | Refused:
    """The request as it is for the embeddings of another wire."""
    dropped = EMBEDDING_NOTES & set(request.asked) if may_drop else frozenset()
    return embedding_refused(provider, request.asked, dropped) or Carried(
        replace(request, dropped=dropped), tuple(sorted(dropped))
    )


def _lacking(offer: Offer, request: ChatRequest) -> set[str]:
    """Parameters that the model would refuse for want of an ability."""
    names = {name for capability, name in NEEDS.items() if offer.capabilities.get(capability) is False}
    return {name for name in names if name in request.parameters}


def without(request: ChatRequest, names: set[str]) -> ChatRequest:
    """The request without these parameters."""
    if not names:
        return request
    kept = {name: value for name, value in request.parameters.items() if name not in names}
    return replace(request, parameters=kept, dropped=frozenset(names))
