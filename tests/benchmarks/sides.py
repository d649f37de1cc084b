"""The sides that are compared, each a process of its own on loopback, all in front of the same sandbox."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.litellm_door import SWITCHES
from tests.benchmarks.children import Child, child
from tests.benchmarks.machine import Cores
from tests.harness import RunningGateway, sandbox_config

MODEL = "MiniMax-M2"
SANDBOX_KEY = "sk-sandbox-benchmark-0123456789"
TENANT_KEYS = ("MINIMAX_API_KEY", "OPENAI_API_KEY", "DEEPSEEK_API_KEY")  # what the benchmark's tenant holds
QUIET = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}

DIRECT, BARE_LOOP, WARDGATE, WARDGATE_AUTO = "direct", "bare loop", "wardgate", "wardgate, auto"


@dataclass(frozen=True, slots=True)
class Side:
    """One way to the upstream: where to post, as whom, and for which model."""

    name: str
    url: str
    token: str
    model: str
    process: Child


@contextmanager
def opened(cores: Cores) -> Iterator[tuple[Side, ...]]:
    """All sides, running: direct, the bare loop, Wardgate with a named model, Wardgate with `auto`."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wardgate-benchmark-")))
        sandbox = stack.enter_context(_sandbox(folder, cores))
        bare = stack.enter_context(_bare_loop(folder, cores, sandbox.url))
        home = folder / "home"
        home.mkdir()
        gateway = RunningGateway(home, sandbox_config(sandbox.url))
        token = gateway.tenant("benchmark", keys=dict.fromkeys(TENANT_KEYS, SANDBOX_KEY))
        served = stack.enter_context(_wardgate(gateway, cores))
        yield (
            Side(DIRECT, _chat(sandbox), SANDBOX_KEY, MODEL, sandbox),
            Side(BARE_LOOP, _chat(bare), "none", MODEL, bare),
            Side(WARDGATE, _chat(served), token, f"minimax/{MODEL}", served),
            Side(WARDGATE_AUTO, _chat(served), token, "auto", served),
        )


def _chat(process: Child) -> str:
    return f"{process.url}/v1/chat/completions"


def _script() -> str:
    return str(Path(sys.executable).with_name("wardgate"))


def _sandbox(folder: Path, cores: Cores) -> AbstractContextManager[Child]:
    command = [_script(), "sandbox", "--port", "0"]
    says = r"listens on (http://[\d.:]+)/v1"
    return child("sandbox", command, says=says, cores=cores.load, folder=folder, environment=QUIET)


def _bare_loop(folder: Path, cores: Cores, upstream: str) -> AbstractContextManager[Child]:
    program = str(Path(__file__).with_name("bare_loop.py"))
    command = [sys.executable, "-P", program, "--api-base", f"{upstream}/v1", "--api-key", SANDBOX_KEY]
    says = r"the bare loop serves (http://[\d.:]+)"
    # The same switches as Wardgate sets: LiteLLM fetches nothing from the network.
    return child(BARE_LOOP, command, says=says, cores=cores.side, folder=folder, environment=QUIET | SWITCHES)


def _wardgate(gateway: RunningGateway, cores: Cores) -> AbstractContextManager[Child]:
    environment = QUIET | gateway.environment() | {"WARDGATE_PORT": "0", "WARDGATE_METRICS_PORT": "0"}
    says = r"wardgate serves (http://[\d.:]+), metrics"
    return child(
        WARDGATE, [_script(), "serve"], says=says, cores=cores.side, folder=gateway.folder, environment=environment
    )
