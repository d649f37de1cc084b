"""What a model may think beyond the limit of its answer, where its provider's limit bounds the answer alone."""

from dataclasses import replace
from typing import Any

import orjson
import pytest

from keystore.providers import load_registry
from router.catalogue import Capability, Offer, build_catalogue
from router.model_names import parse_name
from router.most import most_written
from router.needs import Needs, read_needs
from router.overrides import load_overrides
from tests.router.test_bundled import catalogue

ALL = 262_144 + 100
OF_QWEN = {each.id: each for each in catalogue().of_provider("qwen")}
PLUS = OF_QWEN["qwen/qwen-plus"]


def needs(**more: Any) -> Needs:
    body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1} | more
    return read_needs(body).bounded(len(orjson.dumps(body)), body)


def named(name: str, **more: Any) -> Offer:
    return replace(PLUS, model=name, name=parse_name(name), **more)


@pytest.mark.parametrize(
    ("asked", "thoughts"),
    [
        ({}, ALL),
        ({"enable_thinking": True}, ALL),
        ({"enable_thinking": None, "thinking_budget": None}, ALL),
        ({"enable_thinking": False}, 0),
        ({"enable_thinking": False, "thinking_budget": 500}, 0),
        ({"thinking_budget": 500}, 4_196),
        ({"enable_thinking": True, "thinking_budget": 4_096}, 4_196),
        ({"thinking_budget": 4_097}, 16_484),
        ({"thinking_budget": 16_385}, ALL),
        ({"thinking_budget": 10**9}, ALL),
        ({"thinking_budget": 0}, ALL),
        ({"thinking_budget": -1}, ALL),
        ({"thinking_budget": True}, ALL),
        ({"thinking_budget": "500"}, ALL),
        ({"enable_thinking": 0}, ALL),
        ({"enable_thinking": "false"}, ALL),
        ({"chat_template_kwargs": {"enable_thinking": False}}, ALL),
        ({"enable_thinking": False, "chat_template_kwargs": {"enable_thinking": True}}, ALL),
        ({"enable_thinking": False, "reasoning_effort": "high"}, ALL),
        ({"thinking_budget": 500, "thinking": {"type": "enabled"}}, ALL),
        ({"enable_thinking": False, "provider": {"require_parameters": False}}, ALL),
        ({"enable_thinking": False, "provider": {"require_parameters": True}}, 0),
    ],
)
def test_what_the_caller_allows_is_held_and_else_all_that_a_model_may_think(
    asked: dict[str, Any], thoughts: int
) -> None:
    assert most_written(PLUS, needs(**asked)) == 1 + thoughts
    assert most_written(PLUS, needs(n=3, **asked)) == 3 * (1 + thoughts)


@pytest.mark.parametrize(
    ("name", "switched_off", "budgeted"),
    [
        ("qwen3-max", 0, 4_196),
        ("Qwen/Qwen3-8B", 0, 4_196),
        ("qwen3-next-80b-a3b-thinking", ALL, 4_196),
        ("qwen3-235b-a22b-thinking-2507", ALL, 4_196),
        ("qwen3.8-max", ALL, 4_196),
        ("qwq-plus", ALL, ALL),
        ("deepseek-r1", ALL, ALL),
        ("kimi-k2-thinking", ALL, ALL),
        ("glm-5.1", ALL, ALL),
    ],
)
def test_what_a_model_does_not_heed_is_not_believed(name: str, switched_off: int, budgeted: int) -> None:
    offer = named(name)
    assert most_written(offer, needs(enable_thinking=False)) == 1 + switched_off
    assert most_written(offer, needs(thinking_budget=500)) == 1 + budgeted


def test_model_that_does_not_think_is_held_at_its_limit_and_one_of_whom_nobody_knows_is_not() -> None:
    assert most_written(replace(PLUS, capabilities={Capability.REASONING: False}), needs()) == 1
    assert most_written(replace(PLUS, capabilities={}), needs()) == 1 + ALL
    assert most_written(replace(PLUS, mode="embedding"), needs()) == 1


def test_thoughts_are_as_long_as_an_answer_of_the_model_where_that_is_longer() -> None:
    offer = OF_QWEN["qwen/deepseek-v4-pro"]
    assert offer.max_output_tokens == 393_216
    assert most_written(offer, needs()) == 1 + 393_216 + 100


def test_without_a_limit_both_are_held() -> None:
    assert PLUS.max_output_tokens == 16_384
    assert most_written(PLUS, needs(max_tokens=None)) == 16_384 + ALL


def test_only_the_rows_that_say_so_think_beyond_the_limit() -> None:
    assert {row.id for row in load_registry().providers if row.thoughts_beyond_limit} == {"qwen"}
    beyond = {each.provider_id for each in catalogue().offers if each.thoughts_beyond_limit}
    assert beyond == {"qwen"}
    grok = next(each for each in catalogue().of_provider("xai") if each.is_chat)
    assert most_written(grok, needs()) == 1


def test_operators_row_is_of_its_models_and_of_those_that_the_operator_adds() -> None:
    row = {"wire": "openai", "base_url": "https://api.flow.example/v1", "hosts": ["api.flow.example"]}
    registry = load_registry({"flow": {**row, "thoughts_beyond_limit": 32_768}, "qwen": {"thoughts_beyond_limit": 0}})
    models = load_overrides({"flow/Qwen/Qwen3-8B": {"mode": "chat", "prices": {"input": "1", "output": "1"}}}, registry)
    listed = {"dashscope/qwen-plus": {"litellm_provider": "dashscope", "mode": "chat", "max_output_tokens": 9}}
    made = build_catalogue(listed, registry, version="v", overrides=models)
    flow, plus = made.offer("flow/Qwen/Qwen3-8B"), made.offer("qwen/qwen-plus")
    assert flow is not None and plus is not None
    assert most_written(flow, needs()) == 1 + 32_768 + 100
    assert most_written(flow, needs(thinking_budget=500)) == 1 + 4_196
    assert most_written(plus, needs()) == 1


def test_correction_of_the_input_keeps_what_is_allowed() -> None:
    assert needs(thinking_budget=500).corrected(7).thoughts == 500
