"""What an attempt cost of which nobody counted all, where its provider may have charged for it.

Owns how that is seen (what went out, what came back) and estimated: the input as it was reckoned, the output as it
came, or as it usually is where it may have been written out of sight; both by the provider's own count where it told
one. Must not know budgets, the ledger, nor who is asked next.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from gateway import openai_shape
from gateway.events import AttemptEnded, TokenUsage
from gateway.metering import metered
from gateway.output_text import text_size
from gateway.seen import parse
from gateway.surfaces import messages_answer
from gateway.transport import Exchange
from gateway.upstream import Came, UpstreamCall
from router.catalogue import Capability, Offer
from router.charge import Charge, charge
from router.failure import CANCELLED, FailureKind, perhaps_charged
from router.most import most_written
from router.needs import Needs, service_tier
from router.prices import ServiceTier
from router.query import KeySource, Query
from router.ranking import Candidate, usually_written

_ENVELOPE: Final = 300  # bytes of an answer that are not its text
_CHARACTERS: Final = 4  # of text to a token
_ANSWERS: Final = frozenset({"choices", "content", "output", "candidates", "message"})  # where each wire has its text
_MOST_COUNTED: Final = openai_shape.MOST_TOKENS
_UNREAD: Final = frozenset({CANCELLED, FailureKind.TIMEOUT.value})  # its provider may write on
_CUT: Final = _UNREAD | {FailureKind.TRUNCATED.value}
Counts = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class FailedCost:
    """An attempt that gave no answer and is taken as charged. `place` is its own among the attempts, from 0."""

    place: int
    source: KeySource
    usage: TokenUsage  # estimated
    charge: Charge | None
    service: ServiceTier

    @property
    def nano(self) -> int | None:
        """None where a price is not known."""
        return None if self.charge is None else self.charge.nano


def watch(call: UpstreamCall, exchange: Exchange) -> None:
    """From now on the attempt is looked at by its exchange."""
    call.trail.look = partial(_came, call, exchange)


def _came(call: UpstreamCall, exchange: Exchange) -> Came:
    usage = _told(call, exchange)
    if exchange.streams:
        produced = exchange.seen.produced
    else:
        produced = written(exchange.body) if exchange.body and usage is None else 0
    streams = exchange.streams or exchange.stream
    return Came(exchange.reached, usage, produced, streams, exchange.seen.reasoned)


def _told(call: UpstreamCall, exchange: Exchange) -> TokenUsage | None:
    """The provider's own count, on whatever wire it speaks."""
    usage, tier = exchange.seen.usage, exchange.seen.service_tier
    if usage is None:
        return None
    if call.request.surface.native(call.provider):
        return call.request.surface.usage_of(usage, tier)
    for name, read in _READERS.items():
        if name in usage:
            return read(usage, tier)
    return None


def _of_gemini(usage: Counts, tier: object) -> TokenUsage | None:
    names = ("promptTokenCount", "candidatesTokenCount", "cachedContentTokenCount", "thoughtsTokenCount")
    read, said, cached, thought = (value if isinstance(value := usage.get(name), int) else 0 for name in names)
    if not all(0 <= count <= _MOST_COUNTED for count in (read, said, cached, thought)):
        return None
    return TokenUsage(read, said + thought, cached_input_tokens=cached, reasoning_tokens=thought)


_READERS: Final[Mapping[str, Callable[[Counts, object], TokenUsage | None]]] = {
    "prompt_tokens": openai_shape.token_usage,
    "input_tokens": messages_answer.usage_of,
    "promptTokenCount": _of_gemini,
}


def failed_cost(
    attempt: AttemptEnded, came: Came, candidate: Candidate, query: Query, place: int, dropped: Iterable[str]
) -> FailedCost | None:
    """What an attempt that failed, or was broken off, is taken to have cost; None where it cost nothing."""
    if not perhaps_charged(attempt.outcome, came.reached):
        return None
    offer, needs = candidate.offer, query.needs
    usage, _ = counted(came.usage, _output(attempt.outcome, came, candidate, query), needs, whole=False)
    service = charged_tier(usage, needs, dropped)
    return FailedCost(place, candidate.holding.source, usage, priced(offer, needs, usage, service), service)


def _output(outcome: str, came: Came, candidate: Candidate, query: Query) -> int:
    """In tokens: as it came; of a stream also what was reasoned out of sight; of a plain answer that nobody waits for
    what is written all the same."""
    produced = came.produced
    if not candidate.offer.is_chat:
        return 0
    if came.streams:
        if outcome in _CUT:
            produced = in_sight_or_not(produced, came.usage, candidate, query, reasoned=came.reasoned)
    elif outcome in _UNREAD and came.usage is None:
        produced = max(produced, unread(candidate, query))
    return at_most(produced, candidate, query)


def unread(candidate: Candidate, query: Query) -> int:
    """Tokens of an answer that nobody read. With a key that is lent the most that it can have, so that nobody spends
    the operator's money by leaving."""
    if not candidate.offer.is_chat:
        return 0
    if candidate.holding.source is KeySource.MANAGED:
        return most_written(candidate.offer, query.needs)
    return usually_written(candidate.offer, query)


def in_sight_or_not(
    produced: int, usage: TokenUsage | None, candidate: Candidate, query: Query, *, reasoned: bool
) -> int:
    """Tokens of a stream that nobody counted to its end: of a model that reasons, and did not do so in sight, at least
    as many as its answers usually have."""
    in_sight = reasoned or (usage is not None and usage.reasoning_tokens > 0)
    if in_sight or not candidate.offer.capabilities.get(Capability.REASONING):
        return produced
    return max(produced, usually_written(candidate.offer, query))


def charged_tier(usage: TokenUsage, needs: Needs, dropped: Iterable[str]) -> ServiceTier:
    """The service tier that an answer says, else the one that was asked for."""
    return service_tier(usage.service_tier) or (ServiceTier.STANDARD if "service_tier" in dropped else needs.service)


def priced(offer: Offer, needs: Needs, usage: TokenUsage, service: ServiceTier) -> Charge | None:
    """What so much costs of this offer; None where something is paid for apart from tokens, which nobody counts: by
    what was asked, so that a tool that the model left alone counts as well."""
    if offer.fee_unknown or needs.beyond.charged or Capability.WEB_SEARCH in needs.capabilities:
        return None
    return charge(offer.prices, metered(usage, service))


def counted(usage: TokenUsage | None, produced: int, needs: Needs, *, whole: bool) -> tuple[TokenUsage, bool]:
    """What an answer used, and whether that is an estimate: the provider's count where it is whole, else the input as
    it was estimated and the output as it came."""
    if usage is None:
        return TokenUsage(needs.uncorrected_tokens, produced), True
    if whole:
        return usage, False
    return replace(usage, output_tokens=max(usage.output_tokens, produced)), True


def written(body: bytes | bytearray) -> int:
    """About how many tokens a plain answer holds that nobody counted: by its text, or by its length where it is none of
    any wire, or broke off."""
    document = parse(bytes(body))
    known = isinstance(document, dict) and not _ANSWERS.isdisjoint(document)
    return max(1, (text_size(document) if known else len(body) - _ENVELOPE) // _CHARACTERS)


def at_most(produced: int, candidate: Candidate, query: Query) -> int:
    """Tokens of output that nobody counted: however they were found, no more than can have been written."""
    return min(produced, most_written(candidate.offer, query.needs))
