"""docs/wire.md names tests: they exist."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


def named() -> list[tuple[str, str]]:
    """File and test of every mention; a name without a file is in the file before it on its line."""
    found: list[tuple[str, str]] = []
    for line in (TESTS.parent / "docs" / "wire.md").read_text(encoding="utf-8").splitlines():
        file = ""
        for part in re.findall(r"`([^`]+)`", line):
            path, _, test = part.rpartition("::") if "::" in part else (part, "", "")
            file = path if path.endswith(".py") else file
            if path.endswith(".py") or "::" in part:
                found.append((file, test))
    return found


@pytest.mark.parametrize(("file", "test"), named())
def test_named_test_exists(file: str, test: str) -> None:
    text = (TESTS / file).read_text(encoding="utf-8")
    assert not test or f"def {test}(" in text


def test_the_page_names_many() -> None:
    assert len(named()) > 50
