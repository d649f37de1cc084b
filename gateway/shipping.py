"""Brings the journal's lines into the ledger, and tells metrics and the log of what befalls them.

Must not know what a row says, nor how it is written.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from gateway.logs import EventLogger
from gateway.metrics import Metrics
from keystore.clock import utc_now
from keystore.journal import Journal
from keystore.keystore import Keystore
from keystore.shipment import Notice, Told
from keystore.shipping import Shipper

SHIPPING_S: Final = 5.0  # for the last lines, when the process ends; what is not shipped then is when one starts again
_SENTENCES: Final[Mapping[Told, str]] = MappingProxyType(
    {
        Told.TAKEN_OVER: "the journal of a process that died is in the ledger; so many of its requests had not ended",
        Told.TORN: "a journal ends in a line that was never whole: nobody was answered for it",
        Told.REJECTED: "rows that the database does not take stand in rejected.jsonl beside the journal",
        Told.FOREIGN: "a journal of another database, or of a newer Wardgate, is left alone",
        Told.KEPT: "the disk does not take rows of requests that ended: they wait in memory, and nobody new is asked",
        Told.DROPPED: "rows that the disk did not take are lost: what was reserved for their requests counts instead",
        Told.UNFINISHED: "the journal of a dead process cannot be finished: it is tried again, and the others go on",
        Told.WAITING: "rows wait in the journal until the database takes them",
    }
)


def shipper_of(journal: Journal, keystore: Keystore, metrics: Metrics, log: EventLogger) -> Shipper:
    """The shipper of this process."""

    def report(notice: Notice) -> None:
        error = "" if notice.error is None else type(notice.error).__name__
        facts = {"journal": notice.journal_id, "number": notice.number, "error": error}
        log.warning(f"ledger.{notice.what.value}", why=_SENTENCES[notice.what], **facts)

    shipper = Shipper(journal, keystore.ledger, report, now=utc_now)
    metrics.watch_ledger(lambda: shipper.pending, lambda: shipper.oldest_age_s, shipper.counts)
    return shipper
