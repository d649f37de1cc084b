"""openai-agents over /v1/responses: runs with a tool, streams, an object as output."""

from collections.abc import AsyncIterator

import common
from agents import Agent, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled
from common import CALL, SAID, Facts, case
from openai import AsyncOpenAI
from pydantic import BaseModel

set_tracing_disabled(True)
CALLS: list[str] = []


class City(BaseModel):
    """A city."""

    city: str
    people: int


@function_tool
def lookup(city: str) -> str:
    """Look a city up."""
    CALLS.append(city)
    return "Tromsø"


def agent(model: str = common.MODEL, token: str = common.TOKEN, retries: int = 0, **more: object) -> Agent:
    sdk = AsyncOpenAI(base_url=f"{common.URL}/v1", api_key=token, max_retries=retries)
    return Agent(name="helper", model=OpenAIResponsesModel(model, openai_client=sdk), **more)


async def ask(message: str, **given: str) -> object:
    return (await Runner.run(agent(**given), message)).final_output


async def stream(message: str) -> AsyncIterator[str]:
    result = Runner.run_streamed(agent(), message)
    try:
        async for event in result.stream_events():
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
                yield event.data.delta
    finally:
        result.cancel()


@case
def normal() -> Facts:
    result = Runner.run_sync(agent(), SAID)
    usage = result.context_wrapper.usage
    return {"text": result.final_output, "tokens": [usage.input_tokens, usage.output_tokens]}


@case
def stream_usage() -> Facts:
    async def work() -> list[int]:
        result = Runner.run_streamed(agent(), SAID)
        async for _ in result.stream_events():
            pass
        usage = result.context_wrapper.usage
        return [usage.input_tokens, usage.output_tokens]

    return {"tokens": common.asyncio.run(work())}


@case
def tools() -> Facts:
    result = Runner.run_sync(agent(tools=[lookup]), CALL)
    return {"called": "lookup", "arguments": {"city": CALLS.pop()}, "text": result.final_output}


@case
def tools_streamed() -> Facts:
    async def work() -> str:
        result = Runner.run_streamed(agent(tools=[lookup]), CALL)
        async for _ in result.stream_events():
            pass
        return result.final_output

    text = common.asyncio.run(work())
    return {"called": "lookup", "arguments": {"city": CALLS.pop()}, "text": text}


@case
def structured() -> Facts:
    return {"object": Runner.run_sync(agent(output_type=City), SAID).final_output.model_dump()}


common.add_streams(stream)
common.add_errors(ask)
common.add_retries(ask, retries=2)

if __name__ == "__main__":
    common.run()
