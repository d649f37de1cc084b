"""LlamaIndex's OpenAILike and OpenAILikeEmbedding."""

from collections.abc import Iterator

import common
from common import CALL, SAID, Facts, case
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel


class City(BaseModel):
    """A city."""

    city: str
    people: int


def lookup(city: str) -> str:
    """Look a city up."""
    return "Tromsø"


def chat(model: str = common.MODEL, token: str = common.TOKEN, retries: int = 0, **more: object) -> OpenAILike:
    return OpenAILike(
        api_base=f"{common.URL}/v1",
        api_key=token,
        model=model,
        max_retries=retries,
        is_chat_model=True,
        is_function_calling_model=True,
        **more,
    )


def user(message: str) -> list[ChatMessage]:
    return [ChatMessage(role=MessageRole.USER, content=message)]


def ask(message: str, **given: str) -> object:
    return chat(**given).chat(user(message))


def stream(message: str) -> Iterator[str]:
    for answer in chat().stream_chat(user(message)):
        yield answer.delta or ""


@case
def normal() -> Facts:
    answer = chat().chat(user(SAID))
    usage = answer.raw.usage
    return {"text": answer.message.content, "tokens": [usage.prompt_tokens, usage.completion_tokens]}


@case
def stream_usage() -> Facts:
    options = {"stream_options": {"include_usage": True}}
    answers = list(chat(additional_kwargs=options).stream_chat(user(SAID)))
    (usage,) = [answer.raw.usage for answer in answers if answer.raw.usage]
    return {"tokens": [usage.prompt_tokens, usage.completion_tokens]}


@case
def tools() -> Facts:
    model, tool = chat(), FunctionTool.from_defaults(lookup)
    first = model.chat_with_tools([tool], user_msg=CALL)
    (call,) = model.get_tool_calls_from_response(first)
    result = ChatMessage(
        role=MessageRole.TOOL, content=lookup(**call.tool_kwargs), additional_kwargs={"tool_call_id": call.tool_id}
    )
    last = model.chat_with_tools([tool], chat_history=[*user(CALL), first.message, result])
    return {"called": call.tool_name, "arguments": call.tool_kwargs, "text": last.message.content}


@case
def structured() -> Facts:
    answer = chat(should_use_structured_outputs=True).as_structured_llm(City).chat(user(SAID))
    return {"object": answer.raw.model_dump()}


@case
def embeddings() -> Facts:
    made = OpenAILikeEmbedding(
        api_base=f"{common.URL}/v1", api_key=common.TOKEN, model_name=common.EMBEDDING_MODEL, max_retries=0
    )
    return {"lengths": [len(one) for one in made.get_text_embedding_batch(["one", "two words"])]}


common.add_streams(stream)
common.add_errors(ask)
common.add_retries(ask, retries=2)
del common.CASES["retries_in_vain"]  # it waits as long as `retry-after` says, and looks at nothing else

if __name__ == "__main__":
    common.run()
