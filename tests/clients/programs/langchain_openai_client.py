"""LangChain's ChatOpenAI and OpenAIEmbeddings."""

from collections.abc import Iterator

import common
from common import CALL, SAID, Facts, case
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel


class City(BaseModel):
    """A city."""

    city: str
    people: int


@tool
def lookup(city: str) -> str:
    """Look a city up."""
    return "Tromsø"


def chat(model: str = common.MODEL, token: str = common.TOKEN, retries: int = 0, **more: object) -> ChatOpenAI:
    return ChatOpenAI(base_url=f"{common.URL}/v1", api_key=token, model=model, max_retries=retries, **more)


def ask(message: str, **given: str) -> object:
    return chat(**given).invoke(message)


def stream(message: str) -> Iterator[str]:
    for chunk in chat().stream(message):
        yield str(chunk.content)


def tokens(usage: Facts | None) -> list[int] | None:
    return usage and [usage["input_tokens"], usage["output_tokens"]]


@case
def normal() -> Facts:
    answer = chat().invoke(SAID)
    return {"text": answer.content, "tokens": tokens(answer.usage_metadata)}


@case
def stream_usage() -> Facts:
    counted = [chunk.usage_metadata for chunk in chat(stream_usage=True).stream(SAID) if chunk.usage_metadata]
    return {"tokens": tokens(counted[-1]), "chunks_with_it": len(counted)}


@case
def tools() -> Facts:
    model = chat().bind_tools([lookup])
    said = [HumanMessage(CALL)]
    first = model.invoke(said)
    (call,) = first.tool_calls
    last = model.invoke([*said, first, ToolMessage(lookup.invoke(call["args"]), tool_call_id=call["id"])])
    return {"called": call["name"], "arguments": call["args"], "text": last.content}


@case
def tools_streamed() -> Facts:
    chunks = list(chat().bind_tools([lookup]).stream(CALL))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    (call,) = whole.tool_calls
    return {"called": call["name"], "arguments": call["args"]}


@case
def structured() -> Facts:
    return {"object": chat().with_structured_output(City).invoke(SAID).model_dump()}


@case
def structured_by_tool() -> Facts:
    return {"object": chat().with_structured_output(City, method="function_calling").invoke(SAID).model_dump()}


@case
def responses() -> Facts:
    answer = chat(use_responses_api=True, store=False).invoke(SAID)
    return {"text": answer.text, "tokens": tokens(answer.usage_metadata)}


@case
def responses_streamed() -> Facts:
    chunks = list(chat(use_responses_api=True, store=False).stream(SAID))
    return {"text": "".join(chunk.text for chunk in chunks)}


@case
def embeddings() -> Facts:
    # Of its own accord it sends token numbers, for which it fetches a tokenizer.
    made = OpenAIEmbeddings(
        base_url=f"{common.URL}/v1",
        api_key=common.TOKEN,
        model=common.EMBEDDING_MODEL,
        check_embedding_ctx_length=False,
    )
    return {"lengths": [len(one) for one in made.embed_documents(["one", "two words"])]}


common.add_streams(stream)
common.add_errors(ask)
common.add_retries(ask, retries=2)

if __name__ == "__main__":
    common.run()
