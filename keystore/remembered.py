"""What a process that serves remembers of tokens and keyrings, so that a request needs no database.

Owns two bounded caches and the rule when an entry may be used. An entry is dropped when the feed tells that its tenant
or token changed; what was being read meanwhile is not remembered. Requests that come while an entry is being read wait
for that reading, so that a database that comes back is asked once for each tenant, not once for each request. While the
database is away, what is remembered is used for up to fifteen minutes, and an unknown token is an outage, never a
refusal. Secrets are remembered sealed. Must not know statements or HTTP.
"""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Generic, TypeVar

from keystore.changes import Changed
from keystore.errors import DatabaseUnavailable, Refusal, TokenRefused
from keystore.feed import ChangeFeed
from keystore.keyring import Keyring
from keystore.tenants import Tenant
from keystore.token_format import LONGEST, parse_token
from keystore.tokens import Caller, Grant, TokenStore

TOKENS: Final = 10_000  # entries of each cache: some 1 kB for a token, 8 kB for a keyring of five keys
KEYRINGS: Final = 10_000
FRESH_S: Final = 60.0  # after which an entry is read again though nobody told of a change
STALE_S: Final = 900.0  # for how long an entry may be used while the database is away
UNTOLD_S: Final = 1.0  # for keyrings where another application may write without telling, on PostgreSQL

JOINED_S: Final = 1.0  # a reading that began longer ago is not waited for: what was written since is wanted

Value = TypeVar("Value")
Tag = tuple[Changed, str]


@dataclass(frozen=True, slots=True)
class _Entry(Generic[Value]):
    value: Value
    read_at: float
    tags: tuple[Tag, ...]


@dataclass(frozen=True, slots=True)
class _Reading(Generic[Value]):
    task: "asyncio.Task[Value]"
    epoch: int
    began: float


class TaggedCache(Generic[Value]):
    """The most recently used entries; all with a tag can be dropped at once."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: OrderedDict[Hashable, _Entry[Value]] = OrderedDict()
        self._tagged: dict[Tag, set[Hashable]] = {}
        self.readings: dict[Hashable, _Reading[Value]] = {}  # the last that began of each key

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable) -> tuple[Value, float] | None:
        """The value and when it was read."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry.value, entry.read_at

    def put(self, key: Hashable, value: Value, read_at: float, tags: Iterable[Tag]) -> None:
        self._forget(key)
        entry = _Entry(value, read_at, tuple(tags))
        self._entries[key] = entry
        for tag in entry.tags:
            self._tagged.setdefault(tag, set()).add(key)
        while len(self._entries) > self._size:
            self._forget(next(iter(self._entries)))

    def drop(self, tag: Tag) -> None:
        for key in tuple(self._tagged.get(tag, ())):
            self._forget(key)

    def clear(self) -> None:
        self._entries.clear()
        self._tagged.clear()

    def _forget(self, key: Hashable) -> None:
        entry = self._entries.pop(key, None)
        for tag in entry.tags if entry else ():
            keys = self._tagged[tag]
            keys.discard(key)
            if not keys:
                del self._tagged[tag]


@dataclass(frozen=True, slots=True)
class _Wanted(Generic[Value]):
    """An entry of a cache, and how it is read when it is not there or not fresh."""

    cache: TaggedCache[Value]
    key: Hashable
    fresh_s: float
    read: Callable[[], Awaitable[Value]]
    tags: Callable[[Value], Iterable[Tag]]


