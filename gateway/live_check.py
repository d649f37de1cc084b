"""The live check: one cheap call with a stored key that asks its provider which models it sees.

Owns the table of listings by wire and prefix, the limits of such a call, and the words of what came of it. The call
leaves through the one way out, so the key goes to its own hosts and nowhere else, and no redirect is followed. Nothing
that a provider said is passed on but the names of models, and of these none that could hold the key.
"""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

import httpx

from gateway.scrub import WINDOW, scrub
from gateway.seen import parse
from gateway.transport import HANDLE, PLACES, CurrentExchangeTransport, Transport, TransportRefusal
from gateway.upstream_errors import kind_of, read_error
from keystore.keyring import Credential
from keystore.providers import Provider, Wire
from router.failure import FailureKind

TIMEOUT_S: Final = 10.0  # for one call, from the first byte sent to the last one read
AT_ONCE: Final = 4
MOST_BYTES: Final = 4 * 1024 * 1024  # of an answer
SHOWN: Final = 5  # names
_NAME: Final = re.compile(r"[A-Za-z0-9@][A-Za-z0-9._:/@+-]{0,127}")

Told = Callable[[int, int], None]


class Outcome(StrEnum):
    """What became of a live check."""

    LISTED = "listed"
    REJECTED = "rejected"
    LIMITED = "limited"
    TROUBLE = "trouble"
    MALFORMED = "malformed"
    NO_LISTING = "no_listing"
    NOT_ASKED = "not_asked"


@dataclass(frozen=True, slots=True)
class Listing:
    """How a wire lists its models: below the base URL, with which headers beside the key; where the names are. The
    field that tells of a further page is `more`. `proves`: the provider is known to list to valid keys alone."""

    path: str
    items: str = "data"
    name: str = "id"
    more: str = "has_more"
    proves: bool = False
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


_KEYED: Final = Listing("/models", proves=True)
_ANTHROPIC: Final = MappingProxyType({"anthropic-version": "2023-06-01"})
# The first row that fits, by wire and litellm_prefix; None is any prefix. OpenRouter lists to everybody at /models, and
# at /models/user what the key may use.
LISTINGS: Final[tuple[tuple[Wire, str | None, Listing], ...]] = (
    (Wire.OPENAI, "openrouter", Listing("/models/user", proves=True)),
    (Wire.OPENAI, "openai", _KEYED),
    (Wire.OPENAI, "groq", _KEYED),
    (Wire.OPENAI, "mistral", _KEYED),
    (Wire.OPENAI, "deepseek", _KEYED),
    (Wire.OPENAI, None, Listing("/models")),
    (Wire.ANTHROPIC, "anthropic", Listing("/v1/models?limit=1000", proves=True, headers=_ANTHROPIC)),
    (Wire.ANTHROPIC, None, Listing("/v1/models?limit=1000", headers=_ANTHROPIC)),
    (
        Wire.LITELLM,
        "gemini",
        Listing("/models?pageSize=1000", items="models", name="name", more="nextPageToken", proves=True),
    ),
    (  # the row's base URL is that of the second version's chat; models are listed by the first
        Wire.LITELLM,
        "cohere_chat",
        Listing("/../../v1/models?page_size=1000", items="models", name="name", more="next_page_token"),
    ),
)


@dataclass(frozen=True, slots=True)
class LiveResult:
    """What a provider said to a key. `models` counts those of the first page, `more` says that there are others;
    `names` are at most SHOWN of them. `proves`: the key is valid, since it was given a list that others are not. `text`
    is a sentence without its full stop, none of it the provider's own."""

    provider_id: str | None
    outcome: Outcome
    text: str
    status: int | None = None
    models: int | None = None
    more: bool = False
    names: tuple[str, ...] = ()
    proves: bool = False


class LiveCheck:
    """Asks through `transport`, AT_ONCE at a time. `timeout_s` is for each call, in seconds; `most` in bytes."""

    def __init__(self, transport: Transport, *, timeout_s: float = TIMEOUT_S, most: int = MOST_BYTES) -> None:
        self._transport = transport
        self._timeout_s = timeout_s
        self._most = most
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def ask(self, credentials: Sequence[Credential], told: Told = lambda done, total: None) -> list[LiveResult]:
        """What the provider of each key says to it, in order. Never raises for what a provider does."""
        done = 0

        async def one(credential: Credential) -> LiveResult:
            nonlocal done
            async with self._turns:
                result = await self._one(credential, credential.provider)
            done += 1
            told(done, len(credentials))
            return result

        async with asyncio.TaskGroup() as group:  # a task for each: an exchange belongs to its task
            tasks = [group.create_task(one(credential)) for credential in credentials]
        return [task.result() for task in tasks]

    async def _one(self, credential: Credential, provider: Provider) -> LiveResult:
        listing = listing_of(provider)
        if provider.retired:
            return LiveResult(provider.id, Outcome.NOT_ASKED, f"{provider.id} is retired and is not asked")
        if listing is None:
            text = f"{provider.id} cannot be checked live: Wardgate knows no list of models that its keys could ask for"
            return LiveResult(provider.id, Outcome.NO_LISTING, text)
        try:
            async with asyncio.timeout(self._timeout_s):
                status, body = await self._get(credential, provider, listing)
        except (TimeoutError, httpx.HTTPError) as error:
            return _broken(provider.id, error, self._timeout_s)
        if status != httpx.codes.OK:
            return _refused(provider.id, status, body)
        if len(body) > self._most:
            text = f"{provider.id} answered with more than {self._most} bytes"
            return LiveResult(provider.id, Outcome.MALFORMED, text, status)
        return _listed(provider.id, body, listing, credential)

    async def _get(self, credential: Credential, provider: Provider, listing: Listing) -> tuple[int, bytes]:
        """The status and the first bytes of the answer; one more than `most` where there are more."""
        self._transport.begin(credential, provider, idle_s=self._timeout_s)
        headers = {"authorization": HANDLE, "accept": "application/json", **listing.headers}
        body = bytearray()
        async with (
            httpx.AsyncClient(transport=CurrentExchangeTransport(), trust_env=False) as client,
            client.stream("GET", provider.base_url + listing.path, headers=headers) as response,
        ):
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > self._most:
                    break
            return response.status_code, bytes(body[: self._most + 1])


