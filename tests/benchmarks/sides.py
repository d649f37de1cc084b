"""The sides that are compared, each a process of its own on loopback, all in front of the same stand-in."""

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.litellm_door import SWITCHES
from tests.benchmarks import fetch
from tests.benchmarks.children import HOST, Child, Program, child, free_port
from tests.benchmarks.machine import Cores
from tests.harness import NO_LIMITS, RunningGateway

KEY = "sk-stand-in-benchmark-0123456789"
TENANT_KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "MINIMAX_API_KEY")  # what the benchmark's tenant holds
OPENAI_MODEL, ANTHROPIC_MODEL, LANE_MODEL = "openai/gpt-4.1-mini", "anthropic/claude-haiku-4-5", "minimax/MiniMax-M2"
CONFIG = """
[providers.openai]
base_url = "http://{host}/v1"
hosts = ["{host}"]

[providers.anthropic]
base_url = "http://{host}"
hosts = ["{host}"]

[providers.minimax]
wire = "litellm"  # the lane of every provider whose wire is not ours
base_url = "http://{host}/v1"
hosts = ["{host}"]
"""
QUIET = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
ROOT = Path(__file__).parents[2]
PATH = "/v1/chat/completions"

DIRECT, NGINX, LITELLM = "direct", "nginx", "LiteLLM proxy"
BARE_LOOP, BARE_ANTHROPIC, BARE_RELAY = "bare loop", "bare loop, Anthropic", "bare relay"
WARDGATE, LANE, ANTHROPIC = "wardgate", "wardgate, LiteLLM lane", "wardgate, Anthropic"
NGINX_CONF = """
daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr error;
events {{ worker_connections 8192; }}
http {{
    access_log off; client_max_body_size 0; keepalive_requests 1000000000; keepalive_timeout 600s;
    client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
    uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
    upstream provider {{ server {host}:{upstream}; keepalive 1024; keepalive_requests 1000000000; }}
    server {{
        listen {host}:{port} backlog=4096;
        location / {{
            proxy_pass http://provider; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_buffering off; proxy_request_buffering off;
        }}
    }}
}}
"""
LITELLM_YAML = """
model_list:
  - model_name: stand-in
    litellm_params: {{model: openai/stand-in, api_base: "http://{host}:{upstream}/v1", api_key: {key}}}
litellm_settings: {{num_retries: 0, telemetry: false}}
general_settings: {{master_key: {key}}}
"""


@dataclass(frozen=True, slots=True)
class Side:
    """One way to the stand-in: where to post, as whom, and for which model."""

    name: str
    port: int
    token: str
    model: str
    process: Child
    path: str = PATH


@dataclass(frozen=True, slots=True)
class Opened:
    """The sides that run, and why others do not."""

    upstream: Child
    sides: dict[str, Side]
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Place:
    """What every program needs to know."""

    folder: Path
    upstream: int

    def sub(self, name: str) -> Path:
        made = self.folder / name
        made.mkdir()
        return made


