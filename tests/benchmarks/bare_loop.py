"""The bare loop: one process whose only handler is `litellm.acompletion`, as fast as a user would honestly set it up.

No token, no choice, no metrics, no log; one provider with an explicit key and base URL, no retries. It runs as a script
and knows nothing of Wardgate.
"""

import argparse
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import litellm
import orjson
import uvicorn

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class BareLoop:
    """A plain ASGI application: what is posted goes to LiteLLM as keyword arguments; the model names the provider."""

    def __init__(self, upstream: str, api_key: str) -> None:
        self._bases = {"openai": f"{upstream}/v1", "anthropic": upstream}
        self._settled = {"api_key": api_key, "max_retries": 0, "num_retries": 0}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        body = orjson.loads(await _read(receive))
        model = str(body.pop("model"))
        base = self._bases[model.partition("/")[0]]
        answer: Any = await litellm.acompletion(model=model, api_base=base, **body, **self._settled)
        if not body.get("stream"):
            await _start(send, b"application/json")
            await send({"type": "http.response.body", "body": orjson.dumps(answer.model_dump(exclude_none=True))})
            return
        await _start(send, b"text/event-stream")
        async for chunk in answer:
            event = b"data: " + orjson.dumps(chunk.model_dump(exclude_none=True)) + b"\n\n"
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


async def _read(receive: Receive) -> bytes:
    parts: list[bytes] = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


async def _start(send: Send, content_type: bytes) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", content_type)]})


def main() -> None:
    """Serve on a port of loopback until a signal."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", required=True)
    parser.add_argument("--api-key", required=True)
    chosen = parser.parse_args()
    litellm.suppress_debug_info = True
    litellm.telemetry = False
    logging.getLogger("LiteLLM").setLevel(logging.ERROR)
    config = uvicorn.Config(
        BareLoop(chosen.upstream, chosen.api_key),
        port=chosen.port,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
    )
    uvicorn.Server(config).run()


if __name__ == "__main__":
    main()
