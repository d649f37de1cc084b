"""`python -m tests.benchmarks.fetch`: gets the other programs of the comparison, once, into the user's cache folder.

nginx is unpacked from Debian's package where none is installed; LiteLLM's proxy gets a virtual environment of its own,
with the version of LiteLLM that Wardgate pins. Nothing is installed into the system or into Wardgate's environment.
What cannot be had is left out of the benchmark, which says so.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

LITELLM = f"litellm[proxy]=={version('litellm')}"


def cache() -> Path:
    """Where the programs are kept: $WARDGATE_BENCH_CACHE, or wardgate-bench in the user's cache folder."""
    told = os.environ.get("WARDGATE_BENCH_CACHE")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(told) if told else home / "wardgate-bench"


def nginx() -> str | None:
    """An nginx that runs: of the system, or unpacked."""
    unpacked = cache() / "nginx" / "usr" / "sbin" / "nginx"
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or str(unpacked)
    return found if _runs([found, "-v"]) else None


def litellm_proxy() -> str | None:
    """The `litellm` command of the environment that was made for it, if it holds the version that is pinned."""
    made = cache() / "litellm"
    right = any(made.glob(f"lib/python*/site-packages/litellm-{version('litellm')}.dist-info"))
    return str(made / "bin" / "litellm") if right else None


def main() -> int:
    """Get what is missing; 1 when something could not be had."""
    cache().mkdir(parents=True, exist_ok=True)
    missing = 0
    for name, found, get in (("nginx", nginx, _get_nginx), ("LiteLLM's proxy", litellm_proxy, _get_litellm)):
        if found() is None:
            print(f"{name}: getting it ...", file=sys.stderr, flush=True)
            get()
        where = found()
        missing += where is None
        print(f"{name}: {where or 'not to be had'}", file=sys.stderr, flush=True)
    return 1 if missing else 0


def _get_nginx() -> None:
    folder = cache() / "nginx"
    folder.mkdir(parents=True, exist_ok=True)
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        print("nginx: not installed, and no Debian to take it from", file=sys.stderr)
        return
    if _run(["apt-get", "download", "nginx"], folder) or not list(folder.glob("nginx_*.deb")):
        return
    _run(["dpkg", "-x", str(next(folder.glob("nginx_*.deb"))), str(folder)], folder)


def _get_litellm() -> None:
    folder = cache() / "litellm"
    if _run([sys.executable, "-m", "venv", str(folder)], cache()):
        return
    if _run([str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", LITELLM], cache()):
        shutil.rmtree(folder, ignore_errors=True)


def _runs(command: Sequence[str]) -> bool:
    try:
        return subprocess.run(list(command), capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _run(command: Sequence[str], folder: Path) -> int:
    return subprocess.run(list(command), cwd=folder, stdout=sys.stderr, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
