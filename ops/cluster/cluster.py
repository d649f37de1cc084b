"""A whole cluster on loopback ports: started together, ended together, replica by replica restarted or killed.

Owns the order of things. An async context manager for tests; `python -m ops.cluster` is the same for people.
"""

import asyncio
import os
import re
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from gateway.bootstrap import DEMO_KEY
from gateway.opening import open_keystore
from gateway.rules import load_rules
from gateway.settings import Settings
from ops.cluster import state
from ops.cluster.child import Child
from ops.cluster.proxy import Backend, Proxy
from ops.cluster.settings import MOST, Plan, plain_environment, wardgate
from ops.cluster.waiting import ClusterError, Say, in_thread, until
from tests import services

SERVES: Final = re.compile(r"serves (http://\S+), metrics at (\S+)")
LISTENS: Final = re.compile(r"listens on (http://\S+)/v1")
READY_S: Final = 30.0
OVER_S: Final = 8.0  # what a stop may take beyond its notice and its drain
END_S: Final = 6.0  # what is still answered when all of it ends
TENANT: Final = "demo"


@dataclass(slots=True, eq=False)
class Replica:
    """One gateway: its process, and the proxy's view of it while it runs."""

    child: Child
    backend: Backend | None = None
    restarts: int = 0
    watch: asyncio.Task[None] | None = field(default=None, repr=False)


