"""Health over real HTTP: who is ill is left alone, comes back, and is never another tenant's trouble."""

from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from gateway.sandbox.server import SandboxServer
from keystore.credentials import CredentialStore
from keystore.tenants import Tenant
from tests.harness import RunningGateway, eventually, sandbox_config

ASK = [{"role": "user", "content": "Hello"}]
AUTO = {"model": "auto", "messages": ASK}
ONE = {"model": "minimax/MiniMax-M2", "messages": ASK}
KEYS = {"MINIMAX_API_KEY": "sk-sandbox-m", "DEEPSEEK_API_KEY": "sk-sandbox-d"}
CHAT = "/v1/chat/completions"
BAD, GOOD = "sk-wrong-canary-0123456789", "sk-sandbox-good-0123456789"


def first_of(gateway: RunningGateway, token: str) -> dict[str, Any]:
    found: dict[str, Any] = gateway.post("/v1/route", token, AUTO).json()["ranked"][0]
    return found


def served(answer: httpx.Response) -> tuple[int, str, str, str]:
    names = ("provider", "model", "attempts")
    provider, model, attempts = (answer.headers.get(f"x-wardgate-{name}", "") for name in names)
    return answer.status_code, provider, model, attempts


# --- a provider that errs -------------------------------------------------------------------------------------------


def test_model_that_errs_is_left_alone_explained_and_comes_back_by_a_probe(
    gateway: RunningGateway, sandbox: SandboxServer
) -> None:
    token = gateway.tenant("acme", "team", KEYS)
    first = first_of(gateway, token)
    sandbox.script("status=500", match={"model": first["model"]}, repeat=True)
    for _ in range(5):
        assert served(gateway.post(CHAT, token, AUTO))[::3] == (200, "2")

    answer = gateway.post(CHAT, token, AUTO)
    assert served(answer)[::3] == (200, "1") and answer.headers["x-wardgate-model"] != first["model"]
    told = gateway.post("/v1/route", token, AUTO).json()
    (lost,) = (item for item in told["rejected"] if item["id"] == first["id"])
    assert lost["reason"] == "cooling_down"
    assert "(last: server_error, HTTP 500); it is left alone until 20" in lost["detail"]
    assert gateway.metric("wardgate_health_marks", ill="erring") == 1
    assert gateway.metric("wardgate_health_changes_total", provider=first["provider"], change="ill") == 1
    (line,) = gateway.logs.records("health.changed")
    assert (line["provider"], line["model"], line["ill"]) == (first["provider"], first["model"], "erring")

    sandbox.clear()
    wanted = (200, first["provider"], first["model"], "1")
    eventually(lambda: served(gateway.post(CHAT, token, AUTO)) == wanted)
    assert gateway.metric("wardgate_health_changes_total", provider=first["provider"], change="well") == 1


def test_last_candidate_is_asked_all_the_same_and_explained(gateway: RunningGateway, sandbox: SandboxServer) -> None:
    token = gateway.tenant("acme", "team", {"MINIMAX_API_KEY": "sk-sandbox-m"})
    sandbox.script("status=500", repeat=True)
    for _ in range(7):
        assert served(gateway.post(CHAT, token, ONE))[0] == 502
    assert len(sandbox.requests()) == 7
    (candidate,) = gateway.post("/v1/route", token, ONE).json()["ranked"]
    (doubt,) = candidate["doubts"]
    assert doubt["reason"] == "cooling_down"
    assert doubt["detail"].endswith("it is asked all the same, since no candidate that is well is left")

    sandbox.clear()
    assert served(gateway.post(CHAT, token, ONE))[0] == 200
    assert gateway.post("/v1/route", token, ONE).json()["ranked"][0]["doubts"] == []


def test_model_whose_streams_break_after_they_began_is_left_alone(
    gateway: RunningGateway, sandbox: SandboxServer
) -> None:
    token = gateway.tenant("acme", "team", KEYS)
    first = first_of(gateway, token)
    sandbox.script("cut-after=1", match={"model": first["model"]}, repeat=True)
    for _ in range(5):
        answer = gateway.post(CHAT, token, AUTO | {"stream": True})
        assert answer.status_code == 200 and "[DONE]" not in answer.text
    eventually(lambda: first_of(gateway, token)["id"] != first["id"])


