"""`[alerts]` of wardgate.toml: which spending is unusual, how long webhooks are tried, and at which inner hosts they
may be.

Owns the defaults and their bounds. Must not know how anything is counted or sent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Final

from gateway.setting_values import check_known, number
from keystore.money import nano_of
from keystore.unusual import Rule

MOST_HOSTS: Final = 50
_LONGEST_HOST: Final = 300


@dataclass(frozen=True, slots=True)
class AlertSettings:
    """One table. An hour is unusual that costs `unusual_factor` times the usual one and `unusual_least_usd` at least;
    the hours of `unusual_days` say what is usual. `webhook_hosts` may be at private addresses."""

    unusual_factor: int = 10  # 0: spending is never unusual
    unusual_least_usd: float = 10.0
    unusual_days: int = 7
    webhook_retry_hours: float = 24.0  # then a message is given up
    webhook_hosts: tuple[str, ...] = ()

    @property
    def rule(self) -> Rule:
        return Rule(self.unusual_factor, nano_of(Decimal(str(self.unusual_least_usd))), self.unusual_days)


# Least and most of each number.
_RANGES: Final[Mapping[str, tuple[float, float]]] = {
    "unusual_factor": (0, 1_000_000),
    "unusual_least_usd": (0, 1_000_000_000),
    "unusual_days": (1, 30),
    "webhook_retry_hours": (0, 24 * 7),
}


def read_alert_settings(table: Mapping[str, object]) -> AlertSettings:
    """The settings in a parsed table. ValueError with a sentence about what is wrong."""
    check_known(table, [item.name for item in fields(AlertSettings)])
    return AlertSettings(**{name: _value(name, value) for name, value in table.items()})  # type: ignore[arg-type]


def _value(name: str, value: object) -> object:
    if name == "webhook_hosts":
        return _hosts(value)
    return number(name, value, _RANGES[name], whole=isinstance(getattr(AlertSettings(), name), int))


def _hosts(value: object) -> tuple[str, ...]:
    texts = isinstance(value, list) and all(isinstance(each, str) and 0 < len(each) <= _LONGEST_HOST for each in value)
    if not isinstance(value, list) or not texts or len(value) > MOST_HOSTS:
        raise ValueError(f'webhook_hosts must be a list of at most {MOST_HOSTS} hosts, like "hooks.internal:8443"')
    return tuple(value)
