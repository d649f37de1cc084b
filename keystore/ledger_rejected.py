"""Rows that the database did not take (`rejected.jsonl` beside the journals): what they are, and trying them again.

Owns reading that file, which row a line of it is, and whether the ledger has it by now. The file is never changed: a
row that is in the ledger stays as it is however often it is tried. Must not know who asks.
"""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import orjson

from keystore.errors import JournalUnwritable, LedgerUnknown
from keystore.journal_files import aside_in
from keystore.ledger import LedgerStore
from keystore.ledger_row import LedgerRow, State


class Standing(StrEnum):
    """What became of such a row."""

    MISSING = "missing"  # the ledger does not have it
    WRITTEN = "written"  # it does
    REFUSED = "refused"  # it was tried again just now, in vain
    UNREADABLE = "unreadable"  # no row: a damaged line, or one that is not the end of a request


@dataclass(frozen=True, slots=True)
class Rejected:
    """One line of the file: when, in which journal and where it stood, and why it was set aside."""

    at: str
    journal: str
    position: int
    why: str
    row: LedgerRow | None
    standing: Standing
    error: str = ""  # why it was refused again


async def rejected(folder: Path, store: LedgerStore) -> list[Rejected]:
    """All of them. JournalUnwritable when the file cannot be read."""
    try:
        lines = aside_in(folder)
    except OSError as error:
        raise JournalUnwritable(f"the rejected rows in {folder} cannot be read: {error.strerror}") from error
    return [await _looked_up(one, store) for one in map(_read, lines)]


async def replay(found: Iterable[Rejected], store: LedgerStore) -> Sequence[Rejected]:
    """Try again what the ledger does not have; how each stands then. DatabaseUnavailable when the database is away."""
    journal_id, position, tried = str(uuid.uuid4()), 0, []
    for one in found:
        if one.row is None or one.standing is not Standing.MISSING:
            tried.append(one)
            continue
        try:
            await store.write(journal_id, position, [one.row])
        except Exception as error:  # noqa: BLE001 - whatever it is, no row may stop those that follow
            position = await store.position(journal_id)  # raises where the database is away
            tried.append(replace(one, standing=Standing.REFUSED, error=type(error).__name__))
        else:
            position += 1
            tried.append(replace(one, standing=Standing.WRITTEN))
    return tried


def _read(line: bytes) -> Rejected:
    try:
        said: Any = orjson.loads(line)
        known = (str(said["at"]), str(said["journal"]), int(said["position"]), str(said["why"]))
        text = str(said["line"])
    except (ValueError, KeyError, TypeError):
        return Rejected("", "", -1, "", None, Standing.UNREADABLE)
    try:
        row = LedgerRow.of_line(text.encode())
    except ValueError:
        row = None
    if row is None or row.state is State.RESERVED:
        return Rejected(*known, None, Standing.UNREADABLE)
    return Rejected(*known, row, Standing.MISSING)


async def _looked_up(one: Rejected, store: LedgerStore) -> Rejected:
    if one.row is None:
        return one
    try:
        await store.get(one.row.request_id)
    except LedgerUnknown:
        return one
    return replace(one, standing=Standing.WRITTEN)
