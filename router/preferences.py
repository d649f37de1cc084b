"""What a request says about who may answer it: OpenRouter's `provider` object and Wardgate's own `wardgate` object.

Owns the fields, their meaning and what is wrong with a value; what Wardgate does not do is refused by name and never
passed over. Meanings: openrouter.ai/docs/features/provider-routing. Must not know offers or keys.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final

from keystore.providers import Registry
from router.errors import PreferenceError, did_you_mean, quoted
from router.objective import Objective
from router.prices import MTOK
from router.query import NO_PREFERENCES, Preferences

PROVIDER: Final = "provider"
OURS: Final = "wardgate"
_MOST: Final = 100  # providers in one list
# What is less than this for a million tokens is a price per token in the wrong place: the cheapest model that is sold
# costs some cents.
_LEAST_USD_PER_MTOK: Final = Decimal("0.001")
_MOST_USD_PER_MTOK: Final = Decimal(1_000_000)
_PRICE: Final = re.compile(r"[0-9]{1,20}(?:\.[0-9]{0,20})?|\.[0-9]{1,20}", re.ASCII)  # as text
_SORTS: Final[Mapping[str, Objective]] = MappingProxyType(
    {"price": Objective.CHEAPEST, "throughput": Objective.FASTEST, "latency": Objective.FASTEST}
)
_NOT_DONE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "data_collection": "what providers keep is between each tenant and its provider, and not known here",
        "zdr": "what providers keep is between each tenant and its provider, and not known here",
        "enforce_distillable_text": "which models may be distilled is not known here",
        "quantizations": "how a provider quantises its models is not known here",
        "preferred_min_throughput": "use `sort`",
        "preferred_max_latency": "use `sort`",
        "experimental": "experiments of OpenRouter are not part of this gateway",
    }
)
_PASSES: Final[Mapping[str, object]] = MappingProxyType({"data_collection": "allow", "zdr": False})  # asks for nothing

Reader = Callable[[object, str, Registry], dict[str, Any]]


def read_preferences(body: Mapping[str, object], registry: Registry) -> Preferences:
    """The preferences in a request's body. Raises PreferenceError naming the field and what would help."""
    found: dict[str, Any] = {}
    for name, readers in _OBJECTS.items():
        if body.get(name) is not None:
            found |= _object(body[name], name, readers, registry)
    if not found:
        return NO_PREFERENCES
    _check_together(found)
    return Preferences(**found)


def _object(value: object, where: str, readers: Mapping[str, Reader], registry: Registry) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise PreferenceError(where, f"`{where}` must be an object")
    found: dict[str, Any] = {}
    for field, given in value.items():
        at = f"{where}.{field[:64]}"
        if given is None or (field in _PASSES and given == _PASSES[field]):
            continue
        if field in _NOT_DONE and where == PROVIDER:
            raise PreferenceError(at, f"`{at}` is not done here: {_NOT_DONE[field]}; leave it out")
        if field not in readers:
            near = did_you_mean(field, readers)
            raise PreferenceError(at, f"`{at}` is not known here, and nothing is passed over silently; remove it{near}")
        found |= readers[field](given, at, registry)
    return found


def _check_together(found: Mapping[str, Any]) -> None:
    only, ignore, order = (found.get(name, ()) for name in ("only", "ignore", "order"))
    both = [each for each in only if each in ignore]
    if both:
        raise PreferenceError("provider.ignore", f"`provider.only` and `provider.ignore` both name {', '.join(both)}")
    ignored = [each for each in order if each in ignore]
    if ignored:
        message = f"`provider.order` and `provider.ignore` both name {', '.join(ignored)}"
        raise PreferenceError("provider.order", message)
    outside = [each for each in order if only and each not in only]
    if outside:
        message = f"`provider.order` names {', '.join(outside)}, and `provider.only` does not"
        raise PreferenceError("provider.order", message)


# --- one field -------------------------------------------------------------------------------------------------------


