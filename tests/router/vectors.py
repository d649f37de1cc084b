"""Reads the tables of rules in tests/vectors: rows become test parameters named after their situation."""

import tomllib
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest

_DIRECTORY: Final = Path(__file__).parent.parent / "vectors"

Row = dict[str, Any]


@cache
def vectors(name: str) -> Row:
    """The whole file; numbers with a point are Decimal."""
    return tomllib.loads((_DIRECTORY / f"{name}.toml").read_text(encoding="utf-8"), parse_float=Decimal)


def rows(name: str, table: str, label: str = "situation") -> list[Any]:
    """The rows of `[[table]]` as parameters; no two have one label, and there is at least one."""
    found = vectors(name)[table]
    labels = [str(row[label]) for row in found]
    assert found
    assert len(labels) == len(set(labels)), f"{name}.toml: two rows of [[{table}]] have one {label}"
    return [pytest.param(row, id=text) for row, text in zip(found, labels, strict=True)]
