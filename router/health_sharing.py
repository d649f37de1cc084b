"""Health shared between processes through Redis: a stream of marks that each writes behind and reads once a second.

No request ever waits for Redis: a process decides by its own view, and while Redis is away it goes on with that alone.
Owns the stream's format and the task that keeps step. Times travel as durations beside Redis's own clock, so that the
clocks of the processes need not agree. Ids and words alone are written, never a key. Must not know requests.
"""

import asyncio
import contextlib
import json
import math
import random
import secrets
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from keystore.cancelled import is_cancelled
from router.health import Ill, Mark, Phase, Subject
from router.health_keeper import HealthChange, HealthKeeper

STREAM: Final = "wardgate:health"
REPLICAS: Final = "wardgate:replicas"
POLL_S: Final = 1.0
AWAY_S: Final = 5.0  # between two trials of a Redis that is away, at most; half of it is jitter
TIMEOUT_S: Final = 0.05
TRIALS: Final = 3  # in vain, one after the other, and Redis is away
LONGEST: Final = 10_000  # entries of the stream
REMEMBERED_S: Final = 3_600  # what a process that starts reads back, and no mark lasts longer
ALIVE_S: Final = 10  # a process that was not seen for so long is gone
_MOST_LEVEL: Final = 16  # of failed probes; no time doubles beyond it
# What a URL may say beside where. Deadlines and the answers' form are ours: of decoded ones none can be read.
OPTIONS: Final = frozenset(
    {"db", "username", "password", "client_name", "protocol", "ssl_ca_certs", "ssl_ca_path", "ssl_cert_reqs"}
    | {"ssl_certfile", "ssl_keyfile", "ssl_check_hostname", "ssl_ciphers", "ssl_min_version", "ssl_password"}
    | {"socket_keepalive"}
)
OUTBOX: Final = 1_000  # marks that wait for Redis; the oldest are dropped


class OptionError(ValueError):
    """A URL of Redis with an option that would change what this program relies on, or that the client refuses."""


def check_url(url: str) -> None:
    """Raises ValueError for a URL that is none of Redis, and OptionError for its options; nothing is connected."""
    redis: Any = Redis.from_url(url)
    if not OPTIONS.issuperset(parse_qs(urlsplit(url).query, keep_blank_values=True)):
        raise OptionError
    try:
        redis.connection_pool.make_connection()
    except (TypeError, RedisError):
        raise OptionError from None