def _providers(name: str) -> Reader:
    def read(value: object, at: str, registry: Registry) -> dict[str, Any]:
        listed = isinstance(value, Sequence) and not isinstance(value, str)
        if not listed or not value or len(value) > _MOST:  # type: ignore[arg-type]
            raise PreferenceError(at, f"`{at}` must be a list of 1 to {_MOST} providers; leave it out to name none")
        return {name: tuple(dict.fromkeys(_provider(each, at, registry) for each in value))}  # type: ignore[attr-defined]

    return read


def _provider(value: object, at: str, registry: Registry) -> str:
    if not isinstance(value, str) or not value:
        raise PreferenceError(at, f"`{at}` must hold names of providers")
    word = value.lower()
    provider = registry.successor(word) or registry.by_catalogue_id(word)
    if provider is None:
        near = did_you_mean(word, [row.id for row in registry.live()])
        raise PreferenceError(at, f"`{at}` names {quoted(value)}, which is no provider here{near}")
    return provider.id


def _sort(value: object, at: str, _: Registry) -> dict[str, Any]:
    if not isinstance(value, str) or value not in _SORTS:
        raise PreferenceError(at, f"`{at}` must be one of {', '.join(_SORTS)}")
    return {"objective": _SORTS[value]}


def _flag(name: str, *, negated: bool = False) -> Reader:
    def read(value: object, at: str, _: Registry) -> dict[str, Any]:
        if not isinstance(value, bool):
            raise PreferenceError(at, f"`{at}` must be true or false")
        return {name: value is not negated}

    return read


_PRICES: Final[Mapping[str, str]] = MappingProxyType({"prompt": "max_input_price", "completion": "max_output_price"})


def _max_price(value: object, at: str, _: Registry) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not value:
        raise PreferenceError(at, f'`{at}` must be an object like {{"prompt": 1, "completion": 2}}')
    found = {}
    for name, given in value.items():
        where = f"{at}.{name[:64]}"
        if name in ("request", "image", "audio"):
            raise PreferenceError(where, f"`{where}` is not done here: prices for this are not compared; leave it out")
        if name not in _PRICES:
            raise PreferenceError(where, f"`{where}` is not known here{did_you_mean(name, _PRICES)}")
        found[_PRICES[name]] = _price(given, where)
    return found


def _price(value: object, at: str) -> Decimal:
    """USD per million tokens, as a number or as text, made into USD per token."""
    rule = f'`{at}` must be USD for a million tokens, above 0, as a number or text like "1.5"'
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        raise PreferenceError(at, rule)
    if isinstance(value, str) and not _PRICE.fullmatch(value):
        raise PreferenceError(at, rule)
    amount = Decimal(str(value))
    if not amount.is_finite() or not 0 <= amount <= _MOST_USD_PER_MTOK or len(amount.as_tuple().digits) > 17:
        raise PreferenceError(at, rule)
    if 0 < amount < _LEAST_USD_PER_MTOK:
        raise PreferenceError(at, f"{rule}; {amount} looks like a price for one token")
    return amount / MTOK if amount else Decimal(0)  # a zero may have an exponent that makes a text of a million zeros


def _quality(value: object, at: str, _: Registry) -> dict[str, Any]:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 100:
        raise PreferenceError(at, f"`{at}` must be a whole number from 0 to 100")
    return {"min_quality": value}


_OBJECTS: Final[Mapping[str, Mapping[str, Reader]]] = MappingProxyType(
    {
        PROVIDER: MappingProxyType(
            {
                "order": _providers("order"),
                "only": _providers("only"),
                "ignore": _providers("ignore"),
                "sort": _sort,
                "max_price": _max_price,
                "allow_fallbacks": _flag("allow_fallbacks"),
                "require_parameters": _flag("drop_parameters", negated=True),
            }
        ),
        OURS: MappingProxyType({"min_quality": _quality, "unknown_quality": _flag("unknown_quality")}),
    }
)
