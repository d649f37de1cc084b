"""Sends requests through LiteLLM to the sandbox, in a process of its own that notes every socket it opens.

Reads a list of {"prefix", "model", "base", "body"} from standard input; prints {"errors", "opened"}.
"""

import asyncio
import importlib
import json
import os
import sys
from typing import Any

import httpx

from gateway.litellm_door import import_litellm

opened: list[str] = []


def hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        opened.append(f"{arguments[1][0]}:{arguments[1][1]}")
    elif event == "socket.getaddrinfo":
        opened.append(f"{arguments[0]}:{arguments[1]}")


async def send(litellm: Any, client: Any, row: dict[str, Any]) -> str:
    """What went wrong, or nothing; the arguments are those of gateway.litellm_door."""
    body = dict(row["body"])
    try:
        await litellm.acompletion(
            api_key="sk-sandbox-translated",
            api_base=row["base"],
            timeout=20,
            max_retries=0,
            num_retries=0,
            drop_params=False,
            _skip_mcp_handler=True,
            stream=False,
            client=client,
            model=f"{row['prefix']}/{row['model']}",
            **body,
        )
    except Exception as error:  # noqa: BLE001 - told to the test
        return f"{type(error).__name__}: {str(error)[:300]}"
    return ""


async def main() -> None:
    rows = json.load(sys.stdin)
    litellm = import_litellm()
    handlers = importlib.import_module("litellm.llms.custom_httpx.http_handler")
    client = handlers.AsyncHTTPHandler(transport=httpx.AsyncHTTPTransport(), follow_redirects=False)
    sys.addaudithook(hook)
    errors = [await send(litellm, client, row) for row in rows]
    print(json.dumps({"errors": errors, "opened": sorted(set(opened))}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
    os._exit(0)  # LiteLLM's threads do not survive the interpreter's end beside an audit hook
