"""The provider rows' rules: what a row must have, and what an operator may override."""

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from keystore.errors import RegistryError
from keystore.providers import Auth, Provider, Registry, Wire, host_of, load_registry, setting_key_of

AUTHS = {
    "openai": ["bearer", "api-key", "x-api-key", "google-service-account"],
    "anthropic": ["x-api-key", "bearer"],
    "litellm": ["bearer", "x-api-key", "api-key", "x-goog-api-key"],
}
ROW: Mapping[str, object] = {"wire": "openai", "base_url": "https://api.acme.example/v1", "hosts": ["api.acme.example"]}


def registry_with(**rows: Mapping[str, object]) -> Registry:
    return load_registry(rows)


def test_registry_has_the_rows_of_the_brief_and_three_with_fields() -> None:
    assert [provider.id for provider in load_registry().live()] == [
        "openai",
        "anthropic",
        "google",
        "deepseek",
        "minimax",
        "qwen",
        "groq",
        "mistral",
        "moonshot",
        "zai",
        "xai",
        "openrouter",
        "together",
        "fireworks",
        "cerebras",
        "cohere",
        "deepinfra",
        "perplexity",
        "nvidia_nim",
        "huggingface",
        "ollama",
        "azure",
        "bedrock",
        "vertex",
    ]


def test_row_is_read_when_shipped() -> None:
    google = load_registry().get("google")
    assert google == Provider(
        id="google",
        name="Google Gemini",
        wire=Wire.LITELLM,
        base_url="https://generativelanguage.googleapis.com/v1beta",
        hosts=("generativelanguage.googleapis.com",),
        auth=Auth.X_GOOG_API_KEY,
        api_key_env_var="GOOGLE_API_KEY",
        former_ids=("gemini", "gemini_flash", "google_flash"),
        catalogue_ids=("gemini",),
        litellm_prefix="gemini",
    )


@pytest.mark.parametrize(
    ("provider_id", "setting_key"),
    [
        ("minimax", "MINIMAX_API_KEY"),
        ("minimax_2_7", "MINIMAX_2_7_API_KEY"),
        ("acme-2.7", "ACME_2_7_API_KEY"),
        ("nvidia_nim", "NVIDIA_NIM_API_KEY"),
    ],
)
def test_setting_key_is_spelled_from_the_id(provider_id: str, setting_key: str) -> None:
    assert setting_key_of(provider_id) == setting_key


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://api.Acme.example/v1", "api.acme.example"),
        ("https://api.acme.example:443/v1", "api.acme.example"),
        ("http://api.acme.example:443/v1", "http://api.acme.example:443"),
        ("http://api.acme.example/v1", "http://api.acme.example"),
        ("HTTP://10.0.0.5:8000", "http://10.0.0.5:8000"),
        ("http://localhost:11434/v1", "localhost:11434"),
        ("http://127.8.0.1", "127.8.0.1"),
        ("http://127.0.0.1.acme.example/", "http://127.0.0.1.acme.example"),
        ("http://[fe80::1]:1/", "http://[fe80::1]:1"),
        ("https://[::1]:9200", "[::1]:9200"),
        ("http://127.0.0.1:9200/v1", "127.0.0.1:9200"),
        ("http://[::1]:9200", "[::1]:9200"),
    ],
)
def test_host_is_spelled_like_hosts(url: str, host: str) -> None:
    assert host_of(url) == host


def test_override_changes_one_field_when_laid_over_a_row() -> None:
    shipped, changed = load_registry(), registry_with(minimax={"name": "MiniMax (EU)"})
    before, after = shipped.get("minimax"), changed.get("minimax")
    assert before is not None
    assert after is not None
    assert after.name == "MiniMax (EU)"
    assert after.base_url == before.base_url
    assert after.former_ids == before.former_ids
    assert [each.id for each in changed.providers] == [each.id for each in shipped.providers]


def test_override_adds_a_row_when_the_id_is_new() -> None:
    acme = registry_with(acme=ROW).providers[-1]
    assert (acme.id, acme.name, acme.auth, acme.api_key_env_var) == ("acme", "acme", Auth.BEARER, "ACME_API_KEY")
    assert (acme.former_ids, acme.retired, acme.free, acme.quirks) == ((), False, False, {})


def test_operator_host_may_be_private_when_listed() -> None:
    row = {"base_url": "http://127.0.0.1:9200/v1/", "hosts": ["127.0.0.1:9200"]}
    minimax = registry_with(minimax=row).get("minimax")
    assert minimax is not None
    assert minimax.base_url == "http://127.0.0.1:9200/v1"
    assert minimax.hosts == ("127.0.0.1:9200",)


@pytest.mark.parametrize(
    ("base_url", "listed", "hosts"),
    [
        ("http://10.0.0.5:8000/v1", "http://10.0.0.5:8000", ("http://10.0.0.5:8000",)),
        ("http://vllm.lan/v1", "http://vllm.lan:80", ("http://vllm.lan",)),
        ("http://127.0.0.1:9200/v1", "http://127.0.0.1:9200", ("127.0.0.1:9200",)),
        ("http://[::1]:9200", "[::1]:9200", ("[::1]:9200",)),
        ("http://localhost:9200", "localhost:9200", ("localhost:9200",)),
    ],
)
def test_http_is_allowed_when_this_machine_or_the_listed_host_is_meant(
    base_url: str, listed: str, hosts: tuple[str, ...]
) -> None:
    acme = registry_with(acme={**ROW, "base_url": base_url, "hosts": [listed]}).get("acme")
    assert acme is not None
    assert acme.hosts == hosts