class Cluster:
    """`url` is the proxy's; `token` one of the tenant `demo`, whose key opens the sandbox alone."""

    def __init__(self, plan: Plan | None = None, say: Say = lambda _: None) -> None:
        self.plan = plan or Plan()
        if not 1 <= self.plan.replicas <= MOST:
            raise ClusterError(f"a cluster here has 1 to {MOST} replicas")
        self.replicas: list[Replica] = []
        self.database_url = self.redis_url = self.upstream = self.token = ""
        self.control: str | None = None
        self._say = say
        self._proxy = Proxy(self.plan.port)
        self._parts: list[Child] = []
        self._stack = AsyncExitStack()
        self._busy = asyncio.Lock()

    @property
    def url(self) -> str:
        return self._proxy.url

    @property
    def refused(self) -> int:
        """Connections that the proxy found no replica for."""
        return self._proxy.refused

    @property
    def missed(self) -> int:
        """Connections that a replica did not let in and another took: no request was in them yet."""
        return sum(replica.backend.missed for replica in self.replicas if replica.backend is not None)

    async def __aenter__(self) -> Self:
        folder = self.plan.folder
        folder.mkdir(parents=True, exist_ok=True)
        try:
            await self._begin(folder)
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def _begin(self, folder: Path) -> None:
        if not self.plan.database_url:
            clear(folder)
        self._stack.callback(state.forget, folder)
        self.note()
        self.database_url = self.plan.database_url or await self._service("PostgreSQL", services.postgres())
        self.redis_url = self.plan.redis_url or await self._service("Valkey", services.valkey())
        self.upstream = self.plan.upstream or await self._sandbox()
        (folder / "wardgate.toml").write_text(self.plan.config(self.upstream), encoding="utf-8")
        self.token = await self._tenant(folder)
        self._say("database is migrated, tenant and token are made")
        await self._stack.enter_async_context(self._proxy)
        numbers = range(1, self.plan.replicas + 1)
        self.replicas = [Replica(self._gateway(folder.resolve(), number)) for number in numbers]
        self._stack.push_async_callback(self._stop_all)
        await asyncio.gather(*[self._start(replica) for replica in self.replicas])
        self._say(f"proxy listens on {self.url}, {len(self.replicas)} replicas behind it")

    async def _end(self) -> None:
        ending = asyncio.ensure_future(self._stack.aclose())
        while not ending.done():
            try:
                await asyncio.shield(ending)
            except asyncio.CancelledError:  # a second Ctrl-C: all of it is bounded, and half of it leaves processes
                continue
        ending.result()

    async def _service(self, name: str, service: AbstractContextManager[str]) -> str:
        held = ExitStack()
        self._stack.push_async_callback(in_thread, held.close)
        url = await in_thread(lambda: held.enter_context(service))
        self._say(f"{name} runs")
        return url

    async def _sandbox(self) -> str:
        command = wardgate("sandbox", "--port", "0")
        sandbox = Child("sandbox", command, self.plan.folder.resolve(), _unbuffered(), LISTENS, on_stdout=True)
        self._parts.append(sandbox)
        self._stack.push_async_callback(sandbox.stop, END_S)
        await sandbox.start()
        self.note()
        self._say(f"upstream is the sandbox on {sandbox.addresses[0]}")
        return sandbox.addresses[0]

    async def _tenant(self, folder: Path) -> str:
        settings = Settings(
            database_url=self.database_url,
            sealing_keys_file=folder / "sealing-keys",
            config=folder / "wardgate.toml",
        )
        keystore = await open_keystore(settings, load_rules(settings), create=True)
        try:
            tenant = await keystore.tenants.add(TENANT, "team")
            await keystore.credentials.set(tenant, "MINIMAX_API_KEY", DEMO_KEY)
            return (await keystore.tokens.create(tenant)).token
        finally:
            await keystore.close()

    def _gateway(self, folder: Path, number: int) -> Child:
        name = f"replica-{number}"
        (folder / name).mkdir(exist_ok=True)
        environment = self.plan.environment(name, self.database_url, self.redis_url)
        return Child(name, wardgate("serve"), folder / name, environment | _importable(), SERVES, spawn=self.plan.spawn)

    async def _start(self, replica: Replica) -> None:
        """Until it is ready and the proxy knows. Raises ClusterError."""
        await replica.child.start()
        self.note()
        port = int(replica.child.addresses[0].rpartition(":")[2])
        missed = replica.backend.missed if replica.backend is not None else 0
        backend = replica.backend = self._proxy.add(replica.child.name, port)
        backend.missed = missed
        replica.watch = asyncio.create_task(self._watch(replica, backend))
        if not await until(lambda: backend.ready, READY_S):
            raise ClusterError(f"{replica.child.name} was not ready within {READY_S:.0f} s; see {replica.child.log}")
        self._say(f"{replica.child.name} is ready (process {replica.child.pid})")

    async def _watch(self, replica: Replica, backend: Backend) -> None:
        """An ended process has no port any more; whoever takes it next is not ours."""
        assert replica.child.process is not None
        await replica.child.process.wait()
        self._proxy.remove(backend)

    async def roll(self) -> list[int]:
        """One replica after another by SIGTERM, each back before the next goes; their exit codes."""
        async with self._busy:
            return [await self._rolled(replica) for replica in self.replicas]

    async def _rolled(self, replica: Replica) -> int:
        self._say(f"{replica.child.name} is told to end")
        code = await replica.child.stop(self.plan.notice_s + self.plan.drain_s + OVER_S)
        replica.restarts += 1
        await self._start(replica)
        return code

    async def kill(self, number: int) -> None:
        """kill -9 for replica `number` (from 1), which is started again. Raises ClusterError."""
        if not 1 <= number <= len(self.replicas):
            raise ClusterError(f"there is no replica {number}; there are 1 to {len(self.replicas)}")
        async with self._busy:
            replica = self.replicas[number - 1]
            await replica.child.kill()
            self._say(f"{replica.child.name} was killed")
            replica.restarts += 1
            await self._start(replica)

    async def _stop_all(self) -> None:
        """SIGINT: the proxy goes with them, nobody needs notice."""
        await asyncio.gather(*[replica.child.stop(END_S, signal.SIGINT) for replica in self.replicas])
        watches = [replica.watch for replica in self.replicas if replica.watch is not None]
        await asyncio.gather(*watches, return_exceptions=True)

    def note(self) -> None:
        """Into the folder: what runs, and where."""
        children = [*self._parts, *(replica.child for replica in self.replicas)]
        noted = [state.note_of(child.name, child.pid) for child in children if child.pid is not None]
        state.write(
            self.plan.folder,
            {"control": self.control, "supervisor": state.note_of("cluster", os.getpid()), "children": noted},
        )

    def status(self) -> dict[str, Any]:
        """As `python -m ops.cluster status --json` shows it."""
        return {
            "proxy": {"url": self.url, "refused": self.refused, "missed": self.missed},
            "replicas": [_shown(replica) for replica in self.replicas],
            "database_url": self.database_url,
            "redis_url": self.redis_url,
            "upstream": self.upstream,
        }


def clear(folder: Path) -> None:
    """What a cluster left whose database is gone: its ring opens nothing, its journals belong nowhere."""
    for left in folder.glob("replica-*"):
        shutil.rmtree(left)
    (folder / "sealing-keys").unlink(missing_ok=True)


def _shown(replica: Replica) -> dict[str, Any]:
    child, backend = replica.child, replica.backend
    url, metrics = child.addresses or ("", "")
    seen = {"ready": backend.ready, "open": backend.open, "taken": backend.taken} if backend is not None else {}
    log = {"log": str(child.log), "restarts": replica.restarts}
    return {"name": child.name, "pid": child.pid, "url": url, "metrics": metrics, **seen, **log}


def _unbuffered() -> dict[str, str]:
    return plain_environment() | _importable() | {"PYTHONUNBUFFERED": "1"}


def _importable() -> dict[str, str]:
    """This checkout's packages before any other's."""
    return {"PYTHONPATH": str(Path(__file__).parents[2])}


@asynccontextmanager
async def short_folder() -> AsyncIterator[Path]:
    """A new folder with a short path, for a socket; it goes with the block."""
    with tempfile.TemporaryDirectory(prefix="wardgate-", dir="/tmp") as folder:
        yield Path(folder)
