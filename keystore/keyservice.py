"""The port to a key service: whoever keeps the root keys outside this machine hands them over as a ring's text.

Owns the port and its one adapter, a command of the operator's (`aws kms decrypt ...`, `vault kv get ...`, `gcloud kms
decrypt ...`), so that no cloud's SDK lives here. What the command prints is held in memory alone and is never told.
"""

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from keystore.errors import RingDamaged, RingMissing

MOST_BYTES: Final = 64 * 1024
TIMEOUT_S: Final = 30.0


class KeyService(Protocol):
    """Where a ring comes from that is neither a file nor the environment."""

    @property
    def origin(self) -> str:
        """What messages call it."""

    def fetch(self) -> str:
        """The ring's text, now. RingMissing when the service does not give it, RingDamaged when it gives no text."""


@dataclass(frozen=True, slots=True)
class CommandKeyService:
    """Runs a command, without a shell, and reads the ring from what it prints. Its standard error is the operator's."""

    command: tuple[str, ...]
    timeout_s: float = TIMEOUT_S

    @property
    def origin(self) -> str:
        return f"the sealing key command {self.command[0]!r}"

    def fetch(self) -> str:
        text = _printed(self.command, self.timeout_s, self.origin)
        if len(text) > MOST_BYTES or not text.isascii():
            raise RingDamaged(f"{self.origin} printed something that is no ring")
        return text.decode("ascii")


def _printed(command: Sequence[str], timeout_s: float, origin: str) -> bytes:
    """What the command prints, or its first MOST_BYTES and one more. When it is stopped, so is what it started."""
    try:
        process = subprocess.Popen(  # noqa: S603 - the operator's own command, from the environment, without a shell
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
        )
    except OSError as error:
        raise RingMissing(f"{origin} cannot be run: {error.strerror}") from None
    ends_at = time.monotonic() + timeout_s
    with process:
        try:
            text = _read(process, ends_at)
            if len(text) <= MOST_BYTES:
                process.wait(max(0.0, ends_at - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise RingMissing(f"{origin} did not end within {timeout_s:g} seconds") from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(OSError):
                    os.killpg(process.pid, signal.SIGKILL)
    if len(text) <= MOST_BYTES and process.returncode != 0:
        raise RingMissing(f"{origin} ended with exit code {process.returncode}")
    return text


def _read(process: subprocess.Popen[bytes], ends_at: float) -> bytes:
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    text = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while len(text) <= MOST_BYTES:
            left_s = ends_at - time.monotonic()
            if left_s <= 0 or not selector.select(left_s):
                raise subprocess.TimeoutExpired(process.args, left_s)
            chunk = os.read(process.stdout.fileno(), MOST_BYTES + 1 - len(text))
            if not chunk:
                break
            text += chunk
    return bytes(text)
