"""The health that one process knows: the view of now, and the hand that turns it with what happens.

Owns the one mutable place of health. Clock and randomness are handed in; those who want to hear of marks listen. Must
not know who shares it, metrics or logs.
"""

from collections.abc import Callable
from dataclasses import dataclass

from router.failure import Failure
from router.health import ALL_WELL, HealthView, Ill, Mark, Subject, erring_subjects, key_subjects
from router.health_steps import Attempt, End, advanced, begun, ended, heard


@dataclass(frozen=True, slots=True)
class HealthChange:
    """A mark was made or renewed; None: its subject is well again. What ends by time alone is no change."""

    subject: Subject
    mark: Mark | None
    at: float
    elsewhere: bool = False  # another process found it out


Listener = Callable[[HealthChange], None]


class HealthKeeper:
    """Times are seconds since 1970 on a clock that never goes back; `draw` gives numbers in [0, 1)."""

    def __init__(self, clock: Callable[[], float], draw: Callable[[], float]) -> None:
        self._clock = clock
        self._draw = draw
        self._view = ALL_WELL
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> None:
        """Tell `listener` of every change from now on."""
        self._listeners.append(listener)

    def denying(self, ill: Ill) -> int:
        """How many marks keep something from being asked now. May be called from any thread."""
        view, now = self._view, self._clock()
        return sum(subject.ill is ill and mark.denies and mark.until > now for subject, mark in view.marks.items())

    def view(self) -> HealthView:
        """The view of now."""
        return self._at(self._clock())

    def begin(self, attempt: Attempt) -> None:
        """An attempt begins now."""
        view = self._at(attempt.began)
        if attempt.provider_id in view.troubled:
            self._view = begun(view, attempt)

    def end(self, attempt: Attempt, *, answered: bool = False, failure: Failure | None = None) -> None:
        """It ended: answered, failed, or neither (broken off, or by a fault that is nobody's)."""
        now = self._clock()
        before = self._at(now)
        if answered and not before.counts and attempt.provider_id not in before.troubled:
            return  # the way of nearly every request: nothing is known, and nothing is learnt
        done = End(attempt, now, answered, failure, self._draw())
        self._view = ended(before, done)
        if self._view.marks is not before.marks:
            self._tell(before, attempt, done.at)

    def hear(self, subject: Subject, mark: Mark | None) -> None:
        """Another process tells of a mark, its times on this process's clock."""
        before, now = self.view(), self._clock()
        self._view = heard(before, subject, mark, now)
        if self._view is not before:
            self._publish(HealthChange(subject, mark, now, elsewhere=True))

    def now(self) -> float:
        """This keeper's clock."""
        return self._clock()

    def _at(self, now: float) -> HealthView:
        if now >= self._view.changes_at:
            self._view = advanced(self._view, now)
        return self._view

    def _tell(self, before: HealthView, attempt: Attempt, at: float) -> None:
        for subjects in (
            key_subjects(attempt.provider_id, attempt.model, attempt.key_id),
            erring_subjects(attempt.provider_id, attempt.model, attempt.tenant_id),
        ):
            for subject in subjects:
                was, mark = before.marks.get(subject), self._view.marks.get(subject)
                if (was.opened if was else None) != (mark.opened if mark else None):
                    self._publish(HealthChange(subject, mark, at))

    def _publish(self, change: HealthChange) -> None:
        for listener in self._listeners:
            listener(change)
