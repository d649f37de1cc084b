"""The catalogue: every model that a registered provider offers, with its prices, sizes and abilities.

Owns the offers and their look-ups, and the rules by which rows of LiteLLM's price map and of the operator become
offers. The provider is a column of each offer, never guessed from a model's name. Immutable; a new price map is a new
catalogue with a new version. Must not know tenants, plans or requests.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, Final

from keystore.providers import Provider, Registry
from router.errors import ModelError
from router.model_names import MAX_NAME, ModelName, is_model_name, parse_name
from router.overrides import NO_OVERRIDES, Override, Overrides
from router.price_rows import CHAT, Capability, Cause, Notes, Row, read_row
from router.prices import UNPRICED, PriceClass, Prices
from router.quality import NO_QUALITY, Quality, QualityTable, quality_of
from router.searching import searches_unasked

__all__ = [
    "Capability",
    "Catalogue",
    "Cause",
    "Offer",
    "build_catalogue",
    "check_overrides",
    "is_model_name",
    "open_offer",
]

_RESERVED: Final = frozenset({"sample_spec", "fallback_generalizations"})
_FINE_TUNE: Final = "ft:"
_IMAGE_SIZE: Final = re.compile(r"(?:^|/)\d+-x-\d+/")
_NEAR: Final = 3  # names that a "did you mean" offers


@dataclass(frozen=True, slots=True)
class Offer:
    """A model as one provider offers it. Sizes in tokens; None is unknown, an absent capability too."""

    provider_id: str
    model: str  # what the provider calls it
    name: ModelName
    mode: str  # "chat", "embedding", ...
    prices: Prices = UNPRICED
    max_input_tokens: int | None = None
    max_output_tokens: int | None = None
    capabilities: Mapping[Capability, bool] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    deprecated_on: date | None = None
    quality: Quality | None = None
    disabled: bool = False  # by the operator
    thoughts_beyond_limit: int = 0  # as its provider's row has it
    id: str = field(init=False)
    fee_unknown: bool = field(init=False)  # it charges apart from tokens in every call, and nobody knows how much

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", f"{self.provider_id}/{self.model}")
        told = self.prices.price(PriceClass.REQUEST) is not None  # the fee of a call, by the operator or a price source
        object.__setattr__(self, "fee_unknown", not told and searches_unasked(self.name))

    @property
    def family(self) -> str:
        """The model's name without its dated version, lower-case."""
        return self.name.family

    @property
    def is_chat(self) -> bool:
        """Whether it answers /v1/chat/completions."""
        return self.mode == CHAT


class Catalogue:
    """The offers, found by id, by provider and by name, without regard to case."""

    __slots__ = ("__by_exact_name", "__by_family", "__by_id", "__by_provider", "__notes", "__offers", "__version")

    def __init__(
        self, version: str, offers: Iterable[Offer], notes: Mapping[Cause, int] = MappingProxyType({})
    ) -> None:
        rows = tuple(sorted(offers, key=lambda offer: offer.id))
        self.__version = version
        self.__offers = rows
        self.__notes = MappingProxyType(dict(notes))
        self.__by_id = {offer.id.lower(): offer for offer in rows}
        self.__by_provider = _index((offer.provider_id, offer) for offer in rows)
        self.__by_exact_name = _index((word, offer) for offer in rows for word in offer.name.exact)
        self.__by_family = _index((word, offer) for offer in rows for word in offer.name.all)

    @property
    def version(self) -> str:
        """Which price map this was built from."""
        return self.__version

    @property
    def offers(self) -> tuple[Offer, ...]:
        """Every offer, by id."""
        return self.__offers

    @property
    def notes(self) -> Mapping[Cause, int]:
        """How many rows of the price map were left out or read in part, by cause."""
        return self.__notes

    def offer(self, offer_id: str) -> Offer | None:
        """The offer of this id ("minimax/MiniMax-M2")."""
        return self.__by_id.get(offer_id.lower())

    def of_provider(self, provider_id: str) -> tuple[Offer, ...]:
        """All that a provider offers."""
        return self.__by_provider.get(provider_id, ())

    def of_name(self, text: str) -> tuple[Offer, ...]:
        """The offers of exactly this model, whoever serves it."""
        return self.__by_exact_name.get(parse_name(text).path, ())

    def of_family(self, text: str) -> tuple[Offer, ...]:
        """The offers of this model or of a version of this family, whoever serves it."""
        return self.__by_family.get(parse_name(text).path, ())

    def near(self, text: str) -> list[str]:
        """Up to three names that look like `text`: ids where it has a slash, families where it has none."""
        if len(text) > MAX_NAME:
            return []
        word = parse_name(text).path
        known: Iterable[str] = self.__by_id if "/" in word else self.__by_family
        return [self._written(found) for found in get_close_matches(word, known, n=_NEAR, cutoff=0.7)]

    def _written(self, word: str) -> str:
        offer = self.__by_id.get(word)
        return offer.id if offer else word

    def __repr__(self) -> str:
        return f"Catalogue({len(self.__offers)} offers, version {self.__version})"


def _index(pairs: Iterable[tuple[str, Offer]]) -> dict[str, tuple[Offer, ...]]:
    found: dict[str, list[Offer]] = {}
    for key, offer in pairs:
        found.setdefault(key, []).append(offer)
    return {key: tuple(offers) for key, offers in found.items()}


