"""The real `wardgate serve` in a process of its own, with one tenant."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from gateway.sandbox.server import SandboxServer
from tests.forks import WARDGATE, Forked, forks
from tests.harness import RunningGateway, sandbox_config

CHAT = "/v1/chat/completions"


@dataclass
class Served:
    """A running `wardgate serve` with one tenant."""

    process: Forked
    url: str
    metrics_url: str
    token: str
    log: Path

    def records(self, event: str) -> list[dict[str, object]]:
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [line for line in lines if line["event"] == event]

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry these labels."""
        text = httpx.get(self.metrics_url, timeout=30).text
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())

    def ask(self, order: str, *, stream: bool = False) -> httpx.Response:
        message = {"role": "user", "content": f"[sandbox: {order}] Hello"}
        body = {"model": "minimax/MiniMax-M2", "messages": [message], "stream": stream}
        return httpx.post(self.url + CHAT, json=body, headers={"authorization": f"Bearer {self.token}"}, timeout=60)

    def completed(self) -> list[dict[str, object]]:
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        assert not [line for line in lines if "ASGI" in str(line["event"])], "a survivor is no crash"
        return [
            line for line in lines if line["event"] == "request.completed" and line["endpoint"] == "chat_completions"
        ]


@contextmanager
def served(folder: Path, sandbox: SandboxServer, limits: str, *arguments: str) -> Iterator[Served]:
    """Started with `limits` as rows of `[limits]`, ended with the block."""
    gateway = RunningGateway(folder, sandbox_config(sandbox.url, f"[limits]\n{limits}\n"))
    token = gateway.tenant("acme", "team", {"MINIMAX_API_KEY": "sk-sandbox-a"})
    with process_of(gateway, token, *arguments) as running:
        yield running


@contextmanager
def process_of(gateway: RunningGateway, token: str, *arguments: str) -> Iterator[Served]:
    """A process over the folder and the database of a gateway that is not started itself; `token` is one of its."""
    env = gateway.environment() | {"WARDGATE_PORT": "0", "WARDGATE_METRICS_PORT": "0", "PATH": os.environ["PATH"]}
    read, write = os.pipe()
    log = gateway.folder / "log"
    with (
        Path(os.devnull).open("rb") as nothing,
        log.open("wb") as out,
        os.fdopen(read, encoding="utf-8") as stderr,
        os.fdopen(write, "wb") as err,
    ):
        files = nothing.fileno(), out.fileno(), err.fileno()
        process = forks().start([*WARDGATE, "serve", *arguments], env=env, cwd=gateway.folder, files=files)
        err.close()
        try:
            said = stderr.readline()
            found = re.search(r"serves (http://\S+), metrics at (\S+)", said)
            assert found, said
            yield Served(process, found.group(1), found.group(2), token, log)
        finally:
            process.kill()
            process.wait()
