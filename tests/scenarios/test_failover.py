"""Attempts walk the ranked candidates before the first byte; whose fault it is decides whether there is a next one."""

import openai
import pytest

from gateway.sandbox.server import SandboxServer
from tests.harness import RunningGateway, sandbox_config

ASK = [{"role": "user", "content": "Hello"}]
KEYS = {"MINIMAX_API_KEY": "sk-sandbox-m", "DEEPSEEK_API_KEY": "sk-sandbox-d", "OPENAI_API_KEY": "sk-sandbox-o"}


def first_two(gateway: RunningGateway, token: str) -> tuple[str, str]:
    """The provider ranked first for auto, and the first other provider behind it."""
    ranked = gateway.post("/v1/route", token, {"model": "auto", "messages": ASK}).json()["ranked"]
    first = ranked[0]["provider"]
    return first, next(item["provider"] for item in ranked if item["provider"] != first)


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("status=401", "key_rejected"),
        ("status=429; retry-after=2", "rate_limited"),
        ("status=500", "server_error"),
        ("status=503", "server_error"),
        ("redirect=http://127.0.0.1:9/elsewhere", "malformed"),
        ("reset", None),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_next_candidate_answers_when_the_first_provider_fails_before_the_first_byte(
    gateway: RunningGateway, sandbox: SandboxServer, behaviour: str, reason: str | None, stream: bool
) -> None:
    token = gateway.tenant("acme", "team", KEYS)
    first = gateway.post("/v1/route", token, {"model": "auto", "messages": ASK}).json()["ranked"][0]
    sandbox.script(behaviour, match={"model": first["model"]})

    answer = gateway.post("/v1/chat/completions", token, {"model": "auto", "messages": ASK, "stream": stream})

    assert answer.status_code == 200, answer.text
    assert answer.headers["x-wardgate-attempts"] == "2"
    assert (answer.headers["x-wardgate-provider"], answer.headers["x-wardgate-model"]) != (
        first["provider"],
        first["model"],
    )
    labels = {"from_provider": first["provider"]} | ({"reason": reason} if reason else {})
    assert gateway.settled("wardgate_fallbacks_total", **labels) == 1
    assert gateway.settled("wardgate_upstream_attempts_total", outcome="ok") == 1
    (line,) = gateway.logs.records("fallback")
    assert line["from_provider"] == first["provider"]


@pytest.mark.parametrize("provider", ["minimax/MiniMax-M2", "anthropic/claude-haiku-4-5", "google/gemini-2.5-flash"])
@pytest.mark.parametrize(
    "behaviour", ["malformed-after=1; malformed=chunk", "cut-after=1", "cut-after=1; cut=fin", "reset"]
)
def test_broken_answer_is_never_asked_for_again_behind_our_back(
    gateway: RunningGateway, sandbox: SandboxServer, provider: str, behaviour: str
) -> None:
    keys = {"MINIMAX_API_KEY": "sk-sandbox-m", "ANTHROPIC_API_KEY": "sk-sandbox-a", "GOOGLE_API_KEY": "sk-sandbox-g"}
    token = gateway.tenant("acme", "team", keys)
    sandbox.script(behaviour)
    answer = gateway.post("/v1/chat/completions", token, {"model": provider, "messages": ASK})
    assert answer.status_code == 502 and answer.json()["error"]["fault"] == "provider", answer.text
    assert len(sandbox.requests()) == 1


def test_rejected_key_moves_on_to_another_provider_and_not_to_another_model_of_the_same_key(
    gateway: RunningGateway, sandbox: SandboxServer
) -> None:
    token = gateway.tenant("acme", "team", KEYS)
    first, other = first_two(gateway, token)
    gateway.set_key("acme", f"{first.upper()}_API_KEY", "sk-wrong-key-0000")

    answer = gateway.post("/v1/chat/completions", token, {"model": "auto", "messages": ASK})

    assert (answer.status_code, answer.headers["x-wardgate-provider"]) == (200, other)
    assert len(sandbox.requests()) == 2


def test_rejected_key_is_the_tenants_fault_and_is_not_echoed_when_no_other_candidate_is_left(
    gateway: RunningGateway,
) -> None:
    client = gateway.client(
        gateway.tenant("acme", "team", {"MINIMAX_API_KEY": "sk-wrong-canary-123456"}), max_retries=2
    )
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model="minimax/MiniMax-M2", messages=ASK)  # type: ignore[arg-type]
    error = caught.value
    assert (error.status_code, error.code) == (424, "provider_key_rejected")
    assert error.response.headers["x-should-retry"] == "false"
    assert isinstance(error.body, dict) and error.body["fault"] == "tenant_key"
    assert "canary" not in str(error.body) and "canary" not in gateway.logs.getvalue()


@pytest.mark.parametrize("behaviour", ["status=500", "status=429; retry-after=30"])
def test_second_provider_answers_when_every_model_of_the_first_fails(
    gateway: RunningGateway, sandbox: SandboxServer, behaviour: str
) -> None:
    token = gateway.tenant("acme", "team", KEYS)
    first, other = first_two(gateway, token)
    ranked = gateway.post("/v1/route", token, {"model": "auto", "messages": ASK}).json()["ranked"]
    for item in ranked:
        if item["provider"] == first:
            sandbox.script(behaviour, match={"model": item["model"]}, repeat=True)
    answer = gateway.post("/v1/chat/completions", token, {"model": "auto", "messages": ASK})
    assert (answer.status_code, answer.headers["x-wardgate-provider"]) == (200, other), answer.text
    assert answer.headers["x-wardgate-attempts"] == "2"


