"""Several keys behind one provider: labels, former versions, fields and base URLs of their own, over real HTTP."""

import hashlib
import threading
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.sandbox.server import SandboxServer
from keystore.credentials import CredentialStore
from keystore.tenants import Tenant
from tests.harness import RunningGateway, eventually, sandbox_config

ASK = {"model": "minimax/MiniMax-M2", "messages": [{"role": "user", "content": "Hello"}]}
NAME = "MINIMAX_API_KEY"
GOOD, OTHER, BAD = "sk-sandbox-good-0123456789", "sk-sandbox-other-012345678", "sk-wrong-canary-0123456789"


def with_keys(gateway: RunningGateway, work: Callable[[CredentialStore, Tenant], Awaitable[object]]) -> str:
    """A token of a tenant `acme` after `work` on its keys."""
    token = gateway.tenant("acme", "team")
    gateway.operate(lambda keystore: _do(keystore, work))
    return token


async def _do(keystore: object, work: Callable[[CredentialStore, Tenant], Awaitable[object]]) -> None:
    tenant = await keystore.tenants.get("acme")  # type: ignore[attr-defined]
    await work(keystore.credentials, tenant)  # type: ignore[attr-defined]


def keys_seen(sandbox: SandboxServer) -> list[str]:
    names = {hashlib.sha256(key.encode()).hexdigest(): key for key in (GOOD, OTHER, BAD)}
    return [names[request.key_sha256] for request in sandbox.requests()]


def test_next_key_of_the_provider_answers_when_the_first_is_rejected(
    gateway: RunningGateway, sandbox: SandboxServer
) -> None:
    async def work(store: CredentialStore, tenant: Tenant) -> None:
        await store.set(tenant, NAME, BAD)
        await store.set(tenant, NAME, GOOD, label="spare", position=1)

    token = with_keys(gateway, work)
    explained = gateway.post("/v1/route", token, ASK).json()["ranked"][0]["key"]
    assert explained["labels"] == ["", "spare"]
    assert explained["remarks"] == ["MINIMAX_API_KEY holds 2 keys: the one without a label, spare"]
    answer = gateway.post("/v1/chat/completions", token, ASK)
    assert answer.status_code == 200, answer.text
    told = {name: answer.headers.get(f"x-wardgate-{name}") for name in ("attempts", "key", "key-label", "provider")}
    assert told == {"attempts": "2", "key": "byok:canonical", "key-label": "spare", "provider": "minimax"}
    assert keys_seen(sandbox) == [BAD, GOOD]
    labels = {"from_provider": "minimax", "to_provider": "minimax", "reason": "key_rejected"}
    assert gateway.settled("wardgate_fallbacks_total", **labels) == 1
    (line,) = gateway.logs.records("fallback")
    assert line["to_key"] == "spare"
    assert "canary" not in gateway.logs.getvalue() + answer.text


@pytest.mark.parametrize(
    ("behaviour", "reason"), [("status=429; retry-after=1", "rate_limited"), ("status=402", "quota_exhausted")]
)
@pytest.mark.parametrize("stream", [False, True])
def test_next_key_answers_when_the_first_is_at_its_limit(
    gateway: RunningGateway, sandbox: SandboxServer, behaviour: str, reason: str, stream: bool
) -> None:
    async def work(store: CredentialStore, tenant: Tenant) -> None:
        await store.set(tenant, NAME, OTHER)
        await store.set(tenant, NAME, GOOD, label="spare", position=1)

    token = with_keys(gateway, work)
    sandbox.script(behaviour, match={"key": OTHER})
    answer = gateway.post("/v1/chat/completions", token, {**ASK, "stream": stream})
    assert (answer.status_code, answer.headers["x-wardgate-key-label"]) == (200, "spare")
    assert gateway.settled("wardgate_fallbacks_total", to_provider="minimax", reason=reason) == 1


def test_keys_of_one_provider_count_as_attempts(gateway: RunningGateway, sandbox: SandboxServer) -> None:
    async def work(store: CredentialStore, tenant: Tenant) -> None:
        for number in range(5):
            await store.set(tenant, NAME, f"sk-wrong-{number}-0123456789", label=f"k{number}", position=number)

    token = with_keys(gateway, work)
    answer = gateway.post("/v1/chat/completions", token, ASK)
    assert (answer.status_code, answer.json()["error"]["code"]) == (424, "provider_key_rejected")
    assert len(sandbox.requests()) == 3


