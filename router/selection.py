"""Selection: which offers `model` and `models` ask for, before anything is held against them.

Owns the meaning of the fields: `provider/model`, a bare model or family, `auto` with its objectives, `default`, an
alias, the endings `:floor` and `:nitro`. Must not know keys, needs or plans beyond the default model.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from keystore.providers import Provider, Registry
from router.aliases import AUTO, Wish
from router.catalogue import Catalogue, Offer, is_model_name, open_offer
from router.errors import quoted
from router.model_names import parse_name, split_provider
from router.objective import Objective
from router.query import Query
from router.reasons import Denial, Reason

_DEFAULT: Final = "default"
_AUTO_WORDS: Final[Mapping[str, Objective | None]] = MappingProxyType(
    {AUTO: None} | {f"{AUTO}:{objective.value}": objective for objective in Objective}
)
_ENDINGS: Final[Mapping[str, Objective]] = MappingProxyType(
    {"floor": Objective.CHEAPEST, "nitro": Objective.FASTEST}  # openrouter.ai/docs/features/provider-routing
)
_ACCEPTED: Final = '"auto" (:cheapest, :fastest, :best, :value), "default", a model\'s name or "provider/model"'


def _no_hint() -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Group:
    """The offers that one wish means. Without any, `miss` says why. Groups are tried one after another."""

    wish: Wish
    named: bool  # the caller named it; False: Wardgate chooses
    offers: Mapping[str, tuple[Offer, ...]]  # by provider
    objective: Objective | None = None  # as the wish itself says
    provider_id: str = ""  # of a qualified name
    miss: Denial | None = None
    hint: Callable[[], str] = _no_hint  # what is near to what was missed; to look for it takes milliseconds

    @property
    def asked(self) -> str:
        """The model that the wish names."""
        return self.wish.model


@dataclass(frozen=True, slots=True)
class Selection:
    """What is considered: the groups, in the order in which they are tried."""

    groups: tuple[Group, ...]

    @property
    def asked(self) -> str:
        """The models that the query comes down to, "default" and aliases replaced."""
        return ", ".join(group.asked for group in self.groups)

    @property
    def aliases(self) -> tuple[str, ...]:
        """The aliases that were asked for."""
        return tuple(dict.fromkeys(group.wish.alias for group in self.groups if group.wish.alias))


class Selector:
    """Selection over one catalogue and one set of rows; what every request needs is worked out once."""

    __slots__ = ("_catalogue", "_everything", "_registry")

    def __init__(self, catalogue: Catalogue, registry: Registry) -> None:
        self._catalogue = catalogue
        self._registry = registry
        self._everything: dict[tuple[str, ...], Mapping[str, tuple[Offer, ...]]] = {}

    def select(self, query: Query) -> Selection:
        """The offers that the query's model and models mean; what is named twice is tried once."""
        texts = dict.fromkeys(_text(model, query) for model in (query.model, *query.models))
        wishes = dict.fromkeys(wish for text in texts for wish in query.aliases.wishes(text))
        return Selection(tuple(self._group(wish, query.modes) for wish in wishes))

    def everything(self, modes: tuple[str, ...]) -> Selection:
        """Every model of these modes, as if each had been named."""
        return Selection((Group(Wish(AUTO), True, self._of(modes)),))

    def _of(self, modes: tuple[str, ...]) -> Mapping[str, tuple[Offer, ...]]:
        known = self._everything.get(modes)
        if known is None:
            offers = offers_of(self._catalogue, self._registry, modes)
            known = self._everything[modes] = by_provider(offers)
        return known

    def _group(self, wish: Wish, modes: tuple[str, ...]) -> Group:
        word = wish.model.lower()
        if word in _AUTO_WORDS:
            return Group(wish, False, self._of(modes), wish.objective or _AUTO_WORDS[word])
        if word.partition(":")[0] == AUTO and "/" not in word:
            detail = f"{quoted(wish.model)} is not available; use {_ACCEPTED}"
            return _miss(wish, Denial(Reason.MODEL_UNKNOWN, detail))
        group = self._named(wish)
        head, _, ending = wish.model.rpartition(":")
        if group.miss is None or not head or ending.lower() not in _ENDINGS:
            return group
        bare = self._named(replace(wish, model=head))
        return group if bare.miss is not None else replace(bare, objective=_ENDINGS[ending.lower()])

    def _named(self, wish: Wish) -> Group:
        qualified = split_provider(wish.model, self._registry)
        if qualified is not None:
            return _qualified(wish, *qualified, self._catalogue, self._registry)
        catalogue = self._catalogue
        offers = _served(wish.model, catalogue.of_name, catalogue.of_family, self._registry)
        return Group(wish, True, by_provider(offers)) if offers else _unknown(wish, catalogue)