# --- from the price map ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Entry:
    """A row that is a model of a registered provider."""

    preference: tuple[int, bool, str]  # of several rows for one offer, the lowest is taken
    provider: Provider
    model: str
    mode: str
    row: Row


def build_catalogue(
    rows: Mapping[str, Mapping[str, object]],
    registry: Registry,
    *,
    version: str,
    overrides: Overrides = NO_OVERRIDES,
    quality: QualityTable = NO_QUALITY,
) -> Catalogue:
    """The offers that the price map's rows make with these providers, the operator's rows laid over them. Never raises
    over a row: what is not a model or cannot be read is counted in `notes`. The order of the rows does not matter. The
    version names the map and, where there are some, the operator's rows."""
    notes: Notes = Notes()
    chosen: dict[str, _Entry] = {}
    for key, row in rows.items():
        entry = _entry(key, row, registry)
        if isinstance(entry, Cause):
            notes[entry] += 1
            continue
        offer_id = f"{entry.provider.id}/{entry.model}".lower()
        other = chosen.get(offer_id)
        notes[Cause.DUPLICATE] += other is not None
        if other is None or entry.preference < other.preference:
            chosen[offer_id] = entry
    offers = {offer_id: _offer(entry, quality, notes) for offer_id, entry in chosen.items()}
    for offer_id, override in overrides.rows.items():
        if offer_id in offers or override.may_be_new:
            offers[offer_id] = _overridden(offers.get(offer_id), override, quality)
        else:
            notes[Cause.OVERRIDE_UNMATCHED] += 1
    if overrides.version:
        version = f"{version}+{overrides.version}"
    return Catalogue(version, offers.values(), {cause: count for cause, count in sorted(notes.items()) if count})


def check_overrides(overrides: Overrides, catalogue: Catalogue) -> None:
    """Raises ModelError for a row that is neither over an offer of the catalogue nor a whole model of its own."""
    for override in overrides.rows.values():
        offer_id = f"{override.provider.id}/{override.model}"
        if catalogue.offer(offer_id) is None:
            near = "".join(f"; did you mean {each!r}?" for each in catalogue.near(offer_id)[:1]) or "."
            raise ModelError(
                f'model {offer_id!r} is not in the price map{near} A model of your own says its mode: mode = "chat"'
            )


def _entry(key: str, row: object, registry: Registry) -> _Entry | Cause:
    """The row as a provider's model, or why it is none."""
    if key in _RESERVED:
        return Cause.RESERVED
    if not isinstance(row, Mapping):
        return Cause.NOT_A_TABLE
    catalogue_id = row.get("litellm_provider")
    provider = registry.by_catalogue_id(catalogue_id) if isinstance(catalogue_id, str) else None
    if provider is None:
        return Cause.PROVIDER_NOT_REGISTERED
    model = key.removeprefix(f"{catalogue_id}/")
    cause = _not_a_model(model, row, str(catalogue_id))
    if cause is not None:
        return cause
    preference = (provider.catalogue_ids.index(str(catalogue_id)), model == key, key)
    return _Entry(preference, provider, model, str(row["mode"]), row)


def _not_a_model(model: str, row: Row, catalogue_id: str) -> Cause | None:
    """Why a row of a registered provider names no model that one can ask for."""
    if not is_model_name(model):
        return Cause.ODD_NAME
    if model.startswith(_FINE_TUNE) or "*" in model:
        return Cause.TEMPLATE
    mode = row.get("mode")
    if not isinstance(mode, str) or not mode:
        return Cause.MODE_MISSING
    if mode == CHAT and not any("token" in name or name.startswith("supports_") for name in row):
        return Cause.SAYS_NOTHING
    # A provider's id with dashes for underscores ("together-ai-4.1b-8b") is how the map writes price classes.
    spelled = catalogue_id.replace("_", "-")
    if _IMAGE_SIZE.search(model) or (spelled != catalogue_id and model.startswith(f"{spelled}-")):
        return Cause.PRICE_CLASS
    return None


def _offer(entry: _Entry, quality: QualityTable, notes: Notes) -> Offer:
    facts = read_row(entry.row, mode=entry.mode, free=entry.provider.free, notes=notes)
    name = parse_name(entry.model)
    return Offer(
        provider_id=entry.provider.id,
        model=entry.model,
        name=name,
        mode=facts.mode,
        prices=facts.prices,
        max_input_tokens=facts.max_input_tokens,
        max_output_tokens=facts.max_output_tokens,
        capabilities=facts.capabilities,
        deprecated_on=facts.deprecated_on,
        quality=quality_of(quality, name),
        thoughts_beyond_limit=entry.provider.thoughts_beyond_limit,
    )


def _overridden(offer: Offer | None, override: Override, quality: QualityTable) -> Offer:
    """The offer with the operator's fields; a new one where the map has none."""
    base = offer or open_offer(override.provider, override.model)
    name = base.name if override.family is None else base.name.in_family(override.family)
    laid: dict[str, Any] = {
        "name": name,
        "quality": quality_of(quality, name),
        "capabilities": MappingProxyType({**base.capabilities, **override.capabilities}),
        **override.changes,
    }
    return replace(base, **laid)


def open_offer(provider: Provider, model: str) -> Offer:
    """The offer of a model that the price map does not have, of a provider that serves more than the map lists:
    nothing is known of it, its price neither."""
    return Offer(
        provider_id=provider.id,
        model=model,
        name=parse_name(model),
        mode=CHAT,
        thoughts_beyond_limit=provider.thoughts_beyond_limit,
    )
