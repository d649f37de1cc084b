"""What of a request travels: all of it, or all but what the caller allows to be left out."""

from typing import Any

import orjson
import pytest

from gateway.carrying import CACHE_HINTS, DROPPABLE, Carried, carried
from gateway.chat_request import ChatRequest, read_chat_request
from gateway.parameters import PARAMETERS
from gateway.refusals import Refused
from keystore.providers import Provider, load_registry
from router.catalogue import Capability, Offer
from router.model_names import parse_name

REGISTRY = load_registry()


def request(**fields: Any) -> ChatRequest:
    body = {"model": "x", "messages": [{"role": "user", "content": "Hello"}], **fields}
    return read_chat_request(orjson.dumps(body))


def provider(provider_id: str) -> Provider:
    row = REGISTRY.get(provider_id)
    assert row is not None
    return row


def offer(provider_id: str, model: str, **capabilities: bool) -> Offer:
    known = {Capability(name): value for name, value in capabilities.items()}
    return Offer(provider_id, model, parse_name(model), "chat", capabilities=known)


CLAUDE = offer("anthropic", "claude-haiku-4-5")


def test_openai_wire_carries_everything() -> None:
    asked = request(seed=1, logit_bias={"1": 2}, user="someone@example.com")
    for may_drop in (True, False):
        assert carried(provider("minimax"), offer("minimax", "M"), asked, may_drop=may_drop) == Carried(asked)


def test_what_cannot_be_carried_is_refused_unless_it_may_be_dropped() -> None:
    asked = request(seed=1, logprobs=True, top_logprobs=3, temperature=0.5)
    refused = carried(provider("anthropic"), CLAUDE, asked, may_drop=False)
    assert isinstance(refused, Refused)
    left = carried(provider("anthropic"), CLAUDE, asked, may_drop=True)
    assert isinstance(left, Carried)
    assert left.dropped == ("logprobs", "seed", "top_logprobs")
    assert dict(left.request.parameters) == {"temperature": 0.5}
    assert (left.request.messages, left.request.body) == (asked.messages, asked.body)


def test_a_hint_to_a_cache_is_left_out_where_there_is_no_place_for_it_and_told() -> None:
    asked = request(prompt_cache_key="k", prompt_cache_retention="24h", temperature=0.5)
    left = carried(provider("anthropic"), CLAUDE, asked, may_drop=False)
    assert isinstance(left, Carried)
    assert left.dropped == ("prompt_cache_key", "prompt_cache_retention")
    assert dict(left.request.parameters) == {"temperature": 0.5}
    assert carried(provider("minimax"), offer("minimax", "M"), asked, may_drop=False) == Carried(asked)


@pytest.mark.parametrize(
    "fields",
    [{"n": 2}, {"response_format": {"type": "json_object"}}, {"modalities": ["text", "audio"]}],
)
def test_what_decides_what_an_answer_is_is_never_dropped(fields: dict[str, Any]) -> None:
    refused = carried(provider("anthropic"), CLAUDE, request(seed=1, **fields), may_drop=True)
    assert isinstance(refused, Refused)
    assert refused.param.partition(".")[0] in fields


def test_messages_are_never_dropped() -> None:
    asked = request(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/y"}}]}])
    refused = carried(provider("anthropic"), CLAUDE, asked, may_drop=True)
    assert isinstance(refused, Refused) and refused.param.startswith("messages")


def test_model_without_an_ability_is_not_asked_for_it() -> None:
    asked = request(reasoning_effort="low", parallel_tool_calls=True, tools=[{"type": "function"}])
    plain = offer("minimax", "M", reasoning=False, parallel_tools=False)
    left = carried(provider("minimax"), plain, asked, may_drop=True)
    assert isinstance(left, Carried) and left.dropped == ("parallel_tool_calls", "reasoning_effort")
    assert carried(provider("minimax"), plain, asked, may_drop=False) == Carried(asked)
    able = offer("minimax", "M", reasoning=True)
    assert carried(provider("minimax"), able, asked, may_drop=True) == Carried(asked)


def test_only_parameters_can_be_dropped() -> None:
    assert set(PARAMETERS) >= DROPPABLE > CACHE_HINTS
    assert not DROPPABLE & {"tools", "tool_choice", "response_format", "n", "stop", "max_tokens", "modalities", "audio"}
