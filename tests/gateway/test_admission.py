"""How a refusal is worded: what is said is what was decided by."""

import pytest

from gateway.admission import _problem
from gateway.errors import Problem
from gateway.limiting.asks import Ask
from gateway.limiting.limiter import Limiter
from keystore.limits import NO_LIMITS
from router.plans import load_plans
from tests.gateway.limiting.test_limiter import Clock, conc, rpm, tpm


async def refusal(replicas: int, before: int, ask: Ask) -> Problem:
    """Of the one that comes after so many."""
    limiter = Limiter(clock=Clock(), replicas=lambda: replicas)
    for _ in range(before):
        assert (await limiter.admit([ask])).admitted
    verdict = await limiter.admit([ask])
    assert verdict.refused is not None
    plan = load_plans().get("pro")
    assert plan is not None
    return _problem(plan, NO_LIMITS, verdict, verdict.refused)


ALONE = 'The plan "pro" allows 100,000 tokens a minute'
FOUR = ", of which each of 4 processes admits its part ({})"
TOO_MUCH = ", and this request alone may need {}: make it shorter or lower max_tokens."


@pytest.mark.parametrize(
    ("replicas", "ask", "said"),
    [
        (1, tpm(100_000, 100_001), ALONE + TOO_MUCH.format("100,001")),
        (4, tpm(100_000, 100_001), ALONE + FOUR.format("25,000") + TOO_MUCH.format("100,001")),
        (4, tpm(100_000, 40_000), ALONE + FOUR.format("25,000") + TOO_MUCH.format("40,000")),
    ],
    ids=["more than the limit", "more than the limit, of several", "more than a part"],
)
async def test_who_asks_for_too_much_is_told_of_what(replicas: int, ask: Ask, said: str) -> None:
    problem = await refusal(replicas, 0, ask)
    assert (problem.message, problem.retry_after_s) == (said, None)


@pytest.mark.parametrize(
    ("ask", "before", "said"),
    [
        (rpm(60), 15, f'The plan "pro" allows 60 requests a minute{FOUR.format(15)}. Send it again in 4s.'),
        (conc(8), 2, f'The plan "pro" allows 8 requests at the same time{FOUR.format(2)}. Send it again in 1s.'),
    ],
    ids=["requests", "concurrency"],
)
async def test_part_of_one_process_is_told_where_there_are_several(ask: Ask, before: int, said: str) -> None:
    assert (await refusal(4, before, ask)).message == said
    assert "part" not in (await refusal(1, ask.limit, ask)).message
