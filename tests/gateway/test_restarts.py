"""Restarts under streams: every stream ends with its end or with a word about the stop, never in silence (S16).

WARDGATE_TEST_RESTARTS says how many.
"""

import json
import os
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from gateway.sandbox.server import SandboxServer
from tests.harness import RunningGateway, eventually, sandbox_config

RESTARTS = int(os.environ.get("WARDGATE_TEST_RESTARTS", "10"))
STREAMS = 8
LIMITS = "[limits]\ndrain_notice_s = 0\ndrain_s = 0.3\n"


def ending(gateway: RunningGateway, token: str, order: str) -> str:
    """How a stream ends for its reader: `done`, the code of an error event, or `cut`."""
    message = {"role": "user", "content": f"[sandbox: {order}] Hello"}
    body = {"model": "minimax/MiniMax-M2", "messages": [message], "stream": True}
    headers = {"authorization": f"Bearer {token}"}
    try:
        text = httpx.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers, timeout=60).text
    except httpx.TransportError:
        return "cut"
    last = [line for line in text.splitlines() if line.startswith("data: ")][-1].removeprefix("data: ")
    return "done" if last == "[DONE]" else str(json.loads(last)["error"]["code"])


def test_no_stream_ends_in_silence_however_often_it_restarts(tmp_path: Path, sandbox: SandboxServer) -> None:
    token = ""
    endings: Counter[str] = Counter()
    threads = threading.active_count()
    with ThreadPoolExecutor(STREAMS) as pool:
        for number in range(RESTARTS):
            sandbox.clear()
            with RunningGateway(tmp_path, sandbox_config(sandbox.url, LIMITS)) as gateway:
                token = token or gateway.tenant("acme", "team", {"MINIMAX_API_KEY": "sk-sandbox-a"})
                orders = ["tokens=10; gap=0.01", "silent-after=2"] * (STREAMS // 2)  # some end in the drain, some not
                streams = [pool.submit(ending, gateway, token, order) for order in orders]
                eventually(lambda: len(sandbox.requests()) == STREAMS)
            endings.update(stream.result() for stream in streams)
            logged = gateway.logs.records("request.completed")
            assert len([line for line in logged if line["endpoint"] == "chat_completions"]) == STREAMS, number
    half = RESTARTS * STREAMS // 2
    assert endings == {"done": half, "shutting_down": half}
    assert threading.active_count() <= threads + STREAMS
