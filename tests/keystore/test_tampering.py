"""Nothing that was changed or moved opens (RELIABILITY G12): 50,000 tampers here, more with WARDGATE_TAMPERS=1000000.

Each tamper takes a sealed thing and what it is bound to, and changes one or more of them: a flipped bit, a cut, bytes
added, a field of another, or two fields exchanged. What is left as it was is drawn again.
"""

import base64
import json
import os
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from keystore.errors import EnvelopeDamaged
from keystore.sealing import (
    NONCE_BYTES,
    Opened,
    Place,
    open_envelope,
    seal,
    unwrap,
    unwrap_service_key,
    wrap,
    wrap_service_key,
)
from keystore.token_seal import SEALED, seal_token, token_seal_holds

TAMPERS = int(os.environ.get("WARDGATE_TAMPERS", "50000"))
GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "seals.json").read_text(encoding="utf-8"))
KEKS = {f"k20261{number}a": bytes([number]) * 16 + bytes(range(16)) for number in range(3)}
WORDS = ("tenant-1", "tenant-2", "dek-1", "dek-2", "c-1", "c-2", "MINIMAX_API_KEY", "MINIMAX_2_7_API_KEY", "", "|")


def spoiled(data: bytes, rng: random.Random) -> bytes:
    """The bytes with a bit flipped, cut, lengthened, or with two parts exchanged."""
    match rng.randrange(5):
        case 0:
            place = rng.randrange(len(data) * 8)
            return data[: place // 8] + bytes([data[place // 8] ^ (1 << place % 8)]) + data[place // 8 + 1 :]
        case 1:
            return data[: rng.randrange(len(data))]
        case 2:
            return data[rng.randrange(1, len(data)) :]
        case 3:
            return data + rng.randbytes(rng.randrange(1, 17))
        case _:
            cut = rng.randrange(1, len(data))
            return data[cut:] + data[:cut]


def moved(bound: Any, names: list[str], rng: random.Random) -> Any:
    """The same thing somewhere else: one field replaced by another's word, or two exchanged."""
    if rng.random() < 0.5:
        one, other = rng.sample(names, 2)
        exchanged: dict[str, Any] = {one: getattr(bound, other), other: getattr(bound, one)}
        return replace(bound, **exchanged)
    name = rng.choice(names)
    return replace(bound, **{name: rng.choice((*WORDS, getattr(bound, name) + "x", getattr(bound, name)[:-1]))})


def texts_of(bound: object) -> list[str]:
    return [field.name for field in fields(bound) if isinstance(getattr(bound, field.name), str)]  # type: ignore[arg-type]


def tamper_envelope(rng: random.Random) -> tuple[object, Callable[[], object]] | None:
    dek, dek_id = rng.randbytes(32), rng.choice(("dek-1", "dek-2"))
    place = Place("tenant-1", "c-1", "MINIMAX_API_KEY")
    content = Opened(b"sk-1234567890", frozenset({"api.minimax.io"}))
    made = seal(dek, content, place, dek_id=dek_id, nonce=rng.randbytes(12))
    if rng.random() < 0.5:
        there = moved(place, texts_of(place), rng)
        return None if there == place else ("moved", lambda: open_envelope(dek, made, there))
    if rng.random() < 0.3:
        other = made.replace(f".{dek_id}.", ".dek-3.")
        return "renamed", lambda: open_envelope(dek, other, place)
    body = base64.urlsafe_b64decode(made.rpartition(".")[2] + "==")
    text = base64.urlsafe_b64encode(spoiled(body, rng)).rstrip(b"=").decode()
    changed = f"wg1.{dek_id}.{text}"
    return None if changed == made else ("changed", lambda: open_envelope(dek, changed, place))


def tamper_tenant_key(rng: random.Random) -> tuple[object, Callable[[], object]] | None:
    kek_id = rng.choice(list(KEKS))
    key = wrap(
        KEKS[kek_id], rng.randbytes(32), kek_id=kek_id, tenant_id="tenant-1", dek_id="dek-1", nonce=rng.randbytes(12)
    )
    other = moved(key, ["tenant_id", "dek_id", "kek_id"], rng)
    if rng.random() < 0.5:
        other = replace(key, wrapped=spoiled(key.wrapped, rng))
    return None if other == key else ("tenant key", lambda: unwrap(KEKS[kek_id], other))


def tamper_service_key(rng: random.Random) -> tuple[object, Callable[[], object]] | None:
    kek_id = rng.choice(list(KEKS))
    names = {"kek_id": kek_id, "purpose": rng.choice(("token", "audit")), "key_id": "token-1"}
    key = wrap_service_key(KEKS[kek_id], rng.randbytes(32), **names, nonce=rng.randbytes(12))
    other = moved(key, ["purpose", "key_id", "kek_id"], rng)
    if rng.random() < 0.5:
        other = replace(key, wrapped=spoiled(key.wrapped, rng))
    return None if other == key else ("service key", lambda: unwrap_service_key(KEKS[kek_id], other))


KINDS = {"envelope": tamper_envelope, "tenant key": tamper_tenant_key, "service key": tamper_service_key}


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
@pytest.mark.timeout(1200)
def test_no_tampered_thing_opens(kind: Callable[[random.Random], tuple[object, Callable[[], object]] | None]) -> None:
    rng, tried, ways = random.Random(20261121), 0, Counter[object]()
    while tried < TAMPERS // 3 + 1:
        made = kind(rng)
        if made is None:
            continue
        way, attempt = made
        with pytest.raises(EnvelopeDamaged):
            attempt()
        tried, ways[way] = tried + 1, ways[way] + 1
    assert ways.total() == tried


def test_key_under_another_root_key_does_not_open() -> None:
    first, *others = KEKS.values()
    key = wrap(first, bytes(32), kek_id="a", tenant_id="t", dek_id="d", nonce=bytes(NONCE_BYTES))
    for kek in others:
        with pytest.raises(EnvelopeDamaged):
            unwrap(kek, key)


# --- golden vectors of what is not in sealing.json -------------------------------------------------------------------


@pytest.mark.parametrize("case", GOLDEN["service_keys"], ids=lambda case: str(case["purpose"]))
def test_service_keys_are_wrapped_as_ever(case: dict[str, str]) -> None:
    kek, key = bytes.fromhex(case["kek"]), bytes.fromhex(case["key"])
    names = {name: case[name] for name in ("kek_id", "purpose", "key_id")}
    made = wrap_service_key(kek, key, **names, nonce=bytes.fromhex(case["nonce"]))
    assert made.wrapped.hex() == case["wrapped"]
    assert unwrap_service_key(kek, made) == key


def golden_row() -> dict[str, Any]:
    row = dict(GOLDEN["token"]["row"])
    times = {name: datetime.fromisoformat(row[name]) for name in ("created_at", "expires_at")}
    return row | times | {"hash": bytes.fromhex(row["hash"])}


def test_tokens_are_sealed_as_ever() -> None:
    assert seal_token(bytes.fromhex(GOLDEN["token"]["key"]), golden_row()).hex() == GOLDEN["token"]["seal"]


@pytest.mark.parametrize("name", SEALED)
def test_every_field_of_a_token_is_under_the_seal(name: str) -> None:
    key, row = bytes.fromhex(GOLDEN["token"]["key"]), golden_row()
    row |= {"mac": bytes.fromhex(GOLDEN["token"]["seal"]), "mac_key_id": "token-1"}
    assert token_seal_holds(key, "token-1", row)
    for other in (None, "", "x") if row[name] is None else (None, ""):
        assert other == row[name] or not token_seal_holds(key, "token-1", row | {name: other})
