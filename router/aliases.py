"""Names of the operator's own for models: "fast", "smart", each a list of models or an objective.

Owns the rows of `[models.<alias>]` and that no alias leads back to itself. Must not know the catalogue or a request.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Final

from router.errors import AliasError, did_you_mean
from router.objective import Objective

ALIAS_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
AUTO: Final = "auto"
_RESERVED: Final = frozenset({AUTO, "default"})
_MOST_MODELS: Final = 20
_LONGEST: Final = 256  # characters of a model's name, as in a request
_NO_ROWS: Final[Mapping[str, Mapping[str, object]]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Alias:
    """One row: `models` are tried in order, each a model as a request names it, an alias too; or an `objective` over
    everything, as `auto` has. `min_quality` (0 to 100) and `unknown_quality` bound what is chosen."""

    name: str
    models: tuple[str, ...] = ()
    objective: Objective | None = None
    min_quality: int | None = None
    unknown_quality: bool = False


@dataclass(frozen=True, slots=True)
class Wish:
    """One thing that a request asks for: a model, a family or "auto", and what bounds it."""

    model: str
    objective: Objective | None = None
    min_quality: int | None = None
    unknown_quality: bool = False
    alias: str = ""  # the name that it was asked for with, when that is an alias


class Aliases:
    """The rows, found without regard to case, each worked out into what it comes down to. Raises AliasError for one
    that leads back to itself."""

    __slots__ = ("__rows", "__wishes")

    def __init__(self, rows: Sequence[Alias] = ()) -> None:
        self.__rows = {row.name: row for row in rows}
        self.__wishes: dict[str, tuple[Wish, ...]] = {}
        for row in rows:
            self._work_out((row.name,))

    def get(self, text: str) -> Alias | None:
        """The alias of this name."""
        return self.__rows.get(text.lower())

    def wishes(self, text: str) -> tuple[Wish, ...]:
        """What this name comes down to: itself, when it is no alias."""
        return self.__wishes.get(text.lower()) or (Wish(text),)

    def __iter__(self) -> Iterator[Alias]:
        return iter(self.__rows.values())

    def __len__(self) -> int:
        return len(self.__rows)

    def _work_out(self, path: tuple[str, ...]) -> tuple[Wish, ...]:
        name = path[-1]
        if name in path[:-1]:
            raise AliasError(f"alias {path[0]!r} leads back to itself: {' -> '.join(path)}")
        if name not in self.__wishes:
            row = self.__rows[name]
            inner = [wish for model in row.models for wish in self._of_model(model, path)]
            found = inner if row.objective is None else [Wish(AUTO, row.objective)]
            if len(found) > _MOST_MODELS:
                raise AliasError(f"alias {name!r} comes down to {len(found)} models; at most {_MOST_MODELS} are tried")
            self.__wishes[name] = tuple(_bounded(wish, row) for wish in found)
        return self.__wishes[name]

    def _of_model(self, model: str, path: tuple[str, ...]) -> tuple[Wish, ...]:
        name = model.lower()
        return self._work_out((*path, name)) if name in self.__rows else (Wish(model),)


def _bounded(wish: Wish, row: Alias) -> Wish:
    """The wish under its alias' bounds; those of an alias within are its own."""
    floor = row.min_quality if wish.min_quality is None else wish.min_quality
    unknown = wish.unknown_quality or row.unknown_quality
    return replace(wish, min_quality=floor, unknown_quality=unknown, alias=row.name)


NO_ALIASES: Final = Aliases()


def load_aliases(rows: Mapping[str, Mapping[str, object]] = _NO_ROWS) -> Aliases:
    """The aliases of `[models.<alias>]` (name -> fields). Raises AliasError naming row and field."""
    return Aliases([alias_from_row(name, row) for name, row in rows.items()])


_FIELDS: Final = tuple(each.name for each in fields(Alias) if each.name != "name")


def alias_from_row(name: str, row: Mapping[str, object]) -> Alias:
    """A checked Alias from a row's fields."""
    if not ALIAS_NAME.fullmatch(name) or name in _RESERVED:
        rule = "is 1 to 63 of a-z, 0-9, '.', '_' and '-', begins with a letter or digit, and is not 'auto' or 'default'"
        raise AliasError(f"alias {name!r}: the name of an alias {rule}")
    for field in row:
        if field not in _FIELDS:
            raise AliasError(f"alias {name!r}: there is no field {field!r}{did_you_mean(str(field), _FIELDS)}")
    if ("models" in row) == ("objective" in row):
        raise AliasError(f"alias {name!r}: it needs `models` or `objective`, one of them")
    return Alias(
        name=name,
        models=_models(name, row),
        objective=_objective(name, row),
        min_quality=_quality(name, row),
        unknown_quality=_flag(name, row),
    )


def _models(name: str, row: Mapping[str, object]) -> tuple[str, ...]:
    value = row.get("models", ())
    good = isinstance(value, Sequence) and not isinstance(value, str) and all(map(_is_model, value))
    if not good or ("models" in row and not 1 <= len(value) <= _MOST_MODELS):  # type: ignore[arg-type]
        raise AliasError(f"alias {name!r}: `models` must be a list of 1 to {_MOST_MODELS} names of models")
    return tuple(str(each).strip() for each in value)  # type: ignore[attr-defined]


def _is_model(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value.strip()) <= _LONGEST and value.strip().lower() != "default"


def _objective(name: str, row: Mapping[str, object]) -> Objective | None:
    value = row.get("objective")
    if value is None:
        return None
    try:
        return Objective(str(value))
    except ValueError:
        raise AliasError(f"alias {name!r}: `objective` must be one of {', '.join(Objective)}, not {value!r}") from None


def _quality(name: str, row: Mapping[str, object]) -> int | None:
    value = row.get("min_quality")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 100:
        raise AliasError(f"alias {name!r}: `min_quality` must be a whole number from 0 to 100, not {value!r}")
    return value


def _flag(name: str, row: Mapping[str, object]) -> bool:
    value = row.get("unknown_quality", False)
    if not isinstance(value, bool):
        raise AliasError(f"alias {name!r}: `unknown_quality` must be true or false, not {value!r}")
    return value
