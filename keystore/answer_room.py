"""How much of the database each tenant's kept answers take, as far as this process knows: what it last saw there, and
what it has kept since. So nothing is added up for a request.

Pure. A process that has kept an eighth of what was free when it looked, or a 64th of the whole, looks again: each of
those that fill one room together may go beyond it by an eighth and an answer at most. Must not know statements.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

MOST_KEPT: Final = 256 * 1024 * 1024  # bytes of one tenant
ROW_BYTES: Final = 512  # of each answer beside what is packed: its row, seal and index entries
LOOKED: Final = timedelta(seconds=30)  # for how long a look is good
_PART: Final = 8
_LEAST: Final = 64


@dataclass(slots=True)
class _Room:
    looked_at: datetime
    seen: int = 0
    since: int = 0  # bytes that were kept here after the look began


class Rooms:
    """The rooms of the tenants that keep answers now. `most_bytes` is what each may take."""

    def __init__(self, most_bytes: int = MOST_KEPT) -> None:
        self._most = most_bytes
        self._rooms: dict[str, _Room] = {}

    def must_look(self, tenant_id: str, now: datetime) -> bool:
        """Whether the caller is to look, and then call `looked` or `failed`; others go on with what was seen before."""
        room = self._rooms.get(tenant_id)
        if room is None:
            self._rooms[tenant_id] = _Room(now)
            return True
        if now - room.looked_at < LOOKED and room.since <= self._share(room):
            return False
        room.looked_at, room.seen, room.since = now, room.seen + room.since, 0
        return True

    def _share(self, room: _Room) -> int:
        """What may be kept before the next look."""
        return max((self._most - room.seen) // _PART, self._most // _LEAST)

    def looked(self, tenant_id: str, kept_bytes: int) -> None:
        """So much is there."""
        if (room := self._rooms.get(tenant_id)) is not None:
            room.seen = kept_bytes

    def failed(self, tenant_id: str) -> None:
        """Nobody knows what is there: the next one looks."""
        self._rooms.pop(tenant_id, None)

    def take(self, tenant_id: str, size: int) -> bool:
        """Whether there is room for an answer of so many bytes, which is taken then."""
        room = self._rooms.get(tenant_id)
        if room is None or room.seen + room.since + size > self._most:
            return False
        room.since += size
        return True

    def tidy(self, now: datetime) -> None:
        """Forget the rooms of those who keep nothing any more."""
        self._rooms = {tenant_id: room for tenant_id, room in self._rooms.items() if now - room.looked_at < LOOKED}
