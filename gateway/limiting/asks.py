"""What is asked of the limits, and what they answer: records alone, shared by every way of counting.

Owns the names of limits and the shape of an answer. Must not know how anything is counted, nor HTTP.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Final, NamedTuple

MOST: Final = 10**10  # the largest limit; beyond it Redis's numbers (doubles) are no longer exact


class Kind(StrEnum):
    """What a limit counts."""

    REQUESTS = "requests"  # a minute
    TOKENS = "tokens"  # a minute, reserved by estimate and settled by the truth
    CONCURRENCY = "concurrency"  # requests at the same time: a lease each


# Looked up once: in Python 3.11 an attribute of an enumeration costs more than counting does.
REQUESTS: Final = Kind.REQUESTS
TOKENS: Final = Kind.TOKENS
CONCURRENCY: Final = Kind.CONCURRENCY


class AwayError(Exception):
    """Redis did not answer in time, or not as it should. `trip` is the round trip that failed: those who travelled
    together have the same. `late`: nothing was heard in time, so Redis may have counted, and may answer others."""

    def __init__(self, why: str, *, trip: object = None, late: bool = False) -> None:
        super().__init__(why)
        self.trip = trip
        self.late = late


class Ask(NamedTuple):
    """One limit that a request is under. `key` names the limit among all kinds and all tenants (`rpm:tenant:<id>`), and
    `tenant` whose it is: all that one request asks is one tenant's, each key once. What is not limited is not asked."""

    kind: Kind
    tenant: str  # its id: where in a cluster of Redis the limit is counted
    key: str
    limit: int  # a minute, or at the same time; 0 (nothing is admitted) to MOST
    amount: int = 1  # requests, or tokens by estimate; not read for concurrency


class Standing(NamedTuple):
    """How one limit stood after the request was admitted, or when it was refused."""

    ask: Ask
    remaining: int
    reset_ms: int  # until it is full again if nobody comes; 0 for concurrency
    retry_ms: int | None  # 0: it did not refuse; None: so much is never admitted

    @property
    def refuses(self) -> bool:
        return self.retry_ms != 0


class Ticket:
    """What an admitted request holds, to be settled once. Not for reading."""

    __slots__ = ("asks", "expires_ms", "holder", "settled")

    def __init__(self, asks: Sequence[Ask], holder: str, expires_ms: int) -> None:
        self.asks = asks
        self.holder = holder
        self.expires_ms = expires_ms  # on the process's clock: a lease is not kept for longer, whoever forgot it
        self.settled = False


class Verdict(NamedTuple):
    """The answer to one request. `ticket` is there when it was admitted; else `refused` is the limit that refuses for
    the longest, and a retry after `retry_ms` is admitted if nobody else came (None: never, so much was asked)."""

    ticket: Ticket | None
    standings: tuple[Standing, ...]
    refused: Standing | None = None
    retry_ms: int | None = 0
    degraded: bool = False  # answered by this process's share, since Redis is away
    parts: int = 1  # among how many processes the limits were divided, where a share refused

    @property
    def admitted(self) -> bool:
        return self.ticket is not None


NOTHING_ASKED: Final = Verdict(Ticket((), "", 0), ())


def longest(standings: Sequence[Standing]) -> Standing | None:
    """Of those that refuse, the one whose wait is the longest; never is longer than any time."""
    refusing = [each for each in standings if each.retry_ms != 0]
    return max(refusing, key=lambda each: (each.retry_ms is None, each.retry_ms or 0), default=None)


def refusal(standings: tuple[Standing, ...], *, degraded: bool = False, parts: int = 1) -> Verdict:
    """What is told where one at least refuses."""
    refused = longest(standings)
    return Verdict(None, standings, refused, refused.retry_ms if refused else None, degraded, parts)


def scope_of(ask: Ask) -> str:
    """The scope that the ask was made for."""
    return ask.key.split(":", 2)[1]


def requests_a_minute(scope: str, identity: str, tenant: str, limit: int) -> Ask:
    """One request under the limit of a `scope` (tenant, token)."""
    return Ask(REQUESTS, tenant, f"rpm:{scope}:{identity}", limit)


def tokens_a_minute(scope: str, identity: str, tenant: str, limit: int, estimate: int) -> Ask:
    """`estimate` tokens under the limit of a `scope`."""
    return Ask(TOKENS, tenant, f"tpm:{scope}:{identity}", limit, estimate)


def at_once(scope: str, identity: str, tenant: str, limit: int) -> Ask:
    """One lease under the concurrency of a `scope`."""
    return Ask(CONCURRENCY, tenant, f"conc:{scope}:{identity}", limit)
