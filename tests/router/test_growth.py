"""Decisions leave nothing behind but what is remembered, which is bounded; WARDGATE_DECISIONS are made."""

import gc
import os
import tracemalloc
from dataclasses import replace

from router.decision import REMEMBERED, Router
from router.needs import Needs
from router.query import Holdings
from tests.router import world

DECISIONS = int(os.environ.get("WARDGATE_DECISIONS", "4096"))  # both halves end with the same query


def test_memory_does_not_grow_with_decisions() -> None:
    router = Router(world.catalogue(), world.registry(), world.plans())
    held = Holdings(world.keys({"held": ["openai", "minimax", "groq"]}).values())
    query = world.query({"model": "auto"})

    def decide(number: int) -> None:
        """Each other than the last REMEMBERED ones, so that each is made and one is forgotten for it."""
        decision = router.fitting(replace(query, needs=Needs(input_tokens=number % (4 * REMEMBERED))), held)
        assert decision.ranked
        if number % 7 == 0:
            assert decision.counts

    def held_after(numbers: range) -> int:
        for number in numbers:
            decide(number)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = held_after(range(DECISIONS // 2))
        after = held_after(range(DECISIONS // 2, DECISIONS))
    finally:
        tracemalloc.stop()
    assert after - before < 100_000
