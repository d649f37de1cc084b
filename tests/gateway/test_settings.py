"""The process's environment: mistyped names, sealing keys, provider names, dumps."""

import subprocess
import sys
from pathlib import Path

import pytest

from gateway.config import ConfigError
from gateway.environment import family_names, scrub_environment
from gateway.settings import Settings, check_names, read_settings, take_sealing_keys
from keystore.providers import load_registry
from keystore.secret import Secret

DUMPS = """
import ctypes, resource
from gateway.environment import forbid_dumps
forbid_dumps()
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE))
"""


def test_settings_are_read_from_the_environment_in_any_case_of_letters() -> None:
    assert read_settings({}) == Settings() == read_settings({"PORT": "1", "WARDGATES": "2"})
    found = read_settings(
        {"wardgate_port": "0", "WARDGATE_SEALING_KEYS": "k1:x", "WARDGATE_CONFIG": "a/b.toml", "WARDGATE_HOST": "::"}
    )
    assert found == Settings(port=0, sealing_keys=Secret("k1:x"), config=Path("a/b.toml"), host="::")
    assert "k1:x" not in repr(found)
    assert read_settings({"WARDGATE_SEALING_KEYS": ""}).sealing_keys is None


@pytest.mark.parametrize(
    ("text", "means"), [("true", True), ("1", True), ("On", True), ("false", False), ("0", False), ("no", False)]
)
def test_switch_is_read_in_the_usual_words(text: str, means: bool) -> None:
    assert read_settings({"WARDGATE_PRELOAD_LITELLM": text}).preload_litellm is means


@pytest.mark.parametrize(
    ("name", "text"),
    [("PORT", text) for text in ("", "-1", "65536", "80.0", "canary", "8_0", "\u0668\u0660")]
    + [("METRICS_PORT", "canary"), ("PRELOAD_LITELLM", ""), ("KEEP_PROVIDER_ENV", "canary")],
)
def test_wrong_value_is_refused_and_not_repeated(name: str, text: str) -> None:
    with pytest.raises(ConfigError, match=rf"^WARDGATE_{name}: it must be ") as refused:
        read_settings({f"WARDGATE_{name}": text})
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("WARDGATE_DATABSE_URL", "WARDGATE_DATABASE_URL"),
        ("WARDGATE_SEALING_KEY", "WARDGATE_SEALING_KEYS"),
        ("wardgate_prot", "WARDGATE_PORT"),
    ],
)
def test_unknown_variable_is_refused_with_the_nearest_name_and_without_its_value(name: str, near: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_names({name: "hunter2"})
    assert name in str(caught.value) and near in str(caught.value) and "hunter2" not in str(caught.value)


def test_known_variables_and_those_of_the_tests_pass() -> None:
    names = ["WARDGATE_PORT", "wardgate_port", "WARDGATE_SEALING_KEYS", "WARDGATE_TEST_PG_BIN", "PATH", "WARDGATES"]
    assert check_names(names) == []


def test_variables_of_the_platform_are_told_and_stop_nothing() -> None:
    platform = ["WARDGATE_SERVICE_HOST", "WARDGATE_PORT_8080_TCP_ADDR", "WARDGATE_WORKERS"]
    assert check_names([*platform, "WARDGATE_HOST"]) == platform


def test_sealing_keys_are_taken_out_in_any_spelling() -> None:
    environ = {"WARDGATE_SEALING_KEYS": "a", "wardgate_sealing_keys": "b", "WARDGATE_SEALING_KEYS_FILE": "c"}
    take_sealing_keys(environ)
    assert environ == {"WARDGATE_SEALING_KEYS_FILE": "c"}


def test_key_name_of_an_operators_own_row_is_scrubbed() -> None:
    row = {
        "name": "Acme", "wire": "openai", "base_url": "https://api.acme.example/v1", "hosts": ["api.acme.example"],
        "auth": "bearer", "api_key_env_var": "ACME_TOKEN",
    }  # fmt: skip
    names = family_names(load_registry({"acme": row}))
    environ = {"ACME_TOKEN": "x", "MINIMAX_2_7_API_KEY": "x", "PATH": "/bin"}
    assert scrub_environment(environ, names) == ["ACME_TOKEN", "MINIMAX_2_7_API_KEY"]
    assert environ == {"PATH": "/bin"}


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_memory_is_not_dumped() -> None:
    done = subprocess.run([sys.executable, "-c", DUMPS], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split(maxsplit=1) == ["0", "(0, 0)\n"]
