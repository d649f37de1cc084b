"""The operator's models: `[models."provider/model"]` of wardgate.toml, over the price map's rows or beside them.

Owns the fields of such a row and its checks. Prices are text in USD per million tokens, as providers publish them; what
is not counted in tokens is USD for one. Field by field: what a row does not say stays as the map has it. Must not know
the map's rows or the catalogue.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final

from keystore.providers import Provider, Registry
from router.errors import ModelError, did_you_mean, quoted
from router.model_names import is_model_name, parse_name, split_provider
from router.price_rows import Capability
from router.price_table import PriceTable, Rates, prices_of
from router.price_values import MAX_USD_PER_PIECE, MAX_USD_PER_TOKEN, Malformed, amount, whole
from router.prices import PIECES, PriceClass, Prices, ServiceTier
from router.quality import quality_from_row

MODES: Final = (
    "audio_speech",
    "audio_transcription",
    "chat",
    "completion",
    "embedding",
    "image_generation",
    "moderation",
    "ocr",
    "rerank",
    "responses",
)
NEVER: Final = "never"  # `deprecated_on` of a model whose end the map gets wrong
_AMOUNT: Final = re.compile(r"\d{1,9}(?:\.\d{1,12})?")
# The cheapest token of the map costs 0.001 dollars a million; less is a price per token in the wrong field.
_LEAST_PER_MTOK: Final = Decimal("0.0001")
_MILLIONTH: Final = -6
_SERVICES: Final = "services"
_TIERS: Final = "tiers"
_ABOVE: Final = "above"


@dataclass(frozen=True, slots=True)
class Override:
    """One row, checked. `changes` are fields of an Offer; capabilities are laid over the map's one by one."""

    provider: Provider
    model: str
    changes: Mapping[str, Any]
    capabilities: Mapping[Capability, bool]
    family: str | None  # in its maker's spelling

    @property
    def id(self) -> str:
        """The offer's id, lower-case."""
        return f"{self.provider.id}/{self.model}".lower()

    @property
    def may_be_new(self) -> bool:
        """Whether the row says enough to be a model that the map does not have."""
        return "mode" in self.changes


@dataclass(frozen=True, slots=True)
class Overrides:
    """All rows, by offer id in lower case; `version` is 8 hex digits of their content, empty for no rows."""

    rows: Mapping[str, Override]
    version: str


NO_OVERRIDES: Final = Overrides(MappingProxyType({}), "")


def load_overrides(rows: Mapping[str, Mapping[str, object]], registry: Registry) -> Overrides:
    """The rows of `[models]` whose names have a slash. Raises ModelError naming row and field."""
    found: dict[str, Override] = {}
    for name, row in rows.items():
        override = override_from_row(name, row, registry)
        if override.id in found:
            raise ModelError(f"model {quoted(name)}: another row is the same model, {override.id}")
        found[override.id] = override
    content = json.dumps(rows, sort_keys=True, default=str).encode()
    return Overrides(MappingProxyType(found), hashlib.sha256(content).hexdigest()[:8] if found else "")


def override_from_row(name: str, row: object, registry: Registry) -> Override:
    """A checked row. Raises ModelError."""
    where = f"model {quoted(name)}"
    provider, model = _provider(name, where, registry)
    if not isinstance(row, Mapping) or not row:
        raise ModelError(f"{where}: a row is a table of fields: {', '.join(_FIELDS)}")
    for field in row:
        if field not in _FIELDS:
            raise ModelError(f"{where}: there is no field {quoted(str(field))}{did_you_mean(str(field), _FIELDS)}")
    read = {field: _FIELDS[field](value, where) for field, value in row.items()}
    capabilities, family = read.pop("capabilities", {}), read.pop("family", None)
    return Override(provider, model, MappingProxyType(read), MappingProxyType(capabilities), family)


def _provider(name: str, where: str, registry: Registry) -> tuple[Provider, str]:
    split = split_provider(name, registry)
    if split is None:
        prefix = name.partition("/")[0]
        ids = [each.id for each in registry.live()]
        raise ModelError(f"{where}: there is no provider {quoted(prefix)}{did_you_mean(prefix, ids)}")
    if split[0].retired:
        raise ModelError(f"{where}: provider {split[0].id!r} is retired")
    if not is_model_name(split[1]) or "*" in split[1]:
        raise ModelError(f"{where}: a model's name has 1 to 200 characters, no white space and no star")
    return split


# --- fields ---------------------------------------------------------------------------------------------------------


def _family(value: object, where: str) -> str:
    if not isinstance(value, str) or not is_model_name(value) or "*" in value:
        raise ModelError(f"{where}: family must be a name, not {quoted(str(value))}")
    return parse_name(value).path


def _mode(value: object, where: str) -> str:
    if value not in MODES:
        near = did_you_mean(str(value), MODES)
        raise ModelError(f"{where}: mode must be one of {', '.join(MODES)}, not {quoted(str(value))}{near}")
    return str(value)


