"""The ring of root keys: its text, its file, and the verdict on whether it is the right one.

Owns the format (`id:base64` lines, oldest first), the file's creation with mode 0600, and the decision what a ring and
a database say together. Must not know SQL; keystore.rings brings the two together.
"""

import base64
import binascii
import contextlib
import hmac
import os
import re
import stat
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Final

from keystore.clock import Random
from keystore.errors import RingDamaged, RingExposed, RingMismatch, RingMissing, SealingError, SealingRefused
from keystore.keyservice import KeyService
from keystore.sealing import KEY_BYTES, check_value, fingerprint_key
from keystore.secret import Secret

_LINE: Final = re.compile(r"([a-z][a-z0-9_-]{0,31}):([A-Za-z0-9+/]+={0,2})")
_MAX_FILE_BYTES: Final = 64 * 1024
_HEADER: Final = (
    "# Wardgate's sealing keys, oldest first. Without them no stored provider key can be read: keep a copy elsewhere,\n"
    "# never beside the database's backups.\n"
)


@dataclass(frozen=True, slots=True)
class SealingSource:
    """Where the ring is: its text (WARDGATE_SEALING_KEYS) when given, else with a key service, else in its file, which
    is made on first start."""

    text: Secret | None
    path: Path
    service: KeyService | None = None


class RootKeys:
    """The root keys by id, oldest first. Shows ids only."""

    __slots__ = ("_keys",)

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._keys = dict(keys)

    @property
    def ids(self) -> tuple[str, ...]:
        """Oldest first."""
        return tuple(self._keys)

    @property
    def newest(self) -> str:
        """The id of the key that a new database begins with."""
        return self.ids[-1]

    def get(self, kek_id: str) -> bytes:
        """The key of this id. RingMissing when it is not in the ring."""
        key = self._keys.get(kek_id)
        if key is None:
            raise RingMissing(
                f"the sealing key {kek_id!r} is not among those given ({', '.join(self.ids)}); put it back"
            )
        return key

    def fingerprint_key(self) -> bytes:
        """What fingerprints were made with before the keystore had keys of its own, from the oldest root key."""
        return fingerprint_key(self._keys[self.ids[0]])

    def __repr__(self) -> str:
        return f"RootKeys({', '.join(self.ids)})"

    def __reduce__(self) -> str:
        raise TypeError("root keys are not copied or pickled")


# --- text and file -------------------------------------------------------------------------------------------------


def parse_ring(text: str, *, origin: str) -> RootKeys:
    """The ring in `text`: one `id:base64` of 32 bytes per line (or between commas or blanks); `#` begins a comment.
    RingDamaged names `origin` and the entry's number, never its content."""
    lines = (line.partition("#")[0] for line in text.splitlines())
    entries = [entry for line in lines for entry in re.split(r"[\s,]+", line) if entry]
    if not entries:
        raise RingDamaged(f"{origin} holds no sealing key")
    keys: dict[str, bytes] = {}
    for number, entry in enumerate(entries, start=1):
        kek_id, key = _parse_entry(entry, f"{origin}, key {number}")
        if kek_id in keys:
            raise RingDamaged(f"{origin}, key {number}: the id {kek_id!r} stands there twice")
        keys[kek_id] = key
    return RootKeys(keys)


def _parse_entry(entry: str, where: str) -> tuple[str, bytes]:
    match = _LINE.fullmatch(entry)
    if match is None:
        raise RingDamaged(f"{where} is not of the form id:base64")
    kek_id, body = match.groups()
    try:
        key = base64.b64decode(body, validate=True)
    except binascii.Error:
        raise RingDamaged(f"{where} ({kek_id}) is not base64") from None
    if len(key) != KEY_BYTES:
        raise RingDamaged(f"{where} ({kek_id}) has {len(key)} bytes; a sealing key has {KEY_BYTES}")
    if len(set(key)) == 1:
        raise RingDamaged(f"{where} ({kek_id}) is one byte repeated, not a key")
    return kek_id, key