@pytest.mark.parametrize(
    ("wire", "auth"),
    [(wire, auth) for wire, fit in AUTHS.items() for auth in Auth if auth.value in fit],
)
def test_auth_is_allowed_when_the_wire_has_it(wire: str, auth: Auth) -> None:
    row = {**ROW, "wire": wire, "auth": auth.value, "litellm_prefix": "openai"}
    exchanged = {"token_url": "https://x.example/token"} if auth is Auth.GOOGLE_SERVICE_ACCOUNT else {}
    acme = registry_with(acme=row | exchanged).get("acme")
    assert acme is not None
    assert acme.auth is auth


@pytest.mark.parametrize(
    ("wire", "auth"),
    [(wire, auth) for wire, fit in AUTHS.items() for auth in Auth if auth.value not in fit],
)
def test_auth_is_refused_when_the_wire_has_it_not(wire: str, auth: Auth) -> None:
    with pytest.raises(RegistryError, match=f"'acme': auth must be one of .* on wire {wire}, not '{auth.value}'"):
        registry_with(acme={**ROW, "wire": wire, "auth": auth.value, "litellm_prefix": "openai"})


BAD_ROWS: list[tuple[str, dict[str, dict[str, Any]], list[str]]] = [
    ("unknown field", {"minimax": {"basee_url": "https://x"}}, ["'minimax'", "'basee_url'", '"base_url"']),
    ("bad wire", {"acme": {**ROW, "wire": "opnai"}}, ["'acme'", "wire", "'opnai'", "openai, anthropic, litellm"]),
    ("bad auth", {"acme": {**ROW, "auth": "basic"}}, ["'acme'", "auth", "'basic'"]),
    ("no token_url", {"acme": {**ROW, "auth": "google-service-account"}}, ["'acme'", "token_url"]),
    ("token_url for nothing", {"acme": {**ROW, "token_url": "https://x.example"}}, ["'acme'", "token_url"]),
    ("token_url in clear", {"vertex": {"token_url": "http://x.example"}}, ["'vertex'", "token_url", "https"]),
    ("field without a place", {"acme": {**ROW, "fields": {"region": "r"}}}, ["'acme'", "base_url", "{region}"]),
    ("place without a field", {"acme": {**ROW, "base_url": "https://{region}.x.example"}}, ["'acme'", "{region}"]),
    ("no wire", {"acme": {k: v for k, v in ROW.items() if k != "wire"}}, ["'acme'", "wire is missing"]),
    ("no hosts", {"acme": {k: v for k, v in ROW.items() if k != "hosts"}}, ["'acme'", "hosts is missing"]),
    ("no base_url", {"acme": {"wire": "openai", "hosts": ["a"]}}, ["'acme'", "base_url is missing"]),
    ("blank base_url", {"acme": {**ROW, "base_url": " "}}, ["'acme'", "base_url"]),
    (
        "other host",
        {"minimax": {"base_url": "https://api.evil.example/v1"}},
        ["'minimax'", "'api.evil.example'", "hosts"],
    ),
    ("other port", {"acme": {**ROW, "base_url": "https://api.acme.example:8443"}}, ["'api.acme.example:8443'"]),
    ("ftp", {"acme": {**ROW, "base_url": "ftp://api.acme.example"}}, ["base_url", "https://"]),
    ("no host", {"acme": {**ROW, "base_url": "https:///v1"}}, ["base_url", "host"]),
    ("bad port", {"acme": {**ROW, "base_url": "https://api.acme.example:99999/"}}, ["base_url"]),
    ("query", {"acme": {**ROW, "base_url": "https://api.acme.example/v1?k=1"}}, ["base_url", "query"]),
    ("host with a path", {"acme": {**ROW, "hosts": ["api.acme.example/v1"]}}, ["hosts", "'api.acme.example/v1'"]),
    ("host in capitals", {"acme": {**ROW, "hosts": ["API.acme.example"]}}, ["hosts", "lower-case"]),
    ("hosts is text", {"acme": {**ROW, "hosts": "api.acme.example"}}, ["hosts", "list"]),
    ("hosts of numbers", {"acme": {**ROW, "hosts": [1]}}, ["hosts", "list"]),
    ("flag is text", {"acme": {**ROW, "free": "yes"}}, ["free", "true or false"]),
    ("thoughts are a flag", {"qwen": {"thoughts_beyond_limit": True}}, ["qwen", "thoughts_beyond_limit", "at least 0"]),
    ("thoughts are negative", {"qwen": {"thoughts_beyond_limit": -1}}, ["thoughts_beyond_limit", "at least 0", "-1"]),
    ("quirks is a list", {"acme": {**ROW, "quirks": ["a"]}}, ["quirks", "table"]),
    ("quirk to nothing", {"acme": {**ROW, "quirks": {"a": ""}}}, ["quirks"]),
    ("bad variable", {"acme": {**ROW, "api_key_env_var": "acme key"}}, ["api_key_env_var", "'acme key'"]),
    ("bad id", {"Acme Inc": dict(ROW)}, ["'Acme Inc'", "lower-case"]),
    ("bad former id", {"acme": {**ROW, "former_ids": ["Old Acme"]}}, ["former_ids", "'Old Acme'"]),
    ("its own former id", {"acme": {**ROW, "former_ids": ["acme"]}}, ["former_ids", "itself"]),
    ("bad pattern", {"acme": {**ROW, "key_pattern": "("}}, ["key_pattern", "regular expression"]),
    ("litellm without prefix", {"acme": {**ROW, "wire": "litellm"}}, ["'acme'", "litellm_prefix"]),
    ("anthropic without prefix", {"acme": {**ROW, "wire": "anthropic", "auth": "x-api-key"}}, ["litellm_prefix"]),
    (
        "http",
        {"openai": {"base_url": "http://api.openai.com/v1"}},
        ["'openai'", "base_url is http", "in clear", 'hosts = ["http://api.openai.com"]'],
    ),
    (
        "http to a private host without its scheme",
        {"acme": {**ROW, "base_url": "http://10.0.0.5:8000", "hosts": ["10.0.0.5:8000"]}},
        ["base_url is http", 'hosts = ["http://10.0.0.5:8000"]'],
    ),
    (
        "https where http is listed",
        {"acme": {**ROW, "hosts": ["http://api.acme.example"]}},
        ["'api.acme.example'", "not among hosts"],
    ),
    ("https is not written", {"acme": {**ROW, "hosts": ["https://api.acme.example"]}}, ["hosts", "lower-case"]),
    ("http host with a path", {"acme": {**ROW, "hosts": ["http://api.acme.example/v1"]}}, ["hosts", "lower-case"]),
    ("http host with a bad port", {"acme": {**ROW, "hosts": ["http://10.0.0.5:99999"]}}, ["not among hosts"]),
    ("former id twice", {"acme": {**ROW, "former_ids": ["minimax_2_7"]}}, ["minimax_2_7", "'minimax'", "'acme'"]),
    ("catalogue id twice", {"acme": {**ROW, "catalogue_ids": ["gemini"]}}, ["gemini", "'google'", "'acme'"]),
    ("one key name for two", {"nvidia-nim": dict(ROW)}, ["NVIDIA_NIM_API_KEY", "'nvidia_nim'", "'nvidia-nim'"]),
]


