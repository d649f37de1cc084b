"""Price releases over HTTP: what waits is seen, decided and served at once, and nobody decides without the right."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gateway.sandbox.server import SandboxServer
from keystore.keystore import Keystore
from tests.harness import RunningGateway, eventually, sandbox_config
from tests.prices import JUMPS, M2, begin_with_few, published, times


@pytest.fixture
def priced_gateway(tmp_path: Path, sandbox: SandboxServer) -> Iterator[RunningGateway]:
    """A gateway with forty rows live, and one list in a file."""
    gateway = RunningGateway(
        tmp_path, sandbox_config(sandbox.url, f'[prices]\nurls = ["file:{tmp_path}/prices.json"]\n')
    )
    gateway.operate(begin_with_few)
    with gateway:
        yield gateway


def admin_of(gateway: RunningGateway) -> str:
    async def work(keystore: Keystore) -> str:
        return (await keystore.tokens.create(None, kind="admin")).token

    return gateway.operate(work)


def test_operator_refreshes_looks_lets_in_and_goes_back(priced_gateway: RunningGateway) -> None:
    gateway, folder = priced_gateway, priced_gateway.folder
    token = admin_of(gateway)

    def get(path: str) -> Any:
        answer = gateway.get(f"/admin/prices{path}", token)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(path: str, body: object, status: int = 200) -> Any:
        answer = gateway.post(f"/admin/prices{path}", token, body)
        assert answer.status_code == status, answer.text
        return answer.json()

    def served() -> str:
        return gateway.get("/livez").headers["x-wardgate-catalogue"]

    first = served()
    broken: dict[str, object] = {"input_cost_per_token": "free"}
    (folder / "prices.json").write_bytes(published(**{M2: times(M2, "2"), JUMPS: times(JUMPS, "10"), "gpt-4o": broken}))
    report = post("/refresh", {"sources": "all"})
    number = report["release"]["release"]
    assert (report["outcome"], report["release"]["state"]) == ("live", "live")
    eventually(lambda: served() == report["release"]["version"], 2)
    assert gateway.metric("wardgate_build_info", catalogue=served()) == 1
    assert gateway.metric("wardgate_build_info") == 1

    rows = get(f"/releases/{number}/rows")["data"]
    assert [(row["name"], row["why"]) for row in rows] == [("gpt-4o", "malformed"), (JUMPS, "jumped")]
    difference = get(f"/releases/{number}/diff")
    assert difference["counts"]["repriced"] == 1
    assert difference["changed"][0] == {
        "name": M2,
        "field": "input_cost_per_token",
        "before": "0.0000003",
        "after": "0.0000006",
        "factor": "2.0000",
    }
    assert post(f"/releases/{number}/approve", {"rows": ["gpt-4o"]}, 409)["error"]["code"] == "price_conflict"
    assert post(f"/releases/{number}/approve", {"rows": ["gpt-5"]}, 400)["error"]["code"] == "price_row_unknown"
    assert post("/releases/999999/approve", {}, 404)["error"]["code"] == "price_release_unknown"
    assert gateway.get("/admin/prices/releases/twelve", token).json()["error"]["code"] == "price_release_unknown"
    after = post(f"/releases/{number}/approve", {"rows": [JUMPS]})
    assert (after["release"], after["state"], after["counts"]["waiting"]) == (number + 1, "live", 1)
    eventually(lambda: served() == after["version"], 2)

    eventually(lambda: get("")["replicas"][0]["current"], 5)
    status = get("")
    assert (status["live"]["version"], status["waiting_rows"], status["staged"]) == (after["version"], 1, None)
    assert [one["release"] for one in get("/releases")["data"]] == [number - 1, number, number + 1]
    assert get(f"/releases/{number}")["state"] == "superseded"

    post("/rollback", {"to": str(number - 1)})
    eventually(lambda: served() == first, 2)
    post("/rollback", {"to": "bundled"})
    eventually(lambda: served().startswith("bundled-"), 2)
    assert post("/rollback", {"to": "bundled"}, 409)["error"]["code"] == "price_conflict"
    assert post("/releases/1/reject", b"", 409)["error"]["code"] == "price_conflict"
    assert get("/as-of?at=2020-01-01T00:00:00Z")["release"] is None
    assert get(f"/as-of?at={status['live']['since']}")["version"] == after["version"]
    moves = [line["catalogue"] for line in gateway.logs.records("prices.live")]
    assert moves[:3] == [report["release"]["version"], after["version"], first]


def test_refresh_by_itself_is_noted_and_served(tmp_path: Path, sandbox: SandboxServer) -> None:
    prices = f'[prices]\nrefresh = true\nurls = ["file:{tmp_path}/prices.json", "file:/nowhere/list.json"]\n'
    gateway = RunningGateway(tmp_path, sandbox_config(sandbox.url, prices))
    gateway.operate(begin_with_few)
    (tmp_path / "prices.json").write_bytes(published(**{M2: times(M2, "2")}))
    with gateway:
        eventually(lambda: gateway.logs.records("prices.refreshed") != [])
        (refreshed,) = gateway.logs.records("prices.refreshed")
        assert refreshed["outcome"] == "live"
        assert gateway.metric("wardgate_price_refreshes_total", outcome="live") == 1
        version = f"release-{refreshed['release']}-"
        eventually(lambda: gateway.get("/livez").headers["x-wardgate-catalogue"].startswith(version), 2)
        (failed,) = gateway.logs.records("prices.source_not_used")
        assert (failed["source"], failed["why"]) == ("file:/nowhere/list.json", "there is no such file")

        async def noted(keystore: Keystore) -> list[tuple[str, str, str]]:
            rows = await keystore.audit.list(action="price.refresh", limit=5)
            return [(row.actor_kind, row.actor, row.outcome) for row in rows]

        eventually(lambda: gateway.operate(noted)[:1] == [("wardgate", "prices", "done")])


def test_gateway_starts_over_a_release_that_cannot_be_read(tmp_path: Path, sandbox: SandboxServer) -> None:
    gateway = RunningGateway(tmp_path, sandbox_config(sandbox.url))
    gateway.operate(begin_with_few)
    with closing(sqlite3.connect(tmp_path / "wardgate.db")) as database, database:
        database.execute("UPDATE wardgate_price_releases SET content = x'6e6f7065'")
    with gateway:
        assert gateway.get("/readyz").status_code == 200
        assert gateway.get("/livez").headers["x-wardgate-catalogue"].startswith("bundled-")
        (said,) = gateway.logs.records("prices.live_release_not_readable")
        assert (said["why"], said["instead"]) == (
            "the price release cannot be read: its content is damaged",
            "the bundled map",
        )
