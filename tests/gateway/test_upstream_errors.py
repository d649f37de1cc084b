"""What a provider's answer means: rows of status, body and the kind that follows."""

import json
import time
from datetime import UTC, datetime

import pytest

from gateway.upstream_errors import kind_of, read_error, retry_after_s, status_inside, wait_asked_s
from router.failure import FailureKind as Kind

OPENAI = '{"error": {"message": "%s", "type": "invalid_request_error", "param": null, "code": "%s"}}'
ANTHROPIC = '{"type": "error", "error": {"type": "%s", "message": "%s"}}'
GOOGLE = '{"error": {"code": 400, "message": "%s", "status": "%s"}}'

ROWS = {
    "OpenAI, bad key": (401, OPENAI % ("Incorrect API key provided", "invalid_api_key"), Kind.KEY_REJECTED),
    "OpenAI, no access to the project": (403, OPENAI % ("You do not have access", ""), Kind.KEY_REJECTED),
    "a firewall's page": (403, "<html>Attention Required! | Cloudflare</html>", Kind.SERVER_ERROR),
    "a region": (
        403,
        OPENAI % ("Country, region, or territory not supported", "unsupported_country"),
        Kind.SERVER_ERROR,
    ),
    "no such model as 403": (403, OPENAI % ("Project x", "model_not_found"), Kind.MODEL_UNAVAILABLE),
    "a limit that mentions billing": (
        429,
        OPENAI % ("TPM limit; see /account/billing", "rate_limit_exceeded"),
        Kind.RATE_LIMITED,
    ),
    "Google, per minute": (
        429,
        GOOGLE % ("check your plan and billing details", "RESOURCE_EXHAUSTED"),
        Kind.RATE_LIMITED,
    ),
    "a function called billing": (
        400,
        OPENAI % ("Invalid schema for function 'get_billing_address'", ""),
        Kind.BAD_REQUEST,
    ),
    "a field called moderation": (
        400,
        OPENAI % ("Unknown parameter: 'moderation'.", "unknown_parameter"),
        Kind.BAD_REQUEST,
    ),
    "a field called context_window": (400, OPENAI % ("Unknown parameter: 'context_window'.", ""), Kind.BAD_REQUEST),
    "input that was echoed": (400, OPENAI % ("Invalid input: 'the safety setting of my car'", ""), Kind.BAD_REQUEST),
    "a quoted sentence": (400, OPENAI % ("Invalid value: 'your credit balance is too low'", ""), Kind.BAD_REQUEST),
    "another one": (400, OPENAI % ("'check whether the prompt is too long' is not allowed", ""), Kind.BAD_REQUEST),
    "conflict": (409, OPENAI % ("try again", ""), Kind.SERVER_ERROR),
    "too early": (425, "", Kind.SERVER_ERROR),
    "OpenAI, moderated": (403, OPENAI % ("Blocked by moderation", "content_policy_violation"), Kind.CONTENT_FILTER),
    "Google answers 400 to a bad key": (400, GOOGLE % ("API key not valid.", "INVALID_ARGUMENT"), Kind.KEY_REJECTED),
    "OpenAI, rate": (429, OPENAI % ("Rate limit reached", "rate_limit_exceeded"), Kind.RATE_LIMITED),
    "OpenAI, no credit": (429, OPENAI % ("You exceeded your quota", "insufficient_quota"), Kind.QUOTA_EXHAUSTED),
    "Anthropic, no credit": (400, ANTHROPIC % ("x", "Your credit balance is too low"), Kind.QUOTA_EXHAUSTED),
    "DeepSeek, no credit": (402, OPENAI % ("Insufficient Balance", ""), Kind.QUOTA_EXHAUSTED),
    "OpenAI, too long": (400, OPENAI % ("too big", "context_length_exceeded"), Kind.CONTEXT_LENGTH),
    "Anthropic, too long": (400, ANTHROPIC % ("x", "prompt is too long: 3 > 2"), Kind.CONTEXT_LENGTH),
    "Anthropic, too long, 413": (413, ANTHROPIC % ("request_too_large", "prompt is too long"), Kind.CONTEXT_LENGTH),
    "Google, too long": (400, GOOGLE % ("The input token count exceeds", "x"), Kind.CONTEXT_LENGTH),
    "OpenAI, unknown model": (404, OPENAI % ("The model does not exist", "model_not_found"), Kind.MODEL_UNAVAILABLE),
    "unknown model as 400": (400, OPENAI % ("bad", "model_not_found"), Kind.MODEL_UNAVAILABLE),
    "Azure, filtered": (400, OPENAI % ("x", "content_filter"), Kind.CONTENT_FILTER),
    "plain mistake": (400, OPENAI % ("bad temperature", "invalid_value"), Kind.BAD_REQUEST),
    "unprocessable": (422, '{"detail": "no"}', Kind.BAD_REQUEST),
    "teapot": (418, "", Kind.BAD_REQUEST),
    "Anthropic, overloaded": (529, ANTHROPIC % ("overloaded_error", "Overloaded"), Kind.SERVER_ERROR),
    "gateway time-out": (504, "<html>", Kind.TIMEOUT),
    "request time-out": (408, "", Kind.TIMEOUT),
    "bad gateway": (502, "<html>", Kind.SERVER_ERROR),
    "redirect": (307, "", Kind.MALFORMED),
    "nonsense": (799, "", Kind.MALFORMED),
}


