"""The rule book that is in force, and its exchange while requests are served.

Owns the one reference that changes in a running gateway. A request takes the book once, when it begins, and is decided,
priced and named after that one, whatever comes meanwhile. Must not know where a catalogue comes from.
"""

from dataclasses import replace

from gateway.deciding import RuleBook
from gateway.tally import Tally
from router.catalogue import Catalogue


class Books:
    """Holds the book for requests that begin now. Exchanged whole, by one assignment: nobody sees half of one."""

    __slots__ = ("_current",)

    def __init__(self, book: RuleBook) -> None:
        self._current = book

    @property
    def current(self) -> RuleBook:
        """The book in force. Whoever needs it twice for one answer keeps it."""
        return self._current

    def for_request(self, tally: Tally) -> RuleBook:
        """The book in force, and its catalogue noted as the one that this request is answered from."""
        book = self._current
        tally.catalogue = book.catalogue.version
        return book

    def exchange(self, catalogue: Catalogue) -> None:
        """Have requests that begin from now on decided by this catalogue."""
        self._current = replace(self._current, catalogue=catalogue)
