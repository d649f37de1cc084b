"""What requests were really like: of each tenant, how long its inputs and answers are and how much of them a cache has;
of each model, how fast it answers. Ranking reckons with it, and explanations show it.

Owns what is remembered, in this process alone, and that a record only changes when what it says changes noticeably: a
decision that was made with it can then be remembered too. Must not know how a candidate is ranked.
"""

import time
from bisect import bisect_left, insort
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType
from typing import Final

from gateway.events import TokenUsage
from router.query import NO_HABITS, NO_PACES, Habits, Median, Pace, Paces

TENANTS: Final = 10_000  # whose habits are remembered
MODELS: Final = 64  # of one tenant
OFFERS: Final = 4_096  # whose pace is remembered
FORGOTTEN_S: Final = 3_600.0
LAST: Final = 31  # answers that a median is over
LEAST: Final = 5  # observations before anything is said
NOTICEABLE: Final = 0.1  # part by which a pace must move before another is said
STEPS: Final = 16  # a share is said in so many steps
LEAST_TOKENS: Final = 32  # of an estimate that says anything: below it, separators outweigh the text
WEIGHT: Final = 0.1  # of the newest observation in a moving average
BOUNDS: Final = (Decimal("0.25"), Decimal(4))  # of the ratio: what is beyond is no estimate of text


@dataclass(slots=True)
class _Average:
    """A moving average; the plain mean while there are few."""

    value: float = 0.0
    count: int = 0

    def add(self, value: float) -> None:
        self.count += 1
        self.value += (value - self.value) * max(WEIGHT, 1 / self.count)


@dataclass(slots=True)
class _Last:
    """The last LAST numbers, also by size."""

    came: deque[int] = field(default_factory=deque)
    ranked: list[int] = field(default_factory=list)

    def add(self, number: int) -> None:
        if len(self.came) == LAST:
            del self.ranked[bisect_left(self.ranked, self.came.popleft())]
        self.came.append(number)
        insort(self.ranked, number)


@dataclass(slots=True)
class _Tenant:
    ratio: _Average = field(default_factory=_Average)
    outputs: OrderedDict[str, _Last] = field(default_factory=OrderedDict)
    answers: _Last = field(default_factory=_Last)
    cached: dict[str, _Average] = field(default_factory=dict)
    said: Habits = NO_HABITS


class HabitKeeper:
    """The habits of the tenants that were here last."""

    def __init__(self) -> None:
        self._tenants: OrderedDict[str, _Tenant] = OrderedDict()

    def of(self, tenant_id: str) -> Habits:
        """What is known of this tenant's requests; the same object until that changes noticeably."""
        known = self._tenants.get(tenant_id)
        return NO_HABITS if known is None else known.said

    def note(self, tenant_id: str, provider_id: str, offer_id: str, estimated: int, usage: TokenUsage) -> None:
        """A request was answered: its input was estimated to have `estimated` tokens, before any correction."""
        tenant = self._tenants.setdefault(tenant_id, _Tenant())
        self._tenants.move_to_end(tenant_id)
        if len(self._tenants) > TENANTS:
            self._tenants.popitem(last=False)
        said = tenant.said
        ratio = _ratio(tenant.ratio, estimated, usage)
        share = _share(tenant.cached.setdefault(provider_id, _Average()), usage)
        of_model = _of_model(tenant.outputs, offer_id, usage.output_tokens)
        usual = _median(tenant.answers, usage.output_tokens)
        was = (said.input_ratio, said.cached.get(provider_id, 0), said.outputs.get(offer_id), said.usual)
        if _noticed(ratio, share, of_model, usual) != _noticed(*was):
            outputs = {one: median for one, median in said.outputs.items() if one in tenant.outputs}
            tenant.said = Habits(
                input_ratio=ratio,
                samples=tenant.ratio.count,
                usual=usual,
                outputs=MappingProxyType(outputs | ({offer_id: of_model} if of_model else {})),
                cached=MappingProxyType({**said.cached, provider_id: share}),
            )


def _ratio(seen: _Average, estimated: int, usage: TokenUsage) -> Decimal:
    if estimated >= LEAST_TOKENS and usage.input_tokens > 0:
        seen.add(usage.input_tokens / estimated)
    if seen.count < LEAST:
        return Decimal(1)
    return min(max(_in_steps(seen.value), BOUNDS[0]), BOUNDS[1])


