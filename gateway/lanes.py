"""Which lane a call takes: straight through where the provider speaks the surface, else a translation: of embeddings
our own, of all else LiteLLM's."""

from gateway.access_tokens import AccessTokens
from gateway.embedding_lane import EmbeddingLane
from gateway.litellm_door import LiteLLMLane
from gateway.passthrough import PassThroughLane
from gateway.surface import EMBEDDINGS
from gateway.upstream import PlainReply, StreamReply, UpstreamCall
from keystore.providers import Auth


class Lanes:
    """A lane that hands each call to the one it belongs to."""

    def __init__(
        self, straight: PassThroughLane, litellm: LiteLLMLane, embeddings: EmbeddingLane, tokens: AccessTokens
    ) -> None:
        self._straight = straight
        self._litellm = litellm
        self._embeddings = embeddings
        self._tokens = tokens

    async def open(self) -> None:
        """Make LiteLLM ready now, and not when it is first needed."""
        await self._litellm.open()

    async def aclose(self) -> None:
        await self._litellm.aclose()

    async def complete(self, call: UpstreamCall) -> PlainReply:
        if not goes_straight(call):
            other = self._embeddings if call.request.surface is EMBEDDINGS else self._litellm
            return await other.complete(call)
        if call.provider.auth is not Auth.GOOGLE_SERVICE_ACCOUNT:
            return await self._straight.complete(call)
        async with self._tokens.ready(call) as ready:
            return await self._straight.complete(ready)

    async def stream(self, call: UpstreamCall) -> StreamReply:
        if not goes_straight(call):
            return await self._litellm.stream(call)
        if call.provider.auth is not Auth.GOOGLE_SERVICE_ACCOUNT:
            return await self._straight.stream(call)
        async with self._tokens.ready(call) as ready:
            return await self._straight.stream(ready)


def goes_straight(call: UpstreamCall) -> bool:
    """Whether the provider is sent the caller's own bytes."""
    return call.request.surface.native(call.provider)
