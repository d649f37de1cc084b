"""A refusal for a reason of the plan names the plan that unlocks, whenever one does."""

import pytest

from router.decision import route
from router.entitlement import Entitlements
from router.query import Holding, KeySource, Lacking
from router.reasons import REASONS, Fault, Reason
from tests.router import world

PLANS = list(world.plans())
OFFERS = [offer for offer in world.catalogue().offers if offer.is_chat and world.registry().get(offer.provider_id)]


@pytest.mark.parametrize("source", list(KeySource))
def test_refusal_of_the_plan_names_the_least_other_plan_that_lets_the_model_through(source: KeySource) -> None:
    entitled = Entitlements(world.plans(), world.registry())
    seen = set()
    for plan in PLANS:
        for offer in OFFERS:
            keys: dict[str, Holding | Lacking] = {offer.provider_id: world.holding(offer.provider_id, source)}
            query = world.query({"model": offer.id, "plan": plan.name, "managed_open": True})
            decision = route(query, world.catalogue(), world.registry(), world.plans(), keys)
            for no in decision.rejected:
                if no.offer_id == offer.id and REASONS[no.reason].fault is Fault.PLAN:
                    other = entitled.unlocking(plan, offer, source)
                    assert other is None or f"the nearest plan that does is {other.name!r}" in no.detail
                    seen.add((no.reason, other is not None))
    named = Reason.BYOK_NOT_IN_PLAN if source is KeySource.BYOK else Reason.MODEL_NOT_IN_PLAN
    assert (named, True) in seen
