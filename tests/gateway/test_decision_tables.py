"""What `wardgate explain` prints for people: every fact of a candidate, what was cut, and what would help."""

from dataclasses import replace
from typing import Any

import pytest

from gateway.cli.decision_tables import print_decision, print_request
from router.decision import Decision, Rejection, Rejections
from router.explain import to_json
from router.kept import kept_json
from router.reasons import Reason
from tests.router.test_decision import decide

Capture = pytest.CaptureFixture[str]
RECORD: dict[str, Any] = {
    **{"id": "req_1", "tenant": "acme", "created_at": "2026-11-21T08:00:00.5+00:00", "duration_ms": 840},
    **{"outcome": "failed", "status": 429, "code": "rate_limit_exceeded", "fault": "provider"},
    "served": {
        **{"provider": "minimax", "model": "MiniMax-M2", "key": "byok:former", "key_label": "eu", "key_former": None},
        **{"cost_usd": None, "catalogue": "test-1"},
    },
    "attempts": [
        {
            **{"provider": "minimax", "model": "MiniMax-M2", "outcome": "rate_limited", "status": 429},
            **{"duration_ms": 12, "key_label": label, "key_former": former},
        }
        for label, former in ((None, None), ("eu", 3))
    ],
}


def printed(decision: Decision, capture: Capture) -> str:
    print_decision(to_json(decision))
    return capture.readouterr().out


def test_candidate_has_cost_price_window_capabilities_plan_and_key(capsys: Capture) -> None:
    told = printed(decide({"model": "minimax/MiniMax-M3", "held": ["minimax"]}), capsys)
    for line in (
        "1. minimax/MiniMax-M3 for about ",
        " USD in, ",
        "reckoned with 1000 in, 500 out\n",
        "reads 1M, writes 128k tokens; can tools, vision; cannot pdf_input\n",
        "plan team allows it with the key byok:canonical, stored as MINIMAX_API_KEY\n",
        "Needs: about 1000 tokens to read, at most 500 to write.\n",
        "Nothing was rejected.",
    ):
        assert line in told, told
    assert "Nearest miss" not in told


def test_what_is_not_known_is_said_to_be_unknown(capsys: Capture) -> None:
    row = {"model": "zai/glm-4.5-flash", "held": ["zai"], "needs": {"unlimited": True, "capabilities": ["vision"]}}
    told = printed(decide(row), capsys)
    assert "at an unknown price" in told and "? USD in, ? USD out" in told and "(assumed)" in told
    assert "not certain: the price of zai/glm-4.5-flash is not known" in told
    assert "no limit set to write, must vision." in told
    decision = decide({"model": "minimax/MiniMax-M3", "held": ["minimax"]})
    bare = replace(decision.ranked[0].offer, capabilities={}, max_input_tokens=None, max_output_tokens=512)
    told = printed(replace(decision, ranked=(replace(decision.ranked[0], offer=bare),)), capsys)
    assert "reads ?, writes 512 tokens; what it can is not known" in told


def test_nearest_miss_comes_with_what_would_fix_it(capsys: Capture) -> None:
    told = printed(decide({"model": "minimax/MiniMax-M2"}), capsys)
    assert "No candidate is left." in told
    assert "Nearest miss: minimax needs a key: looked for MINIMAX_API_KEY, MINIMAX_2_7_API_KEY.\n" in told
    assert "What would fix it: store a key for minimax: `printf %s VALUE | wardgate key set acme MINIMAX_API" in told


def test_many_are_counted_and_what_was_not_kept_is_said(capsys: Capture) -> None:
    decision = decide({"model": "auto", "held": ["openai", "minimax"]})
    rejected = tuple(Rejection(f"p{n}/m", f"p{n}", "m", Reason.UNPRICED, f"unpriced {n}") for n in range(230))
    many = replace(decision, ranked=decision.ranked * 20, rejected=Rejections.of(rejected))
    print_decision(kept_json(many))
    told = capsys.readouterr().out
    ranked = len(many.ranked)
    assert f"... and {min(ranked, 20) - 10} more; --json has them all\n... and {ranked - 20} more that were not" in told
    assert "... and 180 more; --json has them all\n... and 30 more that were not kept" in told
    assert "10. " in told and "11. " not in told


def test_request_tells_its_attempts_and_its_end(capsys: Capture) -> None:
    print_request(RECORD | {"decision": kept_json(decide({"model": "minimax/MiniMax-M2", "held": ["minimax"]}))})
    told = capsys.readouterr().out
    assert "Request req_1 of acme came 2026-11-21 08:00:00 UTC and took 840 ms.\n" in told
    assert "It ended failed with status 429: rate_limit_exceeded, a fault of provider.\n" in told
    assert "Asked last: minimax/MiniMax-M2 with the key byok:former, label eu.\n" in told
    assert "eu version 3" in told and "rate_limited" in told


def test_request_without_an_attempt_says_so(capsys: Capture) -> None:
    nobody = {"provider": None, "model": None, "key": None, "key_label": None, "cost_usd": None}
    print_request(RECORD | {"attempts": [], "served": nobody, "decision": kept_json(decide({"model": "auto"}))})
    told = capsys.readouterr().out
    assert "No provider was asked." in told and "Asked last" not in told and "No candidate is left." in told
