"""What can go wrong with an attempt, and what follows from each kind: whose fault, which answer, whether to go on, and
whether the provider may have charged for it.

Owns the closed set of kinds and the tables of consequences. Must not know transports, providers or what an exception
looked like; the gateway's doors sort those into kinds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Final

from router.reasons import Fault


class FailureKind(StrEnum):
    """Why an attempt gave no answer."""

    CONNECT = "connect"
    TIMEOUT = "timeout"
    RATE_LIMITED = "rate_limited"
    SERVER_ERROR = "server_error"
    KEY_REJECTED = "key_rejected"
    KEY_UNUSABLE = "key_unusable"
    MODEL_UNAVAILABLE = "model_unavailable"
    BAD_REQUEST = "bad_request"
    CONTEXT_LENGTH = "context_length"
    CONTENT_FILTER = "content_filter"
    UNSUPPORTED_PARAMETER = "unsupported_parameter"
    QUOTA_EXHAUSTED = "quota_exhausted"
    MALFORMED = "malformed"
    TRUNCATED = "truncated"
    GATEWAY = "gateway"


@dataclass(frozen=True, slots=True)
class Consequence:
    """What follows from a kind. `status` and `code` are what the caller is told: 401 is kept for its own token."""

    fault: Fault
    status: int
    code: str
    try_next: bool  # another candidate may do better
    caller_may_retry: bool  # the same request may succeed a little later


_CONSEQUENCES: Final = {
    FailureKind.CONNECT: Consequence(Fault.PROVIDER, 502, "provider_unreachable", True, True),
    FailureKind.TIMEOUT: Consequence(Fault.PROVIDER, 504, "provider_timeout", True, True),
    FailureKind.RATE_LIMITED: Consequence(Fault.PROVIDER, 429, "rate_limit_exceeded", True, True),
    FailureKind.SERVER_ERROR: Consequence(Fault.PROVIDER, 502, "provider_error", True, True),
    FailureKind.KEY_REJECTED: Consequence(Fault.TENANT_KEY, 424, "provider_key_rejected", True, False),
    FailureKind.KEY_UNUSABLE: Consequence(Fault.TENANT_KEY, 403, "provider_key_unusable", True, False),
    FailureKind.MODEL_UNAVAILABLE: Consequence(Fault.PROVIDER, 404, "provider_model_unavailable", True, False),
    FailureKind.BAD_REQUEST: Consequence(Fault.CALLER, 400, "provider_rejected_request", False, False),
    FailureKind.CONTEXT_LENGTH: Consequence(Fault.CALLER, 400, "context_length_exceeded", False, False),
    FailureKind.CONTENT_FILTER: Consequence(Fault.CALLER, 400, "content_filter", False, False),
    FailureKind.UNSUPPORTED_PARAMETER: Consequence(Fault.CALLER, 400, "unsupported_parameter", True, False),
    FailureKind.QUOTA_EXHAUSTED: Consequence(Fault.TENANT_KEY, 429, "insufficient_quota", True, False),
    FailureKind.MALFORMED: Consequence(Fault.PROVIDER, 502, "provider_malformed_answer", True, True),
    FailureKind.TRUNCATED: Consequence(Fault.PROVIDER, 502, "provider_stream_truncated", True, True),
    FailureKind.GATEWAY: Consequence(Fault.GATEWAY, 500, "internal_error", False, False),
}
CONSEQUENCES: Final[Mapping[FailureKind, Consequence]] = MappingProxyType(_CONSEQUENCES)
# With a key that the operator lends, what is wrong with the key is not the tenant's to mend.
_LENT: Final[Mapping[FailureKind, Consequence]] = MappingProxyType(
    {
        kind: replace(each, fault=Fault.GATEWAY) if each.fault is Fault.TENANT_KEY else each
        for kind, each in _CONSEQUENCES.items()
    }
)


class Reached(IntEnum):
    """How far an attempt came, in the order in which it becomes likely that the provider charges for it."""

    UNSENT = 0  # the provider never had the whole request
    REFUSED = 1  # it answered with an error's status
    SENT = 2  # it has the request, and no answer had begun
    ANSWERED = 3  # an answer with a success's status had begun


# From where on a failed attempt counts as charged; a kind that is not here was refused before any work, whatever came.
# Providers do not charge for what they answer with an error's status. A connection that broke before the answer's head
# is taken for a request that nobody read, and silence is not: who is silent may be at work, also when nobody waits for
# it any longer.
CANCELLED: Final = "cancelled"  # an attempt that was broken off: the client left, or the gateway stops
_CHARGED_FROM: Final = {
    FailureKind.TIMEOUT: Reached.SENT,
    FailureKind.MALFORMED: Reached.ANSWERED,
    FailureKind.TRUNCATED: Reached.ANSWERED,
    FailureKind.SERVER_ERROR: Reached.ANSWERED,
    FailureKind.CONTENT_FILTER: Reached.ANSWERED,  # of what it had read or written by then
}
CHARGED_FROM: Final[Mapping[str, Reached]] = MappingProxyType(
    {CANCELLED: Reached.SENT} | {kind.value: at for kind, at in _CHARGED_FROM.items()}
)


def perhaps_charged(outcome: str, reached: Reached) -> bool:
    """Whether an attempt with this outcome (a kind's word, or another) may cost something although it gave no
    answer."""
    least = CHARGED_FROM.get(outcome)
    return least is not None and reached >= least


@dataclass(frozen=True, slots=True)
class Failure:
    """One attempt that gave no answer. `message` holds no secret and no internal host: it was scrubbed at the door."""

    kind: FailureKind
    provider_id: str
    model: str
    status: int | None = None  # the provider's own, when it answered
    retry_after_s: float | None = None  # as the provider asked
    message: str = ""
    param: str | None = None  # the request field that the provider named
    request_id: str | None = None  # the provider's own
    of_the_key: bool = True  # False: a rejected access token, for which the key gets another; the key may be good
    lent: bool = False  # it was asked with a key of the operator's

    @property
    def consequence(self) -> Consequence:
        """What follows from its kind, and from whose key it was asked with."""
        return (_LENT if self.lent else CONSEQUENCES)[self.kind]
