"""A whole gateway on real ports for tests: the server in a thread, the operator as store calls or the real CLI."""

import asyncio
import functools
import io
import json
import os
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Container, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import TypeVar

import httpx
import openai
import uvloop
from prometheus_client.parser import text_string_to_metric_families

from gateway.opening import open_keystore
from gateway.rules import load_rules
from gateway.server import Listening, serve
from gateway.settings import Settings
from keystore.keystore import Keystore
from keystore.migrate import migrate
from tests.forks import WARDGATE, forks

Result = TypeVar("Result")
START_TIMEOUT_S = 60.0
# Providers that the tests point at the sandbox, with the path that each wire's base URL has there.
SANDBOXED = {"minimax": "/v1", "openai": "/v1", "deepseek": "/v1", "groq": "/v1", "google": "/v1beta", "anthropic": ""}


NO_LIMITS = "requests_per_minute = 10_000_000\ntokens_per_minute = 10_000_000_000\nconcurrency = 100_000\n"


def sandbox_config(sandbox_url: str, extra: str = "", providers: Mapping[str, str] = SANDBOXED) -> str:
    """A wardgate.toml that points `providers` at the sandbox. The plans' limits are out of the way of tests that are
    not about them, unless `extra` has plans of its own."""
    host = sandbox_url.removeprefix("http://")
    tables = [
        f'[providers.{name}]\nbase_url = "{sandbox_url}{path}"\nhosts = ["{host}"]\n'
        for name, path in providers.items()
    ]
    if "[plans" not in extra:
        tables += [f"[plans.{name}]\n{NO_LIMITS}" for name in ("free", "solo", "pro", "team", "enterprise")]
    return "\n".join([*tables, extra])


class Loopback(Container[str]):
    """The hosts of this machine, as an operator would list them one by one."""

    def __contains__(self, host: object) -> bool:
        return isinstance(host, str) and host.startswith("127.0.0.1:")


class LogLines(io.StringIO):
    """What the gateway logged, as records."""

    def records(self, event: str | None = None) -> list[dict[str, object]]:
        lines = [json.loads(line) for line in self.getvalue().splitlines()]
        return [line for line in lines if event is None or line["event"] == event]