def load_ring(source: SealingSource) -> RootKeys | None:
    """The ring that `source` names, or None when it names a file that is not there. RingDamaged when it cannot be read,
    RingExposed when others may read it."""
    if source.text is not None:
        return parse_ring(source.text.reveal(), origin="WARDGATE_SEALING_KEYS")
    if source.service is not None:
        return parse_ring(source.service.fetch(), origin=source.service.origin)
    try:
        with source.path.open("rb") as file:
            _refuse_exposed(source.path, os.fstat(file.fileno()))
            content = file.read(_MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RingDamaged(f"the sealing key file {source.path} cannot be read: {error.strerror}") from error
    if len(content) > _MAX_FILE_BYTES or not content.isascii():
        raise RingDamaged(f"{source.path} is not a sealing key file")
    return parse_ring(content.decode("ascii"), origin=f"the sealing key file {source.path}")


def _refuse_exposed(path: Path, status: os.stat_result) -> None:
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise RingExposed(
            f"the sealing key file {path} has mode {stat.S_IMODE(status.st_mode):04o}, so others may use it;"
            f" run `chmod 600 {path}`, and if it was on a shared machine, change the keys"
        )


def create_ring(path: Path, *, now: datetime, random: Random) -> RootKeys:
    """Make the file with one new key, mode 0600, whole or not at all. A file that is there by then is left as it is and
    read instead. SealingError when it cannot be made."""
    ring = RootKeys({f"k{now:%Y%m}a": random(KEY_BYTES)})
    try:
        _write_whole(path, _HEADER + render_ring(ring))
    except FileExistsError:
        present = load_ring(SealingSource(None, path))
        if present is not None:
            return present
        raise RingMissing(f"the sealing key file {path} came and went; start again") from None
    except OSError as error:
        raise SealingError(f"the sealing key file {path} cannot be made: {error.strerror}") from error
    return ring


def add_to_file(source: SealingSource, kek_id: str, key: bytes) -> RootKeys:
    """The ring with one more key at its end, its file replaced whole. SealingRefused for a ring that was given as text
    or by a key service, with what to do instead."""
    if source.text is not None or source.service is not None:
        line = f"a line `{kek_id}:` with 32 random bytes in base64 (`openssl rand -base64 32`)"
        raise SealingRefused(
            f"the root keys come from WARDGATE_SEALING_KEYS; add {line} to it on every replica, restart them, and run"
            " this again"
            if source.text is not None
            else f"the root keys come from a key service; add {line} to what it keeps, and run this again; a replica"
            " that runs hears of it within a minute"
        )
    ring = load_ring(source)
    if ring is None:
        raise RingMissing(f"there is no sealing key file {source.path}")
    old = source.path.read_text(encoding="ascii")
    line = f"{kek_id}:{base64.b64encode(key).decode('ascii')}\n"
    try:
        _replace_whole(source.path, old + ("" if old.endswith("\n") else "\n") + line)
    except OSError as error:
        raise SealingError(f"the sealing key file {source.path} cannot be changed: {error.strerror}") from error
    return RootKeys({**{known: ring.get(known) for known in ring.ids}, kek_id: key})


def _replace_whole(path: Path, text: str) -> None:
    """Write beside `path`, then take its name: a reader sees the old file or the new one, both whole, mode 0600."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
        _settle(path.parent)
    finally:
        with contextlib.suppress(OSError):
            Path(name).unlink()


def render_ring(ring: RootKeys) -> str:
    """The ring as text, the inverse of `parse_ring`."""
    return "".join(f"{kek_id}:{base64.b64encode(ring.get(kek_id)).decode('ascii')}\n" for kek_id in ring.ids)


def _write_whole(path: Path, text: str) -> None:
    """Write beside `path`, then link: the name appears with its whole content, and never replaces another file."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp: O_EXCL, mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.link(name, path)
        _settle(path.parent)
    finally:
        with contextlib.suppress(OSError):
            Path(name).unlink()


def _settle(directory: Path) -> None:
    """The name is on the disk before anything is sealed with what it names."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- the verdict ---------------------------------------------------------------------------------------------------


class KeyState(StrEnum):
    """What a root key is to a database."""

    PENDING = "pending"  # known, not used yet
    ACTIVE = "active"  # wraps new tenant keys
    DECRYPT = "decrypt"  # opens what it wrapped
    RETIRED = "retired"  # nothing refers to it any more


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A root key as the database remembers it: its id and check value, never the key."""

    kek_id: str
    state: KeyState
    check_value: bytes


@dataclass(frozen=True, slots=True)
class Memory:
    """What a database remembers of its root keys."""

    keys: Sequence[KnownKey]
    holds_sealed: bool

    @property
    def blank(self) -> bool:
        """No key was ever used here, so any ring, also a new one, is right."""
        return not self.keys and not self.holds_sealed


def lacking_from(ring: RootKeys, memory: Memory) -> tuple[str, ...]:
    """The ids of keys that are in use and not in `ring`; a pending one wraps nothing yet."""
    done = (KeyState.PENDING, KeyState.RETIRED)
    return tuple(known.kek_id for known in memory.keys if known.state not in done and known.kek_id not in ring.ids)


def check_ring(ring: RootKeys | None, memory: Memory, source: SealingSource, *, partial: bool = False) -> RootKeys:
    """`ring`, when it is the one that `memory` (not blank) tells of, else RingMissing or RingMismatch. With `partial`
    it may lack keys that are in use."""
    if ring is None:
        raise RingMissing(_missing(memory, source))
    if not memory.keys:
        raise RingMismatch("the database holds sealed keys but has forgotten which sealing keys it uses; restore it")
    for known in memory.keys:
        absent = known.kek_id not in ring.ids and (partial or known.state is KeyState.PENDING)  # pending: wraps nothing
        if known.state is not KeyState.RETIRED and not absent:
            _check_key(ring, known)
    if sum(known.state is KeyState.ACTIVE for known in memory.keys) != 1:
        raise RingMismatch("the database has no single active sealing key; restore it")
    return ring


def _check_key(ring: RootKeys, known: KnownKey) -> None:
    if not hmac.compare_digest(check_value(ring.get(known.kek_id)), known.check_value):
        raise RingMismatch(
            f"the sealing key {known.kek_id!r} is not the key of that id which this database was sealed with;"
            " put the right one back, nothing was changed"
        )


def _missing(memory: Memory, source: SealingSource) -> str:
    ids = ", ".join(known.kek_id for known in memory.keys) or "unknown"
    return (
        f"the database was sealed with the sealing keys {ids}, but there is no file {source.path};"
        " put it back, or set WARDGATE_SEALING_KEYS; no new one is made, since it could open nothing"
    )
