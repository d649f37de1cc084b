"""The plans: one row holds all that a plan allows, and the table has no holes.

Owns the shape of a row, the shipped rows (plans.toml beside this file) with the operator's laid over them, and the
checks that every row is complete and every plan in use has one. A plan's model list binds the operator's keys; a
tenant's own key is bound by `byok` and `byok_models`. Must not know tenants, keys or requests.
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from decimal import Decimal, InvalidOperation
from importlib.resources import files
from types import MappingProxyType
from typing import Final

from router.errors import PlanError, did_you_mean, nearest
from router.model_names import pattern_fault

_NO_OVERRIDES: Final[Mapping[str, Mapping[str, object]]] = MappingProxyType({})
_DEFAULT: Final = "default"
_MOST_USD: Final = 1_000_000_000  # a database counts nine times as many nano-dollars; keystore.budgets has the same


@dataclass(frozen=True, slots=True)
class Plan:
    """One row. Models are families, `provider/family`, `provider/*` or `*`."""

    name: str
    managed_models: tuple[str, ...]
    byok: bool
    byok_models: tuple[str, ...]
    requests_per_minute: int
    tokens_per_minute: int
    concurrency: int  # requests at the same time
    managed_budget_usd_per_month: Decimal
    min_quality: int  # 0 to 100, for `auto`
    default_model: str
    default_provider: str | None = None  # whose key a new tenant is asked for; None: the default model's provider
    narrower_than_lower: bool = False  # it is meant that a plan below has something that this one lacks
    above: str | None = None  # the plan right above which an added row stands; None: the end


class Plans:
    """The rows in order, from the least to the most."""

    __slots__ = ("__rows",)

    def __init__(self, rows: Sequence[Plan]) -> None:
        self.__rows = {row.name: row for row in rows}

    def __iter__(self) -> Iterator[Plan]:
        return iter(self.__rows.values())

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all plans, in order."""
        return tuple(self.__rows)

    def get(self, name: str) -> Plan | None:
        """The plan of this name."""
        return self.__rows.get(name)

    def nearest(self, name: str) -> str | None:
        """The plan's name most like `name`."""
        return nearest(name, self.__rows)

    def __repr__(self) -> str:
        return f"Plans({', '.join(self.__rows)})"


def load_plans(overrides: Mapping[str, Mapping[str, object]] = _NO_OVERRIDES) -> Plans:
    """The shipped rows with `overrides` (name -> fields, as in `[plans.<name>]` of wardgate.toml) laid over them field
    by field; a name that is not shipped is a new row, after the shipped ones or right above the plan that its `above`
    names. Raises PlanError naming row and field."""
    shipped = tomllib.loads(files("router").joinpath("plans.toml").read_text(encoding="utf-8"))
    rows: dict[str, dict[str, object]] = {name: dict(row) for name, row in shipped.items()}
    for name, row in overrides.items():
        if not isinstance(row, Mapping):
            raise PlanError(f"plan {name!r}: a row is a table of fields")
        rows.setdefault(name, {}).update(row)
    return Plans(_in_order([plan_from_row(name, row) for name, row in rows.items()]))


def _in_order(rows: Sequence[Plan]) -> list[Plan]:
    """From the least to the most: each row with `above` right after the one it names."""
    placed, waiting = [row for row in rows if row.above is None], [row for row in rows if row.above is not None]
    while waiting:
        names = [row.name for row in placed]
        ready = [row for row in waiting if row.above in names]
        if not ready:
            known = [row.name for row in rows]
            raise PlanError(_misplaced(waiting[0], known))
        for row in reversed(ready):  # of two above the same plan, the first stands next to it
            placed.insert([each.name for each in placed].index(str(row.above)) + 1, row)
        waiting = [row for row in waiting if row not in ready]
    return placed


def _misplaced(row: Plan, known: Sequence[str]) -> str:
    if row.above in known:
        return f"plan {row.name!r}: above names {row.above!r}, which itself stands above this one"
    return (
        f"plan {row.name!r}: above names {row.above!r}, and there is no such plan{did_you_mean(str(row.above), known)}"
    )


