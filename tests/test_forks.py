"""A forked program is what Python's own start would have made: the tests of `wardgate` count on it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.forks import WARDGATE, forks, program

TELLS = """
import atexit, os, sys, threading
print(sys.argv, __name__, os.getcwd(), sorted(os.environ), sys.stdin.read())
print("ö", file=sys.stderr)
atexit.register(print, "after all")
threading.Thread(target=print, args=["a thread"]).start()
sys.exit(int(sys.argv[1]))
"""
ENV = {"WARDGATE_X": "1"}


@pytest.mark.parametrize("code", [0, 3])
def test_program_says_what_it_says_when_python_starts_it(tmp_path: Path, code: int) -> None:
    ours = forks().run(["-c", TELLS, str(code)], env=ENV, cwd=tmp_path, stdin="so é")
    command = [sys.executable, "-c", TELLS, str(code)]
    utf8 = ENV | {"PYTHONUTF8": "1"}
    theirs = subprocess.run(command, env=utf8, cwd=tmp_path, input="so é", capture_output=True, text=True, check=False)
    said = theirs.stdout.replace("'PYTHONUTF8', ", "").replace("'LC_CTYPE', ", "")
    assert (ours.returncode, ours.stdout, ours.stderr) == (theirs.returncode, said, theirs.stderr)
    assert ours.returncode == code and ours.stdout.endswith("a thread\nafter all\n")


def test_program_that_fails_has_a_traceback_and_code_1(tmp_path: Path) -> None:
    done = forks().run(["-c", "1 / 0"], env=ENV, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "") and done.stderr.endswith("ZeroDivisionError: division by zero\n")


def test_children_are_apart_and_none_is_left_when_its_time_is_over(tmp_path: Path) -> None:
    told = "import os, keystore; print(hasattr(keystore, 'mark'), os.getpid()); keystore.mark = 1"
    first, second = (forks().run(["-c", told], env=ENV, cwd=tmp_path).stdout.split() for _ in range(2))
    assert first[0] == second[0] == "False" and len({first[1], second[1], str(os.getpid())}) == 3
    said = tmp_path / "said"
    waits = f"import os, time; open({str(said)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    with pytest.raises(subprocess.TimeoutExpired):
        forks().run(["-c", waits], env=ENV, cwd=tmp_path, timeout=1)
    with pytest.raises(ProcessLookupError):
        os.kill(int(said.read_text()), 0)


async def test_signals_arrive_and_the_end_tells_which() -> None:
    child = await program("-c", "import time; print(1, flush=True); time.sleep(600)")
    assert child.stdout is not None and await child.stdout.readline() == b"1\n"
    assert child.returncode is None
    child.kill()
    assert await child.wait() == child.returncode == -signal.SIGKILL


def test_installed_script_is_the_same_command(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("wardgate")
    for arguments in (["--version"], ["tenant", "show", "nobody"]):
        env = {
            "WARDGATE_DATABASE_URL": "sqlite+aiosqlite:///w.db",
            "WARDGATE_SEALING_KEYS_FILE": "keys",
            "COLUMNS": "200",
        }
        ours = forks().run([*WARDGATE, *arguments], env=env, cwd=tmp_path)
        theirs = subprocess.run(
            [script, *arguments], env=env, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert (ours.returncode, ours.stdout, ours.stderr) == (theirs.returncode, theirs.stdout, theirs.stderr)
