"""instructor: objects by forced tool calls, by JSON schema, and piece by piece."""

from collections.abc import Iterator

import common
import instructor
import openai
from common import SAID, Facts, case
from pydantic import BaseModel


class City(BaseModel):
    """A city."""

    city: str
    people: int


def made(mode: instructor.Mode = instructor.Mode.TOOLS, token: str = common.TOKEN, retries: int = 0) -> object:
    sdk = openai.OpenAI(base_url=f"{common.URL}/v1", api_key=token, max_retries=retries)
    return instructor.from_openai(sdk, mode=mode)


def ask(message: str, model: str = common.MODEL, token: str = common.TOKEN, retries: int = 0) -> object:
    return made(token=token, retries=retries).chat.completions.create(
        model=model, messages=[{"role": "user", "content": message}], response_model=City, max_retries=0
    )


def partly(message: str) -> Iterator[City]:
    return made().chat.completions.create_partial(
        model=common.MODEL, messages=[{"role": "user", "content": message}], response_model=City, max_retries=0
    )


def stream(message: str) -> Iterator[str]:
    for city in partly(message):  # a list: the stream is read to its end
        yield city.model_dump_json()


@case
def normal() -> Facts:
    city, answer = made().chat.completions.create_with_completion(
        model=common.MODEL, messages=[{"role": "user", "content": SAID}], response_model=City
    )
    return {"object": city.model_dump(), "tokens": [answer.usage.prompt_tokens, answer.usage.completion_tokens]}


@case
def structured() -> Facts:
    city = made(instructor.Mode.JSON_SCHEMA).chat.completions.create(
        model=common.MODEL, messages=[{"role": "user", "content": SAID}], response_model=City
    )
    return {"object": city.model_dump()}


@case
def stream_objects() -> Facts:
    seen = list(partly(SAID))
    return {"object": seen[-1].model_dump(), "several": len(seen) > 1}


common.add_streams(stream)
for name in ("stream", "cancel"):
    del common.CASES[name]
common.add_errors(ask)
common.add_retries(ask, retries=2)

if __name__ == "__main__":
    common.run()
