"""Each shipped row against LiteLLM's own data, read as files: LiteLLM is not imported."""

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from keystore.providers import Provider, Wire, filled, host_of, load_registry
from keystore.resolve import names_for

REGISTRY = load_registry()
ROWS = REGISTRY.providers
PLAIN = [row for row in ROWS if not row.fields]
WITH_FIELDS = [row for row in ROWS if row.fields]
MODES = {"chat", "embedding"}
NOT_IN_THE_MAP = {"openrouter", "nvidia_nim", "huggingface"}  # no chat rows in LiteLLM 1.106's map
FOLDERS = {"cohere_chat": "cohere"}  # of LiteLLM's, where the prefix is not its name
OPEN_MODELS = {"openrouter", "huggingface", "ollama", "nvidia_nim", "together", "fireworks", "deepinfra"}


def by_id(row: Provider) -> str:
    return row.id


def litellm_folder() -> Path:
    spec = find_spec("litellm")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


@cache
def price_map() -> dict[str, Any]:
    text = (litellm_folder() / "model_prices_and_context_window_backup.json").read_text(encoding="utf-8")
    rows: dict[str, Any] = json.loads(text)
    return rows


@cache
def sources_of(prefix: str) -> str:
    """The text of LiteLLM's modules that speak for this provider, its shared look-up tables included."""
    root = litellm_folder()
    shared = ["litellm_core_utils/get_llm_provider_logic.py", "constants.py", "utils.py", "main.py"]
    folder = root / "llms" / FOLDERS.get(prefix, prefix)
    own = sorted(folder.rglob("*.py")) if folder.is_dir() else []
    return "\n".join(path.read_text(encoding="utf-8") for path in [*own, *(root / name for name in shared)])


@cache
def litellm_providers() -> frozenset[str]:
    """The values of the enum LlmProviders, from its source."""
    tree = ast.parse((litellm_folder() / "types" / "utils.py").read_text(encoding="utf-8"))
    return frozenset(_enum_values(tree, "LlmProviders"))


def _enum_values(tree: ast.Module, name: str) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            for line in node.body:
                if isinstance(line, ast.Assign) and isinstance(line.value, ast.Constant):
                    yield str(line.value.value)


@pytest.mark.parametrize("row", ROWS, ids=by_id)
def test_prefix_is_a_provider_of_litellm(row: Provider) -> None:
    assert row.litellm_prefix in litellm_providers()


@pytest.mark.parametrize("row", PLAIN, ids=by_id)
def test_catalogue_ids_are_in_the_price_map(row: Provider) -> None:
    providers = {each.get("litellm_provider") for each in price_map().values() if each.get("mode") in MODES}
    assert row.catalogue_ids
    if row.id not in NOT_IN_THE_MAP:
        assert set(row.catalogue_ids) <= providers


@pytest.mark.parametrize("row", PLAIN, ids=by_id)
def test_host_is_one_that_litellm_knows(row: Provider) -> None:
    host = host_of(row.base_url).replace("127.0.0.1", "localhost")
    assert re.search(rf"(?<![\w.-]){re.escape(host)}(?![\w.-])", sources_of(row.litellm_prefix))


@pytest.mark.parametrize("row", PLAIN, ids=by_id)
def test_base_url_is_litellms_when_it_gives_one(row: Provider) -> None:
    base = row.base_url.replace("127.0.0.1", "localhost").removesuffix("/v1")
    assert base in sources_of(row.litellm_prefix) or base.removeprefix("https://") in sources_of(row.litellm_prefix)


@pytest.mark.parametrize("row", PLAIN, ids=by_id)
def test_key_variable_of_litellm_is_a_name_that_is_looked_for(row: Provider) -> None:
    """Whatever `<PREFIX...>_API_KEY` LiteLLM reads for this provider, a tenant's key of that name is found."""
    stem = FOLDERS.get(row.litellm_prefix, row.litellm_prefix).upper().removesuffix("_AI")
    read = set(re.findall(rf"[\"']({stem}(?:_?AI)?_API_KEY)[\"']", sources_of(row.litellm_prefix)))
    assert read, "LiteLLM reads no variable of this provider's name"
    assert read <= {name for name, _ in names_for(row, REGISTRY)}


@pytest.mark.parametrize("row", WITH_FIELDS, ids=by_id)
def test_row_with_fields_has_the_hosts_and_the_key_variable_that_litellm_knows(row: Provider) -> None:
    sources = sources_of(row.litellm_prefix)
    for host in row.hosts:
        assert host.rpartition("}")[2] in sources, host
    assert row.api_key_env_var in sources
    path = row.base_url.rpartition("}")[2].partition("/")[2]
    assert f"/{path}" in sources, path


@pytest.mark.parametrize("row", ROWS, ids=by_id)
def test_row_is_complete(row: Provider) -> None:
    assert row.name != row.id
    assert row.litellm_prefix
    there = filled(row, dict.fromkeys(row.fields, "x1"))
    assert host_of(there.base_url) in there.hosts
    assert not row.retired
    assert row.open_models == (row.id in OPEN_MODELS or bool(row.fields))
    assert row.free == (row.id == "ollama")


def test_keys_leave_this_machine_over_https_alone() -> None:
    """A loopback address stands only in the row of a program that runs beside the gateway."""
    assert {row.id for row in ROWS if not row.base_url.startswith("https://")} == {"ollama"}
    assert not [host for row in ROWS for host in row.hosts if host.startswith("http://")]
    assert {row.id for row in ROWS if any(host[0].isdigit() or "[" in host for host in row.hosts)} == {"ollama"}


@pytest.mark.parametrize("row", [row for row in ROWS if row.quirks], ids=by_id)
def test_quirks_rename_only_the_output_limit(row: Provider) -> None:
    assert row.quirks == {"max_completion_tokens": "max_tokens"}
    assert row.wire is Wire.OPENAI


def test_wires_are_the_providers_public_apis() -> None:
    other = {row.id: row.wire for row in ROWS if row.wire is not Wire.OPENAI}
    assert other == {"anthropic": Wire.ANTHROPIC, "google": Wire.LITELLM, "cohere": Wire.LITELLM}
