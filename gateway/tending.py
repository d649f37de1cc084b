"""Keeps the keystore fresh, and has this process say that it lives; each in a task of its own, so that no housekeeping
holds up the word that others wait for.

What fails is logged once, until it goes well again or something else is wrong. Must not know what is tended.
"""

import asyncio
from collections.abc import Mapping

from gateway.logs import EventLogger
from gateway.scrub import scrub
from keystore.errors import DatabaseUnavailable, KeystoreError
from keystore.keystore import Keystore

TEND_S = 2.0  # how often the ring is read again and this process says that it lives


async def tend_keystore(keystore: Keystore, log: EventLogger, *, every_s: float = TEND_S) -> None:
    """Until cancelled."""
    failures = Failures(log)
    while True:
        failures.tell(await keystore.tend())
        await asyncio.sleep(every_s)


async def keep_beating(keystore: Keystore, log: EventLogger, *, every_s: float = TEND_S) -> None:
    """Until cancelled."""
    failures = Failures(log)
    while True:
        try:
            await keystore.beat()
            failures.tell({})
        except DatabaseUnavailable as error:
            failures.tell({"this replica": error})
        await asyncio.sleep(every_s)


class Failures:
    """What failed the last time."""

    def __init__(self, log: EventLogger) -> None:
        self._log = log
        self._kinds: Mapping[str, str] = {}

    def tell(self, failed: Mapping[str, Exception]) -> None:
        """What failed this time, by name."""
        kinds = {name: type(error).__name__ for name, error in failed.items()}
        for name, error in failed.items():
            if self._kinds.get(name) == kinds[name]:
                continue
            if isinstance(error, KeystoreError):
                self._log.warning("keystore.not_tended", what=name, why=scrub(str(error)))
            else:
                self._log.error("keystore.not_tended", what=name, why=kinds[name], exc_info=error)
        self._kinds = kinds
