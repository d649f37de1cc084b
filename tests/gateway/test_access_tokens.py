"""Access tokens under many requests at once: one exchange for all, whoever of them goes away."""

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gateway.access_tokens import AccessTokens
from gateway.chat_request import ChatRequest
from gateway.transport import Transport
from gateway.upstream import UpstreamCall, UpstreamFailed
from keystore.keyring import Credential
from keystore.providers import provider_from_row
from keystore.resolve import Store, Via
from keystore.secret import Secret
from router.failure import FailureKind

ROW = provider_from_row(
    "cloud",
    {
        "wire": "openai",
        "base_url": "https://cloud.example/v1",
        "hosts": ["cloud.example"],
        "auth": "google-service-account",
        "token_url": "https://tokens.example/token",
    },
)
GIVEN: Mapping[str, object] = {"access_token": "canary-token", "expires_in": 3600}


class Endpoint:
    """A token endpoint that answers when its gate is open, and counts."""

    def __init__(self, answer: Mapping[str, object], status: int = 200) -> None:
        self.answer = (status, json.dumps(answer).encode())
        self.gate = asyncio.Event()
        self.asked = 0

    async def post_form(self, url: str, fields: Mapping[str, str]) -> tuple[int, bytes]:
        self.asked += 1
        await self.gate.wait()
        return self.answer

    def tokens(self) -> AccessTokens:
        return AccessTokens(cast(Transport, self))


@pytest.fixture(scope="module")
def account() -> str:
    key = generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return json.dumps(
        {"type": "service_account", "client_email": "a@b.example", "private_key_id": "k", "private_key": pem}
    )


def call_of(account: str, model: str = "m") -> UpstreamCall:
    key = Credential(
        ROW.id, Secret(account), frozenset(ROW.hosts), "CLOUD_API_KEY", Via.CANONICAL, Store.CREDENTIALS, ROW
    )
    return UpstreamCall(ROW, model, key, cast(ChatRequest, None))


async def ask(tokens: AccessTokens, call: UpstreamCall) -> str:
    async with tokens.ready(call) as ready:
        return ready.credential.secret.reveal()


async def test_one_exchange_serves_all_though_those_who_began_it_go_away(account: str) -> None:
    endpoint = Endpoint(GIVEN)
    tokens, call = endpoint.tokens(), call_of(account)
    asking = []
    for _ in range(20):
        asking += [asyncio.create_task(ask(tokens, call)) for _ in range(3)]
        await asyncio.sleep(0)
        asking[-3].cancel()
        with suppress(asyncio.CancelledError):
            await asking[-3]
    endpoint.gate.set()
    told = await asyncio.gather(*asking, return_exceptions=True)
    assert [one for one in told if not isinstance(one, asyncio.CancelledError)] == ["canary-token"] * 40
    assert endpoint.asked == 1


async def test_failed_exchange_is_told_to_each_that_waited_and_tried_again_by_the_next(account: str) -> None:
    endpoint = Endpoint({}, status=400)
    tokens = endpoint.tokens()
    calls = [call_of(account, f"m{number}") for number in range(5)]
    asking = [asyncio.create_task(ask(tokens, call)) for call in calls]
    await asyncio.sleep(0)
    endpoint.gate.set()
    failed: list[Any] = await asyncio.gather(*asking, return_exceptions=True)
    assert all(isinstance(one, UpstreamFailed) for one in failed)
    assert [(one.failure.kind, one.failure.model) for one in failed] == [
        (FailureKind.KEY_REJECTED, call.model) for call in calls
    ]
    assert endpoint.asked == 1
    with pytest.raises(UpstreamFailed):
        await ask(tokens, calls[0])
    assert endpoint.asked == 2


@pytest.mark.parametrize(
    ("lasts", "asked"),
    [(3600, 1), (3599.5, 1), (10**400, 1), (200, 2), (-5, 2), ("3600", 2), (True, 2), (None, 2)],
    ids=lambda value: str(value)[:9],
)
async def test_token_is_remembered_as_long_as_it_is_told_to_last(account: str, lasts: object, asked: int) -> None:
    endpoint = Endpoint({"access_token": "canary-token", "expires_in": lasts})
    endpoint.gate.set()
    tokens, call = endpoint.tokens(), call_of(account)
    assert [await ask(tokens, call) for _ in range(2)] == ["canary-token"] * 2
    assert endpoint.asked == asked


async def test_token_that_is_rejected_late_does_not_take_the_next_one_along(account: str) -> None:
    endpoint = Endpoint(GIVEN)
    endpoint.gate.set()
    tokens, call = endpoint.tokens(), call_of(account)

    async def rejected(after: asyncio.Event, entered: asyncio.Event) -> None:
        async with tokens.ready(call):
            entered.set()
            await after.wait()
            raise UpstreamFailed(refused)

    refused = (await refusal(account)).failure
    sooner, later, began = asyncio.Event(), asyncio.Event(), [asyncio.Event(), asyncio.Event()]
    both = [asyncio.create_task(rejected(each, one)) for each, one in zip((sooner, later), began, strict=True)]
    for one in began:
        await one.wait()
    sooner.set()
    with pytest.raises(UpstreamFailed):
        await both[0]
    assert await ask(tokens, call) == "canary-token"
    later.set()
    with pytest.raises(UpstreamFailed):
        await both[1]
    await ask(tokens, call)
    assert endpoint.asked == 2


async def refusal(account: str) -> UpstreamFailed:
    endpoint = Endpoint({}, status=401)
    endpoint.gate.set()
    with pytest.raises(UpstreamFailed) as refused:
        await ask(endpoint.tokens(), call_of(account))
    return refused.value
