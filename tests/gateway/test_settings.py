"""The process's environment: mistyped names, sealing keys, provider names, dumps."""

import subprocess
import sys

import pytest

from gateway.config import ConfigError
from gateway.environment import family_names, scrub_environment
from gateway.settings import check_names, take_sealing_keys
from keystore.providers import load_registry

DUMPS = """
import ctypes, resource
from gateway.environment import forbid_dumps
forbid_dumps()
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE))
"""


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
