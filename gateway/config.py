"""`wardgate.toml`: the operator's rows over the shipped ones. Parsed once into a frozen record.

Every unknown name is an error that names the nearest known one: a mistyped setting must not be silently without effect.
"""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path

from gateway.alert_settings import AlertSettings, read_alert_settings
from gateway.origins import read_origins
from gateway.price_settings import PriceSettings, read_price_settings

DEFAULT_PATH = Path("wardgate.toml")
TABLES = ("providers", "plans", "models", "limits", "prices", "browsers", "managed", "alerts")


class ConfigError(Exception):
    """The configuration file cannot be used."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes and times in seconds; the defaults stay below the OpenAI SDK's own read timeout of 600 s."""

    max_body_bytes: int = 32 * 1024 * 1024
    max_held_bytes: int = 512 * 1024 * 1024  # of all large bodies at a time; memory is three times that
    connect_timeout_s: float = 5.0
    first_event_timeout_s: float = 60.0  # a stream's first event
    idle_timeout_s: float = 60.0  # between two events of a stream
    attempt_timeout_s: float = 300.0  # one attempt at a plain answer; then the next candidate is tried
    answer_timeout_s: float = 570.0  # a plain answer, and a request as a whole
    max_attempts: int = 3
    max_connections: int = 4000
    max_in_flight: int = 4000  # calls to models at a time in one process; those beyond are turned away
    bulk_places: int = 256  # calls at a time in one process, of both kinds, that leave room for bulk
    bulk_wait_s: float = 240.0  # for a bulk request's turn; it counts as part of `answer_timeout_s`
    body_timeout_s: float = 30.0  # for a request's body to arrive
    header_timeout_s: float = 10.0  # for a request's headers, from their first byte; on a new connection from its start
    keep_alive_s: float = 75.0  # a connection without a request; longer than what a proxy in front keeps one for
    write_idle_s: float = 60.0  # a client that takes nothing of an answer that waits for it
    max_headers: int = 100
    max_header_bytes: int = 32 * 1024  # request line and headers
    drain_notice_s: float = (
        5.0  # after a signal, `/readyz` says 503 and requests are still taken: load balancers turn away
    )
    drain_s: float = 60.0  # then running answers may go on for so long before they are told
    decisions_kept_h: float = 24.0  # hours; 0: `GET /v1/requests/{id}` knows nothing
    decisions_kept_most: int = 1_000_000  # rows
    ledger_kept_days: float = 400.0  # rows of the ledger; sums stay. 0: for ever
    answers_kept_bytes: int = 256 * 1024 * 1024  # of one tenant's requests with an Idempotency-Key, for a day


MAY_BE_ZERO = ("drain_notice_s", "drain_s", "decisions_kept_h", "ledger_kept_days")
AT_MOST: Mapping[str, float] = {
    "decisions_kept_h": 8_784,
    "decisions_kept_most": 10**9,
    "ledger_kept_days": 36_525,
}  # a year, a century


@dataclass(frozen=True, slots=True)
class Config:
    """What the operator wrote, still as rows: the registry and the plans check their own fields."""

    providers: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    plans: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    models: Mapping[str, Mapping[str, object]] = field(default_factory=dict)  # by "provider/model", or by alias
    limits: Limits = field(default_factory=Limits)
    prices: PriceSettings = field(default_factory=PriceSettings)
    origins: frozenset[str] = frozenset()  # of pages that may call from a browser
    operator: str | None = None  # the slug of the tenant whose keys plans lend
    alerts: AlertSettings = field(default_factory=AlertSettings)


