"""What counting for all processes together must do, whoever does it.

Owns the shape alone. Must not know Redis, nor what happens without it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from gateway.limiting.asks import Ask
from gateway.limiting.outbox import Change

if TYPE_CHECKING:
    from gateway.limiting.shared import Answer


class Shared(Protocol):
    """The counts that all processes share; `shared.SharedLimits`. Each raises AwayError, and nothing else."""

    async def warm(self) -> None: ...

    async def admit(self, asks: Sequence[Ask], holder: str, changes: Sequence[Change]) -> "Answer": ...

    async def apply(self, changes: Sequence[Change]) -> None: ...

    async def epoch(self, fresh: str) -> str: ...

    async def exchange(self, name: str, text: str) -> list[str]: ...

    async def close(self) -> None: ...
