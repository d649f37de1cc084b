"""Models that search unasked: which they are, and that their fee is never taken for nothing."""

from dataclasses import replace
from decimal import Decimal

import pytest

from keystore.providers import load_registry
from router.catalogue import Catalogue, Offer
from router.entitlement import Entitlements
from router.filters import Circumstances, is_priced
from router.most import most_nano
from router.needs import Needs
from router.prices import PriceClass
from router.ranking import candidate
from router.reasons import Reason
from tests.router import world
from tests.router.test_bundled import catalogue

ASKED = Needs(input_tokens=100, max_output_tokens=50)


def offers(source: Catalogue) -> dict[str, Offer]:
    return {offer.id: offer for offer in source.offers}


@pytest.mark.parametrize(
    ("model", "searches"),
    [
        ("openai/gpt-4o-search-preview", True),
        ("openai/gpt-4o-mini-search-preview-2025-03-11", True),
        ("openai/gpt-5-search-api", True),
        ("openai/gpt-5-search-api-2025-10-14", True),
        ("perplexity/sonar", True),
        ("perplexity/sonar-reasoning-pro", True),
        ("perplexity/sonar-deep-research", True),
        ("perplexity/perplexity/sonar", True),
        ("google/deep-research-preview-04-2026", True),
        ("openai/gpt-4o", False),
        ("openai/gpt-4o-mini", False),
        ("fireworks/accounts/fireworks/models/firesearch-ocr-v6", False),
        ("deepinfra/NousResearch/Hermes-3-Llama-3.1-70B", False),
        ("openai/gpt-rosalind-research", False),
    ],
)
def test_models_that_search_unasked_are_known_by_their_names(model: str, searches: bool) -> None:
    offer = offers(catalogue())[model]
    assert offer.fee_unknown is searches
    assert (most_nano(offer, ASKED) is None) is searches


def test_only_a_few_models_of_the_whole_map_are_taken_for_such() -> None:
    live = {offer.id.partition("/")[0] for offer in catalogue().offers if offer.fee_unknown}
    assert live == {"google", "openai", "perplexity"}


def test_fee_that_the_operator_tells_is_reckoned() -> None:
    offer = offers(catalogue())["openai/gpt-4o-search-preview"]
    told = replace(offer, prices=replace(offer.prices, others={PriceClass.REQUEST: Decimal("0.025")}))
    most = most_nano(told, ASKED)
    assert not told.fee_unknown and most is not None and most > 25_000_000


def test_expected_cost_of_a_model_that_searches_is_not_known() -> None:
    offer = offers(catalogue())["perplexity/sonar"]
    query = world.query({"model": offer.id})
    assert candidate(offer, world.holding("perplexity"), query).expected_cost is None
    assert load_registry({}).get("perplexity") is not None


def test_fee_that_is_not_known_is_a_doubt() -> None:
    offer = offers(catalogue())["perplexity/sonar"]
    query = world.query({"model": offer.id})
    entitlements = Entitlements(world.plans(), world.registry())
    provider, key = world.provider("perplexity"), world.holding("perplexity")
    denial = is_priced(offer, Circumstances(query, True, provider, key, entitlements))
    assert denial is not None and (denial.reason, denial.certain) == (Reason.UNPRICED, False)