@pytest.mark.parametrize(("rows", "words"), [case[1:] for case in BAD_ROWS], ids=[case[0] for case in BAD_ROWS])
def test_registry_refuses_when_a_row_is_wrong(rows: dict[str, dict[str, Any]], words: list[str]) -> None:
    with pytest.raises(RegistryError) as refused:
        load_registry(rows)
    for word in words:
        assert word in str(refused.value)


def test_registry_refuses_without_quoting_when_a_url_holds_a_password() -> None:
    with pytest.raises(RegistryError) as refused:
        registry_with(acme={**ROW, "base_url": "ftp://user:hunter2@api.acme.example"})
    assert "hunter2" not in str(refused.value)


def test_registry_refuses_when_a_row_is_no_table() -> None:
    rows: Any = {"acme": "https://api.acme.example"}
    with pytest.raises(RegistryError, match="'acme'"):
        load_registry(rows)


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("minimax", "minimax"),
        ("minimax_2_7", "minimax"),
        ("google_flash", "google"),
        ("dashscope", "qwen"),
        ("no", None),
    ],
)
def test_successor_is_the_row_that_answers_today(name: str, answers: str | None) -> None:
    found = load_registry().successor(name)
    assert (found.id if found else None) == answers


def test_successor_is_the_heir_when_the_row_is_retired() -> None:
    tomb = {**ROW, "retired": True}
    registry = registry_with(minimax_2_7=tomb, acme=tomb)
    heir, orphan, exact = registry.successor("minimax_2_7"), registry.successor("acme"), registry.get("minimax_2_7")
    assert heir is not None
    assert heir.id == "minimax"
    assert orphan is not None
    assert orphan.id == "acme"
    assert exact is not None
    assert exact.retired
    assert {"minimax_2_7", "acme"}.isdisjoint(row.id for row in registry.live())


def test_catalogue_id_finds_its_row() -> None:
    registry = load_registry()
    found = registry.by_catalogue_id("together_ai")
    assert found is not None
    assert found.id == "together"
    assert registry.by_catalogue_id("together") is None


def test_version_changes_when_any_field_does() -> None:
    same, other = load_registry().version, registry_with(minimax={"free": True}).version
    assert same == load_registry().version
    assert same != other
    assert len(same) == 12


def test_version_is_the_same_in_another_process() -> None:
    code = "from keystore.providers import load_registry; print(load_registry().version)"
    for seed in ("0", "1"):
        run = subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        )
        assert run.stdout.strip() == load_registry().version