def test_failures_of_one_tenants_requests_cool_nothing_for_another(
    gateway: RunningGateway, sandbox: SandboxServer
) -> None:
    odd, well = gateway.tenant("odd", "team", KEYS), gateway.tenant("well", "team", KEYS)
    first = first_of(gateway, odd)
    sandbox.script(*["status=500"] * 5, match={"model": first["model"]})
    for _ in range(5):
        gateway.post(CHAT, odd, AUTO)
    assert first_of(gateway, odd)["id"] != first["id"]
    assert first_of(gateway, well)["id"] == first["id"]
    assert served(gateway.post(CHAT, well, AUTO)) == (200, first["provider"], first["model"], "1")


def test_deadline_of_the_request_itself_is_not_the_providers_fault(tmp_path: Path, sandbox: SandboxServer) -> None:
    limits = "[limits]\nanswer_timeout_s = 0.15\n"
    with RunningGateway(tmp_path, sandbox_config(sandbox.url, limits)) as gateway:
        token = gateway.tenant("acme", "team", {"MINIMAX_API_KEY": "sk-sandbox-m"})
        sandbox.script("silence", repeat=True)
        for _ in range(5):
            assert gateway.post(CHAT, token, ONE).status_code == 504
        assert gateway.post("/v1/route", token, ONE).json()["ranked"][0]["doubts"] == []


# --- a key that is rejected -----------------------------------------------------------------------------------------


def test_rejected_key_is_not_sent_again_touches_no_other_tenant_and_a_new_one_serves_at_once(
    gateway: RunningGateway, sandbox: SandboxServer
) -> None:
    bad = gateway.tenant("acme", "team", {"MINIMAX_API_KEY": BAD})
    other = gateway.tenant("globex", "team", {"MINIMAX_API_KEY": GOOD})
    assert gateway.post(CHAT, bad, ONE).json()["error"]["code"] == "provider_key_rejected"
    for _ in range(6):
        answer = gateway.post(CHAT, bad, ONE)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["fault"]) == (424, "provider_key_rejected", "tenant_key")
    assert answer.headers["x-should-retry"] == "false"
    assert "minimax rejected the key stored as MINIMAX_API_KEY (key_rejected, HTTP 401) at 20" in error["message"]
    assert "it is not used until it changes" in error["message"]
    assert len(sandbox.requests()) == 1
    assert served(gateway.post(CHAT, other, ONE))[::3] == (200, "1")

    gateway.set_key("acme", "MINIMAX_API_KEY", GOOD)
    eventually(lambda: gateway.post(CHAT, bad, ONE).status_code == 200, 3.0)
    assert "canary" not in gateway.logs.getvalue()


def test_another_label_is_tried_first_after_a_rejection(gateway: RunningGateway, sandbox: SandboxServer) -> None:
    token = gateway.tenant("acme", "team")

    async def work(store: CredentialStore, tenant: Tenant) -> None:
        await store.set(tenant, "MINIMAX_API_KEY", BAD)
        await store.set(tenant, "MINIMAX_API_KEY", GOOD, label="spare", position=1)

    _with_keys(gateway, work)
    assert served(gateway.post(CHAT, token, ONE))[::3] == (200, "2")
    for _ in range(3):
        answer = gateway.post(CHAT, token, ONE)
        assert served(answer)[::3] == (200, "1")
        assert answer.headers["x-wardgate-key-label"] == "spare"
    assert len(sandbox.requests()) == 5


def _with_keys(gateway: RunningGateway, work: Callable[[CredentialStore, Tenant], Awaitable[None]]) -> None:
    async def do(keystore: Any) -> None:
        await work(keystore.credentials, await keystore.tenants.get("acme"))

    gateway.operate(do)


# --- a key at its limit ---------------------------------------------------------------------------------------------


