"""The two causes of the seeds' outage, each alone and both together: a key under a former name, a plan without a row.

Then the error was "No models available from dynamic pricing" and named neither.
"""

from typing import Any

import pytest
from sqlalchemy import text

from keystore.keystore import Keystore
from tests.harness import RunningGateway

ASK: Any = {"model": "auto", "messages": [{"role": "user", "content": "Hello"}]}
FORMER, CANONICAL = "MINIMAX_2_7_API_KEY", "MINIMAX_API_KEY"


def without_a_row(gateway: RunningGateway, slug: str) -> None:
    """Put the tenant on a plan that has no row, past Wardgate, which refuses to."""

    async def work(keystore: Keystore) -> None:
        async with keystore._database.write() as connection:
            await connection.execute(
                text("UPDATE wardgate_tenants SET plan = 'crew' WHERE slug = :slug"), {"slug": slug}
            )

    gateway.operate(work)


def test_former_name_alone_is_served_and_counted(gateway: RunningGateway) -> None:
    token = gateway.tenant("brennan", "team", {FORMER: "sk-sandbox-b"})
    answer = gateway.post("/v1/chat/completions", token, ASK)
    assert (answer.status_code, answer.headers["x-wardgate-key"]) == (200, "byok:former")
    assert gateway.settled("wardgate_key_resolutions_total", provider="minimax", via="former") == 1


@pytest.mark.parametrize("name", [CANONICAL, FORMER])
def test_plan_without_a_row_is_named_whatever_the_key_is_called(gateway: RunningGateway, name: str) -> None:
    token = gateway.tenant("brennan", "team", {name: "sk-sandbox-b"})
    without_a_row(gateway, "brennan")
    error = gateway.post("/v1/chat/completions", token, ASK).json()["error"]
    assert (error["code"], error["fault"]) == ("tenant_plan_unknown", "plan")
    assert "'crew'" in error["message"]

    run = gateway.cli("tenant", "set-plan", "brennan", "team")
    assert run.returncode == 0, run.stderr
    answer = gateway.post("/v1/chat/completions", token, ASK)
    found = "canonical" if name == CANONICAL else "former"
    assert (answer.status_code, answer.headers["x-wardgate-key"]) == (200, f"byok:{found}")