def test_server_error_is_no_reason_for_another_key(gateway: RunningGateway, sandbox: SandboxServer) -> None:
    async def work(store: CredentialStore, tenant: Tenant) -> None:
        await store.set(tenant, NAME, OTHER)
        await store.set(tenant, NAME, GOOD, label="spare", position=1)

    token = with_keys(gateway, work)
    sandbox.script("status=500", match={"key": OTHER})
    assert gateway.post("/v1/chat/completions", token, ASK).status_code == 502
    assert keys_seen(sandbox) == [OTHER]


def test_former_version_stands_in_while_its_grace_lasts_and_only_for_a_rejected_key(
    gateway: RunningGateway, sandbox: SandboxServer
) -> None:
    async def work(store: CredentialStore, tenant: Tenant) -> None:
        await store.set(tenant, NAME, GOOD)
        await store.set(tenant, NAME, BAD, grace=timedelta(hours=1))

    async def again(store: CredentialStore, tenant: Tenant) -> None:
        await store.set(tenant, NAME, OTHER, grace=timedelta(hours=1))

    token = with_keys(gateway, work)
    answer = gateway.post("/v1/chat/completions", token, ASK)
    assert (answer.status_code, answer.headers["x-wardgate-key-former"]) == (200, "1")
    assert keys_seen(sandbox) == [BAD, GOOD]
    (line,) = gateway.logs.records("fallback")
    assert line["to_key"] == "version 1"

    gateway.operate(lambda keystore: _do(keystore, again))
    sandbox.script("status=429; retry-after=9", match={"key": OTHER}, repeat=True)
    eventually(lambda: gateway.post("/v1/chat/completions", token, ASK).status_code == 429, 2.0)
    assert keys_seen(sandbox)[-1] == OTHER

    async def ends(store: CredentialStore, tenant: Tenant) -> None:
        await store.remove(tenant, NAME)
        await store.set(tenant, NAME, BAD)

    gateway.operate(lambda keystore: _do(keystore, ends))
    eventually(lambda: gateway.post("/v1/chat/completions", token, ASK).status_code == 424, 2.0)


def test_value_that_was_rejected_is_not_asked_again_under_another_name(
    gateway: RunningGateway, sandbox: SandboxServer
) -> None:
    """Versions 3 and 1, and a label, hold one and the same value."""

    async def work(store: CredentialStore, tenant: Tenant) -> None:
        await store.set(tenant, NAME, BAD, grace=timedelta(hours=1))
        await store.set(tenant, NAME, GOOD, grace=timedelta(hours=1))
        await store.set(tenant, NAME, BAD, grace=timedelta(hours=1))
        await store.set(tenant, NAME, BAD, label="spare", position=1)

    token = with_keys(gateway, work)
    answer = gateway.post("/v1/chat/completions", token, ASK)
    assert (answer.status_code, answer.headers["x-wardgate-key-former"]) == (200, "2")
    assert keys_seen(sandbox) == [BAD, GOOD]


def test_former_version_stands_in_for_its_own_successor_alone(gateway: RunningGateway, sandbox: SandboxServer) -> None:
    """A limit of the first key and a rejected second one are no reason to ask with what the first has replaced."""

    async def work(store: CredentialStore, tenant: Tenant) -> None:
        await store.set(tenant, NAME, GOOD)
        await store.set(tenant, NAME, OTHER, grace=timedelta(hours=1))
        await store.set(tenant, NAME, BAD, label="spare", position=1)

    token = with_keys(gateway, work)
    sandbox.script("status=429; retry-after=9", match={"key": OTHER})
    assert gateway.post("/v1/chat/completions", token, ASK).status_code == 424
    assert keys_seen(sandbox) == [OTHER, BAD]


def test_former_version_stands_in_though_a_later_label_is_at_its_limit(
    gateway: RunningGateway, sandbox: SandboxServer
) -> None:
    async def work(store: CredentialStore, tenant: Tenant) -> None:
        await store.set(tenant, NAME, GOOD)
        await store.set(tenant, NAME, BAD, grace=timedelta(hours=1))
        await store.set(tenant, NAME, OTHER, label="spare", position=1)

    token = with_keys(gateway, work)
    sandbox.script("status=429; retry-after=9", match={"key": OTHER})
    answer = gateway.post("/v1/chat/completions", token, ASK)
    assert (answer.status_code, answer.headers.get("x-wardgate-key-former")) == (200, "1")
    assert keys_seen(sandbox) == [BAD, OTHER, GOOD]


