"""What a caller is told when attempts failed: one sentence for each kind of failure."""

from collections.abc import Mapping, Sequence

from gateway.errors import Problem
from router.failure import Failure, FailureKind
from router.retry import Stop

# {provider} and {model} are row and model ids, {message} is the provider's own sentence, scrubbed.
SENTENCES: Mapping[FailureKind, str] = {
    FailureKind.CONNECT: "{provider} could not be reached.",
    FailureKind.TIMEOUT: "{provider} did not answer in time: {message}.",
    FailureKind.RATE_LIMITED: "{provider} limits the rate of this key for {model}: {message}.",
    FailureKind.SERVER_ERROR: "{provider} failed on its side: {message}.",
    FailureKind.KEY_REJECTED: "{provider} rejected this tenant's key. Store a valid one (`wardgate key set`). "
    "It said: {message}.",
    FailureKind.KEY_UNUSABLE: "The key that this tenant holds for {provider} cannot be used: {message}.",
    FailureKind.MODEL_UNAVAILABLE: "{provider} does not serve {model} to this tenant's account: {message}.",
    FailureKind.BAD_REQUEST: "{provider} refused the request: {message}.",
    FailureKind.CONTEXT_LENGTH: "The request is too long for {model} at {provider}: {message}.",
    FailureKind.CONTENT_FILTER: "{provider} refused the content of the request: {message}.",
    FailureKind.UNSUPPORTED_PARAMETER: "{model} cannot take this request as it is: {message}.",
    FailureKind.QUOTA_EXHAUSTED: "The tenant's account at {provider} has no credit or quota left: {message}.",
    FailureKind.MALFORMED: "{provider} sent an answer that cannot be used: {message}.",
    FailureKind.TRUNCATED: "{provider} broke off its answer: {message}.",
    FailureKind.GATEWAY: "The gateway could not make this call: {message}.",
}

# The same where the key is the operator's.
LENT_SENTENCES: Mapping[FailureKind, str] = {
    FailureKind.KEY_REJECTED: "{provider} rejected the operator's key, which only the operator can mend. "
    "It said: {message}.",
    FailureKind.KEY_UNUSABLE: "The operator's key for {provider} cannot be used, which only the operator can mend: "
    "{message}.",
    FailureKind.MODEL_UNAVAILABLE: "{provider} does not serve {model} to the operator's account: {message}.",
    FailureKind.QUOTA_EXHAUSTED: "The operator's account at {provider} has no credit or quota left: {message}.",
}


def timed_out(provider_id: str, model: str, wait_s: float) -> Failure:
    """The failure of an attempt that was silent for `wait_s` seconds."""
    message = f"{provider_id} sent nothing within {wait_s:.3g} s"
    return Failure(FailureKind.TIMEOUT, provider_id, model, message=message)


# Why nobody else was asked, where the reason is not in the failures themselves.
STOPPED: Mapping[Stop, str] = {
    Stop.BOUND: " Nobody else was asked: the request refers to what only this provider has.",
    Stop.BUDGET: " Nobody else was asked: too many requests are failing now, and the retry budget is spent.",
}


def problem_of(chosen: Failure, failures: Sequence[Failure], stopped: Stop | None = None) -> Problem:
    """What the caller is told: the most useful failure, with a line for each attempt that was made, and why there was
    no other where that was the gateway's choice."""
    consequence = chosen.consequence
    sentences = {**SENTENCES, **LENT_SENTENCES} if chosen.lent else SENTENCES
    sentence = sentences[chosen.kind].format(
        provider=chosen.provider_id, model=chosen.model, message=chosen.message.rstrip(". ")
    )
    extra: dict[str, object] = {"attempts": [_line(failure) for failure in failures], "upstream_status": chosen.status}
    if stopped is not None and stopped in STOPPED:
        sentence, extra["stopped_by"] = sentence + STOPPED[stopped], stopped.value
    return Problem(
        consequence.status,
        consequence.code,
        sentence,
        consequence.fault,
        param="model" if chosen.kind is FailureKind.MODEL_UNAVAILABLE else chosen.param,
        retry_after_s=chosen.retry_after_s if consequence.caller_may_retry else None,
        caller_may_retry=consequence.caller_may_retry,
        extra=extra,
    )


def _line(failure: Failure) -> dict[str, object]:
    return {
        "provider": failure.provider_id,
        "model": failure.model,
        "error": failure.kind.value,
        "upstream_status": failure.status,
    }
