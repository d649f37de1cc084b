"""A secret shows itself to reveal() alone."""

import copy
import dataclasses
import json
import logging
import pickle
import traceback
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from keystore.secret import Secret

CANARY = "sk-canary-0123456789"


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        lambda secret: f"{secret}",
        lambda secret: f"{secret!r:>40}",
        lambda secret: "%s %r" % (secret, secret),  # noqa: UP031 -- as loggers format
        lambda secret: f"{[secret]} {{'k': secret}}",
        lambda secret: str(dir(secret)),
        lambda secret: str({"k": secret}),
    ],
)
def test_secret_is_masked_when_shown(show: Callable[[Secret], str]) -> None:
    shown = show(Secret(CANARY))
    assert CANARY not in shown
    assert "canary" not in shown


@pytest.mark.parametrize(
    "carry",
    [
        pickle.dumps,
        lambda secret: pickle.dumps([secret], protocol=0),
        copy.copy,
        copy.deepcopy,
        json.dumps,
        orjson.dumps,
        lambda secret: secret.__getstate__(),
        lambda secret: secret.__reduce__(),
        vars,
        iter,
        len,
        hash,
        bytes,
    ],
)
def test_secret_refuses_when_carried_away(carry: Callable[[Secret], object]) -> None:
    with pytest.raises(TypeError) as refused:
        carry(Secret(CANARY))
    assert CANARY not in "".join(traceback.format_exception(refused.value))


def test_secret_refuses_when_put_in_a_copied_dataclass() -> None:
    @dataclasses.dataclass
    class Holder:
        secret: Secret

    with pytest.raises(TypeError):
        dataclasses.asdict(Holder(Secret(CANARY)))


def test_secret_gives_its_text_when_revealed() -> None:
    assert Secret(CANARY).reveal() == CANARY


def test_secret_compares_by_text() -> None:
    assert Secret(CANARY) == Secret(CANARY)
    assert Secret(CANARY) != Secret(CANARY + "x")
    assert Secret("é\udc80") == Secret("é\udc80")
    assert Secret(CANARY) != CANARY


@pytest.mark.parametrize(("text", "error"), [("", ValueError), (None, TypeError), (b"sk", TypeError), (1, TypeError)])
def test_secret_refuses_when_it_would_hold_nothing(text: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Secret(text)


def test_secret_does_not_change_when_written_to() -> None:
    secret: Any = Secret(CANARY)
    with pytest.raises(AttributeError):
        secret._text = "other"
    with pytest.raises(AttributeError):
        del secret._text
    with pytest.raises(AttributeError):
        secret.other = 1
    assert secret.reveal() == CANARY


def test_secret_is_masked_when_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("test").error("key %s %r", Secret(CANARY), {"key": Secret(CANARY)})
    assert CANARY not in caplog.text