@contextmanager
def opened(cores: Cores, wanted: Sequence[str], say: Callable[[str], None]) -> Iterator[Opened]:
    """The wanted sides that can be had, running. Raises BenchmarkError for one that does not start."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wardgate-benchmark-")))
        upstream = stack.enter_context(child(_upstream(folder), cores.load))
        place = _Place(folder, upstream.port)
        sides = {DIRECT: Side(DIRECT, upstream.port, KEY, "stand-in", upstream)}
        left_out = []
        for name, (program, models) in OTHERS.items():
            if models.keys().isdisjoint(wanted):
                continue
            found = program(place)
            if found is None:
                left_out.append(name)
                continue
            say(f"starting {name}")
            running = stack.enter_context(child(found, cores.side))
            sides |= {each: Side(each, running.port, KEY, model, running) for each, model in models.items()}
        if not OURS.keys().isdisjoint(wanted):
            say("starting wardgate")
            gateway, token = prepared(folder, upstream.url)
            served = stack.enter_context(child(wardgate(gateway), cores.side))
            sides |= {each: Side(each, served.port, token, model, served) for each, model in OURS.items()}
        yield Opened(upstream, sides, tuple(left_out))


def prepared(folder: Path, upstream: str) -> tuple[RunningGateway, str]:
    """A gateway's folder with a tenant whose keys lead to the stand-in, and the tenant's token."""
    home = folder / "home"
    home.mkdir()
    config = CONFIG.format(host=upstream.removeprefix("http://")) + f"\n[plans.team]\n{NO_LIMITS}"
    gateway = RunningGateway(home, config)
    return gateway, gateway.tenant("benchmark", keys=dict.fromkeys(TENANT_KEYS, KEY))


def wardgate(gateway: RunningGateway) -> Program:
    """`wardgate serve` as it is run, on free ports."""
    port = free_port()
    ports = {"WARDGATE_PORT": str(port), "WARDGATE_METRICS_PORT": "0"}
    command = [str(Path(sys.executable).with_name("wardgate")), "serve"]
    return Program(WARDGATE, command, port, gateway.folder, QUIET | gateway.environment() | ports, "/readyz")


def _upstream(folder: Path) -> Program:
    port = free_port()
    command = [sys.executable, "-P", "-m", "tests.benchmarks.upstream", str(port)]
    return Program("stand-in", command, port, folder, QUIET | {"PYTHONPATH": str(ROOT)})


def _nginx(place: _Place) -> Program | None:
    binary = fetch.nginx()
    if binary is None:
        return None
    folder, port = place.sub("nginx"), free_port()
    conf = folder / "nginx.conf"
    conf.write_text(NGINX_CONF.format(folder=folder, host=HOST, upstream=place.upstream, port=port), encoding="ascii")
    command = [binary, "-p", str(folder), "-e", "stderr", "-c", str(conf)]
    return Program(NGINX, command, port, folder, QUIET)


def _litellm(place: _Place) -> Program | None:
    command = fetch.litellm_proxy()
    if command is None:
        return None
    folder, port = place.sub("litellm"), free_port()
    config = folder / "config.yaml"
    config.write_text(LITELLM_YAML.format(host=HOST, upstream=place.upstream, key=KEY), encoding="ascii")
    options = ["--config", str(config), "--host", HOST, "--port", str(port), "--num_workers", "1"]
    environment = QUIET | SWITCHES | {"HOME": str(folder)}
    return Program(LITELLM, [command, *options], port, folder, environment, "/health/readiness")


def _bare_loop(place: _Place) -> Program:
    port = free_port()
    program = str(Path(__file__).with_name("bare_loop.py"))
    upstream = ["--upstream", f"http://{HOST}:{place.upstream}", "--api-key", KEY]
    command = [sys.executable, "-P", program, "--port", str(port), *upstream]
    # The same switches as Wardgate sets: LiteLLM fetches nothing from the network.
    return Program(BARE_LOOP, command, port, place.folder, QUIET | SWITCHES)


def _bare_relay(place: _Place) -> Program:
    port = free_port()
    program = str(Path(__file__).with_name("bare_relay.py"))
    command = [sys.executable, "-P", program, "--port", str(port), "--upstream", f"http://{HOST}:{place.upstream}"]
    return Program(BARE_RELAY, command, port, place.folder, QUIET)


OURS = {WARDGATE: OPENAI_MODEL, LANE: LANE_MODEL, ANTHROPIC: ANTHROPIC_MODEL}
OTHERS: dict[str, tuple[Callable[[_Place], Program | None], dict[str, str]]] = {
    NGINX: (_nginx, {NGINX: "stand-in"}),
    LITELLM: (_litellm, {LITELLM: "stand-in"}),
    BARE_LOOP: (_bare_loop, {BARE_LOOP: "openai/stand-in", BARE_ANTHROPIC: ANTHROPIC_MODEL}),
    BARE_RELAY: (_bare_relay, {BARE_RELAY: "stand-in"}),
}
