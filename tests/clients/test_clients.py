"""Each client in its own environment and process, against one real gateway over the sandbox; one test for each case.

`make clients` makes the environments and runs this; what is not installed is skipped with its reason.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gateway.sandbox.server import SandboxServer
from tests.clients import expected
from tests.clients.expected import Rows
from tests.harness import RunningGateway, sandbox_config

pytestmark = [pytest.mark.clients, pytest.mark.timeout(300)]

HERE = Path(__file__).parent
INSTALLED = HERE.parents[1] / ".clients"
KEYS = {f"{name}_API_KEY": f"sk-sandbox-{name.lower()}" for name in ("MINIMAX", "ANTHROPIC", "OPENAI")}
TIMEOUT_S = 240
SILENCE_S = 16.5  # the gateway sends a comment, or a ping, after 15


@dataclass(frozen=True)
class Client:
    """`environment` None: that of the suite itself."""

    program: str
    rows: Rows = field(repr=False)
    environment: str | None
    silence: str | None = "silence"  # the case of a stream that is silent for long


CLIENTS = {
    "openai2": Client("openai_sdk.py", expected.OPENAI_SDK, None),
    "anthropic": Client("anthropic_sdk.py", expected.ANTHROPIC_SDK, None, "translated_silence"),
    "openai3": Client("openai_sdk.py", expected.OPENAI_SDK, "openai3"),
    "langchain": Client("langchain_openai_client.py", expected.LANGCHAIN, "langchain"),
    "llamaindex": Client("llamaindex_client.py", expected.LLAMAINDEX, "llamaindex"),
    "instructor": Client("instructor_client.py", expected.INSTRUCTOR, "instructor", None),
    "pydantic_ai": Client("pydantic_ai_client.py", expected.PYDANTIC_AI, "pydantic_ai"),
    "openai_agents": Client("openai_agents_client.py", expected.OPENAI_AGENTS, "openai_agents"),
    "llm": Client("llm_client.py", expected.LLM, "llm"),
    "openai_node": Client("openai_node.mjs", expected.OPENAI_NODE, "js"),
    "anthropic_node": Client("anthropic_node.mjs", expected.ANTHROPIC_NODE, "js", "translated_silence"),
    "ai_sdk": Client("ai_sdk.mjs", expected.AI_SDK, "js", "responses_silence"),
}


@dataclass
class Place:
    """The one gateway, a tenant for each client, and what the programs told."""

    gateway: RunningGateway
    sandbox: SandboxServer
    home: Path
    told: dict[str, dict[str, Any]] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)  # what a program wrote beside its facts
    tokens: dict[str, str] = field(default_factory=dict)

    def start(self, name: str, *cases: str) -> "subprocess.Popen[str]":
        command = [*command_of(name), *cases]
        return subprocess.Popen(
            command, env=self._environment(name), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def _environment(self, name: str) -> dict[str, str]:
        if name not in self.tokens:
            self.tokens[name] = self.gateway.tenant(name.replace("_", "-"), "team", KEYS)
        return {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(self.home),
            "CLIENT_URL": self.gateway.url,
            "CLIENT_TOKEN": self.tokens[name],
            "CLIENT_SANDBOX": self.sandbox.url,
        }

    def results(self, name: str) -> dict[str, Any]:
        """What the program told of every case; it is run once."""
        if (reason := missing(name)) is not None:
            pytest.skip(reason)
        if name not in self.told:
            self.told[name] = {}
            out, self.said[name] = self.start(name).communicate(timeout=TIMEOUT_S)
            self.told[name] = facts_by_case(out)
        assert self.told[name], f"{name} told nothing:\n{self.said.get(name, '')[-4000:]}"
        return self.told[name]


def facts_by_case(out: str) -> dict[str, Any]:
    return {line["case"]: line for line in map(json.loads, out.splitlines())}


def missing(name: str) -> str | None:
    """Why the client cannot be run here; None: it can."""
    environment = CLIENTS[name].environment
    if environment == "js" and (shutil.which("node") is None or shutil.which("npm") is None):
        return f"{name} needs node and npm, which are not here"
    if environment is not None and not (INSTALLED / environment / ".installed").exists():
        return f"{name} is not installed: `make clients`"
    return None


def command_of(name: str) -> list[str]:
    """How the client's program is started."""
    client = CLIENTS[name]
    if client.environment is None:
        return [sys.executable, str(HERE / "programs" / client.program)]
    folder = INSTALLED / client.environment
    if client.environment != "js":
        return [str(folder / "bin" / "python"), str(HERE / "programs" / client.program)]
    for program in (HERE / "js").glob("*.mjs"):  # they find their packages beside them
        shutil.copy(program, folder)
    return ["node", str(folder / client.program)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("clients")
    with SandboxServer() as sandbox, RunningGateway(folder, sandbox_config(sandbox.url)) as gateway:
        yield Place(gateway, sandbox, tmp_path_factory.mktemp("home"))


def unlike(facts: dict[str, Any], row: expected.Row) -> dict[str, Any]:
    """The facts that are not as expected."""
    seen = {name: facts.get(name) for name in row}
    return {n: seen[n] for n, want in row.items() if not (want(seen[n]) if callable(want) else want == seen[n])}


CASES = [(name, case) for name, client in CLIENTS.items() for case in client.rows]


@pytest.mark.parametrize(("name", "case"), CASES)
def test_client(place: Place, name: str, case: str) -> None:
    line = place.results(name).get(case)
    assert line is not None, f"{name} did not run {case}:\n{place.said[name][-4000:]}"
    assert "raised" not in line, line["raised"]
    assert unlike(line["facts"], CLIENTS[name].rows[case]) == {}, line["facts"]


@pytest.mark.parametrize("name", CLIENTS)
def test_every_case_of_a_client_is_judged(place: Place, name: str) -> None:
    assert place.results(name).keys() == CLIENTS[name].rows.keys()


@pytest.fixture(scope="module")
def after_silence(place: Place) -> dict[str, Any]:
    """What the clients told of a stream that is silent for long; all at once, because they only wait."""
    here = {name: client.silence for name, client in CLIENTS.items() if client.silence and missing(name) is None}
    running = {name: place.start(name, case) for name, case in here.items()}
    return {name: facts_by_case(one.communicate(timeout=TIMEOUT_S)[0]) for name, one in running.items()}


@pytest.mark.parametrize("name", [name for name, client in CLIENTS.items() if client.silence])
def test_client_goes_on_after_a_silence_that_the_gateway_filled(after_silence: dict[str, Any], name: str) -> None:
    if (reason := missing(name)) is not None:
        pytest.skip(reason)
    line = after_silence[name][CLIENTS[name].silence]
    assert line.get("facts", {}).get("error", line.get("raised")) is None, line
    assert line["took_s"] >= SILENCE_S
