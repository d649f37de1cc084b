"""The names for models that a tenant can use: the operator's, and its own laid over them.

Owns how a tenant's aliases are kept (JSON text beside the tenant) and that none is kept which could not be used. Must
not know what an alias means for a decision (router.aliases).
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Final

import orjson

from keystore.errors import AliasRefused
from keystore.tenants import Tenant
from router.aliases import Alias, Aliases, alias_from_row
from router.errors import AliasError, did_you_mean

MOST: Final = 50  # of one tenant
TENANTS: Final = 1_000  # different sets of aliases that are remembered
Rows = Mapping[str, Mapping[str, Any]]


def own_rows(tenant: Tenant) -> dict[str, Mapping[str, Any]]:
    """The tenant's own rows: name -> fields. AliasError when what is kept is not that."""
    return _rows(tenant.aliases)


def _rows(text: str | None) -> dict[str, Mapping[str, Any]]:
    try:
        found = orjson.loads(text) if text else {}
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(row, dict) for row in found.values()):
        raise AliasError("what is kept of them is no table of aliases; an operator has to set them again")
    return found


def own_aliases(tenant: Tenant) -> list[Alias]:
    """The tenant's own aliases, by name. AliasRefused when what is kept cannot be read."""
    try:
        return [alias_from_row(name, row) for name, row in sorted(own_rows(tenant).items())]
    except AliasError as error:
        raise AliasRefused(str(error)) from None


def overlaid(operators: Aliases, own: Rows) -> Aliases:
    """The operator's aliases with a tenant's own over them. AliasError where these do not work together."""
    rows = {row.name: row for row in operators} | {name: alias_from_row(name, row) for name, row in own.items()}
    return Aliases(list(rows.values()))


class AliasesOf:
    """The aliases of each tenant, worked out once for each set of rows."""

    __slots__ = ("_known", "_operators")

    def __init__(self, operators: Aliases) -> None:
        self._operators = operators
        self._known: OrderedDict[str, Aliases] = OrderedDict()

    def of(self, tenant: Tenant) -> Aliases:
        """AliasError where the tenant's rows and the operator's of today lead back to themselves."""
        if not tenant.aliases:
            return self._operators
        known = self._known.get(tenant.aliases)
        if known is None:
            known = self._known[tenant.aliases] = overlaid(self._operators, own_rows(tenant))
            if len(self._known) > TENANTS:
                self._known.popitem(last=False)
        return known


# --- changes, as TenantStore.edit_aliases takes them ------------------------------------------------------------------


def setting(name: str, row: Mapping[str, Any], operators: Aliases) -> Callable[[str | None], str | None]:
    """The change that sets one alias. AliasRefused when it could not be used, or there are too many."""
    fields = {field: value for field, value in row.items() if value is not None and value is not False and value != []}

    def edit(text: str | None) -> str:
        rows = _editable(text) | {name: fields}
        if len(rows) > MOST:
            raise AliasRefused(f"a tenant has at most {MOST} aliases")
        _check(operators, rows)
        return orjson.dumps(rows, option=orjson.OPT_SORT_KEYS).decode()

    return edit


def removing(name: str, operators: Aliases) -> Callable[[str | None], str | None]:
    """The change that removes one alias. AliasRefused when there is none."""

    def edit(text: str | None) -> str | None:
        rows = _editable(text)
        if name not in rows:
            raise AliasRefused(f"the tenant has no alias {name!r}{did_you_mean(name, rows)}")
        del rows[name]
        _check(operators, rows)
        return orjson.dumps(rows, option=orjson.OPT_SORT_KEYS).decode() if rows else None

    return edit


def _editable(text: str | None) -> dict[str, Mapping[str, Any]]:
    try:
        return _rows(text)
    except AliasError:
        return {}  # nothing of it could be used


def _check(operators: Aliases, rows: Rows) -> None:
    try:
        overlaid(operators, rows)
    except AliasError as error:
        raise AliasRefused(str(error)) from None


def as_row(alias: Alias) -> dict[str, object]:
    """An alias as it is told."""
    return asdict(alias) | {"models": list(alias.models), "objective": alias.objective and alias.objective.value}
