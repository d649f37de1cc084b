"""In whose words a next step is said: the operator's commands here; those of the API come from whoever serves it.

Owns the protocol and the commands as a person types them. Pure. Must not know what a step is for.
"""

from collections.abc import Mapping
from shlex import quote
from typing import Protocol

from keystore.providers import BASE_URL


class Ways(Protocol):
    """How each step is taken, as a phrase without its full stop; `operators` gives a whole sentence."""

    def store(self, tenant: str, name: str, label: str, fields: Mapping[str, str]) -> str:
        """Store a value with these fields, its own base URL among them; an empty field is to be filled in."""
        ...

    def activate(self, tenant: str, name: str, version: int, label: str) -> str:
        """Put a version in use."""
        ...

    def remove(self, tenant: str, name: str, label: str | None) -> str:
        """Remove the key of one label, or of every label when it is None."""
        ...

    def look(self, tenant: str, provider_id: str) -> str:
        """Ask the provider of the tenant's keys which models they see."""
        ...

    def canonicalise(self, tenant: str) -> str:
        """Give the tenant's keys their canonical names."""
        ...

    def set_plan(self, tenant: str, plan: str) -> str:
        """Move the tenant to a plan."""
        ...

    def verify_seals(self) -> str:
        """Look whether more values were changed, as a clause with its verb."""
        ...

    def operators(self, what: str, how: str = "") -> str:
        """What only the operator can do, such as "move the tenant", and how."""
        ...


class Commands:
    """The command line's."""

    def store(self, tenant: str, name: str, label: str, fields: Mapping[str, str]) -> str:
        given = {field: value or field.upper() for field, value in fields.items() if field != BASE_URL}
        options = [f"--field {quote(field)}={quote(value)}" for field, value in given.items()]
        options += [f"--base-url {quote(fields[BASE_URL])}"] if BASE_URL in fields else []
        return " ".join(["printf %s VALUE |", _line("set", tenant, name, label=label or None), *options])

    def activate(self, tenant: str, name: str, version: int, label: str) -> str:
        return _line("activate", tenant, name, str(version), label=label or None)

    def remove(self, tenant: str, name: str, label: str | None) -> str:
        return _line("remove", tenant, name, label=label)

    def look(self, tenant: str, provider_id: str) -> str:
        return f"wardgate key doctor {quote(tenant)} --provider {provider_id} --live"

    def canonicalise(self, tenant: str) -> str:
        return f"wardgate key canonicalise {quote(tenant)}"

    def set_plan(self, tenant: str, plan: str) -> str:
        return f"wardgate tenant set-plan {quote(tenant)} {quote(plan)}"

    def verify_seals(self) -> str:
        return "look with `wardgate sealing verify` whether more values were changed"

    def operators(self, what: str, how: str = "") -> str:
        return f"{what[:1].upper()}{what[1:]}{f': {how}' if how else ''}."


def _line(verb: str, tenant: str, name: str, *words: str, label: str | None) -> str:
    line = ["wardgate key", verb, quote(tenant), quote(name), *words]
    return " ".join([*line, "--label", quote(label)] if label is not None else line)
