"""The bundled price map is found and read without importing litellm."""

import hashlib
import json
import subprocess
import sys
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path

import pytest

import router
from router.errors import PriceMapError
from router.price_map import PriceMap, load_bundled, read_price_map


@pytest.fixture(scope="module")
def bundled() -> PriceMap:
    return load_bundled()


def test_the_bundled_map_names_its_release_and_content(bundled: PriceMap) -> None:
    label, _, digest = bundled.version.rpartition("-")
    assert label == f"bundled-{version('litellm')}"
    assert len(digest) == 8
    assert int(digest, 16) >= 0


def test_the_bundled_map_holds_decimals_and_no_float(bundled: PriceMap) -> None:
    assert len(bundled.rows) > 4000
    numbers = [value for row in bundled.rows.values() for value in row.values()]
    assert any(isinstance(value, Decimal) for value in numbers)
    assert not any(isinstance(value, float) for value in numbers)


def test_loading_the_map_imports_no_litellm() -> None:
    script = "import sys; from router.price_map import load_bundled; load_bundled(); print('litellm' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def run_apart(script: str, *paths: Path) -> str:
    """The output of a script in an interpreter that knows these paths and the router, and no installed package."""
    known = [str(path) for path in (*paths, Path(router.__file__).parent.parent)]
    script = f"import sys; sys.path[:0] = {known!r}; {script}"
    run = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=False)
    return run.stdout + run.stderr


def test_an_installation_without_litellm_is_told() -> None:
    output = run_apart("from router.price_map import load_bundled; load_bundled()")
    assert "PriceMapError: litellm is not installed" in output


def test_a_source_tree_of_litellm_has_an_unknown_release(tmp_path: Path) -> None:
    package = tmp_path / "litellm"
    package.mkdir()
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    (package / "model_prices_and_context_window_backup.json").write_text('{"a": {"x": 1.5}}')
    output = run_apart("from router.price_map import load_bundled; print(load_bundled().version)", tmp_path)
    assert output.startswith("bundled-unknown-")


def test_a_file_is_read_with_exact_numbers(tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    content = b'{"m": {"input_cost_per_token": 3e-07, "whole": 12, "odd": NaN}}'
    path.write_bytes(content)
    found = read_price_map(path, label="file")
    assert found.version == f"file-{hashlib.sha256(content).hexdigest()[:8]}"
    assert found.rows["m"]["input_cost_per_token"] == Decimal("3e-7")
    assert found.rows["m"]["whole"] == 12
    odd = found.rows["m"]["odd"]
    assert isinstance(odd, Decimal)
    assert odd.is_nan()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "not valid JSON"),
        ('{"a": ', "not valid JSON"),
        ("\x80", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('{"a": {"x": 1e99999999999999999999}}', "not valid JSON"),
        ("[]", "holds no rows"),
        ("{}", "holds no rows"),
        ("null", "holds no rows"),
    ],
)
def test_a_broken_file_is_told(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "prices.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(PriceMapError, match=says) as caught:
        read_price_map(path, label="file")
    assert "prices.json" in str(caught.value)


def test_an_absent_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(PriceMapError, match=r"prices\.json cannot be read: No such file"):
        read_price_map(tmp_path / "prices.json", label="file")


def test_a_row_survives_a_round_trip_through_text(tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    path.write_text(json.dumps({"m": {"mode": "chat"}}))
    assert read_price_map(path, label="x").rows == {"m": {"mode": "chat"}}
