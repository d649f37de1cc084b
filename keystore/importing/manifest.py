"""The file that a plan leaves: one line for each row, with its mark and what is to become of it. Never a value.

Owns the format (JSON lines; the first tells the import, the source and the counts) and the file's mode 0600. Marks are
HMACs under a key of this keystore, one for each import. Must not know databases.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from keystore.errors import ImportRefused
from keystore.importing.survey import Seen

_FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Manifest:
    """A plan as it was written: of which import, of which source, and the marks of its rows."""

    import_id: str
    source: str
    marks: frozenset[bytes]


def write_manifest(
    path: Path, import_id: str, source: str, rows: Iterable[Seen], counts: Mapping[str, object], now: datetime
) -> None:
    """Write the plan. OSError when the file cannot be written."""
    head = {"wardgate_import": _FORMAT, "import_id": import_id, "source": source, "at": now.isoformat(), **counts}
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
        os.fchmod(descriptor, 0o600)
        file.write(json.dumps(head) + "\n")
        for seen in rows:
            file.write(json.dumps(_line(seen)) + "\n")


def read_manifest(path: Path) -> Manifest:
    """The plan again. ImportRefused when the file is none."""
    try:
        with path.open(encoding="utf-8") as file:
            head = json.loads(file.readline())
            if head["wardgate_import"] != _FORMAT:
                raise ValueError
            marks = frozenset(bytes.fromhex(json.loads(line)["mark"]) for line in file)
        return Manifest(str(head["import_id"]), str(head["source"]), marks)
    except (ValueError, KeyError, TypeError):
        raise ImportRefused(f"{path} is no manifest of `wardgate import plan`") from None


def _line(seen: Seen) -> dict[str, object]:
    return {
        "mark": seen.row_mac.hex(),
        "class": seen.kind.value,
        "target": seen.outcome.value,
        "why": seen.why,
        "tenant": seen.tenant.slug if seen.tenant else None,
        "setting_key": seen.name,
    }
