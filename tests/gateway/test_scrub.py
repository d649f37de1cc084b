"""Secrets are taken out of foreign text and out of the environment."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.environment import scrub_environment
from gateway.scrub import LONGEST, MASK, WINDOW, scrub, tells_of

LEAKS = [
    "Incorrect API key provided: sk-proj-abcdEFGH1234567890.",
    "key=sk-ant-api03-AbCdEf_123456-xyz rejected",
    "GET https://x.test/v1beta/models?key=AIzaSyA1234567890abcdefg&alt=sse failed",
    "https://x.test/?alt=sse&key=plain-secret-value failed",
    "header was 'Bearer abc.def-123456789'",
    "token wg_live_abcdefghijkl_0123456789012345678901234567890123456789012abcdef",
    "gsk_abcdefghijklmnop and xai-abcdefghijklmnop and nvapi-abcdefgh and hf_abcdefghij",
    "jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
]
PIECES = ["abcd", "AbCdEf", "SyA123", "plain-secret", "def-123", "0123456789", "ghijkl", "c2ln"]


@pytest.mark.parametrize(("text", "piece"), list(zip(LEAKS, PIECES, strict=True)))
def test_what_looks_like_a_key_is_taken_out(text: str, piece: str) -> None:
    assert piece in text and piece not in scrub(text)


def test_the_exact_secret_is_taken_out_whatever_it_looks_like() -> None:
    assert "hunter2" not in scrub("you sent hunter2, hunter2!", "hunter2", "")


KEY = "Zq7-plainLookingKey.0123456789+abcdef"
ECHOES = [
    KEY,
    KEY[:12],
    KEY[-12:],
    KEY.lower(),
    KEY.upper(),
    base64.b64encode(KEY.encode()).decode(),
    base64.b64encode(b"Bearer " + KEY.encode()).decode(),
    KEY.replace("+", "%2B"),
]


@pytest.mark.parametrize("echo", ECHOES)
def test_no_echo_of_a_key_without_a_known_shape_passes(echo: str) -> None:
    told = scrub(f"you sent <{echo}>, İ", KEY).replace(MASK + MASK, MASK).replace("=", "")
    assert told == f"you sent <{MASK}>, İ"


def test_internal_urls_and_control_characters_do_not_pass() -> None:
    told = scrub(
        "see https://docs.acme.com/errors?x=1 not http://10.0.3.7:8000/internal http://db.svc.cluster.local/x\x1b[31m"
    )
    assert told == f"see https://docs.acme.com/errors?x=1 not {MASK} {MASK} [31m"


def test_plain_sentences_are_left_alone_and_long_ones_are_cut() -> None:
    sentence = "max_tokens must be at most 8192; see https://x.test/docs?page=2 (task skip-list)."
    assert scrub(sentence) == sentence
    assert len(scrub("a " * 5000)) == LONGEST + 3


def test_provider_variables_leave_the_environment_and_others_stay() -> None:
    kept = {"PATH": "/bin", "HOME": "/", "WARDGATE_DATABASE_URL": "x", "WARDGATE_ADMIN_API_KEY": "x", "HTTP_PROXY": "p"}
    names = """OPENAI_API_KEY MINIMAX_API_KEY MINIMAX_API_BASE AWS_SECRET_ACCESS_KEY AWS_PROFILE AZURE_API_VERSION
        GOOGLE_APPLICATION_CREDENTIALS OPENAI_BASE_URL HF_TOKEN ANTHROPIC_AUTH_TOKEN LITELLM_MODE ODD_NAME"""
    gone = dict.fromkeys(names.split(), "canary")
    environ = kept | gone
    assert scrub_environment(environ, ["ODD_NAME"]) == sorted(gone)
    assert environ == kept


SIGNS = st.text("abAB1-_", min_size=1, max_size=40)


@given(SIGNS, SIGNS)
def test_a_short_text_that_tells_of_a_secret_is_found(text: str, secret: str) -> None:
    width = min(WINDOW, len(text))
    pieces = {text[at : at + width].lower() for at in range(len(text) - width + 1)}
    assert tells_of(text, secret) is any(piece in secret.lower() for piece in pieces)


@pytest.mark.parametrize("text", ["sk-proj-abcdEFGH12345", "x.sk-abcdefgh", "AIzaSyA1234567890abc", "req:gsk_abcdefgh"])
def test_what_looks_like_any_key_tells(text: str) -> None:
    assert tells_of(text, "another") and not tells_of("req_0f-9".replace("-", "_"), "another")