@pytest.mark.parametrize("name", ROWS)
def test_failure_kind_follows_from_status_and_words(name: str) -> None:
    status, body, kind = ROWS[name]
    assert kind_of(status, read_error(body.encode())) is kind


MESSAGES = {
    OPENAI % ("m", "c"): "m",
    ANTHROPIC % ("t", "m"): "m",
    "[" + GOOGLE % ("m", "s") + "]": "m",
    '{"error": "m"}': "m",
    '{"message": "m"}': "m",
    '{"error": {"message": 5}}': "",
    '"m"': "m",
    '{"detail": "m"}': "m",
    '{"detail": [{"loc": ["body"], "msg": "m"}]}': "m",
    "5": "",
    "[]": "",
    "not JSON": "",
    "": "",
}


@pytest.mark.parametrize("body", MESSAGES)
def test_message_for_people_is_found_in_every_shape(body: str) -> None:
    assert read_error(body.encode()).message == MESSAGES[body]


NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
WAITS: list[tuple[dict[str, str], float | None]] = [
    ({}, None),
    ({"retry-after": "7"}, 7.0),
    ({"retry-after": "0.5"}, 0.5),
    ({"retry-after-ms": "1500", "retry-after": "7"}, 1.5),
    ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
    ({"retry-after": "Fri, 20 Nov 2026 12:01:00 GMT"}, 60.0),
    ({"retry-after": "Fri, 20 Nov 2026 11:00:00 GMT"}, 0.0),
    ({"retry-after": "-5"}, None),
    ({"retry-after": "2301032573"}, 86_400.0),
    ({"retry-after": "inf"}, None),
    ({"retry-after": "nan"}, None),
    ({"retry-after": "tomorrow"}, None),
]


@pytest.mark.parametrize(("headers", "wait"), WAITS)
def test_wait_is_read_from_every_form_of_retry_after(headers: dict[str, str], wait: float | None) -> None:
    assert retry_after_s(headers, NOW) == wait


RESETS: list[tuple[dict[str, str], float | None]] = [
    ({}, None),
    ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}, 360.0),
    ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "20ms"}, 0.02),
    ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1h2m59.5s"}, 3_779.5),
    ({"x-ratelimit-remaining-tokens": "7", "x-ratelimit-reset-tokens": "20s"}, None),
    ({"x-ratelimit-remaining-tokens": "0"}, None),
    ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "soon"}, None),
    ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "999999h"}, 86_400.0),
    (
        {
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": "1s",
            "x-ratelimit-remaining-tokens": "0",
            "x-ratelimit-reset-tokens": "3s",
        },
        3.0,
    ),
    (
        {
            "anthropic-ratelimit-input-tokens-remaining": "0",
            "anthropic-ratelimit-input-tokens-reset": "2026-11-20T12:00:30Z",
        },
        30.0,
    ),
    ({"anthropic-ratelimit-tokens-remaining": "0", "anthropic-ratelimit-tokens-reset": "2026-11-20T12:00:30"}, None),
    ({"retry-after": "9", "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "3s"}, 9.0),
]


@pytest.mark.parametrize(("headers", "wait"), RESETS)
def test_reset_of_a_limit_that_is_used_up_is_the_wait(headers: dict[str, str], wait: float | None) -> None:
    assert wait_asked_s(headers, NOW) == wait


def test_field_and_wait_that_the_provider_names_are_kept() -> None:
    body = '{"error": {"message": "m", "param": "temperature", "details": [{"retryDelay": "22s"}, {"reason": "X"}, 3]}}'
    facts = read_error(body.encode())
    assert (facts.param, facts.retry_after_s, facts.codes) == ("temperature", 22.0, "X")
    assert read_error(b'{"error": {"param": "None"}}').param is None


INSIDE = [
    ({"code": 429}, 429),
    ({"code": "402"}, 402),
    ({"type": "overloaded_error"}, 529),
    ({"code": "insufficient_quota", "type": "x"}, 429),
    ({"code": 7, "type": "unknown"}, 502),
    ({}, 502),
]


@pytest.mark.parametrize(("error", "status"), INSIDE)
def test_error_inside_a_success_stands_for_a_status(error: dict[str, object], status: int) -> None:
    assert status_inside(error) == status


@pytest.mark.parametrize("code", ["\N{SUPERSCRIPT TWO}", "9" * 5000, "0404", "-1", ""])
def test_code_that_is_no_status_is_none(code: str) -> None:
    assert status_inside({"code": code}) == 502


@pytest.mark.parametrize("phrase", ["violat", "input token count ", "model ", "'a", '"', "\N{INFINITY}"])
def test_long_message_is_looked_at_in_part(phrase: str) -> None:
    """An event of a stream may hold sixteen megabytes; searching the square of that would take a day."""
    facts = read_error(json.dumps({"error": {"message": phrase * 400_000, "code": phrase * 400_000}}).encode())
    began = time.process_time()
    assert kind_of(400, facts) is Kind.BAD_REQUEST
    assert time.process_time() - began < 2