@dataclass
class RunningGateway:
    """A gateway over `folder` (its database, ring and wardgate.toml); a context manager."""

    folder: Path
    config: str
    database_url: str = ""
    redis_url: str | None = None
    logs: LogLines = field(default_factory=LogLines)
    loop: asyncio.AbstractEventLoop | None = None
    _listening: Listening | None = None
    _thread: threading.Thread | None = None
    _failure: BaseException | None = None

    def __post_init__(self) -> None:
        self.write_config(self.config)
        if self.database_url:
            return
        database = self.folder / "wardgate.db"
        self.database_url = f"sqlite+aiosqlite:///{database}"
        if not database.exists():
            database.write_bytes(migrated())

    def write_config(self, text: str) -> None:
        (self.folder / "wardgate.toml").write_text(text, encoding="utf-8")

    @property
    def settings(self) -> Settings:
        return Settings(
            database_url=self.database_url,
            redis_url=self.redis_url,
            sealing_keys_file=self.folder / "sealing-keys",
            journal=self.folder / "journal",
            config=self.folder / "wardgate.toml",
            port=0,
            metrics_port=0,
        )

    def __enter__(self) -> "RunningGateway":
        started = threading.Event()

        def ready(listening: Listening) -> None:
            self._listening = listening
            started.set()

        def run() -> None:
            try:
                with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                    self.loop = runner.get_loop()
                    runner.run(serve(self.settings, ready, log_stream=self.logs))
            except BaseException as error:  # noqa: BLE001 - handed to the test below
                self._failure = error
            finally:
                started.set()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        assert started.wait(START_TIMEOUT_S), "the gateway did not start"
        if self._failure is not None:
            self._thread.join()
            raise self._failure
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._thread is not None
        if self._listening is not None:
            self._listening.stop()
        self._thread.join(START_TIMEOUT_S)
        assert not self._thread.is_alive(), "the gateway did not stop"

    @property
    def url(self) -> str:
        assert self._listening is not None
        return self._listening.url

    @property
    def metrics_url(self) -> str:
        assert self._listening is not None
        return self._listening.metrics_url

    def operate(self, work: Callable[[Keystore], Awaitable[Result]]) -> Result:
        """Do what the command line does: open the same database in another loop, work, close."""

        async def run() -> Result:
            settings = self.settings
            keystore = await open_keystore(settings, load_rules(settings), create=True)
            try:
                return await work(keystore)
            finally:
                await keystore.close()

        return asyncio.run(run())

    def tenant(self, slug: str, plan: str = "team", keys: Mapping[str, str] | None = None) -> str:
        """Add a tenant with keys; returns a token of its."""

        async def work(keystore: Keystore) -> str:
            tenant = await keystore.tenants.add(slug, plan)
            for name, value in (keys or {}).items():
                await keystore.credentials.set(tenant, name, value)
            return (await keystore.tokens.create(tenant)).token

        return self.operate(work)

    def set_key(self, slug: str, setting_key: str, value: str) -> None:
        async def work(keystore: Keystore) -> None:
            await keystore.credentials.set(await keystore.tenants.get(slug), setting_key, value)

        self.operate(work)

    def client(self, token: str, **options: object) -> openai.OpenAI:
        """A real OpenAI SDK on this gateway, without retries of its own unless asked for."""
        return openai.OpenAI(**{"base_url": f"{self.url}/v1", "api_key": token, "max_retries": 0} | options)  # type: ignore[arg-type]

    def post(self, path: str, token: str | None, body: object, **options: object) -> httpx.Response:
        """A plain HTTP request with a JSON body, or raw bytes."""
        headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return httpx.post(self.url + path, content=content, headers=headers, timeout=60, **options)  # type: ignore[arg-type]

    def get(self, path: str, token: str | None = None) -> httpx.Response:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return httpx.get(self.url + path, headers=headers, timeout=30)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry these labels, read from the metrics port."""
        text = httpx.get(f"{self.metrics_url}/metrics", timeout=30).text
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())

    def settled(self, name: str, **labels: str) -> float:
        """`metric` once the requests that were answered are also counted: that happens just after the last byte."""
        eventually(lambda: self.metric("wardgate_inflight_requests") == 0)
        return self.metric(name, **labels)

    def cli(self, *arguments: str, stdin: str | None = None) -> "subprocess.CompletedProcess[str]":
        """The real command line in a process of its own, over the same database and configuration."""
        return run_cli(*arguments, stdin=stdin, env=self.environment(), cwd=self.folder)

    def environment(self) -> dict[str, str]:
        return {
            "WARDGATE_DATABASE_URL": self.database_url,
            "WARDGATE_SEALING_KEYS_FILE": str(self.folder / "sealing-keys"),
            "WARDGATE_CONFIG": str(self.folder / "wardgate.toml"),
            "WARDGATE_JOURNAL": str(self.folder / "journal"),
        } | ({"WARDGATE_REDIS_URL": self.redis_url} if self.redis_url else {})


@functools.cache
def migrated() -> bytes:
    """An SQLite database with our tables and nothing in them: making them takes a third of a gateway's start."""
    with TemporaryDirectory() as folder, ThreadPoolExecutor(1) as pool:  # a thread: a test may have an event loop
        path = Path(folder) / "migrated.db"
        pool.submit(lambda: asyncio.run(migrate(f"sqlite+aiosqlite:///{path}"))).result()
        return path.read_bytes()


def eventually(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Poll until `condition` holds; fails the test when it never does."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        threading.Event().wait(0.02)


def run_cli(
    *arguments: str, stdin: str | None = None, env: Mapping[str, str], cwd: Path
) -> "subprocess.CompletedProcess[str]":
    """`wardgate ARGUMENTS` in a process of its own."""
    environment = {"PATH": os.environ.get("PATH", ""), "COLUMNS": "200", **env}
    return forks().run([*WARDGATE, *arguments], stdin=stdin or "", env=environment, cwd=cwd)
