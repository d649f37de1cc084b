"""Settings from the environment (`WARDGATE_*`): where things are and which ports to listen on.

What the operator decides about providers, plans and limits is in `wardgate.toml` (`gateway.config`), not here.
"""

from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from gateway.config import ConfigError
from keystore.secret import Secret

PREFIX = "WARDGATE_"
FOR_TESTS = "WARDGATE_TEST_"  # the test suite's own; no setting
SEALING_KEYS = "WARDGATE_SEALING_KEYS"
MISTYPED = 0.75  # how alike a name must be to a setting to be taken for a mistyped one (difflib's ratio)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The process's settings; the field `database_url` is read from `WARDGATE_DATABASE_URL`, and so on."""

    database_url: str = "sqlite+aiosqlite:///var/wardgate.db"
    redis_url: str | None = None
    sealing_keys: Secret | None = None  # the ring's text itself; the file is preferred
    sealing_keys_command: str | None = None  # prints the ring: the door to a key service
    sealing_keys_file: Path = Path("var/sealing-keys")
    config: Path | None = None  # wardgate.toml in the working directory, when there is one
    journal: Path | None = None  # the folder of the ledger's journals; None: beside SQLite's file, else var/journal
    journal_sync: bool = True  # an answer waits until its line is on the disk: what it cost outlives a loss of power
    host: str = "127.0.0.1"
    port: int = 8080  # 0: any free port
    metrics_host: str | None = None  # the same as `host`
    metrics_port: int = 9091
    log_level: str = "info"
    preload_litellm: bool = False  # import LiteLLM before /readyz says 200, not with the first request that needs it
    keep_provider_env: bool = False  # leave OPENAI_API_KEY and its like in the process's environment


NAMES: Final = tuple(each.name for each in fields(Settings))
_YES: Final = frozenset({"1", "true", "t", "yes", "y", "on"})
_NO: Final = frozenset({"0", "false", "f", "no", "n", "off"})


def _port(text: str) -> int:
    if not (text.strip().isascii() and text.strip().isdecimal() and int(text) <= 65_535):
        raise ConfigError("it must be a whole number from 0 to 65535")
    return int(text)


def _switch(text: str) -> bool:
    if text.strip().lower() not in _YES | _NO:
        raise ConfigError("it must be true or false")
    return text.strip().lower() in _YES


_READERS: Final[Mapping[str, Callable[[str], object]]] = MappingProxyType(
    {
        "sealing_keys": lambda text: Secret(text) if text else None,
        "sealing_keys_file": Path,
        "config": Path,
        "journal": Path,
        "journal_sync": _switch,
        "port": _port,
        "metrics_port": _port,
        "preload_litellm": _switch,
        "keep_provider_env": _switch,
    }
)


def read_settings(environ: Mapping[str, str]) -> Settings:
    """The settings of an environment. Raises ConfigError that names the variables that are wrong, never a value."""
    given = {name.upper().removeprefix(PREFIX): text for name, text in environ.items() if _is_ours(name)}
    found: dict[str, Any] = {}
    wrong = []
    for name in NAMES:
        text = given.get(name.upper())
        if text is None:
            continue
        try:
            found[name] = _READERS.get(name, str)(text)
        except ConfigError as error:
            wrong.append(f"{PREFIX}{name.upper()}: {error}")
    if wrong:
        raise ConfigError("; ".join(wrong))
    return Settings(**found)


def _is_ours(name: str) -> bool:
    return name.upper().startswith(PREFIX)


def check_names(environ: Iterable[str]) -> list[str]:
    """The `WARDGATE_*` variables that are no setting, for a warning: a platform may add its own. Raises ConfigError for
    one that looks like a mistyped setting, which would be without effect."""
    known = [name.upper() for name in NAMES]
    foreign = []
    for name in environ:
        word = name.upper().removeprefix(PREFIX)
        if not _is_ours(name) or name.upper().startswith(FOR_TESTS) or word in known:
            continue
        alike = [setting for setting in known if setting[:1] == word[:1]]  # few mistype the first letter
        if close := get_close_matches(word, alike, n=1, cutoff=MISTYPED):
            raise ConfigError(f'{name} is in the environment and is no setting; did you mean "{PREFIX}{close[0]}"?')
        foreign.append(name)
    return foreign


def take_sealing_keys(environ: MutableMapping[str, str]) -> None:
    """Remove the ring's text from the environment once it was read: child processes and dumps of it need no keys."""
    for name in [name for name in environ if name.upper() == SEALING_KEYS]:
        del environ[name]
