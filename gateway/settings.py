"""Settings from the environment (`WARDGATE_*`): where things are and which ports to listen on.

What the operator decides about providers, plans and limits is in `wardgate.toml` (`gateway.config`), not here.
"""

from collections.abc import Iterable, MutableMapping
from difflib import get_close_matches
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from gateway.config import ConfigError

PREFIX = "WARDGATE_"
FOR_TESTS = "WARDGATE_TEST_"  # the test suite's own; no setting
SEALING_KEYS = "WARDGATE_SEALING_KEYS"
MISTYPED = 0.75  # how alike a name must be to a setting to be taken for a mistyped one (difflib's ratio)


class Settings(BaseSettings):
    """The process's settings; the field `database_url` is read from `WARDGATE_DATABASE_URL`, and so on."""

    model_config = SettingsConfigDict(env_prefix="WARDGATE_", extra="ignore", hide_input_in_errors=True)

    database_url: str = "sqlite+aiosqlite:///var/wardgate.db"
    redis_url: str | None = None
    sealing_keys: SecretStr | None = None  # the ring's text itself; the file is preferred
    sealing_keys_command: str | None = None  # prints the ring: the door to a key service
    sealing_keys_file: Path = Path("var/sealing-keys")
    config: Path | None = None  # wardgate.toml in the working directory, when there is one
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)  # 0: any free port
    metrics_host: str | None = None  # the same as `host`
    metrics_port: int = Field(default=9091, ge=0, le=65535)
    log_level: str = "info"
    preload_litellm: bool = False  # import LiteLLM before /readyz says 200, not with the first request that needs it
    keep_provider_env: bool = False  # leave OPENAI_API_KEY and its like in the process's environment


def check_names(environ: Iterable[str]) -> list[str]:
    """The `WARDGATE_*` variables that are no setting, for a warning: a platform may add its own. Raises ConfigError for
    one that looks like a mistyped setting, which would be without effect."""
    known = [name.upper() for name in Settings.model_fields]
    foreign = []
    for name in environ:
        word = name.upper().removeprefix(PREFIX)
        if not name.upper().startswith(PREFIX) or name.upper().startswith(FOR_TESTS) or word in known:
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
