"""The ring: its text, its file, and the verdict on ring and database."""

import base64
import os
import pickle
from datetime import UTC, datetime
from pathlib import Path

import pytest

from keystore.errors import RingDamaged, RingExposed, RingMismatch, RingMissing, SealingError
from keystore.rootkeys import (
    KeyState,
    KnownKey,
    Memory,
    RootKeys,
    SealingSource,
    check_ring,
    create_ring,
    load_ring,
    parse_ring,
    render_ring,
)
from keystore.sealing import check_value
from keystore.secret import Secret

OLD, NEW, WRONG = bytes(range(32)), bytes(range(1, 33)), bytes(range(2, 34))
NOW = datetime(2026, 11, 20, tzinfo=UTC)


def line(kek_id: str, key: bytes) -> str:
    return f"{kek_id}:{base64.b64encode(key).decode()}"


TEXT = f"# a comment\n{line('k202606a', OLD)}\n\n{line('k202611a', NEW)}  # the new one\n"


def from_file(path: Path) -> SealingSource:
    return SealingSource(None, path)


# --- text ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [TEXT, f"{line('k202606a', OLD)},{line('k202611a', NEW)}", TEXT.replace("\n", "\r\n")])
def test_ring_is_read_oldest_first(text: str) -> None:
    ring = parse_ring(text, origin="test")
    assert ring.ids == ("k202606a", "k202611a")
    assert ring.newest == "k202611a"
    assert (ring.get("k202606a"), ring.get("k202611a")) == (OLD, NEW)
    assert parse_ring(render_ring(ring), origin="test").ids == ring.ids


DAMAGED = {
    "nothing": ("", "holds no sealing key"),
    "comments only": ("# k202611a\n \n", "holds no sealing key"),
    "no colon": ("k202611a", "key 1"),
    "only a key": (base64.b64encode(OLD).decode(), "key 1"),
    "not base64": ("k202611a:AAAAA", "k202611a"),
    "url-safe base64": ("k202611a:" + "-_" * 16, "key 1"),
    "too short": (line("k202611a", OLD[:31]), "31 bytes"),
    "too long": (line("k202611a", OLD + b"x"), "33 bytes"),
    "empty key": ("k202611a:", "key 1"),
    "all zero": (line("k202611a", bytes(32)), "one byte repeated"),
    "bad id": (line("K2026", OLD), "key 1"),
    "twice": (f"{line('k202611a', OLD)}\n{line('k202611a', NEW)}", "twice"),
    "second is bad": (f"{line('k202606a', OLD)}\nk202611a:zzz", "key 2"),
    "cut in the middle": (TEXT[:-40], "key 2"),
}


@pytest.mark.parametrize(("text", "word"), DAMAGED.values(), ids=list(DAMAGED))
def test_ring_is_refused_when_damaged(text: str, word: str) -> None:
    with pytest.raises(RingDamaged) as refused:
        parse_ring(text, origin="the ring")
    assert "the ring" in str(refused.value)
    assert word in str(refused.value)
    assert base64.b64encode(OLD).decode()[:12] not in str(refused.value)


def test_ring_hides_its_keys_when_shown() -> None:
    ring = parse_ring(TEXT, origin="test")
    assert repr(ring) == "RootKeys(k202606a, k202611a)"
    with pytest.raises(TypeError):
        pickle.dumps(ring)


def test_ring_names_the_key_that_is_asked_for_and_not_there() -> None:
    with pytest.raises(RingMissing, match=r"'k202612a'.*k202606a, k202611a"):
        parse_ring(TEXT, origin="test").get("k202612a")


def test_fingerprint_key_stays_when_a_key_is_added() -> None:
    both, first = parse_ring(TEXT, origin="test"), RootKeys({"k202606a": OLD})
    assert both.fingerprint_key() == first.fingerprint_key()
    assert both.fingerprint_key() not in (OLD, NEW)


# --- file ----------------------------------------------------------------------------------------------------------


def test_file_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "sealing.keys"
    previous = os.umask(0)
    try:
        made = create_ring(path, now=NOW, random=lambda size: OLD[:size])
    finally:
        os.umask(previous)
    assert made.ids == ("k202611a",)
    assert path.stat().st_mode & 0o777 == 0o600
    loaded = load_ring(from_file(path))
    assert loaded is not None
    assert loaded.get("k202611a") == OLD
    assert list(tmp_path.iterdir()) == [path]