def test_rotation_of_a_key_under_load_costs_no_request(gateway: RunningGateway, sandbox: SandboxServer) -> None:
    """The new version serves new requests, what is under way ends on the old one, and no request mixes two."""

    async def first(store: CredentialStore, tenant: Tenant) -> None:
        await store.set(tenant, NAME, f"{GOOD}-0")

    token = with_keys(gateway, first)
    done, answers = threading.Event(), list[tuple[int, str | None]]()

    def call() -> None:
        while not done.is_set():
            answer = gateway.post("/v1/chat/completions", token, ASK)
            answers.append((answer.status_code, answer.headers.get("x-wardgate-attempts")))

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for number in range(1, 13):

        async def rotate(store: CredentialStore, tenant: Tenant, value: str = f"{GOOD}-{number}") -> None:
            pending = await store.set(tenant, NAME, value, activate=False)
            await store.activate(tenant, NAME, pending.version, grace=timedelta(minutes=5))

        gateway.operate(lambda keystore, rotate=rotate: _do(keystore, rotate))  # type: ignore[misc]
    done.set()
    for caller in callers:
        caller.join()
    assert set(answers) == {(200, "1")}
    used = [request.key_sha256 for request in sandbox.requests()]
    assert len(used) == len(answers)
    assert len(set(used)) > 3
    newest = hashlib.sha256(f"{GOOD}-12".encode()).hexdigest()
    gateway.post("/v1/chat/completions", token, ASK)
    assert sandbox.requests()[-1].key_sha256 == newest


@pytest.fixture
def second_sandbox() -> Iterator[SandboxServer]:
    with SandboxServer() as server:
        yield server


def test_key_with_a_base_url_of_its_own_goes_there_and_nowhere_else(
    tmp_path: Path, sandbox: SandboxServer, second_sandbox: SandboxServer
) -> None:
    here, there = (one.url.removeprefix("http://") for one in (sandbox, second_sandbox))
    row = f'[providers.minimax]\nbase_url = "{sandbox.url}/v1"\nhosts = ["{here}", "{there}"]\ntenant_base_url = true\n'
    with RunningGateway(tmp_path, sandbox_config(sandbox.url, row, {"openai": "/v1"})) as gateway:

        async def work(store: CredentialStore, tenant: Tenant) -> None:
            await store.set(tenant, NAME, BAD, fields={"base_url": f"{second_sandbox.url}/v1"})
            await store.set(tenant, NAME, GOOD, label="spare", position=1)

        token = with_keys(gateway, work)
        answer = gateway.post("/v1/chat/completions", token, ASK)
        assert (answer.status_code, answer.headers["x-wardgate-key-label"]) == (200, "spare")
    assert keys_seen(second_sandbox) == [BAD]
    assert keys_seen(sandbox) == [GOOD]


def test_fields_that_come_with_a_key_fill_in_the_providers_url(
    tmp_path: Path, sandbox: SandboxServer, second_sandbox: SandboxServer
) -> None:
    ports = [one.url.rpartition(":")[2] for one in (sandbox, second_sandbox)]
    row = (
        '[providers.corner]\nwire = "openai"\nbase_url = "http://127.0.0.1:{port}/v1"\nhosts = ["127.0.0.1:{port}"]\n'
        'open_models = true\nfields = { port = "the port of the corner shop" }\n'
    )
    with RunningGateway(tmp_path, sandbox_config(sandbox.url, row, {"openai": "/v1"})) as gateway:
        tokens = [gateway.tenant(f"tenant-{port}") for port in ports]
        for port, key in zip(ports, (GOOD, OTHER), strict=True):

            async def work(store: CredentialStore, tenant: Tenant, port: str = port, key: str = key) -> None:
                await store.set(tenant, "CORNER_API_KEY", key, fields={"port": port})

            slug = f"tenant-{port}"

            async def of_tenant(keystore: object, slug: str = slug, work: object = work) -> None:
                tenant = await keystore.tenants.get(slug)  # type: ignore[attr-defined]
                await work(keystore.credentials, tenant)  # type: ignore[operator, attr-defined]

            gateway.operate(of_tenant)
        for token in tokens:
            answer = gateway.post("/v1/chat/completions", token, {**ASK, "model": "corner/any"})
            assert answer.status_code == 200, answer.text
    assert (keys_seen(sandbox), keys_seen(second_sandbox)) == ([GOOD], [OTHER])