def _share(seen: _Average, usage: TokenUsage) -> Decimal:
    if usage.input_tokens > 0:
        seen.add(min(1.0, usage.cached_input_tokens / usage.input_tokens))
    return _in_steps(seen.value) if seen.count >= LEAST else Decimal(0)


def _of_model(outputs: OrderedDict[str, _Last], offer_id: str, tokens: int) -> Median | None:
    """The median of this model's answers, once there are enough."""
    seen = outputs.setdefault(offer_id, _Last())
    outputs.move_to_end(offer_id)
    if len(outputs) > MODELS:
        outputs.popitem(last=False)
    return _median(seen, tokens)


def _median(seen: _Last, tokens: int) -> Median | None:
    if tokens > 0:
        seen.add(tokens)
    ranked = seen.ranked
    return Median(_rounded(ranked[len(ranked) // 2]), len(ranked)) if len(ranked) >= LEAST else None


def _noticed(ratio: Decimal, share: Decimal | int, of_model: Median | None, usual: Median | None) -> tuple[object, ...]:
    """What ranking could notice; from how many answers something is known it does not."""
    return ratio, share, of_model and of_model.tokens, usual and usual.tokens


def _in_steps(value: float) -> Decimal:
    return Decimal(round(value * STEPS)) / STEPS


def _rounded(tokens: int) -> int:
    """To two digits: 1234 is 1200."""
    step: int = 10 ** max(0, len(str(tokens)) - 2)
    return round(tokens / step) * step


# --- how fast ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Measured:
    at: float = 0.0  # when it answered last
    first_token_s: _Average = field(default_factory=_Average)
    token_s: _Average = field(default_factory=_Average)


class PaceKeeper:
    """How fast each model answered lately, whoever asked. Who was not asked for FORGOTTEN_S is not known any more: what
    was slow once is tried again. `now` gives seconds that only grow."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._offers: OrderedDict[str, _Measured] = OrderedDict()
        self._said: dict[str, Pace] = {}
        self._paces = NO_PACES

    @property
    def paces(self) -> Paces:
        """What is known; the same object until that changes noticeably."""
        return self._paces

    def note(self, offer_id: str, first_token_s: float | None, rest_s: float, output_tokens: int) -> None:
        """A model answered: a stream's first token came after `first_token_s` and the rest in `rest_s`; of a plain
        answer only the whole is known, which is `rest_s`."""
        if output_tokens < 1 or rest_s <= 0:
            return
        seen = self._offers.setdefault(offer_id, _Measured())
        self._offers.move_to_end(offer_id)
        seen.at = self._now()
        forgotten = self._forget(seen.at - FORGOTTEN_S)
        if first_token_s is not None:
            seen.first_token_s.add(first_token_s)
        seen.token_s.add(rest_s / output_tokens)
        if seen.token_s.count >= LEAST and self._says(offer_id, seen):
            forgotten = True
        if forgotten:
            self._paces = Paces(MappingProxyType(dict(self._said)))

    def _says(self, offer_id: str, seen: _Measured) -> bool:
        """Whether something else is said of this offer from now on: it moved by a noticeable part."""
        was, first_token_s, tokens_per_s = self._said.get(offer_id), seen.first_token_s.value, 1 / seen.token_s.value
        if was is not None and _is_near(first_token_s, was.first_token_s) and _is_near(tokens_per_s, was.tokens_per_s):
            return False
        self._said[offer_id] = Pace(_in_two_digits(first_token_s), _in_two_digits(tokens_per_s))
        return True

    def _forget(self, before: float) -> bool:
        """Forget who answered last before this time, and the oldest where there are too many; whether anybody was
        spoken of."""
        spoken_of = False
        while self._offers:
            offer_id, oldest = next(iter(self._offers.items()))
            if oldest.at >= before and len(self._offers) <= OFFERS:
                break
            del self._offers[offer_id]
            spoken_of = self._said.pop(offer_id, None) is not None or spoken_of
        return spoken_of


def _is_near(value: float, said: float) -> bool:
    return abs(value - said) <= NOTICEABLE * said


def _in_two_digits(value: float) -> float:
    """0.123 is 0.12."""
    return float(f"{value:.1e}") if value else 0.0
