"""How a command ends: its exit code where it lacked a root key, and the one sentence that its failure is told in.

Light to import: what it names of the other parts is imported once a command has failed.
"""

import sys
from contextvars import ContextVar
from typing import Final

FINDINGS: Final = 3
LACKS: ContextVar[bool] = ContextVar("lacks", default=False)  # the command looked without a root key: exit code 3


def sentence_of(error: Exception) -> str | None:
    """One line about a failure, without an argument that may be a secret; None for one that is a fault of ours."""
    from gateway.config import ConfigError
    from gateway.errors import ApiError
    from gateway.listeners import PortTaken
    from gateway.logs import LogLevelError
    from gateway.metrics_server import MetricsPortError
    from gateway.workers.supervisor import WorkerFailed
    from keystore.errors import KeystoreError
    from router.errors import RouterError

    expected = (ApiError, ConfigError, KeystoreError, RouterError, LogLevelError, MetricsPortError, PortTaken)
    if isinstance(error, (*expected, WorkerFailed)):
        return safe(str(error))
    return safe(_said(error)) if isinstance(error, OSError | ValueError | ArithmeticError) else None


def safe(text: str) -> str:
    """The text without an argument that may be a secret."""
    from gateway.control.targets import without_secrets

    return without_secrets(text, sys.argv[1:])


def _said(error: Exception) -> str:
    """An error that no command foresaw: the kind, and the file where it is about one."""
    from gateway.scrub import scrub

    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    said = scrub(" ".join(str(error).split()))
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
