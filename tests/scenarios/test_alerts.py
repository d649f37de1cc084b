"""RELIABILITY T31: ten times the usual spending, and thresholds of budgets, reach log, metrics and a signed webhook."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import httpx
import pytest

from gateway.sandbox.server import SandboxServer
from keystore.keystore import Keystore
from keystore.ledger_row import LedgerRow, State
from tests.gateway.alerting.test_signing import documented
from tests.harness import RunningGateway, eventually, sandbox_config
from tests.receiver import Receiver, receiver

MODEL = "minimax/MiniMax-M2"
ASK = {"model": MODEL, "messages": [{"role": "user", "content": "Hello."}]}
PRICES = f'[models."{MODEL}".prices]\ninput = "10000"\noutput = "10000"\n'  # dollars for a million tokens
WITHIN_S = 60.0


@dataclass
class Stage:
    """A gateway, a receiver that answers and one that never does, and the secret of the first."""

    gateway: RunningGateway
    heard: Receiver
    silent: Receiver
    secret: str

    def ask(self, token: str) -> Decimal:
        """One call; what it cost in dollars."""
        answer = self.gateway.post("/v1/chat/completions", token, ASK)
        assert answer.status_code == 200, answer.text
        return Decimal(answer.headers["x-wardgate-cost-usd"])


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, running_sandbox: SandboxServer) -> Iterator[Stage]:
    with ExitStack() as stack:
        heard, silent = stack.enter_context(receiver()), stack.enter_context(receiver())
        silent.silent = threading.Event()
        alerts = f'[alerts]\nunusual_least_usd = 0.01\nwebhook_hosts = ["{heard.host}", "{silent.host}"]\n'
        config = sandbox_config(running_sandbox.url, PRICES + alerts)
        gateway = stack.enter_context(RunningGateway(tmp_path_factory.mktemp("alerts"), config))

        async def hooks(keystore: Keystore) -> str:
            await keystore.webhooks.add(silent.url)
            return (await keystore.webhooks.add(heard.url + "/hook", name="pager")).secret

        yield Stage(gateway, heard, silent, gateway.operate(hooks))


def with_history(stage: Stage, slug: str, usd: Decimal) -> str:
    """A token of a new tenant that spent so much in each of the last twenty hours."""
    token = stage.gateway.tenant(slug, keys={"MINIMAX_API_KEY": "sk-sandbox-alerts"})

    async def work(keystore: Keystore) -> None:
        tenant = await keystore.tenants.get(slug)
        now = datetime.now(UTC)
        rows = [
            LedgerRow(
                request_id=f"req_{hours:08x}{hash(slug) % 2**32:024x}",
                began_at=now - timedelta(hours=hours),
                tenant_id=tenant.id,
                token_id=token.split("_")[2],
                endpoint="chat_completions",
                state=State.SETTLED,
                outcome="ok",
                key_source="byok",
                cost_nano=int(usd * 10**9),
            )
            for hours in range(20, 0, -1)
        ]
        await keystore.ledger.write(f"history-{slug}", 0, rows)

    stage.gateway.operate(work)
    return token


def of(stage: Stage, slug: str, kind: str = "spend.unusual") -> list[dict[str, object]]:
    """What the receiver heard of a tenant, without its first hour, which has nothing to be compared with."""
    found = [each.message["data"] for each in stage.heard.of(kind) if each.message["data"]["tenant"] == slug]
    return [one for one in found if one.get("usual_usd") != "0"]


def test_ten_times_the_usual_spending_is_told_in_log_metric_and_webhook(stage: Stage) -> None:
    cost = stage.ask(with_history(stage, "measures", Decimal(1)))
    token = with_history(stage, "stolen", cost)
    before = stage.gateway.metric("wardgate_unusual_spending_total", whose="token")
    for _ in range(3):
        stage.ask(token)
    began = time.monotonic()
    spent = Decimal(0)
    while not of(stage, "stolen"):  # an hour may end in between: then a few more make the next one unusual
        spent += stage.ask(token)
        assert time.monotonic() - began < WITHIN_S, "it was not told in time"
    assert spent >= 4 * cost  # after three calls like the usual one, nothing was told
    eventually(lambda: len(of(stage, "stolen")) >= 2)
    told = {one["token"]: one for one in of(stage, "stolen")}
    assert set(told) == {None, token.split("_")[2]}
    for one in told.values():
        usual = Decimal(str(one["usual_usd"]))
        assert cost <= usual < 2 * cost and one["factor"] == 10  # the same, unless an hour ended in between
        assert Decimal(str(one["spent_usd"])) >= 10 * usual
    lines = [line for line in stage.gateway.logs.records("spend.unusual") if line["tenant"] == "stolen"]
    assert {line.get("token_id") for line in lines} == set(told)
    assert stage.gateway.metric("wardgate_unusual_spending_total", whose="token") >= before + 1


@pytest.mark.parametrize("plan", ["free", "solo", "pro", "team", "enterprise"])
def test_every_token_is_under_a_budget_from_the_start(stage: Stage, plan: str) -> None:
    token = stage.gateway.tenant(f"new-{plan}", plan)
    (only,) = stage.gateway.get("/v1/budgets", token).json()["data"]
    assert (only["whose"], only["spend"], only["hard"]) == ("plan", "managed", True)
    assert Decimal(only["amount_usd"]) >= 0


def test_ordinary_spending_is_not_told(stage: Stage) -> None:
    cost = stage.ask(with_history(stage, "weighs", Decimal(1)))
    token = with_history(stage, "ordinary", cost)
    for _ in range(9):
        stage.ask(token)
    # what is told of another afterwards says that this was judged and not told
    loud = with_history(stage, "loud", cost / 100)
    stage.ask(loud)
    eventually(lambda: bool(of(stage, "loud")))
    assert of(stage, "ordinary") == []
    assert [line for line in stage.gateway.logs.records("spend.unusual") if line["tenant"] == "ordinary"] == []


def test_threshold_of_a_budget_is_told_and_its_signature_verified_as_documented(stage: Stage) -> None:
    token = stage.gateway.tenant("bound", keys={"MINIMAX_API_KEY": "sk-sandbox-alerts"})

    async def work(keystore: Keystore) -> None:
        tenant = await keystore.tenants.get("bound")
        await keystore.budgets.set(tenant, "month", "byok", Decimal("0.000000001"))

    stage.gateway.operate(work)
    cost = stage.ask(token)
    eventually(lambda: bool(of(stage, "bound", "budget.threshold")))
    (told,) = of(stage, "bound", "budget.threshold")
    assert (told["per_cent"], told["spend"], told["hard"], told["amount_usd"]) == (100, "byok", False, "0.000000001")
    assert Decimal(str(told["spent_usd"])) == cost
    came = next(each for each in stage.heard.of("budget.threshold") if each.message["data"] == told)
    assert (came.path, came.headers["webhook-id"]) == ("/hook", came.message["id"])
    assert documented()(stage.secret, came.headers, came.body)
    assert not documented()(stage.secret, came.headers, came.body.replace(b"100", b"50"))
    (line,) = [line for line in stage.gateway.logs.records("budget.threshold") if line["tenant"] == "bound"]
    assert (line["per_cent"], line["budget"]) == (100, f"tenant:{line['tenant_id']}:byok:month")
    assert stage.gateway.metric("wardgate_budget_thresholds_total", per_cent="100", whose="tenant", spend="byok") == 1
    assert stage.gateway.metric("wardgate_webhook_deliveries_total", outcome="delivered") >= 1


def test_budget_that_is_used_up_when_it_is_set_is_told(stage: Stage) -> None:
    """From then on every call is refused, so that no call would tell it."""
    token = stage.gateway.tenant("late", keys={"MINIMAX_API_KEY": "sk-sandbox-alerts"})
    cost = stage.ask(token)

    async def admin_token(keystore: Keystore) -> str:
        return (await keystore.tokens.create(None, kind="admin")).token

    where = "/admin/tenants/late/budgets/byok/day"
    body, admin = {"amount_usd": "0.00001", "hard": True}, stage.gateway.operate(admin_token)

    eventually(lambda: stage.gateway.get("/v1/usage", token).json()["total"]["requests"] == 1)
    head = {"authorization": f"Bearer {admin}"}
    assert httpx.put(stage.gateway.url + where, json=body, headers=head).status_code == 200
    assert stage.gateway.post("/v1/chat/completions", token, ASK).status_code == 429
    eventually(lambda: bool(of(stage, "late", "budget.threshold")))
    (told,) = of(stage, "late", "budget.threshold")
    assert (told["per_cent"], told["hard"], Decimal(str(told["spent_usd"]))) == (100, True, cost)
    (line,) = [line for line in stage.gateway.logs.records("budget.threshold") if line["tenant"] == "late"]
    assert (line["per_cent"], line["amount_usd"]) == (100, "0.00001")

    done = stage.gateway.cli("budget", "set", "late", "0.00001", "--period", "month", "--spend", "byok")
    assert (done.returncode, done.stderr) == (
        0,
        f"Note: 100 % of the budget {str(line['budget'])[:-3]}month are spent.\n",
    )
    eventually(lambda: len(of(stage, "late", "budget.threshold")) == 2)


def test_receiver_that_never_answers_slows_nothing_down(stage: Stage) -> None:
    """It was asked by the alerts before, and holds them open."""
    eventually(lambda: len(stage.silent.heard) > 0)
    token = with_history(stage, "goes-on", Decimal(1000))
    asked = [stage.ask(token) for _ in range(20)]
    assert len(asked) == 20
    assert httpx.get(stage.gateway.url + "/readyz", timeout=5).status_code == 200


def test_what_is_not_delivered_outlives_the_process(tmp_path: Path, sandbox: SandboxServer) -> None:
    with receiver() as away:
        alerts = f'[alerts]\nunusual_least_usd = 0.01\nwebhook_hosts = ["{away.host}"]\n'
        gateway = RunningGateway(tmp_path, sandbox_config(sandbox.url, PRICES + alerts))

        async def begun(keystore: Keystore) -> int:
            """A threshold is crossed by a process that is gone before it sends anything."""
            await keystore.webhooks.add(away.url)
            tenant = await keystore.tenants.add("acme", "team")
            row = LedgerRow(
                request_id=f"req_{1:032x}",
                began_at=datetime.now(UTC),
                tenant_id=tenant.id,
                token_id="AAAAAAAAAAAA",
                endpoint="chat_completions",
                state=State.SETTLED,
                outcome="ok",
                key_source="byok",
                cost_nano=10**9,
            )
            await keystore.ledger.write("j", 0, [row])
            return await keystore.outbox.waiting()

        assert gateway.operate(begun) == 2  # of the token and of the tenant
        assert away.heard == []
        with gateway:
            eventually(lambda: len(away.of("spend.unusual")) == 2)
            eventually(lambda: gateway.operate(_waiting) == 0)


async def _waiting(keystore: Keystore) -> int:
    return await keystore.outbox.waiting()