def listing_of(provider: Provider) -> Listing | None:
    """How this provider lists its models, or None when nothing is known of it, or its keys do not travel."""
    if provider.auth not in PLACES:
        return None
    fits = (
        row for wire, prefix, row in LISTINGS if wire is provider.wire and prefix in (None, provider.litellm_prefix)
    )
    return next(fits, None)


# --- what came of it -------------------------------------------------------------------------------------------------

_BY_STATUS: Final[Mapping[int, Outcome]] = MappingProxyType(
    {
        401: Outcome.REJECTED,
        403: Outcome.REJECTED,
        404: Outcome.NO_LISTING,
        405: Outcome.NO_LISTING,
        501: Outcome.NO_LISTING,
    }
)
_BY_KIND: Final[Mapping[FailureKind, Outcome]] = MappingProxyType(
    {
        FailureKind.KEY_REJECTED: Outcome.REJECTED,  # Google answers 400 to a bad key
        FailureKind.QUOTA_EXHAUSTED: Outcome.LIMITED,
        FailureKind.RATE_LIMITED: Outcome.LIMITED,
        FailureKind.SERVER_ERROR: Outcome.TROUBLE,
        FailureKind.TIMEOUT: Outcome.TROUBLE,
    }
)
_SAID: Final[Mapping[Outcome, str]] = MappingProxyType(
    {
        Outcome.REJECTED: "{provider} rejected this key",
        Outcome.LIMITED: "{provider} limits calls with this key: rate, credit or quota",
        Outcome.TROUBLE: "{provider} is in trouble, which says nothing about the key",
        Outcome.NO_LISTING: "{provider} has no list of models at this address",
        Outcome.MALFORMED: "{provider} answered with something else than a list of models",
    }
)
_FORBIDDEN: Final = "{provider} refused this key its list of models: it is not valid, or lacks that permission"


def _refused(provider_id: str, status: int, body: bytes) -> LiveResult:
    """By the status, and by the words of the error where the status alone does not tell."""
    outcome = _BY_STATUS.get(status) or _BY_KIND.get(kind_of(status, read_error(body)), Outcome.MALFORMED)
    said = _FORBIDDEN if status == httpx.codes.FORBIDDEN else _SAID[outcome]
    return LiveResult(provider_id, outcome, f"{said.format(provider=provider_id)} (status {status})", status)


def _broken(provider_id: str, error: Exception, timeout_s: float) -> LiveResult:
    """By the kind of the error alone: its text may hold anything."""
    if isinstance(error, TransportRefusal):
        return LiveResult(provider_id, Outcome.NOT_ASKED, f"the key is not for the hosts of {provider_id}")
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return LiveResult(provider_id, Outcome.TROUBLE, f"{provider_id} could not be reached")
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return LiveResult(provider_id, Outcome.TROUBLE, f"{provider_id} did not answer within {timeout_s:g} s")
    if isinstance(error, httpx.ProtocolError | httpx.DecodingError):
        return LiveResult(provider_id, Outcome.MALFORMED, f"{provider_id} sent what is no HTTP answer, or half of one")
    return LiveResult(provider_id, Outcome.TROUBLE, f"the connection to {provider_id} broke")


def _listed(provider_id: str, body: bytes, listing: Listing, credential: Credential) -> LiveResult:
    document = parse(body)
    items = document.get(listing.items) if isinstance(document, dict) else document  # Together sends the bare list
    if not isinstance(items, list):
        return LiveResult(provider_id, Outcome.MALFORMED, _SAID[Outcome.MALFORMED].format(provider=provider_id), 200)
    found = [name for item in items if isinstance(item, dict) and isinstance(name := item.get(listing.name), str)]
    if len(found) < len(items):
        return LiveResult(provider_id, Outcome.MALFORMED, f"{provider_id} lists models without names", 200)
    more = isinstance(document, dict) and bool(document.get(listing.more))
    names = _names(found, credential)
    whom = "" if listing.proves else ", perhaps to anybody"
    text = f"{provider_id} lists {'at least ' if more else ''}{len(found)} models to this key{whom}"
    if names:
        text += f": {', '.join(names)}{', and others' if len(found) > len(names) else ''}"
    elif found:
        text += f"; none is named here, since each holds {WINDOW} characters of the key in a row or is no plain name"
    return LiveResult(provider_id, Outcome.LISTED, text, 200, len(found), more, names, listing.proves)


def _names(found: Sequence[str], credential: Credential) -> tuple[str, ...]:
    """The first names that look like names and hold nothing of the key."""
    names: list[str] = []
    for name in (each.removeprefix("models/") for each in found):
        if len(names) < SHOWN and _NAME.fullmatch(name) and scrub(name, credential.secret.reveal()) == name:
            names.append(name)
    return tuple(names)
