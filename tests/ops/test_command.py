"""`python -m ops.cluster`: what it started it ends, what it did not start it leaves alone."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from ops.cluster import state
from ops.cluster.__main__ import app
from ops.cluster.waiting import ClusterError
from tests.harness import eventually

PROJECT = Path(__file__).parents[2]


def told(folder: Path, *arguments: str) -> str:
    """What a command prints. Raises ClusterError as it does."""
    done = CliRunner().invoke(app, [*arguments, "--folder", str(folder)])
    if done.exception is not None:
        raise done.exception
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "cluster"
    told(tmp_path / "cluster", "down")


@pytest.fixture
def child() -> Iterator["subprocess.Popen[bytes]"]:
    """A process that knows nothing of clusters."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        yield process
        process.kill()


def test_process_that_was_noted_is_ended_and_another_with_its_id_is_not(child: "subprocess.Popen[bytes]") -> None:
    note: dict[str, Any] = dict(state.note_of("it", child.pid))
    earlier = note | {"birth": "1"}
    assert state.lives(note) and not state.lives(earlier)
    assert state.end([earlier], 1.0) == [] and child.poll() is None
    assert state.end([note], 5.0) == ["it"]
    assert child.wait(5) == -signal.SIGTERM
    assert state.end([note], 1.0) == [] and not state.lives(note)


def test_nothing_that_runs_is_said(tmp_path: Path) -> None:
    assert [told(tmp_path, "down")[9:] for _ in range(2)] == ["nothing runs\n"] * 2
    for command in (["status"], ["roll"], ["kill", "1"]):
        with pytest.raises(ClusterError, match="no cluster runs"):
            told(tmp_path, *command)


def test_second_cluster_in_a_folder_is_refused(tmp_path: Path, child: "subprocess.Popen[bytes]") -> None:
    note = state.note_of("cluster", child.pid)
    state.write(tmp_path, {"control": None, "supervisor": note, "children": []})
    with pytest.raises(ClusterError, match="runs already"):
        told(tmp_path, "up")
    with pytest.raises(ClusterError, match="not ready yet"):
        told(tmp_path, "status")


@pytest.mark.services
def test_cluster_is_ended_whole_even_when_its_head_was_killed(folder: Path) -> None:
    command = [sys.executable, "-m", "ops.cluster", "up", "--detach", "--replicas", "1", "--folder", str(folder)]
    began = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=110, check=False)
    assert (began.returncode, "replica-1 is ready" in began.stdout) == (0, True), began.stdout + began.stderr
    shown = told(folder, "status")
    assert "replica-1  ready" in shown
    assert httpx.get(shown.split()[1] + "/readyz").status_code == 200

    found = state.read(folder)
    assert found is not None
    notes = [found["supervisor"], *found["children"]]
    assert [note["name"] for note in notes] == ["cluster", "sandbox", "replica-1"] and all(map(state.lives, notes))
    os.kill(found["supervisor"]["pid"], signal.SIGKILL)
    eventually(lambda: not state.lives(found["supervisor"]))
    with pytest.raises(ClusterError, match="parts of one do"):
        told(folder, "status")
    assert "ended: sandbox, replica-1" in told(folder, "down")
    assert not any(map(state.lives, notes))
    assert "nothing runs" in told(folder, "down")


@pytest.mark.services
def test_interrupt_while_it_starts_leaves_nothing(folder: Path) -> None:
    command = [sys.executable, "-m", "ops.cluster", "up", "--replicas", "1", "--folder", str(folder)]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any("Valkey runs" in line for line in iter(process.stdout.readline, ""))
        eventually(lambda: bool((state.read(folder) or {"children": []})["children"]) or process.poll() is not None)
        found = state.read(folder)
        assert found is not None
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert not any(map(state.lives, [found["supervisor"], *found["children"]])) and state.read(folder) is None
