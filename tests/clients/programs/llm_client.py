"""The `llm` command line, as a user runs it: a folder with extra-openai-models.yaml, a key, a prompt."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import common
from common import CALL, SAID, Facts, case

LLM = str(Path(sys.executable).with_name("llm"))
FOLDER = Path(tempfile.mkdtemp(prefix="clients-llm-"))
FUNCTION = "def lookup(city: str) -> str:\n    'Look a city up.'\n    return 'Tromsø'\n"
ENVIRONMENT = {**os.environ, "LLM_USER_PATH": str(FOLDER), "PYTHONUNBUFFERED": "1"}


class CommandFailed(Exception):
    """The command ended with an error; its words are what it printed."""


def entry(model: str, name: str, more: str = "") -> str:
    return f"- model_id: {name}\n  model_name: {model}\n  api_base: {common.URL}/v1\n  api_key_name: gateway\n{more}"


def write_models() -> None:
    every = "  supports_tools: true\n  supports_schema: true\n"
    names = {common.MODEL, "google/gemini-2.5-flash", "minimax/NoSuchModel"}
    text = "".join(entry(name, name, every) for name in sorted(names))
    (FOLDER / "extra-openai-models.yaml").write_text(
        text + entry(common.MODEL, "by-responses", every + "  responses: true\n")
    )


def command(message: str, model: str = common.MODEL, token: str = common.TOKEN, *more: str) -> list[str]:
    return [LLM, "prompt", "-m", model, "--key", token, *more, message]


def ask(message: str, model: str = common.MODEL, token: str = common.TOKEN, *more: str) -> str:
    done = subprocess.run(
        command(message, model, token, *more), env=ENVIRONMENT, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        raise CommandFailed(done.stderr.strip())
    return done.stdout.removesuffix("\n")


def stream(message: str) -> Iterator[str]:
    """What is printed, as it is printed; the command is ended when nobody listens any more."""
    with subprocess.Popen(
        command(message), env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
    ) as running:
        assert running.stdout and running.stderr
        try:
            while piece := os.read(running.stdout.fileno(), 4096):
                yield piece.decode()
        finally:
            running.terminate()
        if running.wait():
            raise CommandFailed(running.stderr.read().decode().strip())


@case
def normal() -> Facts:
    return {"text": ask(SAID, common.MODEL, common.TOKEN, "--no-stream")}


@case
def stream_usage() -> Facts:
    ask(SAID)
    logs = [LLM, "logs", "list", "--json", "-n", "1"]
    (entry,) = json.loads(subprocess.run(logs, env=ENVIRONMENT, capture_output=True, check=True).stdout)
    return {"tokens": [entry["input_tokens"], entry["output_tokens"]], "text": entry["response"]}


@case
def tools() -> Facts:
    return {"text": ask(CALL, common.MODEL, common.TOKEN, "--functions", FUNCTION, "--no-stream")}


@case
def tools_streamed() -> Facts:
    return {"text": ask(CALL, common.MODEL, common.TOKEN, "--functions", FUNCTION)}


@case
def structured() -> Facts:
    return {"object": json.loads(ask(SAID, common.MODEL, common.TOKEN, "--schema", json.dumps(common.ANSWER_SCHEMA)))}


@case
def responses() -> Facts:
    return {"text": ask(SAID, "by-responses")}


common.add_streams(stream)
common.add_errors(ask)
common.add_retries(ask)  # it tries twice again of its own accord
for name in ("error_429", "error_500", "error_503"):
    del common.CASES[name]  # which is why these are told by the two above

if __name__ == "__main__":
    write_models()
    common.run()
