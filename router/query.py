"""What the router is asked: the model, what the request needs and prefers, the tenant's plan, and the keys at hand.

Owns the records that a decision is a function of. They hold names of keys, never keys. Must not know how a key was
found or how a decision is made.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType

from router.aliases import NO_ALIASES, Aliases
from router.needs import Needs
from router.objective import Objective
from router.plans import Plan
from router.price_rows import CHAT


class KeySource(StrEnum):
    """Whose key: the tenant's own, or the operator's."""

    BYOK = "byok"
    MANAGED = "managed"


@dataclass(frozen=True, slots=True)
class Holding:
    """A usable key for a provider. `skipped` are the names that are held with a value that is not used, each with the
    word why; `conflicts` the names that hold another usable value; `labels` its several keys. No value is in it."""

    provider_id: str
    source: KeySource
    via: str  # canonical, family, former, sibling
    setting_key: str
    store: str  # credentials, legacy
    conflicts: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    labels: tuple[str, ...] = ()  # empty when there is one key and it has no label
    tenant_id: str = ""  # whose requests it serves
    keys: tuple[str, ...] = ()  # an id for each key; it changes when the key changes
    former_keys: tuple[str, ...] = ()  # of former versions that may stand in


@dataclass(frozen=True, slots=True)
class Lacking:
    """No usable key for a provider: the names that were looked for, in order, and those that are held with a value
    that is not used, each with the word why."""

    provider_id: str
    tried: tuple[str, ...] = ()
    unusable: tuple[tuple[str, str], ...] = ()


class Holdings(Mapping[str, Holding | Lacking]):
    """What a tenant holds, by provider; made once for a keyring, and told from others by identity, which costs nothing
    to ask."""

    __slots__ = ("__weakref__", "_found")

    def __init__(self, found: Iterable[Holding | Lacking]) -> None:
        self._found = {each.provider_id: each for each in found}

    def __getitem__(self, provider_id: str) -> Holding | Lacking:
        return self._found[provider_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


@dataclass(frozen=True, slots=True)
class Preferences:
    """What the request says about who may answer. Providers by their ids of today; prices in USD per token."""

    order: tuple[str, ...] = ()  # these first, in this order
    only: tuple[str, ...] = ()  # nobody else; empty: everybody
    ignore: tuple[str, ...] = ()
    objective: Objective | None = None
    max_input_price: Decimal | None = None
    max_output_price: Decimal | None = None
    allow_fallbacks: bool = True
    drop_parameters: bool = False  # what a wire cannot carry may be left out, where that does no harm
    min_quality: int | None = None  # of a model that Wardgate chooses
    unknown_quality: bool = False  # it may also choose one whose quality is not known


NO_PREFERENCES = Preferences()


@dataclass(frozen=True, slots=True)
class Median:
    """The tokens that half of a tenant's answers stayed below, and from how many answers that is known."""

    tokens: int
    samples: int


@dataclass(frozen=True, slots=True, eq=False)
class Habits:
    """What a tenant's requests were like; told from others by identity. Shares are from 0 to 1."""

    input_ratio: Decimal = Decimal(1)  # input tokens as they were to input tokens as they had been estimated
    samples: int = 0  # from how many requests the ratio is known
    usual: Median | None = None  # of its answers of all models
    outputs: Mapping[str, Median] = field(default_factory=lambda: MappingProxyType({}))  # by the offer's id
    # Share of the input that a provider's cache had, by the provider's id.
    cached: Mapping[str, Decimal] = field(default_factory=lambda: MappingProxyType({}))


NO_HABITS = Habits()


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast an offer answered lately: seconds to the first token, then tokens a second."""

    first_token_s: float
    tokens_per_s: float


@dataclass(frozen=True, slots=True, eq=False)
class Paces:
    """How fast offers are, by their ids, as this gateway saw it; told from others by identity."""

    seen: Mapping[str, Pace] = field(default_factory=lambda: MappingProxyType({}))

    def seconds(self, offer_id: str, output_tokens: int) -> float | None:
        """How long an answer of this length is expected to take; None: not known."""
        pace = self.seen.get(offer_id)
        return None if pace is None else pace.first_token_s + output_tokens / pace.tokens_per_s


NO_PACES = Paces()


@dataclass(frozen=True, slots=True)
class Query:
    """One question to the router."""

    model: str  # as the caller wrote it
    needs: Needs
    plan: Plan
    default_model: str | None  # the tenant's; None: the plan's
    today: date
    tenant: str  # slug
    allowed_models: tuple[str, ...] = ()  # what the caller's token is for; empty: everything
    modes: tuple[str, ...] = (CHAT,)  # of models that may answer, as the price map calls them
    managed: bool = False  # whether the operator's keys may be used for this tenant
    models: tuple[str, ...] = ()  # to be tried after `model`, in this order
    preferences: Preferences = NO_PREFERENCES
    aliases: Aliases = NO_ALIASES  # names that stand for models, told from others by identity
    habits: Habits = NO_HABITS
    paces: Paces = NO_PACES

    def __hash__(self) -> int:
        """Of what differs most between two questions: the rest is compared, and mostly the very same object."""
        return hash((self.model, self.needs, self.tenant, self.models, self.modes, self.habits, self.paces))
