"""Selection: which offers a `model` asks for, before anything is held against them.

Owns the meaning of the field: `provider/model`, a bare model or family, `auto`, `default`. Must not know keys, needs or
plans beyond the default model.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from keystore.providers import Provider, Registry
from router.catalogue import Catalogue, Offer, is_model_name, open_offer
from router.errors import quoted
from router.model_names import parse_name, split_provider
from router.query import Query
from router.reasons import Denial, Reason

_AUTO: Final = frozenset({"auto", "auto:cheapest"})
_DEFAULT: Final = "default"
_ACCEPTED: Final = '"auto", "auto:cheapest", "default", a model\'s name or "provider/model"'


@dataclass(frozen=True, slots=True)
class Selection:
    """The offers that are considered. Without any, `miss` says why."""

    asked: str  # the model that the query comes down to, "default" replaced
    named: bool  # the caller named it; False: Wardgate chooses
    offers: tuple[Offer, ...]
    provider_id: str = ""  # of a qualified name
    miss: Denial | None = None


def select(query: Query, catalogue: Catalogue, registry: Registry) -> Selection:
    """The offers that the query's model means."""
    asked = asked_model(query)
    word = asked.lower()
    if word in _AUTO:
        return Selection(asked, False, chat_offers(catalogue, registry))
    if word.partition(":")[0] == "auto" and "/" not in word:
        return _miss(asked, Denial(Reason.MODEL_UNKNOWN, f"{quoted(asked)} is not available; use {_ACCEPTED}"))
    qualified = split_provider(asked, registry)
    if qualified is not None:
        return _qualified(asked, *qualified, catalogue, registry)
    offers = _served(asked, catalogue.of_name, catalogue.of_family, registry)
    return Selection(asked, True, offers) if offers else _miss(asked, _unknown(asked, catalogue))


def asked_model(query: Query) -> str:
    """The query's model, or what "default" stands for: the tenant's default, else the plan's."""
    return _default_model(query) if query.model.lower() == _DEFAULT else query.model


def default_id(query: Query, registry: Registry) -> str:
    """The default model, with the id that its provider has today where a provider is named."""
    model = _default_model(query)
    qualified = split_provider(model, registry)
    return f"{qualified[0].id}/{qualified[1]}" if qualified else model


def _default_model(query: Query) -> str:
    chosen = query.default_model or _DEFAULT
    return query.plan.default_model if chosen.lower() == _DEFAULT else chosen


def chat_offers(catalogue: Catalogue, registry: Registry) -> tuple[Offer, ...]:
    """Every model that answers chat, of every provider in service."""
    live = registry.live()
    return tuple(offer for provider in live for offer in catalogue.of_provider(provider.id) if offer.is_chat)


def _qualified(asked: str, provider: Provider, model: str, catalogue: Catalogue, registry: Registry) -> Selection:
    """The provider's model of this id; else of this name, or its versions; else, where the provider serves more than
    the price map lists, the model on trust; else whoever calls a model by the whole name ("openai/gpt-oss-120b")."""
    exact = catalogue.offer(f"{provider.id}/{model}")
    offers = (exact,) if exact else _of_provider(provider, model, catalogue)
    if offers:
        return Selection(asked, True, offers, provider.id)
    if provider.retired:
        detail = f"{provider.id} is retired and no longer served"
        return _miss(asked, Denial(Reason.PROVIDER_RETIRED, detail), provider.id)
    if provider.open_models and is_model_name(model):
        return Selection(asked, True, (open_offer(provider, model),), provider.id)
    others = _served(asked, catalogue.of_name, catalogue.of_family, registry)
    if others:
        return Selection(asked, True, others)
    return _miss(asked, _not_served(provider, model, catalogue), provider.id)


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


def _miss(asked: str, denial: Denial, provider_id: str = "") -> Selection:
    return Selection(asked, True, (), provider_id, denial)


def _unknown(asked: str, catalogue: Catalogue) -> Denial:
    near = catalogue.near(asked)
    tail = f"; near: {', '.join(near)}" if near else f"; use {_ACCEPTED}"
    return Denial(Reason.MODEL_UNKNOWN, f"no provider serves a model named {quoted(asked)}{tail}")


def _not_served(provider: Provider, model: str, catalogue: Catalogue) -> Denial:
    near = catalogue.near(f"{provider.id}/{model}")
    served = near or [offer.id for offer in catalogue.of_provider(provider.id) if offer.is_chat][:3]
    tail = f"; {'near' if near else 'it serves'}: {', '.join(served)}" if served else ""
    return Denial(Reason.MODEL_UNKNOWN, f"{provider.id} serves no model named {quoted(model)}{tail}")
