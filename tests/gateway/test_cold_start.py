"""What a gateway has imported once it is ready and has answered a plain request, and what with the first request for
the control plane."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from gateway.app import ControlPlane
from gateway.asgi import App
from gateway.sandbox.server import SandboxServer
from gateway.services import Services
from tests.benchmarks.machine import resident_mb
from tests.gateway.imported import TOLD
from tests.harness import RunningGateway, sandbox_config
from tests.served import CHAT

SERVE = TOLD + "sys.argv[1:] = ['serve']\nfrom gateway.entry import main\nmain()"
# Each is megabytes or tens of milliseconds, and serves what a plain request does not ask for.
NEVER = (
    "alembic",
    "fastapi",
    "litellm",
    "mako",
    "openai",
    "pydantic",
    "pydantic_settings",
    "redis",
    "starlette",
    "typer",
)
NOT_OURS = ("gateway.admin.routes", "gateway.cli.root", "gateway.sandbox", "gateway.workers.supervisor")
CONTROL = ("fastapi", "pydantic", "starlette", "gateway.admin.routes")
MOST_MB = 112  # 98 when this was written


def served(folder: Path, sandbox: SandboxServer, meanwhile: Callable[[str, str, int], None]) -> frozenset[str]:
    """The modules of a `wardgate serve`, told when it ends; `meanwhile` is given its URL, a token and its process."""
    gateway = RunningGateway(folder, sandbox_config(sandbox.url, "[limits]\ndrain_notice_s = 0\n"))
    token = gateway.tenant("acme", "team", {"MINIMAX_API_KEY": "sk-sandbox-a"})
    env = gateway.environment() | {"WARDGATE_PORT": "0", "WARDGATE_METRICS_PORT": "0", "PATH": os.environ["PATH"]}
    command = [sys.executable, "-c", SERVE]
    process = subprocess.Popen(
        command, env=env, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        found = re.search(r"serves (http://\S+),", process.stderr.readline())
        assert found
        meanwhile(found.group(1), token, process.pid)
        process.send_signal(signal.SIGTERM)
        return frozenset(json.loads(process.communicate(timeout=30)[1].splitlines()[-1]))
    finally:
        process.kill()
        process.communicate()


def ask(url: str, token: str) -> None:
    body = {"model": "minimax/MiniMax-M2", "messages": [{"role": "user", "content": "Hello"}]}
    answer = httpx.post(url + CHAT, json=body, headers={"authorization": f"Bearer {token}"}, timeout=30)
    assert answer.status_code == 200, answer.text


def test_plain_request_is_served_without_what_others_need(tmp_path: Path, sandbox: SandboxServer) -> None:
    held: list[float | None] = []

    def meanwhile(url: str, token: str, pid: int) -> None:
        held.append(resident_mb(pid))
        ask(url, token)
        assert httpx.get(url + "/v1/nowhere").status_code == 404
        assert httpx.get(url + CHAT).status_code == 405

    modules = served(tmp_path, sandbox, meanwhile)
    assert "gateway.passthrough" in modules
    assert sorted(modules & {*NEVER, *NOT_OURS}) == []
    assert held[0] is None or held[0] < MOST_MB


def test_control_plane_is_there_when_it_is_asked_for(tmp_path: Path, sandbox: SandboxServer) -> None:
    def meanwhile(url: str, token: str, _: int) -> None:
        async def several() -> list[httpx.Response]:
            async with httpx.AsyncClient(headers={"authorization": f"Bearer {token}"}, timeout=30) as client:
                paths = ("/v1/keys", "/admin/tenants", "/keys", "/v1/aliases", "/admin/nowhere")
                return await asyncio.gather(*(client.get(url + path) for path in paths))

        assert [answer.status_code for answer in asyncio.run(several())] == [403, 403, 403, 403, 404]
        ask(url, token)

    assert set(CONTROL) <= served(tmp_path, sandbox, meanwhile)


class Building(ControlPlane):
    """A control plane that is built as often as it must be; the first time fails."""

    built = 0

    def _make(self) -> App:
        self.built += 1
        if self.built == 1:
            raise OSError("no file descriptors left")

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send(scope["path"])

        return app


async def test_control_plane_that_could_not_be_built_is_built_with_the_next_request() -> None:
    plane, sent = Building(cast(Services, None)), list[str]()

    async def ask(path: str) -> None:
        async def send(what: Any) -> None:
            sent.append(what)

        await plane({"path": path}, cast(Any, None), send)

    with pytest.raises(OSError, match="descriptors"):
        await ask("/admin/a")
    await asyncio.gather(ask("/admin/b"), ask("/admin/c"))
    await ask("/admin/d")
    assert (plane.built, sent) == (2, ["/admin/b", "/admin/c", "/admin/d"])