def test_what_a_wire_cannot_carry_costs_no_attempt_and_is_told_by_route(
    gateway: RunningGateway, sandbox: SandboxServer
) -> None:
    keys = {"GOOGLE_API_KEY": "sk-sandbox-g", "MINIMAX_API_KEY": "sk-sandbox-m"}
    token = gateway.tenant("acme", "team", keys)
    body = {"model": "auto", "messages": ASK, "min_p": 0.5}
    route = gateway.post("/v1/route", token, body).json()
    assert {item["provider"] for item in route["ranked"]} == {"minimax"}
    lost = [item for item in route["rejected"] if item["provider"] == "google" and item["reason"] == "lacks_parameter"]
    assert lost and "min_p" in lost[0]["detail"]
    answer = gateway.post("/v1/chat/completions", token, body)
    assert (answer.status_code, answer.headers["x-wardgate-attempts"]) == (200, "1"), answer.text


def test_callers_own_400_goes_to_no_other_candidate(gateway: RunningGateway, sandbox: SandboxServer) -> None:
    token = gateway.tenant("acme", "team", KEYS)
    sandbox.script("status=400", repeat=True)
    answer = gateway.post("/v1/chat/completions", token, {"model": "auto", "messages": ASK})
    assert (answer.status_code, answer.json()["error"]["fault"]) == (400, "caller")
    assert len(sandbox.requests()) == 1


def test_attempts_are_three_at_most_and_the_error_lists_them(gateway: RunningGateway, sandbox: SandboxServer) -> None:
    token = gateway.tenant("acme", "team", KEYS)
    sandbox.script("status=500", repeat=True)
    answer = gateway.post("/v1/chat/completions", token, {"model": "auto", "messages": ASK})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["fault"]) == (502, "provider_error", "provider")
    assert len(error["attempts"]) == 3 == len(sandbox.requests())
    assert answer.headers["x-wardgate-attempts"] == "3"


def test_rate_limit_keeps_the_providers_retry_after_when_it_is_the_last_word(
    gateway: RunningGateway, sandbox: SandboxServer
) -> None:
    token = gateway.tenant("acme", "team", {"MINIMAX_API_KEY": "sk-sandbox-m"})
    sandbox.script("status=429; retry-after=7", repeat=True)
    answer = gateway.post("/v1/chat/completions", token, {"model": "minimax/MiniMax-M2", "messages": ASK})
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert (answer.headers["retry-after"], answer.headers["x-should-retry"]) == ("7", "true")


def test_long_wait_forbids_the_sdks_retry(gateway: RunningGateway, sandbox: SandboxServer) -> None:
    token = gateway.tenant("acme", "team", {"MINIMAX_API_KEY": "sk-sandbox-m"})
    sandbox.script("status=429; retry-after=130", repeat=True)
    answer = gateway.post("/v1/chat/completions", token, {"model": "minimax/MiniMax-M2", "messages": ASK})
    assert (answer.headers["retry-after"], answer.headers["x-should-retry"]) == ("130", "false")


def test_bare_family_goes_to_every_provider_that_is_held(gateway: RunningGateway, sandbox: SandboxServer) -> None:
    token = gateway.tenant("acme", "team", {"OPENAI_API_KEY": "sk-sandbox-o"})
    answer = gateway.post("/v1/chat/completions", token, {"model": "gpt-4o", "messages": ASK})
    assert answer.headers["x-wardgate-provider"] == "openai"
    assert answer.headers["x-wardgate-model"].startswith("gpt-4o")


def test_silent_provider_is_left_for_the_next_one_when_the_first_event_does_not_come(
    tmp_path: "object", sandbox: SandboxServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    limits = "[limits]\nfirst_event_timeout_s = 0.4\nanswer_timeout_s = 8\n"
    with RunningGateway(tmp_path_factory.mktemp("gw"), sandbox_config(sandbox.url, limits)) as gateway:
        token = gateway.tenant("acme", "team", KEYS)
        first = gateway.post("/v1/route", token, {"model": "auto", "messages": ASK}).json()["ranked"][0]
        sandbox.script("silence", match={"model": first["model"]})
        answer = gateway.post("/v1/chat/completions", token, {"model": "auto", "messages": ASK, "stream": True})
        assert answer.status_code == 200 and answer.headers["x-wardgate-attempts"] == "2"
        assert gateway.settled("wardgate_fallbacks_total", reason="timeout") == 1


def test_unreachable_provider_is_an_error_that_says_so(tmp_path_factory: pytest.TempPathFactory) -> None:
    config = sandbox_config("http://127.0.0.1:9", providers={"minimax": "/v1"})
    with RunningGateway(tmp_path_factory.mktemp("gw"), config) as gateway:
        token = gateway.tenant("acme", "team", {"MINIMAX_API_KEY": "sk-sandbox-m"})
        answer = gateway.post("/v1/chat/completions", token, {"model": "minimax/MiniMax-M2", "messages": ASK})
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["fault"]) == (502, "provider_unreachable", "provider")
