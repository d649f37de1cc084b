"""A decision as it is kept: the JSON that explains it, cut to a bounded size, and what was cut.

Owns what stays when a decision is too large to keep whole. The decision itself is kept and not what went into it: those
who ask later want what was decided then, and replaying the inputs would need the catalogue, the plans and the provider
rows of that moment. Must not know where it is kept.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from router.decision import Decision, Rejection, Rejections
from router.explain import fix_of, nearest_miss, summary, to_json
from router.reasons import Reason

MOST_RANKED: Final = 20  # a request makes three attempts
MOST_REJECTED: Final = 200


def kept_json(decision: Decision) -> dict[str, object]:
    """`to_json` of the first ranked and rejected offers; `considered`, `counts`, `summary` and `nearest_miss` are of
    all, `cut` says how many are missing. A function of the decision alone. Holds no float."""
    chosen = _chosen(decision)
    miss = None if decision.ranked else nearest_miss(decision)
    told = to_json(replace(decision, ranked=decision.ranked[:MOST_RANKED], rejected=Rejections.of(chosen)))
    return told | {
        "considered": decision.considered,
        "counts": decision.counts,
        "summary": summary(decision),
        "nearest_miss": miss.detail if miss else None,
        "fix": fix_of(decision, miss) if miss else None,
        "cut": {
            "ranked": max(0, len(decision.ranked) - MOST_RANKED),
            "rejected": len(decision.rejected) - len(chosen),
        },
    }


def _chosen(decision: Decision) -> tuple[Rejection, ...]:
    """As many as are kept, by their offers' ids: those for rare reasons before those for common ones, so that the one
    model that is cooling down is not lost among hundreds without a key; and the nearest miss where nobody is ranked."""
    rejected = tuple(decision.rejected)
    if len(rejected) <= MOST_REJECTED:
        return rejected
    common, room = _common(decision.counts)
    chosen: list[Rejection] = []
    for each in rejected:
        if each.reason not in common:
            chosen.append(each)
        elif room:
            chosen.append(each)
            room -= 1
    miss = None if decision.ranked else nearest_miss(decision)
    if miss is not None and miss not in chosen:
        chosen = [miss, *chosen[:-1]]
    return tuple(chosen)


def _common(counts: Mapping[str, int]) -> tuple[tuple[Reason, ...], int]:
    """The most frequent reasons, whose rejections are not all kept, and how many of these there is room for. A tuple:
    few stand in it, and to hash a reason is slow."""
    rarest_first, room = sorted(counts, key=counts.__getitem__), MOST_REJECTED
    for place, reason in enumerate(rarest_first):
        if counts[reason] > room:
            return tuple(map(Reason, rarest_first[place:])), room
        room -= counts[reason]
    return (), room
