"""The text of a token: made to a pattern, read strictly, wrong without asking anyone."""

import hashlib
import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystore.token_format import TokenKind, is_token_id, new_token, parse_token

SHAPE = re.compile(r"wg_(live|test|admin)_[0-9A-Za-z]{12}_[0-9A-Za-z]{43}[0-9A-Za-z]{6}")
GOLDEN = "wg_live_0M9ODf6X0ft3_0Eoh211G4c8wtVWM00my5rsNSFlKgaWqQ4mb8gdEqno2CRf5R"


def counting(start: int = 1) -> Callable[[int], bytes]:
    """A random source that counts, so that a token made from it never changes."""

    def random(size: int) -> bytes:
        return bytes((start + each) % 256 for each in range(size))

    return random


def test_token_is_the_golden_one() -> None:
    made = new_token(TokenKind.LIVE, counting())
    assert made.text.reveal() == GOLDEN
    assert made.hash == hashlib.sha256(made.secret.reveal().encode()).digest()


@pytest.mark.parametrize("kind", list(TokenKind))
@settings(deadline=None)
@given(data=st.data())
def test_token_has_the_shape_and_is_read_again(kind: TokenKind, data: st.DataObject) -> None:
    draws: list[bytes] = []

    def random(size: int) -> bytes:
        drawn = data.draw(st.binary(min_size=size, max_size=size))
        draws.append(drawn)
        return b"\x01" * size if len(draws) > 3 else drawn

    made = new_token(kind, random)
    text = made.text.reveal()
    assert SHAPE.fullmatch(text)
    assert text.startswith(f"wg_{kind.value}_{made.id}_")
    assert parse_token(text) == made
    assert is_token_id(made.id)


@pytest.mark.parametrize("first", [b"\xff", b"\x00"])
def test_id_is_drawn_again_when_the_draw_is_too_large(first: bytes) -> None:
    draws = iter([first * 9, b"\x05" * 9, b"\x07" * 32])
    made = new_token(TokenKind.TEST, lambda size: next(draws))
    if first == b"\xff":
        assert list(draws) == []
    assert is_token_id(made.id)


def test_token_is_malformed_when_any_one_character_is_wrong() -> None:
    alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_"
    typos = {GOLDEN[:at] + other + GOLDEN[at + 1 :] for at in range(len(GOLDEN)) for other in alphabet} - {GOLDEN}
    assert len(typos) > 4000
    assert parse_token(GOLDEN)
    assert not [typo for typo in typos if parse_token(typo)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sk-1234567890",
        GOLDEN[:-1],
        GOLDEN + "0",
        GOLDEN + "\n",
        " " + GOLDEN,
        GOLDEN.replace("live", "adm"),
        GOLDEN.replace("live", "test"),
        GOLDEN.replace("live", "admin"),
        GOLDEN.replace("_", "-"),
        GOLDEN[:20] + "é" + GOLDEN[21:],
        GOLDEN[:20] + "\x00" + GOLDEN[21:],
        GOLDEN[:20] + "٣" + GOLDEN[21:],
        "wg_live_' OR 1=1 --_" + "a" * 49,
        GOLDEN * 1000,
    ],
)
def test_token_is_malformed_when_it_is_none(text: str) -> None:
    assert parse_token(text) is None


@pytest.mark.parametrize("text", ["", "a" * 11, "a" * 13, "a" * 11 + "\x00", "a" * 11 + "-", "é" * 12])
def test_token_id_is_refused_when_it_is_none(text: str) -> None:
    assert not is_token_id(text)


def test_token_hides_its_secret_when_shown() -> None:
    made = new_token(TokenKind.LIVE, counting())
    assert made.secret.reveal() not in repr(made)
    assert made.secret.reveal() not in str(made.text)
