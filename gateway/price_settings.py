"""`[prices]` of wardgate.toml: where prices come from, how often, and how much may change without a person.

Owns the defaults and what a URL may be. Refreshing is off until the operator says `refresh = true`: a gateway does not
reach out to the internet by itself. Must not know how anything is fetched.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from enum import StrEnum
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from gateway.setting_values import check_known, number
from router.price_bounds import Bounds

LITELLM_URL: Final = "https://raw.githubusercontent.com/BerriAI/litellm/main/model_prices_and_context_window.json"
OPENROUTER_URL: Final = "https://openrouter.ai/api/v1/models"
MOST_URLS: Final = 8
_LONGEST_URL: Final = 2000
_MOST_BYTES: Final = 32 * 1024 * 1024


class AutoApprove(StrEnum):
    """What goes live without a person."""

    WITHIN_BOUNDS = "within-bounds"  # the rows within bounds; the others wait
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class PriceSettings:
    """One table. A list of URLs is asked in this order: a later one's prices take the place of an earlier one's."""

    refresh: bool = False  # by itself, while serving; `wardgate price refresh` works either way
    urls: tuple[str, ...] = (LITELLM_URL, OPENROUTER_URL)
    refresh_hours: float = 24.0
    auto_approve: AutoApprove = AutoApprove.WITHIN_BOUNDS
    max_factor: float = 3.0  # a price may change by this, up or down
    max_lost: float = 0.1  # the share of a list's models that may go at once
    max_growth: float = 3.0  # a list may hold so many times as many models as are live
    max_bytes: int = 16 * 1024 * 1024  # of one list
    timeout_s: float = 60.0  # for one list

    @property
    def bounds(self) -> Bounds:
        return Bounds(*(Decimal(str(each)) for each in (self.max_factor, self.max_lost, self.max_growth)))


# Least and most of each number.
_RANGES: Final[Mapping[str, tuple[float, float]]] = {
    "refresh_hours": (0.1, 24 * 90),
    "max_factor": (1, 1000),
    "max_lost": (0, 1),
    "max_growth": (1, 1000),
    "max_bytes": (1024, _MOST_BYTES),
    "timeout_s": (1, 600),
}


def read_price_settings(table: Mapping[str, object]) -> PriceSettings:
    """The settings in a parsed table. ValueError with a sentence about what is wrong."""
    check_known(table, [item.name for item in fields(PriceSettings)])
    return PriceSettings(**{name: _value(name, value) for name, value in table.items()})  # type: ignore[arg-type]


def _value(name: str, value: object) -> object:
    match name:
        case "refresh":
            if not isinstance(value, bool):
                raise ValueError(f"refresh must be true or false, not {value!r}")
            return value
        case "urls":
            return _urls(value)
        case "auto_approve":
            if value not in list(AutoApprove):
                raise ValueError(f'auto_approve must be "within-bounds" or "never", not {value!r}')
            return AutoApprove(str(value))
        case _:
            return number(name, value, _RANGES[name], whole=isinstance(getattr(PriceSettings(), name), int))


def _urls(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not 0 < len(value) <= MOST_URLS:
        raise ValueError(f"urls must be a list of 1 to {MOST_URLS} URLs")
    if len({str(each) for each in value}) < len(value):
        raise ValueError("urls names one URL twice")
    return tuple(check_url(each) for each in value)


def check_url(url: object) -> str:
    """The URL, which may be asked: https, http on this machine, or file. ValueError; a password in it is not quoted."""
    if not isinstance(url, str) or not url.isprintable() or " " in url or len(url) > _LONGEST_URL:
        raise ValueError("urls: each must be a URL as text, without spaces")
    try:
        parts = urlsplit(url)
        port_is_one = parts.port is None or parts.port > 0
    except ValueError:
        raise ValueError("urls: one of them is not a URL") from None
    if parts.username is not None or parts.password is not None:
        raise ValueError("urls: one of them holds a user or password; a price list is public")
    if parts.scheme == "file":
        if parts.netloc or not parts.path:
            raise ValueError("urls: a file is written as file:///absolute/path or file:path")
        return url
    if parts.scheme not in ("https", "http") or not parts.hostname or not port_is_one or parts.fragment:
        raise ValueError(f"urls: {shown_url(url)!r} is none of https://..., file:...")
    if parts.scheme == "http" and not _is_here(parts.hostname):
        raise ValueError(f"urls: {shown_url(url)!r} is not encrypted: anybody on the way could set your prices")
    return url


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def shown_url(url: str) -> str:
    """A URL as it may be told: without its query, which may hold what is not for everybody."""
    return url.partition("?")[0].partition("#")[0]