def test_file_is_left_as_it_is_when_it_is_there_by_then(tmp_path: Path) -> None:
    path = tmp_path / "sealing.keys"
    create_ring(path, now=NOW, random=lambda size: OLD[:size])
    before = path.read_bytes()
    again = create_ring(path, now=NOW, random=lambda size: NEW[:size])
    assert again.get("k202611a") == OLD
    assert path.read_bytes() == before


def test_file_cannot_be_made_when_its_directory_is_missing(tmp_path: Path) -> None:
    with pytest.raises(SealingError, match="cannot be made"):
        create_ring(tmp_path / "no" / "sealing.keys", now=NOW, random=os.urandom)


def test_file_is_absent_when_it_is_not_there(tmp_path: Path) -> None:
    assert load_ring(from_file(tmp_path / "sealing.keys")) is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666, 0o610])
def test_file_is_refused_when_others_may_use_it(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "sealing.keys"
    path.write_text(TEXT)
    path.chmod(mode)
    with pytest.raises(RingExposed, match=rf"mode 0{mode:o}.*chmod 600"):
        load_ring(from_file(path))


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"k" * 70_000, b"\x00" * 100])
def test_file_is_refused_when_it_is_no_ring(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "sealing.keys"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(RingDamaged, match=r"sealing\.keys"):
        load_ring(from_file(path))


def test_file_is_refused_when_it_is_a_directory(tmp_path: Path) -> None:
    with pytest.raises(RingDamaged, match="cannot be read"):
        load_ring(from_file(tmp_path))


def test_text_is_used_before_the_file(tmp_path: Path) -> None:
    path = tmp_path / "sealing.keys"
    ring = load_ring(SealingSource(Secret(line("k202611a", NEW)), path))
    assert ring is not None
    assert ring.get("k202611a") == NEW
    assert not path.exists()
    assert "k202611a" not in repr(SealingSource(Secret(line("k202611a", NEW)), path))


# --- verdict -------------------------------------------------------------------------------------------------------

RING = RootKeys({"k202606a": OLD, "k202611a": NEW})


def known(kek_id: str, state: KeyState, key: bytes) -> KnownKey:
    return KnownKey(kek_id, state, check_value(key))


ACTIVE_NEW = known("k202611a", KeyState.ACTIVE, NEW)
VERDICTS: dict[str, tuple[RootKeys | None, list[KnownKey], type[SealingError] | None]] = {
    "the right ring": (RING, [known("k202606a", KeyState.DECRYPT, OLD), ACTIVE_NEW], None),
    "a ring with a key too many": (RING, [ACTIVE_NEW], None),
    "a key that is retired may be gone": (RING, [known("k202501a", KeyState.RETIRED, WRONG), ACTIVE_NEW], None),
    "no ring": (None, [ACTIVE_NEW], RingMissing),
    "a ring that lacks the active key": (RootKeys({"k202606a": OLD}), [ACTIVE_NEW], RingMissing),
    "a ring that lacks an older key": (RING, [known("k202501a", KeyState.DECRYPT, OLD), ACTIVE_NEW], RingMissing),
    "another key of the same id": (RootKeys({"k202611a": WRONG}), [ACTIVE_NEW], RingMismatch),
    "another older key": (RING, [known("k202606a", KeyState.DECRYPT, WRONG), ACTIVE_NEW], RingMismatch),
    "another pending key": (RING, [known("k202606a", KeyState.PENDING, WRONG), ACTIVE_NEW], RingMismatch),
    "no active key": (RING, [known("k202611a", KeyState.DECRYPT, NEW)], RingMismatch),
    "two active keys": (RING, [known("k202606a", KeyState.ACTIVE, OLD), ACTIVE_NEW], RingMismatch),
    "sealed keys and no memory of the ring": (RING, [], RingMismatch),
    "sealed keys, no memory and no ring": (None, [], RingMissing),
}


@pytest.mark.parametrize(("ring", "keys", "error"), VERDICTS.values(), ids=list(VERDICTS))
def test_ring_is_judged_against_the_database(
    ring: RootKeys | None, keys: list[KnownKey], error: type[SealingError] | None
) -> None:
    memory, source = Memory(keys, holds_sealed=True), from_file(Path("var/sealing.keys"))
    if error is None:
        assert check_ring(ring, memory, source) is ring
    else:
        with pytest.raises(error):
            check_ring(ring, memory, source)
