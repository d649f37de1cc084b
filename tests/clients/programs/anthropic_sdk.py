"""Anthropic's SDK for Python on /v1/messages: every case with a provider on its own wire and with a translated one."""

from collections.abc import Iterator
from functools import partial

import anthropic
import common
from anthropic.types import ToolParam
from common import CALL, SAID, Facts

MOST = 500
TOOL: ToolParam = {"name": "lookup", "description": "Looks up.", "input_schema": common.TOOL_SCHEMA}
MODELS = {"native_": common.ANTHROPIC_MODEL, "translated_": common.MODEL}


def client(token: str = common.TOKEN, retries: int = 0) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=common.URL, auth_token=token, api_key=None, max_retries=retries)


def user(message: str) -> list[dict[str, object]]:
    return [{"role": "user", "content": message}]


def ask(message: str, model: str, token: str = common.TOKEN, retries: int = 0) -> object:
    return client(token, retries).messages.create(model=model, max_tokens=MOST, messages=user(message))


def stream(message: str, model: str) -> Iterator[str]:
    with client().messages.stream(model=model, max_tokens=MOST, messages=user(message)) as events:
        yield from events.text_stream


def said(message: anthropic.types.Message) -> Facts:
    text = "".join(block.text for block in message.content if block.type == "text")
    tokens = [message.usage.input_tokens, message.usage.output_tokens]
    return {"text": text, "tokens": tokens, "stop": message.stop_reason}


def normal(model: str) -> Facts:
    return said(client().messages.create(model=model, max_tokens=MOST, messages=user(SAID)))


def by_api_key(model: str) -> Facts:
    sdk = anthropic.Anthropic(base_url=common.URL, api_key=common.TOKEN, max_retries=0)
    return said(sdk.messages.create(model=model, max_tokens=MOST, messages=user(SAID)))


def by_bare_header(model: str) -> Facts:
    """As older SDKs and plain programs send it."""
    headers = {"x-api-key": common.TOKEN, "Authorization": anthropic.Omit()}
    message = client().messages.create(model=model, max_tokens=MOST, messages=user(SAID), extra_headers=headers)
    return said(message)


def stream_usage(model: str) -> Facts:
    with client().messages.stream(model=model, max_tokens=MOST, messages=user(SAID)) as events:
        kinds = [event.type for event in events]
        return {**said(events.get_final_message()), "first": kinds[0], "last": kinds[-1]}


def tools(model: str) -> Facts:
    messages = user(CALL)
    first = client().messages.create(model=model, max_tokens=MOST, messages=messages, tools=[TOOL])
    (call,) = [block for block in first.content if block.type == "tool_use"]
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "Tromsø"}
    messages += [{"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
    last = client().messages.create(model=model, max_tokens=MOST, messages=messages, tools=[TOOL])
    return {"called": call.name, "arguments": call.input, "stop": first.stop_reason, "text": said(last)["text"]}


def tools_streamed(model: str) -> Facts:
    with client().messages.stream(model=model, max_tokens=MOST, messages=user(CALL), tools=[TOOL]) as events:
        message = events.get_final_message()
    (call,) = [block for block in message.content if block.type == "tool_use"]
    return {"called": call.name, "arguments": call.input, "stop": message.stop_reason}


def structured(model: str) -> Facts:
    wanted = {"format": {"type": "json_schema", "schema": common.ANSWER_SCHEMA}}
    message = client().messages.create(model=model, max_tokens=MOST, messages=user(SAID), output_config=wanted)
    return {"object": common.json.loads(said(message)["text"])}


def count_tokens(model: str) -> Facts:
    raw = client().messages.with_raw_response.count_tokens(model=model, messages=user(SAID))
    return {"tokens": raw.parse().input_tokens, "estimated": raw.headers.get("x-wardgate-estimated")}


def models(model: str) -> Facts:
    return {"listed": model in [one.id for one in client().models.list()], "one": client().models.retrieve(model).id}


WORKS = (normal, by_api_key, by_bare_header, stream_usage, tools, tools_streamed, structured, count_tokens, models)
for prefix, name in MODELS.items():
    common.CASES.update({prefix + work.__name__: partial(work, name) for work in WORKS})
    common.add_streams(stream, prefix, model=name)
    common.add_errors(ask, prefix, model=name)
    common.add_retries(partial(ask, retries=2), prefix, model=name)

if __name__ == "__main__":
    common.run()