def _text(model: str, query: Query) -> str:
    """The model, or what "default" stands for: the tenant's default, else the plan's."""
    return _default_model(query) if model.lower() == _DEFAULT else model


def default_id(query: Query, registry: Registry) -> str:
    """The default model, with the id that its provider has today where a provider is named."""
    model = _default_model(query)
    qualified = split_provider(model, registry)
    return f"{qualified[0].id}/{qualified[1]}" if qualified else model


def _default_model(query: Query) -> str:
    chosen = query.default_model or _DEFAULT
    return query.plan.default_model if chosen.lower() == _DEFAULT else chosen


def offers_of(catalogue: Catalogue, registry: Registry, modes: tuple[str, ...]) -> tuple[Offer, ...]:
    """Every model of these modes, of every provider in service."""
    live = registry.live()
    return tuple(offer for provider in live for offer in catalogue.of_provider(provider.id) if offer.mode in modes)


def by_provider(offers: Iterable[Offer]) -> Mapping[str, tuple[Offer, ...]]:
    """The offers, those of each provider together."""
    found: dict[str, list[Offer]] = {}
    for offer in offers:
        found.setdefault(offer.provider_id, []).append(offer)
    return {provider_id: tuple(listed) for provider_id, listed in found.items()}


def _qualified(wish: Wish, provider: Provider, model: str, catalogue: Catalogue, registry: Registry) -> Group:
    """The provider's model of this id; else of this name, or its versions; else, where the provider serves more than
    the price map lists, the model on trust; else whoever calls a model by the whole name ("openai/gpt-oss-120b")."""
    exact = catalogue.offer(f"{provider.id}/{model}")
    offers = (exact,) if exact else _of_provider(provider, model, catalogue)
    if offers:
        return Group(wish, True, {provider.id: offers}, provider_id=provider.id)
    if provider.retired:
        detail = f"{provider.id} is retired and no longer served"
        return _miss(wish, Denial(Reason.PROVIDER_RETIRED, detail), provider.id)
    if provider.open_models and is_model_name(model):
        return Group(wish, True, {provider.id: (open_offer(provider, model),)}, provider_id=provider.id)
    others = _served(wish.model, catalogue.of_name, catalogue.of_family, registry)
    if others:
        return Group(wish, True, by_provider(others))
    return _not_served(wish, provider, model, catalogue)


def _of_provider(provider: Provider, model: str, catalogue: Catalogue) -> tuple[Offer, ...]:
    word = parse_name(model).path
    offers = catalogue.of_provider(provider.id)
    named = tuple(offer for offer in offers if word in offer.name.exact)
    return named or tuple(offer for offer in offers if word in offer.name.all)


def _served(
    asked: str,
    of_name: Callable[[str], tuple[Offer, ...]],
    of_family: Callable[[str], tuple[Offer, ...]],
    registry: Registry,
) -> tuple[Offer, ...]:
    """Whoever serves a bare name: of each provider the very model, or, where it has none of that name, the versions of
    that family."""
    exact = of_name(asked)
    have = {offer.provider_id for offer in exact}
    versions = tuple(offer for offer in of_family(asked) if offer.provider_id not in have)
    return tuple(offer for offer in exact + versions if registry.get(offer.provider_id) is not None)


def _miss(wish: Wish, denial: Denial, provider_id: str = "", hint: Callable[[], str] = _no_hint) -> Group:
    return Group(wish, True, {}, provider_id=provider_id, miss=denial, hint=hint)


def _unknown(wish: Wish, catalogue: Catalogue) -> Group:
    def hint() -> str:
        near = catalogue.near(wish.model)
        return f"; near: {', '.join(near)}" if near else f"; use {_ACCEPTED}"

    told = f"no provider serves a model named {quoted(wish.model)}"
    return _miss(wish, Denial(Reason.MODEL_UNKNOWN, told), hint=hint)


def _not_served(wish: Wish, provider: Provider, model: str, catalogue: Catalogue) -> Group:
    def hint() -> str:
        near = catalogue.near(f"{provider.id}/{model}")
        served = near or [offer.id for offer in catalogue.of_provider(provider.id) if offer.is_chat][:3]
        return f"; {'near' if near else 'it serves'}: {', '.join(served)}" if served else ""

    told = f"{provider.id} serves no model named {quoted(model)}"
    return _miss(wish, Denial(Reason.MODEL_UNKNOWN, told), provider.id, hint)