class HealthSharing:
    """Keeps one process's health in step with the others'. `tell(shared, why)` hears when sharing begins and ends;
    `replicas` hears how many processes there are."""

    def __init__(
        self,
        keeper: HealthKeeper,
        url: str,
        *,
        tell: Callable[[bool, str], None],
        replicas: Callable[[int], None],
        poll_s: float = POLL_S,
        away_s: float = AWAY_S,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """Connects when it is first used; `check_url` says whether the URL can be one."""
        self._keeper = keeper
        self._poll_s = poll_s
        self._away_s = away_s
        self._redis: Any = Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
            encoding_errors="replace",  # what is no text is no mark of ours, and stops nothing
        )
        self._say = tell
        self._replicas = replicas
        self._id = secrets.token_hex(8)
        self._read_to = ""
        self._outbox: deque[HealthChange] = deque(maxlen=OUTBOX)
        self._wake = asyncio.Event()
        self._shared: bool | None = None  # None: not tried yet
        keeper.listen(self._write_behind)

    async def run(self) -> None:
        """Keep step until cancelled; a Redis that is away is tried again every few seconds."""
        in_vain = 0
        while not is_cancelled():
            try:
                await self.keep_step()
            except Exception as error:  # noqa: BLE001 - the client raises more than its own: RuntimeError under uvloop
                in_vain += 1
                if in_vain >= TRIALS:
                    self._is_shared(False, type(error).__name__)
                    await asyncio.sleep(self._away_s * (0.5 + 0.5 * random.random()))  # noqa: S311
                continue
            in_vain = 0
            self._is_shared(True, "")
            if not is_cancelled():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._poll_s):
                        await self._wake.wait()

    async def keep_step(self) -> None:
        """Write what waits and read what others wrote; raises what the client raises."""
        self._wake.clear()
        waiting, self._outbox = self._outbox, deque(maxlen=OUTBOX)
        try:
            now, replicas, entries = await self._exchange(waiting)
        except BaseException:
            self._outbox = deque([*waiting, *self._outbox], maxlen=OUTBOX)
            raise
        self._replicas(max(1, replicas))
        for entry_id, fields in entries:
            self._read_to = entry_id
            if fields.get("by") != self._id:
                self._hear(fields.get("mark", ""), now - int(entry_id.partition("-")[0]) / 1000)

    async def _exchange(self, waiting: Iterable[HealthChange]) -> tuple[float, int, list[tuple[str, dict[str, str]]]]:
        """Redis's time, how many processes there are, and the entries that were not read yet."""
        seconds, micros = await self._redis.time()
        now: float = seconds + micros / 1e6
        async with self._redis.pipeline(transaction=False) as pipe:
            for change in waiting:
                entry = {"by": self._id, "mark": self._written(change)}
                pipe.xadd(STREAM, entry, maxlen=LONGEST, approximate=True)
            pipe.expire(STREAM, REMEMBERED_S)
            pipe.zadd(REPLICAS, {self._id: now})
            pipe.zremrangebyscore(REPLICAS, "-inf", now - ALIVE_S)
            pipe.zcard(REPLICAS)
            pipe.xread({STREAM: self._read_to or f"{int((now - REMEMBERED_S) * 1000)}-0"}, count=LONGEST)
            answers = await pipe.execute()
        return now, int(answers[-2]), _entries(answers[-1])

    async def close(self) -> None:
        """Leave: the others count one process less."""
        with contextlib.suppress(Exception):
            await self._redis.zrem(REPLICAS, self._id)
        await self._redis.aclose()

    def _is_shared(self, shared: bool, why: str) -> None:
        if shared is not self._shared:
            self._shared = shared
            self._say(shared, why)

    def _write_behind(self, change: HealthChange) -> None:
        if not change.elsewhere:
            self._outbox.append(change)
            self._wake.set()

    def _written(self, change: HealthChange) -> str:
        subject, mark, now = change.subject, change.mark, self._keeper.now()
        record: dict[str, object] = {**subject._asdict(), "ill": subject.ill.value}
        if mark is not None:
            record |= {"since": now - mark.since, "opened": now - mark.opened, "until": mark.until - now}
            record |= {"level": mark.level, "why": mark.why}
        return json.dumps(record)

    def _hear(self, text: str, age_s: float) -> None:
        read = _read(text, self._keeper.now() - max(0.0, age_s))
        if read is not None:
            self._keeper.hear(*read)


def _entries(answer: Any) -> list[tuple[str, dict[str, str]]]:
    """The entries of XREAD's answer, whichever protocol the server speaks."""
    if not answer:
        return []
    streams = answer.items() if isinstance(answer, dict) else answer
    found: list[tuple[str, dict[str, str]]] = []
    for _, batches in streams:
        for batch in batches:
            found += batch if isinstance(batch, list) else [batch]
    return found


def _read(text: str, written_at: float) -> tuple[Subject, Mark | None] | None:
    """A mark as it was written at `written_at`; None for what is no mark of ours: another version may write, too."""
    try:
        record = json.loads(text)
        subject = Subject(Ill(record["ill"]), *(str(record[name]) for name in ("provider_id", "model", "whose")))
        if "until" not in record:
            return subject, None
        lasts = min(_finite(record["until"]), REMEMBERED_S)
        since, opened = (written_at - min(abs(_finite(record[name])), 1e9) for name in ("since", "opened"))
        level = min(max(int(record["level"]), 0), _MOST_LEVEL)
        mark = Mark(Phase.OPEN, since, opened, written_at + lasts, level, str(record["why"])[:64])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    return subject, mark


def _finite(value: Any) -> float:
    """A number of seconds. ValueError for NaN and infinity, which no time ends."""
    seconds = float(value)
    if not math.isfinite(seconds):
        raise ValueError
    return seconds
