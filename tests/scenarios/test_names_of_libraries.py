"""RELIABILITY T04 (G15's parameters and hosts): no name that a library below listens to moves a request, wherever it
stands. Every parameter of LiteLLM's call, every name that its proxy bans, and random ones."""

import ast
import asyncio
import importlib
import importlib.util
import inspect
import json
import os
import random
import string
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.litellm_door import import_litellm
from tests.harness import RunningGateway, sandbox_config
from tests.scenarios.cutting import KEYS, asking, caller, cutting

CASES = int(os.environ.get("WARDGATE_NAMES", "1200"))
CHAT = "/v1/chat/completions"
LITELLM_AUTH = "proxy/auth/auth_utils.py"


def banned() -> set[str]:
    """The names that LiteLLM's proxy refuses in a body, read from its source: importing it starts it."""
    spec = importlib.util.find_spec("litellm")
    assert spec is not None and spec.submodule_search_locations is not None
    source = Path(spec.submodule_search_locations[0], LITELLM_AUTH).read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        target = node.target if isinstance(node, ast.AnnAssign) else None
        targets = node.targets if isinstance(node, ast.Assign) else [target]
        if any(isinstance(one, ast.Name) and one.id == "_BANNED_REQUEST_BODY_PARAMS" for one in targets):
            texts = [one.value for one in ast.walk(node) if isinstance(one, ast.Constant)]
            own = {text for text in texts if isinstance(text, str)}
            prices = importlib.import_module("litellm.types.utils").CustomPricingLiteLLMParams.model_fields
            hosts = importlib.import_module("litellm.litellm_core_utils.initialize_dynamic_callback_params")
            return own | set(prices) | set(hosts._supported_callback_params)
    raise AssertionError("LiteLLM has no such list any more")


Place = Callable[[dict[str, Any], str, object], tuple[dict[str, Any], str, dict[str, str]]]


def in_body(put: Callable[[dict[str, Any], str, object], None]) -> Place:
    def place(body: dict[str, Any], name: str, value: object) -> tuple[dict[str, Any], str, dict[str, str]]:
        put(body, name, value)
        return body, "", {}

    return place


def in_tool(body: dict[str, Any], name: str, value: object) -> None:
    function = {"name": "f", "parameters": {"type": "object", "properties": {}, name: value}, name: value}
    body["tools"] = [{"type": "function", "function": function, name: value}]


def in_header(body: dict[str, Any], name: str, value: object) -> tuple[dict[str, Any], str, dict[str, str]]:
    text = json.dumps(value)
    return body, "", {name: text, "x-litellm-" + name.replace("_", "-"): text, "x-" + name.replace("_", "-"): text}


PLACES: dict[str, Place] = {
    "root": in_body(lambda body, name, value: body.update({name: value})),
    "metadata": in_body(lambda body, name, value: body.update(metadata={name: value})),
    "extra_body": in_body(lambda body, name, value: body.update(extra_body={name: value})),
    "litellm_params": in_body(lambda body, name, value: body.update(litellm_params={"a": {"b": {name: value}}})),
    "message": in_body(lambda body, name, value: body["messages"][0].update({name: value})),
    "part": in_body(
        lambda body, name, value: body["messages"][0].update(content=[{"type": "text", "text": "case-0", name: value}])
    ),
    "tool": in_body(in_tool),
    "provider": in_body(lambda body, name, value: body.update(provider={name: value})),
    "models": in_body(
        lambda body, name, value: body.update(models=[body["model"], {"model": body["model"], name: value}])
    ),
    "query": lambda body, name, value: (body, str(httpx.QueryParams({name: json.dumps(value)})), {}),
    "header": in_header,
}


def all_cases(url: str) -> list[tuple[str, str, object, str]]:
    """(wire, name, value, place); the first of them have every known name at the root."""
    taken = set(inspect.signature(import_litellm().acompletion).parameters) - {"kwargs"}
    taken |= set(importlib.import_module("litellm.types.utils").all_litellm_params)  # what its keywords may be
    known = sorted(banned() | taken)
    assert len(banned()) >= 37 and {"api_base", "base_url", "api_key", "mock_response", "fallbacks"} <= set(known)
    random_ = random.Random(4)
    others = ["".join(random_.choices(string.ascii_lowercase + "_", k=random_.randint(3, 20))) for _ in range(200)]
    values = [url, 0, True, [url], {"api_base": url, "api_key": "sk-evil", "model": "evil"}, "os.environ/PATH"]
    wires = ("openai", "anthropic")
    first = list(product(wires, known, values[:1], ["root"]))
    rest = list(product(wires, known + others, values, PLACES))
    return first + random_.sample(rest, min(len(rest), max(0, CASES - len(first))))


def where(head: bytes) -> list[bytes]:
    """All of a head but how long the body is."""
    return [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length")]


@pytest.mark.timeout(max(120, CASES // 10))
async def test_no_name_moves_a_request(tmp_path: Path) -> None:
    strangers = 0

    async def strange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal strangers
        strangers += 1
        writer.close()

    await asyncio.to_thread(import_litellm)
    server = await asyncio.start_server(strange, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with server, cutting() as upstream:
        cases = all_cases(url)
        gateway = RunningGateway(tmp_path, sandbox_config(upstream.url))
        await asyncio.to_thread(gateway.__enter__)
        try:
            token = await asyncio.to_thread(gateway.tenant, "acme", "enterprise", KEYS)
            async with caller(gateway.url, token) as client:
                usual = {}
                for wire in ("openai", "anthropic"):
                    reply = await client.post(CHAT, json=asking(wire))
                    usual[wire] = where(upstream.heads[-1]), reply.headers["x-wardgate-cost-usd"], reply.json()
                served = 0
                for wire, name, value, place in cases:
                    upstream.heads.clear()
                    body, query, headers = PLACES[place](json.loads(json.dumps(asking(wire))), name, value)
                    try:
                        request = client.build_request("POST", f"{CHAT}?{query}", json=body, headers=headers)
                    except (TypeError, ValueError):
                        continue
                    reply = await client.send(request)
                    told = (wire, name, value, place, reply.status_code, reply.text[:300])
                    assert reply.status_code == 200 or 400 <= reply.status_code < 500, told
                    assert all(where(head) == usual[wire][0] for head in upstream.heads), (told, upstream.heads)
                    if reply.status_code == 200:
                        served += 1
                        assert reply.headers["x-wardgate-cost-usd"] == usual[wire][1], told
                        assert reply.json()["choices"] == usual[wire][2]["choices"], told
        finally:
            await asyncio.to_thread(gateway.__exit__, None, None, None)
    assert strangers == 0 and served > len(cases) / 20