def load_config(path: Path | None, named_by: str = "WARDGATE_CONFIG names it") -> Config:
    """Read `path`, or `wardgate.toml` here when no path is given; no file there means the shipped rows alone.
    `named_by` says where the path comes from.

    Raises ConfigError when a named file is absent, is not TOML, or says something unknown.
    """
    chosen = path or DEFAULT_PATH
    if not chosen.exists():
        if path is None:
            return Config()
        raise ConfigError(f"{path}: there is no such file{f' ({named_by})' if named_by else ''}")
    try:
        document = tomllib.loads(chosen.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, a number of 5,000 digits
        raise ConfigError(f"{chosen}: not TOML: {error}") from error
    except OSError as error:
        raise ConfigError(f"{chosen}: cannot be read: {error.strerror}") from error
    return parse_config(document, where=str(chosen))


def parse_config(document: Mapping[str, object], *, where: str = "wardgate.toml") -> Config:
    """Turn a parsed TOML document into a Config; raises ConfigError as `load_config` does."""
    for name, value in document.items():
        if name not in TABLES:
            raise ConfigError(f"{where}: unknown table [{name}]{nearest(name, TABLES)}")
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: [{name}] must be a table")
        _check_finite(value, name, where)
    return Config(
        providers=_rows(document, "providers", where),
        plans=_rows(document, "plans", where),
        models=_rows(document, "models", where),
        limits=_limits(document.get("limits", {}), where),
        prices=_prices(document.get("prices", {}), where),
        origins=_origins(document.get("browsers", {}), where),
        operator=_operator(document.get("managed", {}), where),
        alerts=_alerts(document.get("alerts", {}), where),
    )


def nearest(name: str, known: "tuple[str, ...] | list[str]") -> str:
    """`; did you mean "x"?`, or the list of what is known when nothing is near."""
    close = get_close_matches(name, known, n=1)
    return f'; did you mean "{close[0]}"?' if close else f"; known: {', '.join(sorted(known))}"


def _check_finite(value: object, path: str, where: str) -> None:
    """Refuse nan, inf and whole numbers that no float can hold: every comparison with nan is false, so no later check
    would notice."""
    if isinstance(value, dict):
        for name, inner in value.items():
            _check_finite(inner, f"{path}.{name}", where)
    elif isinstance(value, list):
        for inner in value:
            _check_finite(inner, path, where)
    elif isinstance(value, int | float) and not _is_finite(value):
        raise ConfigError(f"{where}: {path} must be a finite number, not {str(value)[:24]}")


def _is_finite(value: int | float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _rows(document: Mapping[str, object], table: str, where: str) -> Mapping[str, Mapping[str, object]]:
    rows = document.get(table, {})
    assert isinstance(rows, dict)  # noqa: S101 - checked by parse_config
    for name, row in rows.items():
        if not isinstance(row, dict):
            raise ConfigError(f"{where}: [{table}.{name}] must be a table")
    return rows


def _prices(table: object, where: str) -> PriceSettings:
    assert isinstance(table, dict)  # noqa: S101 - checked by parse_config
    try:
        return read_price_settings(table)
    except ValueError as error:
        raise ConfigError(f"{where}: [prices] {error}") from None


def _alerts(table: object, where: str) -> AlertSettings:
    assert isinstance(table, dict)  # noqa: S101 - checked by parse_config
    try:
        return read_alert_settings(table)
    except ValueError as error:
        raise ConfigError(f"{where}: [alerts] {error}") from None


def _operator(table: object, where: str) -> str | None:
    """The tenant that `[managed]` names."""
    assert isinstance(table, dict)  # noqa: S101 - checked by parse_config
    for name in table:
        if name != "tenant":
            raise ConfigError(f"{where}: [managed] has no {name!r}{nearest(name, ('tenant',))}")
    slug = table.get("tenant")
    if slug is not None and (not isinstance(slug, str) or not slug):
        raise ConfigError(f"{where}: [managed] tenant must be a tenant's slug, as text")
    return slug


def _origins(table: object, where: str) -> frozenset[str]:
    assert isinstance(table, dict)  # noqa: S101 - checked by parse_config
    try:
        return read_origins(table)
    except ValueError as error:
        raise ConfigError(f"{where}: [browsers] {error}") from None


def _type_of(default: object) -> type[int] | type[float]:
    return int if isinstance(default, int) else float


def _limits(table: object, where: str) -> Limits:
    assert isinstance(table, dict)  # noqa: S101 - checked by parse_config
    known = {item.name: _type_of(item.default) for item in fields(Limits)}
    values: dict[str, int | float] = {}
    for name, value in table.items():
        if name not in known:
            raise ConfigError(f"{where}: unknown limit {name!r} in [limits]{nearest(name, list(known))}")
        floor = "at least 0" if name in MAY_BE_ZERO else "above 0"
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or value < 0 or (value == 0 and name not in MAY_BE_ZERO):
            raise ConfigError(f"{where}: [limits] {name} must be a number {floor}, not {value!r}")
        if known[name] is int and not isinstance(value, int):
            raise ConfigError(f"{where}: [limits] {name} must be a whole number, not {value!r}")
        if value > AT_MOST.get(name, math.inf):
            raise ConfigError(f"{where}: [limits] {name} must be at most {AT_MOST[name]}, not {value!r}")
        values[name] = known[name](value)
    return Limits(**values)  # type: ignore[arg-type]