def check_known(plans: Plans, in_use: Mapping[str, int]) -> None:
    """Raises PlanError when tenants are on plans (name -> number of tenants) that have no row."""
    unknown = {name: count for name, count in sorted(in_use.items()) if plans.get(name) is None}
    if unknown:
        listed = ", ".join(
            f"{name!r} ({count} tenant{'' if count == 1 else 's'}{did_you_mean(name, plans.names)})"
            for name, count in unknown.items()
        )
        raise PlanError(
            f"tenants are on plans that have no row: {listed}. Add [plans.<name>] to wardgate.toml or move the tenants"
            f" with `wardgate tenant set-plan`; plans with a row: {', '.join(plans.names)}"
        )


# --- one row --------------------------------------------------------------------------------------------------------

_FIELDS: Final = tuple(each.name for each in fields(Plan) if each.name != "name")
_NEEDED: Final = tuple(each.name for each in fields(Plan) if each.name != "name" and each.default is MISSING)


def plan_from_row(name: str, row: Mapping[str, object]) -> Plan:
    """A checked Plan from a row's fields; all that have no default must be there."""
    if not name or name != name.strip():
        raise PlanError(f"plan {name!r}: a plan's name is not empty and has no white space around it")
    for field in row:
        if field not in _FIELDS:
            raise PlanError(f"plan {name!r}: there is no field {field!r}{did_you_mean(str(field), _FIELDS)}")
    missing = [field for field in _NEEDED if field not in row]
    if missing:
        raise PlanError(f"plan {name!r}: {', '.join(missing)} missing; a plan needs every field that has no default")
    return Plan(
        name=name,
        managed_models=_models(name, row, "managed_models"),
        byok=_flag(name, row, "byok"),
        byok_models=_models(name, row, "byok_models"),
        requests_per_minute=_number(name, row, "requests_per_minute", least=1),
        tokens_per_minute=_number(name, row, "tokens_per_minute", least=1),
        concurrency=_number(name, row, "concurrency", least=1),
        managed_budget_usd_per_month=_money(name, row, "managed_budget_usd_per_month"),
        min_quality=_number(name, row, "min_quality", least=0, most=100),
        default_model=_model(name, row, "default_model"),
        default_provider=_word(name, row, "default_provider"),
        narrower_than_lower=_flag(name, {"narrower_than_lower": False} | dict(row), "narrower_than_lower"),
        above=_word(name, row, "above"),
    )


def _wrong(name: str, field: str, rule: str, value: object) -> PlanError:
    return PlanError(f"plan {name!r}: {field} {rule}, not {value!r}")


def _models(name: str, row: Mapping[str, object], field: str) -> tuple[str, ...]:
    value = row[field]
    if not isinstance(value, Sequence) or isinstance(value, str) or not all(isinstance(one, str) for one in value):
        raise _wrong(name, field, "must be a list of texts", value)
    for pattern in value:
        fault = pattern_fault(pattern)
        if fault:
            raise PlanError(f"plan {name!r}: {field} has an entry {pattern!r} that {fault}")
    return tuple(value)


def _word(name: str, row: Mapping[str, object], field: str) -> str | None:
    value = row.get(field)
    if value is not None and (not isinstance(value, str) or not value or value != value.strip()):
        raise _wrong(name, field, "must be a name", value)
    return value


def _flag(name: str, row: Mapping[str, object], field: str) -> bool:
    value = row[field]
    if not isinstance(value, bool):
        raise _wrong(name, field, "must be true or false", value)
    return value


def _number(name: str, row: Mapping[str, object], field: str, *, least: int, most: int | None = None) -> int:
    value = row[field]
    limits = f"at least {least}" if most is None else f"from {least} to {most}"
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        raise _wrong(name, field, f"must be a whole number, {limits}", value)
    return value


def _money(name: str, row: Mapping[str, object], field: str) -> Decimal:
    """Dollars from text, a whole number, or TOML's number, which is read by the digits that were written."""
    value = row[field]
    rule = f'must be an amount of dollars, zero or more and at most {_MOST_USD:,}, like "49.90"'
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise _wrong(name, field, rule, value)
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        raise _wrong(name, field, rule, value) from None
    if not amount.is_finite() or not 0 <= amount <= _MOST_USD:
        raise _wrong(name, field, rule, value)
    return amount


def _model(name: str, row: Mapping[str, object], field: str) -> str:
    value = row[field]
    if not isinstance(value, str) or not value.strip() or value.strip().lower() == _DEFAULT:
        raise _wrong(name, field, 'must name a model or be "auto"', value)
    return value.strip()