def test_key_at_its_limit_rests_until_the_reset_for_that_model_and_tenant_alone(
    gateway: RunningGateway, sandbox: SandboxServer
) -> None:
    token, other = gateway.tenant("acme", "team", KEYS), gateway.tenant("globex", "team", KEYS)
    first = first_of(gateway, token)
    sandbox.script("status=429; retry-after=60", match={"model": first["model"]})
    assert served(gateway.post(CHAT, token, AUTO))[::3] == (200, "2")
    assert first_of(gateway, token)["id"] != first["id"]
    assert served(gateway.post(CHAT, token, AUTO))[::3] == (200, "1")
    (lost,) = (item for item in gateway.post("/v1/route", token, AUTO).json()["rejected"] if item["id"] == first["id"])
    assert lost["reason"] == "cooling_down" and "limits the rate of the key stored as" in lost["detail"]
    assert served(gateway.post(CHAT, other, AUTO)) == (200, first["provider"], first["model"], "1")


def test_short_wait_is_waited_for_when_nobody_else_is_left(gateway: RunningGateway, sandbox: SandboxServer) -> None:
    token = gateway.tenant("acme", "team", {"MINIMAX_API_KEY": "sk-sandbox-m"})
    sandbox.script("status=429; retry-after-ms=100")
    assert served(gateway.post(CHAT, token, ONE))[::3] == (200, "2")
    assert gateway.settled("wardgate_upstream_attempts_total") == 2
    (line,) = gateway.logs.records("request.completed")[-1:]
    assert isinstance(line["overhead_s"], float) and line["overhead_s"] < 0.1  # the wait is the upstream's time


# --- failover is bounded --------------------------------------------------------------------------------------------


def test_request_that_refers_to_a_providers_file_goes_to_nobody_else(
    gateway: RunningGateway, sandbox: SandboxServer
) -> None:
    keys = {"OPENAI_API_KEY": "sk-sandbox-o", "MINIMAX_API_KEY": "sk-sandbox-m"}
    token = gateway.tenant("acme", "team", keys)
    content = [{"type": "text", "text": "Read it"}, {"type": "file", "file": {"file_id": "file-abc"}}]
    sandbox.script("status=500", repeat=True)
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": content}]}
    answer = gateway.post(CHAT, token, body)
    error = answer.json()["error"]
    assert (answer.status_code, error["stopped_by"]) == (502, "provider_state"), error
    assert "the request refers to what only this provider has" in error["message"]
    assert len(sandbox.requests()) == 1


@pytest.mark.parametrize("behaviour", ["status=409", "status=500"])
def test_storm_of_failures_costs_a_tenth_more_attempts_and_no_more(
    gateway: RunningGateway, sandbox: SandboxServer, behaviour: str
) -> None:
    """RELIABILITY G7 in small. A 409 makes nobody ill, so that the budget alone holds the attempts."""
    token = gateway.tenant("acme", "team", KEYS)
    sandbox.script(behaviour, repeat=True)
    requests, headers = 80, {"authorization": f"Bearer {token}"}
    with httpx.Client(base_url=gateway.url, headers=headers, timeout=60) as client, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.post(CHAT, json=AUTO), range(requests)))
    assert {answer.status_code for answer in answers} == {502}
    attempts = len(sandbox.requests())
    assert requests < attempts <= requests * 1.1 + 10
    assert max(int(answer.headers["x-wardgate-attempts"]) for answer in answers) <= 3
    refused = gateway.settled("wardgate_retry_budget_exhausted_total")
    stopped = [answer for answer in answers if answer.json()["error"].get("stopped_by") == "retry_budget"]
    assert refused == len(stopped) == len(gateway.logs.records("retry.refused"))
    if behaviour == "status=409":
        assert stopped
        assert "the retry budget is spent" in stopped[0].json()["error"]["message"]


