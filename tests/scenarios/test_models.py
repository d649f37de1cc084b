"""The operator's models of wardgate.toml, over HTTP and on the command line."""

import json
from decimal import Decimal
from pathlib import Path

from gateway.sandbox.server import SandboxServer
from tests.harness import RunningGateway, sandbox_config

MODELS = """
[models."minimax/house-model"]
mode = "chat"
family = "house"
prices = { input = "1000", output = "2000" }
max_input_tokens = 128000

[models."minimax/MiniMax-M2"]
disabled = true
"""
HELLO = {"messages": [{"role": "user", "content": "Hello"}]}


def test_a_private_model_is_served_at_its_price_and_a_disabled_one_is_not(
    tmp_path: Path, sandbox: SandboxServer
) -> None:
    with RunningGateway(tmp_path, sandbox_config(sandbox.url, MODELS)) as gateway:
        token = gateway.tenant("acme", "team", {"MINIMAX_API_KEY": "sk-sandbox-a"})
        answer = gateway.post("/v1/chat/completions", token, HELLO | {"model": "house"})
        assert (answer.status_code, answer.headers["x-wardgate-model"]) == (200, "house-model")
        assert "+" in answer.headers["x-wardgate-catalogue"]
        usage = answer.json()["usage"]
        spent = Decimal("0.001") * usage["prompt_tokens"] + Decimal("0.002") * usage["completion_tokens"]
        assert Decimal(answer.headers["x-wardgate-cost-usd"]) == spent
        refused = gateway.post("/v1/chat/completions", token, HELLO | {"model": "minimax/MiniMax-M2"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_disabled")
        assert "switched off by the operator" in refused.json()["error"]["message"]
        shown = json.loads(gateway.cli("explain", "--tenant", "acme", "--model", "house", "--json").stdout)
        assert [each["id"] for each in shown["ranked"]] == ["minimax/house-model"]
