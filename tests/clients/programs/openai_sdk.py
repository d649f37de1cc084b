"""OpenAI's SDK for Python, both majors: chat completions, responses, embeddings, models."""

import json
from collections.abc import Iterator

import common
import openai
from common import ANTHROPIC_MODEL, CALL, EMBEDDING_MODEL, MODEL, SAID, Facts, case
from pydantic import BaseModel

TOOL = {"type": "function", "function": {"name": "lookup", "parameters": common.TOOL_SCHEMA}}


class City(BaseModel):
    city: str
    people: int


def client(token: str = common.TOKEN, retries: int = 0) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{common.URL}/v1", api_key=token, max_retries=retries)


def user(message: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": message}]


def ask(message: str, model: str = MODEL, token: str = common.TOKEN) -> object:
    return client(token).chat.completions.create(model=model, messages=user(message))


def stream(message: str, model: str = MODEL) -> Iterator[str]:
    with client().chat.completions.create(model=model, messages=user(message), stream=True) as chunks:
        for chunk in chunks:
            yield chunk.choices[0].delta.content or ""


@case
def normal() -> Facts:
    answer = client().chat.completions.create(model=MODEL, messages=user(SAID))
    text = answer.choices[0].message.content
    return {"text": text, "tokens": [answer.usage.prompt_tokens, answer.usage.completion_tokens]}


@case
def stream_usage() -> Facts:
    options = {"include_usage": True}
    chunks = list(
        client().chat.completions.create(model=MODEL, messages=user(SAID), stream=True, stream_options=options)
    )
    usage = chunks[-1].usage
    return {
        "tokens": [usage.prompt_tokens, usage.completion_tokens],
        "chunks_with_it": sum(bool(c.usage) for c in chunks),
    }


@case
def stream_no_usage() -> Facts:
    chunks = list(client().chat.completions.create(model=MODEL, messages=user(SAID), stream=True))
    return {"chunks_with_it": sum(bool(chunk.usage) for chunk in chunks)}


@case
def tools() -> Facts:
    said = user(CALL)
    first = client().chat.completions.create(model=MODEL, messages=said, tools=[TOOL]).choices[0].message
    (call,) = first.tool_calls
    said += [first, {"role": "tool", "tool_call_id": call.id, "content": "Tromsø"}]
    last = client().chat.completions.create(model=MODEL, messages=said, tools=[TOOL])
    arguments = json.loads(call.function.arguments)
    return {"called": call.function.name, "arguments": arguments, "text": last.choices[0].message.content}


@case
def tools_streamed() -> Facts:
    with client().chat.completions.stream(model=MODEL, messages=user(CALL), tools=[TOOL]) as events:
        message = events.get_final_completion().choices[0].message
    (call,) = message.tool_calls
    return {"called": call.function.name, "arguments": json.loads(call.function.arguments)}


@case
def structured() -> Facts:
    answer = client().chat.completions.parse(model=MODEL, messages=user(SAID), response_format=City)
    return {"object": answer.choices[0].message.parsed.model_dump()}


@case
def error_400_field() -> Facts:
    fields = {"no_such_field": 1}  # the model is translated, so nobody knows what it would mean
    try:
        client().chat.completions.create(model=ANTHROPIC_MODEL, messages=user(SAID), extra_body=fields)
    except openai.APIStatusError as error:
        return {**common.raised(error), "param": error.param}
    return {"error": None}


@case
def embeddings() -> Facts:
    packed = client().embeddings.create(model=EMBEDDING_MODEL, input=["one", "two words"])
    plain = client().embeddings.create(model=EMBEDDING_MODEL, input=["one", "two words"], encoding_format="float")
    of_tokens = client().embeddings.create(model=EMBEDDING_MODEL, input=[[1, 2, 3]])
    alike = [one.embedding for one in packed.data] == [one.embedding for one in plain.data]
    tokens = [packed.usage.prompt_tokens, of_tokens.usage.prompt_tokens]
    return {"alike": alike, "length": len(packed.data[0].embedding), "tokens": tokens}


@case
def models() -> Facts:
    ids = [model.id for model in client().models.list()]
    return {"listed": MODEL in ids, "one": client().models.retrieve(MODEL).id}


@case
def responses() -> Facts:
    answer = client().responses.create(model=MODEL, input=SAID, store=False)
    return {"text": answer.output_text, "tokens": [answer.usage.input_tokens, answer.usage.output_tokens]}


@case
def responses_streamed() -> Facts:
    with client().responses.stream(model=MODEL, input=SAID, store=False) as events:
        kinds = [event.type for event in events]
        answer = events.get_final_response()
    return {"text": answer.output_text, "first": kinds[0], "last": kinds[-1]}


@case
def responses_structured() -> Facts:
    answer = client().responses.parse(model=MODEL, input=SAID, text_format=City, store=False)
    return {"object": answer.output_parsed.model_dump()}


@case
def responses_tools() -> Facts:
    tool = {"type": "function", "name": "lookup", "parameters": common.TOOL_SCHEMA, "strict": True}
    said: list[object] = user(CALL)
    first = client().responses.create(model=MODEL, input=said, tools=[tool], store=False)
    (call,) = [item for item in first.output if item.type == "function_call"]
    said += [*first.output, {"type": "function_call_output", "call_id": call.call_id, "output": "Tromsø"}]
    last = client().responses.create(model=MODEL, input=said, tools=[tool], store=False)
    return {"called": call.name, "arguments": json.loads(call.arguments), "text": last.output_text}


@case
def responses_cut() -> Facts:
    def pieces() -> Iterator[str]:
        with client().responses.create(model=MODEL, input=common.ordered("cut-after=3"), stream=True) as events:
            for event in events:
                yield event.delta if event.type == "response.output_text.delta" else ""

    heard = common.hear(pieces())
    return {"pieces": len(heard.pieces), "error": None, **heard.error}


@case
def responses_error_429() -> Facts:
    try:
        client().responses.create(model=MODEL, input=common.ordered("status=429; retry-after=7"))
    except openai.APIStatusError as error:
        return common.raised(error)
    return {"error": None}


@case
def without_v1() -> Facts:
    short = openai.OpenAI(base_url=common.URL, api_key=common.TOKEN, max_retries=0)
    answer = short.chat.completions.create(model=MODEL, messages=user(SAID))
    return {"text": answer.choices[0].message.content}


common.add_streams(stream)
common.add_streams(stream, "translated_", model=ANTHROPIC_MODEL)
common.add_errors(ask)
common.add_retries(lambda message: client(retries=2).chat.completions.create(model=MODEL, messages=user(message)))

if __name__ == "__main__":
    common.run()