def test_bad_keys_of_some_tenants_take_nobody_elses_failover(gateway: RunningGateway, sandbox: SandboxServer) -> None:
    body = ONE | {"models": ["minimax/MiniMax-M2", "deepseek/deepseek-v4-flash"]}
    for number in range(12):  # more than the budget of a quiet gateway
        token = gateway.tenant(f"bad-{number}", "team", KEYS | {"MINIMAX_API_KEY": BAD})
        assert served(gateway.post(CHAT, token, body))[::3] == (200, "2")
    sandbox.script("status=500", match={"model": "MiniMax-M2"}, repeat=True)
    assert served(gateway.post(CHAT, gateway.tenant("good", "team", KEYS), body))[::3] == (200, "2")
    assert gateway.settled("wardgate_retry_budget_exhausted_total") == 0


# --- replicas -------------------------------------------------------------------------------------------------------


@pytest.fixture
def replicas(tmp_path: Path, sandbox: SandboxServer, fresh_redis: str) -> Iterator[list[RunningGateway]]:
    with ExitStack() as stack:
        config = sandbox_config(sandbox.url)
        yield [stack.enter_context(RunningGateway(tmp_path, config, redis_url=fresh_redis)) for _ in range(2)]


@pytest.mark.services
def test_what_one_replica_learns_the_other_knows_and_redis_holds_no_key(
    replicas: list[RunningGateway], sandbox: SandboxServer, fresh_redis: str
) -> None:
    one, other = replicas
    token = one.tenant("acme", "team", {"MINIMAX_API_KEY": BAD, "DEEPSEEK_API_KEY": GOOD})
    eventually(lambda: [each.metric("wardgate_health_shared") for each in replicas] == [1, 1])
    assert one.post(CHAT, token, ONE).status_code == 424
    eventually(lambda: other.metric("wardgate_health_marks", ill="key_rejected") == 1)
    assert other.post(CHAT, token, ONE).json()["error"]["code"] == "provider_key_rejected"
    assert len(sandbox.requests()) == 1

    deepseek = {"model": first_of(one, token)["id"], "messages": ASK}
    sandbox.script("status=429; retry-after=60")
    assert one.post(CHAT, token, deepseek).status_code == 429
    eventually(lambda: other.metric("wardgate_health_marks", ill="rate_limited") == 1)

    with redis.Redis.from_url(fresh_redis) as client:
        held = repr(
            [client.xrange(key) if client.type(key) == b"stream" else client.dump(key) for key in client.scan_iter()]
        )
    assert "deepseek" in held
    assert BAD not in held and GOOD not in held and "canary" not in held


def test_redis_that_is_away_is_said_and_stops_nothing(tmp_path: Path, sandbox: SandboxServer) -> None:
    gateway = RunningGateway(tmp_path, sandbox_config(sandbox.url), redis_url="redis://:pass-canary@127.0.0.1:9/0")
    with gateway:
        token = gateway.tenant("acme", "team", KEYS)
        assert served(gateway.post(CHAT, token, AUTO))[0] == 200
        (line,) = gateway.logs.records("health.not_shared")
        assert (line["level"], line["why"]) == ("warning", "ConnectionError")
        assert gateway.metric("wardgate_health_shared") == 0
    assert "canary" not in gateway.logs.getvalue()


def test_what_is_no_url_of_redis_stops_the_start_without_repeating_it(tmp_path: Path, sandbox: SandboxServer) -> None:
    with pytest.raises(Exception, match="WARDGATE_REDIS_URL is no URL of a Redis") as caught:
        RunningGateway(tmp_path, sandbox_config(sandbox.url), redis_url="http://u:canary@nowhere").__enter__()
    assert "canary" not in str(caught.value)


def test_option_that_no_url_of_redis_may_have_stops_the_start(tmp_path: Path, sandbox: SandboxServer) -> None:
    url = "redis://:canary@127.0.0.1:9/0?decode_responses=canary"
    with pytest.raises(Exception, match="WARDGATE_REDIS_URL has an option that is not known") as caught:
        RunningGateway(tmp_path, sandbox_config(sandbox.url), redis_url=url).__enter__()
    assert "protocol" in str(caught.value) and "canary" not in str(caught.value)
