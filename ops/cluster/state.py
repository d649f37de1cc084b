"""What a cluster has noted of itself in its folder: addresses and processes, for whoever comes later.

Owns the file and the question whether a process is still the one that was noted: an id alone may belong to another by
now. Must not know how anything is started.
"""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

FILE: Final = "state.json"
LOOK_S: Final = 0.05


def birth(pid: int) -> str | None:
    """What tells this process from every other that has or had its id; None when there is none, or only its remains."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
        command = ["ps", "-o", "lstart=,stat=", "-p", str(pid)]
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        return said[:24] if said and "Z" not in said[24:] else None
    return None if after_name[0] == "Z" else after_name[19]


def note_of(name: str, pid: int) -> dict[str, object]:
    """A process as it is noted."""
    return {"name": name, "pid": pid, "birth": birth(pid)}


def lives(note: dict[str, Any]) -> bool:
    """Whether the process that was noted still runs."""
    return note["birth"] is not None and birth(note["pid"]) == note["birth"]


def write(folder: Path, state: dict[str, Any]) -> None:
    """All of it, in one step."""
    new = folder / f"{FILE}.new"
    new.write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
    new.replace(folder / FILE)


def read(folder: Path) -> dict[str, Any] | None:
    """None when there is no cluster, or what is there is not readable."""
    try:
        state: dict[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return state


def forget(folder: Path) -> None:
    """The cluster has ended."""
    (folder / FILE).unlink(missing_ok=True)


def end(notes: Iterable[dict[str, Any]], within_s: float) -> list[str]:
    """Ask those that still run to end, make those that do not; the names of those that ran."""
    running = [note for note in notes if lives(note)]
    for sign, seconds in ((signal.SIGTERM, within_s), (signal.SIGKILL, 5.0)):
        for note in filter(lives, running):
            with contextlib.suppress(ProcessLookupError):
                os.kill(note["pid"], sign)
        until = time.monotonic() + seconds
        while any(map(lives, running)) and time.monotonic() < until:
            time.sleep(LOOK_S)
    return [note["name"] for note in running]
