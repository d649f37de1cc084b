"""Price lists for tests: the bundled map as it would be published, changed where a test says so."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, TextIO

from keystore.keystore import Keystore
from keystore.price_releases import NewRelease
from router.price_feeds import RESERVED
from router.price_map import load_bundled
from router.price_release import encode, pack, version_of
from tests.forks import WARDGATE, forks

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
    fixed = {"PATH": "/usr/bin:/bin", "WARDGATE_PORT": "0", "WARDGATE_METRICS_PORT": "0"}
    with ExitStack() as stack:
        nothing = stack.enter_context(Path(os.devnull).open("rb"))
        running, said = [], []
        for folder in folders:
            read, write = os.pipe()
            said.append(stack.enter_context(os.fdopen(read, encoding="utf-8")))
            with (folder / "serve.log").open("wb") as log, os.fdopen(write, "wb") as err:
                files = nothing.fileno(), log.fileno(), err.fileno()
                running.append(forks().start([*WARDGATE, "serve"], env=fixed | dict(env), cwd=folder, files=files))
        try:
            yield [_url_in(stderr, folder) for stderr, folder in zip(said, folders, strict=True)]
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait(60)


def _url_in(stderr: TextIO, folder: Path) -> str:
    line = next((line for line in stderr if line.startswith("wardgate serves ")), "")
    assert line, (folder / "serve.log").read_text()
    return line.split()[2].rstrip(",")
