"""What a lane is: something that sends one request to one provider with one credential, or says why it could not."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Protocol

from gateway.chat_request import ChatRequest
from gateway.errors import Problem
from gateway.events import TokenUsage
from keystore.keyring import Credential
from keystore.providers import Provider
from router.failure import Failure, Reached


@dataclass(frozen=True, slots=True)
class Came:
    """What came of an attempt, whatever became of it: how far it got, the provider's count as far as it told one, and
    about how many tokens it wrote; whether it is a stream, and whether reasoning was in it."""

    reached: Reached = Reached.UNSENT
    usage: TokenUsage | None = None
    produced: int = 0
    streams: bool = False
    reasoned: bool = False


@dataclass(slots=True)
class Trail:
    """Where a lane leaves what an attempt can be looked at by, also when it is broken off."""

    look: Callable[[], Came] = Came


@dataclass(frozen=True, slots=True)
class UpstreamCall:
    """One attempt: who is asked, for which of its models, with which key."""

    provider: Provider
    model: str
    credential: Credential
    request: ChatRequest
    trail: Trail = field(default_factory=Trail, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class PlainReply:
    """A complete answer: JSON text on the surface's own wire if the provider speaks it, else in the shape of a chat
    completion; `usage` is None when the provider counted none, `request_id` when it named the request by none."""

    body: bytes
    usage: TokenUsage | None
    request_id: str | None = None


class StreamReply(Protocol):
    """Whole server-sent events in pieces, each as it is to be written, the end mark included; on the surface's own wire
    if the provider speaks it, else chat completion chunks. `usage` is known once they have ended.

    Iterating raises UpstreamFailed when the stream breaks, also when the provider ended it without saying so.
    """

    @property
    def usage(self) -> TokenUsage | None: ...

    @property
    def produced(self) -> int:
        """About how many tokens came, for a stream that nobody counted to its end."""

    @property
    def reasoned(self) -> bool:
        """Whether reasoning was in it: then `produced` counts that too."""

    @property
    def request_id(self) -> str | None:
        """The provider's own id of the request."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    def broke(self, problem: Problem) -> bytes:
        """The event that tells in the stream how it broke."""

    async def aclose(self) -> None:
        """Close the upstream; may be called at any time, more than once, and while being cancelled."""


class UpstreamFailed(Exception):
    """An attempt failed; `failure` says how and whose fault it is."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Lane(Protocol):
    """A way to reach providers."""

    async def open(self) -> None:
        """Make ready what is slow to make ready; idempotent."""

    async def aclose(self) -> None:
        """Wait for what `open` began, if it did: what is broken off half-way complains."""

    async def complete(self, call: UpstreamCall) -> PlainReply: ...

    async def stream(self, call: UpstreamCall) -> StreamReply: ...
