"""Price lists for tests: the bundled map as it would be published, changed where a test says so."""

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

from keystore.keystore import Keystore
from keystore.price_releases import NewRelease
from router.price_feeds import RESERVED
from router.price_map import load_bundled
from router.price_release import encode, pack, version_of

M2 = "minimax/MiniMax-M2"
JUMPS = "minimax/MiniMax-M2.1"


@cache
def bundled_rows() -> dict[str, Any]:
    return {name: row for name, row in load_bundled().rows.items() if name not in RESERVED}


@cache
def few_rows() -> dict[str, Any]:
    """Forty rows of the bundled map, MiniMax's among them."""
    rows = bundled_rows()
    ours = [name for name in rows if name.startswith(("minimax/MiniMax-M", "gpt-4o"))]
    return {name: rows[name] for name in [*ours, *[name for name in rows if name not in ours][: 40 - len(ours)]]}


def published(**changes: Mapping[str, object] | None) -> bytes:
    """`priced`, of forty rows."""
    return priced(few_rows(), **changes)


async def begin_with_few(keystore: Keystore) -> int:
    """A live release of forty rows, at the bundled map's prices."""
    packed = pack(few_rows())
    new = NewRelease(packed.content, packed.digest, packed.rows, None, "bundled")
    staged = await keystore.prices.stage(new, "test")
    version = version_of(staged.number, staged.digest)
    return (await keystore.prices.approve(staged.number, "test", version=version)).number


def priced(base: Mapping[str, Any] | None = None, /, **changes: Mapping[str, object] | None) -> bytes:
    """The bundled map, or `base`, with these rows laid over its own; None takes one out."""
    rows = dict(bundled_rows() if base is None else base)
    for name, change in changes.items():
        if change is None:
            rows.pop(name)
        else:
            rows[name] = {**rows.get(name, {}), **change}
    return encode(rows)


def times(name: str, factor: str, *fields: str) -> dict[str, object]:
    """These prices of a row, times `factor`; input and output by default."""
    row = bundled_rows()[name]
    return {
        field: row[field] * Decimal(factor) for field in fields or ("input_cost_per_token", "output_cost_per_token")
    }


@contextmanager
def serving(folders: Sequence[Path], env: Mapping[str, str]) -> Iterator[list[str]]:
    """`wardgate serve` in a process of its own for each folder, started together; gives their URLs."""
    script = Path(sys.executable).with_name("wardgate")
    fixed = {"PATH": "/usr/bin:/bin", "WARDGATE_PORT": "0", "WARDGATE_METRICS_PORT": "0"}
    with ExitStack() as stack:
        running = []
        for folder in folders:
            log = stack.enter_context((folder / "serve.log").open("wb"))
            options: dict[str, Any] = {"cwd": folder, "env": fixed | dict(env), "stdout": log, "text": True}
            running.append(subprocess.Popen([str(script), "serve"], stderr=subprocess.PIPE, **options))
        try:
            yield [_url_of(process, folder) for process, folder in zip(running, folders, strict=True)]
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.communicate(timeout=60)


def _url_of(process: "subprocess.Popen[str]", folder: Path) -> str:
    assert process.stderr is not None
    line = next((line for line in process.stderr if line.startswith("wardgate serves ")), "")
    assert line, (folder / "serve.log").read_text()
    return line.split()[2].rstrip(",")
