"""The signature: as the specification's example has it, as the documentation verifies it, never with an empty key."""

import base64
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.alerting.signing import signature
from keystore.errors import EnvelopeDamaged
from keystore.secret import Secret
from keystore.webhook_seal import new_secret

DOCS = Path(__file__).parents[3] / "docs" / "alerts.md"


def documented() -> Callable[[str, dict[str, str], bytes], bool]:
    """The ten lines of docs/alerts.md."""
    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    found: Callable[[str, dict[str, str], bytes], bool] = names["verified"]
    return found


def headers(signed: str, message_id: str = "msg_1", stamp: int | None = None) -> dict[str, str]:
    when = int(time.time()) if stamp is None else stamp
    return {"webhook-id": message_id, "webhook-timestamp": str(when), "webhook-signature": signed}


def test_example_of_the_specification() -> None:
    """The vector that Standard Webhooks' libraries are tested with."""
    secret = Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    made = signature([secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@given(st.binary(max_size=500))
def test_documentation_verifies_what_is_signed_and_nothing_else(body: bytes) -> None:
    verified, secret, other = documented(), new_secret(os.urandom), new_secret(os.urandom)
    now = int(time.time())
    both = signature([Secret(secret), Secret(other)], "msg_1", now, body)
    assert verified(secret, headers(both), body) and verified(other, headers(both), body)
    assert not verified(secret, headers(both), body + b" ")
    assert not verified(secret, headers(both, "msg_2"), body)
    assert not verified(secret, headers(both, stamp=now - 1), body)
    assert not verified(secret, headers(signature([Secret(other)], "msg_1", now, body)), body)
    old = now - 301
    assert not verified(secret, headers(signature([Secret(secret)], "msg_1", old, body), stamp=old), body)


@pytest.mark.parametrize(
    "text",
    [
        "whsec_",
        " ",
        "whsec_" + base64.b64encode(b"x" * 23).decode(),
        base64.b64encode(b"x" * 32).decode(),  # nothing says that it is one
        "whsec_not base64!",
    ],
)
def test_empty_or_short_secret_signs_nothing(text: str) -> None:
    with pytest.raises(EnvelopeDamaged):
        signature([Secret(text)], "msg_1", 0, b"{}")


def test_no_secret_signs_nothing() -> None:
    with pytest.raises(EnvelopeDamaged):
        signature([], "msg_1", 0, b"{}")
