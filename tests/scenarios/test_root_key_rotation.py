"""A root key is changed while requests run: none fails, and the key that did the work before can be taken away."""

import json
import threading
from collections import Counter
from typing import Any

import pytest

from gateway.sandbox.server import SandboxServer
from keystore.keystore import Keystore
from tests.harness import RunningGateway, eventually

HELLO: dict[str, Any] = {"model": "minimax/MiniMax-M2", "messages": [{"role": "user", "content": "Hello"}]}
CALLERS = 4


class Load:
    """Some callers that ask one after another until they are stopped."""

    def __init__(self, gateway: RunningGateway, token: str) -> None:
        self.answers: Counter[int] = Counter()
        self._stop = threading.Event()
        self._gateway, self._token = gateway, token
        self._threads = [threading.Thread(target=self._ask) for _ in range(CALLERS)]

    def _ask(self) -> None:
        while not self._stop.is_set():
            self.answers[self._gateway.post("/v1/chat/completions", self._token, HELLO).status_code] += 1

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def goes_on(self) -> None:
        """Wait until each caller could have asked again."""
        before = self.answers.total()
        eventually(lambda: self.answers.total() >= before + 2 * CALLERS)


def said(gateway: RunningGateway, *arguments: str) -> Any:
    run = gateway.cli("sealing", *arguments, "--json")
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.timeout(300)  # eight commands beside the load, on whatever machine
def test_root_key_is_rotated_under_load_without_a_failed_request(
    gateway: RunningGateway, sandbox: SandboxServer
) -> None:
    token = gateway.tenant("acme", keys={"MINIMAX_2_7_API_KEY": "sk-sandbox-acme"})
    with Load(gateway, token) as load:
        load.goes_on()
        old = said(gateway, "status")[0]["kek_id"]
        new = said(gateway, "add")["kek_id"]
        eventually(lambda: said(gateway, "status")[1]["replicas_lacking"] == [])
        for step in (("activate", new), ("rewrap",), ("verify",), ("retire", old)):
            said(gateway, *step)
            load.goes_on()
        ring = gateway.folder / "sealing-keys"
        kept = [line for line in ring.read_text().splitlines(keepends=True) if not line.startswith(f"{old}:")]
        ring.write_text("".join(kept))
        load.goes_on()

        async def set_again(keystore: Keystore) -> None:
            tenant = await keystore.tenants.get("acme")
            await keystore.credentials.set(tenant, "MINIMAX_API_KEY", "sk-sandbox-new")

        gateway.operate(set_again)
        load.goes_on()
    assert set(load.answers) == {200}
    assert "-new" in {request.key_tail for request in sandbox.requests()}
    assert {one["kek_id"]: one["state"] for one in said(gateway, "status")} == {old: "retired", new: "active"}
