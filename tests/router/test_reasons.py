"""The reasons are public API: their words, their faults, their sentences."""

from router.reasons import REASONS, Fault, Reason

WORDS = (
    "no_credential key_unusable key_rejected no_operator_key byok_not_in_plan model_not_in_plan model_not_in_token"
    " provider_retired model_deprecated model_disabled model_unknown unpriced over_max_price context_too_small"
    " output_too_small lacks_tools lacks_vision lacks_json_schema lacks_audio lacks_parameter below_min_quality"
    " excluded_by_request cooling_down budget_exhausted"
)


def test_reasons_are_the_words_of_the_public_list() -> None:
    assert [reason.value for reason in Reason] == WORDS.split()


def test_faults_are_the_words_of_the_public_list() -> None:
    assert [fault.value for fault in Fault] == ["caller", "tenant_key", "plan", "provider", "gateway"]


def test_every_reason_has_a_meaning() -> None:
    assert set(REASONS) == set(Reason)


def test_sentences_are_plain_and_differ() -> None:
    sentences = [meaning.sentence for meaning in REASONS.values()]
    assert len(set(sentences)) == len(sentences)
    assert all(sentence and sentence[0].islower() and not sentence.endswith(".") for sentence in sentences)


def test_key_reasons_are_the_tenants_and_plan_reasons_the_plans() -> None:
    faults = {reason.value: meaning.fault for reason, meaning in REASONS.items()}
    assert {word for word, fault in faults.items() if fault is Fault.TENANT_KEY} == {
        "no_credential",
        "key_unusable",
        "key_rejected",
    }
    assert {"no_operator_key", "byok_not_in_plan", "model_not_in_plan"} <= {
        word for word, fault in faults.items() if fault is Fault.PLAN
    }
