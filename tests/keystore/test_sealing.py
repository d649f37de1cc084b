"""The cipher: golden vectors, round trips, and that nothing changed or moved ever opens."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystore.errors import EnvelopeDamaged
from keystore.sealing import (
    NONCE_BYTES,
    Opened,
    Place,
    WrappedKey,
    check_value,
    dek_id_of,
    encode_fields,
    fingerprint,
    fingerprint_key,
    open_envelope,
    seal,
    unwrap,
    wrap,
)

VECTORS = Path(__file__).parents[1] / "vectors" / "sealing.json"
GOLDEN: list[dict[str, Any]] = json.loads(VECTORS.read_text(encoding="utf-8"))["cases"]

KEK, OTHER_KEK = bytes(range(32)), bytes(range(1, 33))
DEK, OTHER_DEK = bytes(range(2, 34)), bytes(range(3, 35))
NONCE = bytes(range(NONCE_BYTES))
PLACE = Place("tenant-1", "credential-1", "MINIMAX_2_7_API_KEY")
CONTENT = Opened(b"sk-0123456789abcdef", frozenset({"api.minimax.io"}))
WRAPPED = wrap(KEK, DEK, kek_id="k202611a", tenant_id="tenant-1", dek_id="dek-1", nonce=NONCE)
ENVELOPE = seal(DEK, CONTENT, PLACE, dek_id="dek-1", nonce=NONCE)


# --- the format does not drift -------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: str(case["name"]))
def test_format_is_the_golden_one(case: dict[str, Any]) -> None:
    kek, dek = bytes.fromhex(case["kek"]), bytes.fromhex(case["dek"])
    place = Place(case["tenant_id"], case["credential_id"], case["setting_key"])
    content = Opened(bytes.fromhex(case["secret"]), frozenset(case["hosts"]))
    key = WrappedKey(case["dek_id"], case["tenant_id"], case["kek_id"], bytes.fromhex(case["wrapped"]))

    names = {"kek_id": case["kek_id"], "tenant_id": case["tenant_id"], "dek_id": case["dek_id"]}
    assert wrap(kek, dek, **names, nonce=bytes.fromhex(case["wrap_nonce"])) == key
    assert unwrap(kek, key) == dek
    made = seal(dek, content, place, dek_id=case["dek_id"], nonce=bytes.fromhex(case["seal_nonce"]))
    assert made == case["envelope"]
    assert open_envelope(dek, case["envelope"], place) == content
    assert dek_id_of(case["envelope"]) == case["dek_id"]
    assert check_value(kek).hex() == case["check_value"]
    assert fingerprint_key(kek).hex() == case["fingerprint_key"]


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: str(case["name"]))
def test_fingerprint_is_the_golden_one(case: dict[str, Any]) -> None:
    secret = bytes.fromhex(case["secret"])
    if secret.isascii():
        assert fingerprint(bytes.fromhex(case["fingerprint_key"]), secret.decode()).hex() == case["fingerprint"]


# --- E is injective ------------------------------------------------------------------------------------------------

FIELDS = st.lists(st.text(max_size=12), max_size=5)


@settings(deadline=None)
@given(FIELDS, FIELDS)
def test_encoding_differs_when_the_fields_do(one: list[str], other: list[str]) -> None:
    assert (encode_fields(*one) == encode_fields(*other)) == (one == other)


@settings(deadline=None)
@given(st.text(max_size=12), st.integers(0, 12), st.integers(0, 12))
def test_encoding_differs_when_one_text_is_cut_elsewhere(text: str, here: int, there: int) -> None:
    one, other = (text[:here], text[here:]), (text[:there], text[there:])
    assert (encode_fields(*one) == encode_fields(*other)) == (one == other)


# --- round trips ---------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    st.binary(max_size=64 * 1024), st.frozensets(st.text(max_size=30), max_size=4), st.binary(min_size=12, max_size=12)
)
def test_seal_opens_to_the_same_bytes(secret: bytes, hosts: frozenset[str], nonce: bytes) -> None:
    content = Opened(secret, hosts)
    assert open_envelope(DEK, seal(DEK, content, PLACE, dek_id="dek-1", nonce=nonce), PLACE) == content


def test_seal_takes_64_kib() -> None:
    content = Opened(os.urandom(64 * 1024), frozenset({"api.minimax.io"}))
    assert open_envelope(DEK, seal(DEK, content, PLACE, dek_id="dek-1", nonce=NONCE), PLACE) == content


def test_opened_hides_its_secret_when_shown() -> None:
    assert "sk-0123" not in repr(CONTENT)
    assert "api.minimax.io" in repr(CONTENT)


def test_envelope_holds_no_part_of_the_secret() -> None:
    assert b"sk-0123" not in ENVELOPE.encode()
    assert "minimax" not in ENVELOPE.lower()


# --- tampering -----------------------------------------------------------------------------------------------------


def refuses(dek: bytes, envelope: str, place: Place) -> None:
    with pytest.raises(EnvelopeDamaged):
        open_envelope(dek, envelope, place)


def mutations(envelope: str) -> Iterator[str]:
    """Every character changed to its neighbour and to another class, every truncation, and every doubling."""
    for at, character in enumerate(envelope):
        for other in (chr(ord(character) ^ 1), "A" if character != "A" else "B", "!", "é"):
            if other != character:
                yield envelope[:at] + other + envelope[at + 1 :]
        yield envelope[:at]
        yield envelope[:at] + envelope[at + 1 :]
        yield envelope[:at] + character + envelope[at:]


def test_envelope_does_not_open_when_any_character_changed() -> None:
    tried = {mutated for mutated in mutations(ENVELOPE) if mutated != ENVELOPE}
    assert len(tried) > 700
    for mutated in tried:
        refuses(DEK, mutated, PLACE)


def test_envelope_does_not_open_when_spelled_otherwise() -> None:
    for spelled in (ENVELOPE + "=", ENVELOPE + "\n", " " + ENVELOPE, ENVELOPE.upper(), ENVELOPE.replace("wg1", "wg2")):
        refuses(DEK, spelled, PLACE)


def test_envelope_has_one_spelling_when_its_last_character_has_spare_bits() -> None:
    sizes = set()
    for secret in (b"a", b"aaaa", b"aaaaaaa"):
        envelope = seal(DEK, Opened(secret, frozenset()), PLACE, dek_id="dek-1", nonce=NONCE)
        sizes.add(len(envelope.rpartition(".")[2]) % 4)
        for last in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_":
            if last != envelope[-1]:
                refuses(DEK, envelope[:-1] + last, PLACE)
    assert sizes == {0, 2, 3}


@pytest.mark.parametrize("field", ["tenant_id", "credential_id", "setting_key"])
@pytest.mark.parametrize("value", ["", "other", "tenant-1", "credential-1", "MINIMAX_API_KEY", "MINIMAX_2_7_API_KEY "])
def test_envelope_does_not_open_when_moved(field: str, value: str) -> None:
    moved = replace(PLACE, **{field: value})
    if moved != PLACE:
        refuses(DEK, ENVELOPE, moved)


def test_envelope_does_not_open_when_fields_are_swapped() -> None:
    fields = ("dek-1", PLACE.tenant_id, PLACE.credential_id, PLACE.setting_key)
    body = ENVELOPE.rpartition(".")[2]
    for dek_id, *place in permutations(fields):
        if (dek_id, *place) != fields:
            refuses(DEK, f"wg1.{dek_id}.{body}", Place(*place))


@pytest.mark.parametrize(
    "envelope", ["", "wg1", "wg1..", "wg1.dek-1.", "wg1.dek-1.AAAA", "gAAAAAB", "wg1.dek-1.A", "wg1.d.A=="]
)
def test_envelope_does_not_open_when_it_is_none(envelope: str) -> None:
    refuses(DEK, envelope, PLACE)


def test_envelope_does_not_open_with_another_key() -> None:
    refuses(OTHER_DEK, ENVELOPE, PLACE)
    refuses(KEK, ENVELOPE, PLACE)


def test_wrapped_key_does_not_open_when_any_bit_changed() -> None:
    wrapped = WRAPPED.wrapped
    flips = 0
    for at in range(len(wrapped)):
        for bit in range(8):
            flipped = wrapped[:at] + bytes([wrapped[at] ^ (1 << bit)]) + wrapped[at + 1 :]
            with pytest.raises(EnvelopeDamaged):
                unwrap(KEK, replace(WRAPPED, wrapped=flipped))
            flips += 1
    assert flips == (12 + 32 + 16) * 8


def test_wrapped_key_does_not_open_when_cut_or_moved_or_of_another_key() -> None:
    moved = [replace(WRAPPED, wrapped=WRAPPED.wrapped[:cut]) for cut in range(len(WRAPPED.wrapped))]
    moved += [replace(WRAPPED, dek_id="o"), replace(WRAPPED, tenant_id="o"), replace(WRAPPED, kek_id="o")]
    moved += [replace(WRAPPED, tenant_id=WRAPPED.dek_id, dek_id=WRAPPED.tenant_id)]
    for key in moved:
        with pytest.raises(EnvelopeDamaged):
            unwrap(KEK, key)
    with pytest.raises(EnvelopeDamaged):
        unwrap(OTHER_KEK, WRAPPED)


def test_secret_of_a_credential_does_not_open_as_a_wrapped_key() -> None:
    """The purpose is in the associated data: the two uses of the cipher never meet."""
    place = encode_fields("wg/dek/1", "k202611a", "tenant-1", "dek-1")
    assert place != encode_fields("wg/cred/1", "k202611a", "tenant-1", "dek-1")
    made = wrap(DEK, KEK, kek_id="tenant-1", tenant_id="dek-1", dek_id="credential-1", nonce=NONCE)
    with pytest.raises(EnvelopeDamaged):
        unwrap(DEK, replace(made, dek_id="MINIMAX_2_7_API_KEY"))


def test_refusal_says_nothing_of_the_content() -> None:
    with pytest.raises(EnvelopeDamaged) as refused:
        open_envelope(OTHER_DEK, ENVELOPE, PLACE)
    assert ENVELOPE[10:] not in str(refused.value)
    assert "tenant-1" not in str(refused.value)


# --- fingerprints --------------------------------------------------------------------------------------------------


def test_fingerprint_is_equal_when_only_white_space_around_differs() -> None:
    key = fingerprint_key(KEK)
    assert fingerprint(key, "sk-1") == fingerprint(key, " sk-1\n")
    assert fingerprint(key, "sk-1") != fingerprint(key, "sk-2")
    assert fingerprint(key, "sk-1") != fingerprint(fingerprint_key(OTHER_KEK), "sk-1")
    assert len(fingerprint(key, "sk-1")) == 8
