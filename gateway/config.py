"""`wardgate.toml`: the operator's rows over the shipped ones. Parsed once into a frozen record.

Every unknown name is an error that names the nearest known one: a mistyped setting must not be silently without effect.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path

DEFAULT_PATH = Path("wardgate.toml")
LATER = {
    "models": "model aliases and private models are not part of this version",
    "prices": "price refresh is not part of this version",
}


class ConfigError(Exception):
    """The configuration file cannot be used."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes and times in seconds; the defaults stay below the OpenAI SDK's own read timeout of 600 s."""

    max_body_bytes: int = 32 * 1024 * 1024
    connect_timeout_s: float = 5.0
    first_event_timeout_s: float = 60.0  # a stream's first event
    idle_timeout_s: float = 60.0  # between two events of a stream
    answer_timeout_s: float = 570.0  # a plain answer, and a request as a whole
    max_attempts: int = 3
    max_connections: int = 1000


@dataclass(frozen=True, slots=True)
class Config:
    """What the operator wrote, still as rows: the registry and the plans check their own fields."""

    providers: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    plans: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)


def load_config(path: Path | None) -> Config:
    """Read `path`, or `wardgate.toml` here when no path is given; no file there means the shipped rows alone.

    Raises ConfigError when a named file is absent, is not TOML, or says something unknown.
    """
    chosen = path or DEFAULT_PATH
    if not chosen.exists():
        if path is None:
            return Config()
        raise ConfigError(f"{path}: there is no such file (WARDGATE_CONFIG names it)")
    try:
        document = tomllib.loads(chosen.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{chosen}: not TOML: {error}") from error
    except OSError as error:
        raise ConfigError(f"{chosen}: cannot be read: {error.strerror}") from error
    return parse_config(document, where=str(chosen))


def parse_config(document: Mapping[str, object], *, where: str = "wardgate.toml") -> Config:
    """Turn a parsed TOML document into a Config; raises ConfigError as `load_config` does."""
    for name, value in document.items():
        if name in LATER:
            raise ConfigError(f"{where}: [{name}] has no effect yet: {LATER[name]}; remove it")
        if name not in ("providers", "plans", "limits"):
            raise ConfigError(f"{where}: unknown table [{name}]{nearest(name, ('providers', 'plans', 'limits'))}")
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: [{name}] must be a table")
    return Config(
        providers=_rows(document, "providers", where),
        plans=_rows(document, "plans", where),
        limits=_limits(document.get("limits", {}), where),
    )


def nearest(name: str, known: "tuple[str, ...] | list[str]") -> str:
    """`; did you mean "x"?`, or the list of what is known when nothing is near."""
    close = get_close_matches(name, known, n=1)
    return f'; did you mean "{close[0]}"?' if close else f"; known: {', '.join(sorted(known))}"


def _rows(document: Mapping[str, object], table: str, where: str) -> Mapping[str, Mapping[str, object]]:
    rows = document.get(table, {})
    assert isinstance(rows, dict)  # noqa: S101 - checked by parse_config
    for name, row in rows.items():
        if not isinstance(row, dict):
            raise ConfigError(f"{where}: [{table}.{name}] must be a table")
    return rows


def _type_of(default: object) -> type[int] | type[float]:
    return int if isinstance(default, int) else float


def _limits(table: object, where: str) -> Limits:
    assert isinstance(table, dict)  # noqa: S101 - checked by parse_config
    known = {item.name: _type_of(item.default) for item in fields(Limits)}
    values: dict[str, int | float] = {}
    for name, value in table.items():
        if name not in known:
            raise ConfigError(f"{where}: unknown limit {name!r} in [limits]{nearest(name, list(known))}")
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise ConfigError(f"{where}: [limits] {name} must be a number above 0, not {value!r}")
        if known[name] is int and not isinstance(value, int):
            raise ConfigError(f"{where}: [limits] {name} must be a whole number, not {value!r}")
        values[name] = known[name](value)
    return Limits(**values)  # type: ignore[arg-type]