class Remembered:
    """Tokens and keyrings, remembered while the feed runs; read each time while it does not."""

    def __init__(
        self,
        tokens: TokenStore,
        read_keyring: Callable[[Tenant], Awaitable[Keyring]],
        feed: Callable[[Callable[[Changed, str], None], Callable[[], None]], ChangeFeed],
        *,
        untold: bool,
        is_sqlite: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`untold`: another application writes keys without telling of it."""
        self._tokens = tokens
        self._read_keyring = read_keyring
        self._untold = untold
        self._keyrings_fresh_s = UNTOLD_S if untold and not is_sqlite else FRESH_S
        self._clock = clock
        self._grants: TaggedCache[Grant] = TaggedCache(TOKENS)
        self._keyrings: TaggedCache[Keyring] = TaggedCache(KEYRINGS)
        self.prices_moved: Callable[[], None] = lambda: None  # told when another price release may be live
        self._epoch = 0  # grows with each change: what was being read when it grew is not remembered
        self.feed = feed(self._heard, self._wrote)

    async def authenticate(self, text: str, now: datetime) -> Caller:
        """As TokenStore.authenticate. The whole token is the key (T13), as its SHA-256."""
        if len(text) > LONGEST:
            raise TokenRefused(Refusal.MALFORMED)
        key = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        known = self._known(self._grants, key, FRESH_S)
        if known is not None:
            return self._used(known, now)

        token = parse_token(text)
        if token is None:
            raise TokenRefused(Refusal.MALFORMED)

        def tags(grant: Grant) -> tuple[Tag, ...]:
            mine = (Changed.TOKEN, grant.caller.token_id)
            tenant = grant.caller.tenant
            return (mine, (Changed.TENANT, tenant.id)) if tenant else (mine,)

        wanted = _Wanted(self._grants, key, FRESH_S, lambda: self._tokens.look_up(token), tags)
        return self._used(await self._recall(wanted), now)

    def _used(self, grant: Grant, now: datetime) -> Caller:
        caller = grant.caller_at(now)
        self._tokens.note_used(caller.token_id, now)
        return caller

    async def keyring(self, tenant: Tenant) -> Keyring:
        """What the tenant can use now."""
        known = self._known(self._keyrings, tenant.id, self._keyrings_fresh_s)
        if known is not None:
            return known
        tags = ((Changed.TENANT, tenant.id),)
        read, fresh_s = self._read_keyring, self._keyrings_fresh_s
        return await self._recall(_Wanted(self._keyrings, tenant.id, fresh_s, lambda: read(tenant), lambda _: tags))

    def _known(self, cache: TaggedCache[Value], key: Hashable, fresh_s: float) -> Value | None:
        """What is remembered and fresh: the way of nearly every request."""
        if not self.feed.running:
            return None
        self.feed.catch_up()
        known = cache.get(key)
        if known is None or self.feed.away or self._clock() - known[1] >= fresh_s:
            return None
        return known[0]

    async def _recall(self, wanted: _Wanted[Value]) -> Value:
        if not self.feed.running:
            return await wanted.read()
        known = wanted.cache.get(wanted.key)
        age_s = self._clock() - known[1] if known else STALE_S
        if known and age_s < (STALE_S if self.feed.away else wanted.fresh_s):
            return known[0]
        if self.feed.away and not known:
            raise DatabaseUnavailable("the database is away")
        try:
            return await self._read(wanted)
        except DatabaseUnavailable:
            if known and age_s < STALE_S:
                return known[0]
            raise

    async def _read(self, wanted: _Wanted[Value]) -> Value:
        """One reading for all who want it at a time; it goes on when one of them leaves."""
        readings, key = wanted.cache.readings, wanted.key
        reading, now = readings.get(key), self._clock()
        if reading is None or reading.epoch != self._epoch or now - reading.began >= JOINED_S:
            task = asyncio.ensure_future(self._read_now(wanted))
            reading = readings[key] = _Reading(task, self._epoch, now)
            task.add_done_callback(lambda done: _end(readings, key, done))
        return await asyncio.shield(reading.task)

    async def _read_now(self, wanted: _Wanted[Value]) -> Value:
        epoch, began = self._epoch, self._clock()
        value = await wanted.read()
        self.feed.catch_up()
        if self._epoch == epoch:
            wanted.cache.put(wanted.key, value, began, wanted.tags(value))
        return value

    def _heard(self, kind: Changed, subject: str) -> None:
        if kind in (Changed.PRICES, Changed.ALL):
            self.prices_moved()
        if kind is Changed.PRICES:
            return
        self._epoch += 1
        if kind in (Changed.TENANT, Changed.TOKEN) and subject:
            self._grants.drop((kind, subject))
            self._keyrings.drop((kind, subject))
        elif kind is not Changed.RING:
            self._grants.clear()
            self._keyrings.clear()

    def _wrote(self) -> None:
        """Somebody wrote to the SQLite file: it may have been the other application, of which nothing is told."""
        if self._untold:
            self._epoch += 1
            self._keyrings.clear()


def _end(readings: dict[Hashable, _Reading[Value]], key: Hashable, task: "asyncio.Task[Value]") -> None:
    """A reading has ended; whoever waited was told how."""
    if key in readings and readings[key].task is task:
        del readings[key]
    if not task.cancelled():
        task.exception()