def _size(field: str) -> Callable[[object, str], int]:
    def read(value: object, where: str) -> int:
        try:
            size = whole(value)
        except Malformed:
            size = 0
        if size <= 0:
            raise ModelError(f"{where}: {field} must be a whole number of tokens above 0, not {quoted(str(value))}")
        return size

    return read


def _capabilities(value: object, where: str) -> dict[Capability, bool]:
    if not isinstance(value, Mapping):
        raise ModelError(f"{where}: capabilities is a table as in {{ tools = true, vision = false }}")
    known = [each.value for each in Capability]
    for name, able in value.items():
        if name not in known:
            raise ModelError(f"{where}: there is no capability {quoted(str(name))}{did_you_mean(str(name), known)}")
        if not isinstance(able, bool):
            raise ModelError(f"{where}: capability {name} must be true or false, not {quoted(str(able))}")
    return {Capability(name): able for name, able in value.items()}


def _deprecated_on(value: object, where: str) -> date | None:
    if value == NEVER:
        return None
    try:
        day = date.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        day = None
    if type(day) is not date:  # a datetime is a date
        raise ModelError(
            f'{where}: deprecated_on must be a date as in 2027-01-31, or "never", not {quoted(str(value))}'
        )
    return day


def _disabled(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise ModelError(f"{where}: disabled must be true or false, not {quoted(str(value))}")
    return value


# --- prices ---------------------------------------------------------------------------------------------------------


def _prices(value: object, where: str) -> Prices:
    """All the prices of the model: this field takes the place of the whole list of the map, so that a price of one's
    own contract never stands beside a public one that it does not belong to."""
    given = _table(value, where, "prices", (*_CLASSES, _TIERS, _SERVICES))
    table: PriceTable = {}
    _fill(table, ServiceTier.STANDARD, given, where)
    services = _table(given.get(_SERVICES, {}), where, f"prices.{_SERVICES}", _OTHER_SERVICES)
    for name, each in services.items():
        _fill(table, ServiceTier(name), _table(each, where, f"prices.{_SERVICES}.{name}", (*_CLASSES, _TIERS)), where)
    return prices_of(table)


def _fill(table: PriceTable, service: ServiceTier, given: Mapping[str, object], where: str) -> None:
    table[service, 0] = _rates(given, where)
    tiers = given.get(_TIERS, ())
    if not isinstance(tiers, Sequence) or isinstance(tiers, str):
        raise ModelError(f'{where}: prices.{_TIERS} is a list as in [{{ above = 200000, input = "5" }}]')
    for each in tiers:
        tier = _table(each, where, f"prices.{_TIERS}", (_ABOVE, *_CLASSES))
        above = _size(f"prices.{_TIERS}.{_ABOVE}")(tier.get(_ABOVE), where)
        if (service, above) in table:
            raise ModelError(f"{where}: prices.{_TIERS} has two tiers above {above}")
        table[service, above] = _rates(tier, where)


def _table(value: object, where: str, field: str, known: Sequence[str]) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise ModelError(f"{where}: {field} is a table")
    for name in value:
        if name not in known:
            raise ModelError(f"{where}: {field} has no field {quoted(str(name))}{did_you_mean(str(name), known)}")
    return value


def _rates(table: Mapping[str, object], where: str) -> Rates:
    return {PriceClass(name): _price(name, value, where) for name, value in table.items() if name in _CLASSES}


def _price(name: str, value: object, where: str) -> Decimal:
    by_piece = PriceClass(name) in PIECES
    unit = "USD for one" if by_piece else "USD per million"
    if not isinstance(value, str) or not _AMOUNT.fullmatch(value):
        raise ModelError(f'{where}: price {name} must be text as in "2.50", {unit}, not {quoted(str(value))}')
    given = Decimal(value)
    if not by_piece and 0 < given < _LEAST_PER_MTOK:
        raise ModelError(f"{where}: price {name} = {value} is no price per million; is it the price of one token?")
    try:
        if by_piece:
            return amount(given, MAX_USD_PER_PIECE)
        return amount(given.scaleb(_MILLIONTH), MAX_USD_PER_TOKEN)
    except Malformed:
        raise ModelError(f"{where}: price {name} = {value} is out of bounds ({unit})") from None


_CLASSES: Final = tuple(each.value for each in PriceClass)
_OTHER_SERVICES: Final = tuple(each.value for each in ServiceTier if each is not ServiceTier.STANDARD)
_FIELDS: Final[Mapping[str, Callable[[object, str], Any]]] = MappingProxyType(
    {
        "family": _family,
        "mode": _mode,
        "prices": _prices,
        "max_input_tokens": _size("max_input_tokens"),
        "max_output_tokens": _size("max_output_tokens"),
        "capabilities": _capabilities,
        "deprecated_on": _deprecated_on,
        "quality": quality_from_row,
        "disabled": _disabled,
    }
)
