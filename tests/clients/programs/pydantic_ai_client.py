"""pydantic-ai's agents, by chat completions and by responses."""

from collections.abc import AsyncIterator

import common
from common import CALL, SAID, Facts, case
from openai import AsyncOpenAI
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider


class City(BaseModel):
    """A city."""

    city: str
    people: int


def provider(token: str = common.TOKEN, retries: int = 0) -> OpenAIProvider:
    sdk = AsyncOpenAI(base_url=f"{common.URL}/v1", api_key=token, max_retries=retries)
    return OpenAIProvider(openai_client=sdk)


def agent(model: str = common.MODEL, token: str = common.TOKEN, retries: int = 0, **more: object) -> Agent:
    return Agent(OpenAIChatModel(model, provider=provider(token, retries)), **more)


async def ask(message: str, **given: str) -> object:
    return (await agent(**given).run(message)).output


async def stream(message: str) -> AsyncIterator[str]:
    async with agent().run_stream(message) as answer:
        async for piece in answer.stream_text(delta=True, debounce_by=None):
            yield piece


@case
def normal() -> Facts:
    answer = agent().run_sync(SAID)
    return {"text": answer.output, "tokens": [answer.usage.input_tokens, answer.usage.output_tokens]}


@case
def stream_usage() -> Facts:
    async def work() -> list[int]:
        async with agent().run_stream(SAID) as answer:
            await answer.get_output()
            return [answer.usage.input_tokens, answer.usage.output_tokens]

    return {"tokens": common.asyncio.run(work())}


def _tools(asked: Agent) -> Facts:
    calls = []

    @asked.tool_plain
    def lookup(city: str) -> str:
        """Look a city up."""
        calls.append(city)
        return "Tromsø"

    return {"text": asked.run_sync(CALL).output, "called": "lookup", "arguments": {"city": calls[0]}}


@case
def tools() -> Facts:
    return _tools(agent())


@case
def structured() -> Facts:
    return {"object": agent(output_type=NativeOutput(City)).run_sync(SAID).output.model_dump()}


@case
def structured_by_tool() -> Facts:
    return {"object": agent(output_type=City).run_sync(SAID).output.model_dump()}


@case
def responses() -> Facts:
    asked = Agent(OpenAIResponsesModel(common.MODEL, provider=provider()))
    return {"text": asked.run_sync(SAID).output}


@case
def responses_tools() -> Facts:
    return _tools(Agent(OpenAIResponsesModel(common.MODEL, provider=provider())))


common.add_streams(stream)
common.add_errors(ask)
common.add_retries(ask, retries=2)

if __name__ == "__main__":
    common.run()
