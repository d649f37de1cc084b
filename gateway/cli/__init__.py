"""`wardgate`: the command line. Every command that prints takes `--json`; every failure is one sentence on stderr.

Exit codes: 0 done, 1 refused or failed (the sentence says why), 2 wrong usage, 3 done with findings (lint, explain).
"""

import sys
from collections.abc import Sequence

from gateway.cli.ends import FINDINGS, LACKS, sentence_of
from gateway.cli.imported import imported


def main() -> None:
    """Entry point of the `wardgate` script."""
    try:
        _run(sys.argv[1:])
    except SystemExit as end:
        raise SystemExit(FINDINGS if not end.code and LACKS.get() else end.code) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception as error:
        said = sentence_of(error)
        if said is None:
            raise
        sys.stderr.write(f"wardgate: {said}\n")
        raise SystemExit(1) from None


def _run(words: Sequence[str]) -> None:
    """What serves, without options, needs no parser: one would stay in memory (typer, and pydantic with it: 8 MB)."""
    match list(words):
        case ["serve"]:
            imported("gateway.cli.serving").serve()
        case ["worker", number, port, wire]:
            imported("gateway.cli.serving").worker(int(number), int(port), int(wire))
        case _:
            imported("gateway.cli.root").app()
