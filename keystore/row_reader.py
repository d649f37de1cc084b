"""Reads a provider's row field by field, each with its type; every refusal names the row and the field."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TypeVar

from keystore.errors import RegistryError, did_you_mean

Choice = TypeVar("Choice", bound=StrEnum)


def wrong(provider_id: str, name: str, rule: str, value: object, tail: str = "") -> RegistryError:
    return RegistryError(f"provider {provider_id!r}: {name} {rule}, not {value!r}{tail}")


class RowReader:
    """Reads one row's fields, each with its type; every refusal names the row and the field."""

    def __init__(
        self, provider_id: str, row: Mapping[str, object], *, known: Sequence[str], needed: Sequence[str]
    ) -> None:
        self._id = provider_id
        self._row = row
        self._known = known
        self._needed = needed

    def refuse_unknown_fields(self) -> None:
        for name in self._row:
            if name not in self._known:
                raise RegistryError(
                    f"provider {self._id!r}: there is no field {name!r}{did_you_mean(str(name), self._known)}"
                )

    def text(self, name: str, default: str | None = None) -> str:
        value = self._row.get(name, default)
        if value is None:
            raise self._missing(name)
        if not isinstance(value, str) or (not value.strip() and default is None):
            raise wrong(self._id, name, "must be text", value)
        return value.strip()

    def texts(self, name: str, *, required: bool = False) -> tuple[str, ...]:
        value = self._row.get(name, ())
        if required and name not in self._row:
            raise self._missing(name)
        if not isinstance(value, Sequence) or isinstance(value, str) or not all(isinstance(one, str) for one in value):
            raise wrong(self._id, name, "must be a list of texts", value)
        return tuple(str(one) for one in value)

    def choice(self, name: str, kind: type[Choice], default: Choice | None = None) -> Choice:
        value = self._row.get(name, default)
        if value is None:
            raise self._missing(name)
        known = [one.value for one in kind]
        if not isinstance(value, str) or value not in known:
            raise wrong(self._id, name, f"must be one of {', '.join(known)}", value, did_you_mean(str(value), known))
        return kind(value)

    def choices(self, name: str, kind: type[Choice]) -> tuple[Choice, ...]:
        known = [one.value for one in kind]
        for value in self.texts(name):
            if value not in known:
                text = f"must be a list of {', '.join(known)}"
                raise wrong(self._id, name, text, value, did_you_mean(value, known))
        return tuple(kind(value) for value in self.texts(name))

    def flag(self, name: str) -> bool:
        value = self._row.get(name, False)
        if not isinstance(value, bool):
            raise wrong(self._id, name, "must be true or false", value)
        return value

    def count(self, name: str) -> int:
        value = self._row.get(name, 0)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise wrong(self._id, name, "must be a whole number of at least 0", value)
        return value

    def renames(self, name: str) -> dict[str, str]:
        value = self._row.get(name, {})
        if not isinstance(value, Mapping) or not all(isinstance(one, str) and one for one in value.values()):
            raise wrong(self._id, name, "must be a table of field names", value)
        return {str(sent): str(read) for sent, read in value.items()}

    def _missing(self, name: str) -> RegistryError:
        return RegistryError(f"provider {self._id!r}: {name} is missing; a row needs {', '.join(self._needed)}")
