"""How good a model is said to be: a small table of scores by family, each with its source and date.

Owns the shape of a score, the shipped rows (quality.toml beside this file) and how a name finds its row: the most
special row wins, and no row means that nothing is known. Must not know offers, plans or requests.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from importlib.resources import files
from types import MappingProxyType
from typing import Final

from router.errors import ModelError, did_you_mean
from router.model_names import ModelName, parse_name

MOST: Final = 100
_FIELDS: Final = ("score", "source", "dated")


@dataclass(frozen=True, slots=True)
class Quality:
    """A score from 0 to 100, who says so, and when."""

    score: int
    source: str
    dated: date


QualityTable = Mapping[str, Quality]  # by name or family in its maker's spelling, lower-case
NO_QUALITY: Final[QualityTable] = MappingProxyType({})


def load_quality() -> QualityTable:
    """The shipped rows."""
    text = files("router").joinpath("quality.toml").read_text(encoding="utf-8")
    return read_quality(tomllib.loads(text))


def read_quality(document: Mapping[str, object]) -> QualityTable:
    """A document of sources, each with its date and its scores by family. Raises ModelError."""
    found: dict[str, Quality] = {}
    for name, table in document.items():
        if not isinstance(table, Mapping) or not isinstance(table.get("scores"), Mapping):
            raise ModelError(f"quality {name!r}: a source has source, dated and scores")
        for family, score in table["scores"].items():
            row = {"score": score, "source": table.get("source"), "dated": table.get("dated")}
            key = parse_name(family).path
            if key in found:
                raise ModelError(f"quality {name!r}: {family!r} has two scores")
            found[key] = quality_from_row(row, f"quality {name!r}: {family!r}")
    return MappingProxyType(found)


def quality_from_row(row: object, where: str) -> Quality:
    """A checked score from its three fields. Raises ModelError that begins with `where`."""
    if not isinstance(row, Mapping):
        raise ModelError(
            f'{where}: quality is a table: {{ score = 80, source = "own evaluation", dated = 2026-11-01 }}'
        )
    for field in row:
        if field not in _FIELDS:
            raise ModelError(f"{where}: quality has no field {field!r}{did_you_mean(str(field), _FIELDS)}")
    score, source, dated = (row.get(field) for field in _FIELDS)
    if not isinstance(score, int) or isinstance(score, bool) or not 0 <= score <= MOST:
        raise ModelError(f"{where}: score must be a whole number from 0 to {MOST}, not {score!r}")
    if not isinstance(source, str) or not source.strip():
        raise ModelError(f"{where}: source must say who gave the score")
    if type(dated) is not date:  # a datetime is a date
        raise ModelError(f"{where}: dated must be a date as in dated = 2026-11-01, not {dated!r}")
    return Quality(score, source.strip(), dated)


def quality_of(table: QualityTable, name: ModelName) -> Quality | None:
    """The score of this very model, else of its family; None when neither has one."""
    for word in (name.path, name.base, name.family_path, name.family):
        if word in table:
            return table[word]
    return None
