"""docs/reasons.md, generated: `python -m router.reasons_doc > docs/reasons.md`, or `make docs`.

Owns the page. Its rows are those of router.reasons (word, fault, sentence), router.explain (status and code) and
router.fixes (what fixes it), so that the page cannot say anything else than the program does.
"""

import sys
from typing import Final

from router.explain import answer_of
from router.fixes import fix_in_general
from router.reasons import REASONS, Reason

_HEAD: Final = """# Reasons

Why an offer (a model of a provider) is not a candidate. The words stand in `rejected[].reason` of `POST /v1/route` and
`GET /v1/requests/{id}`, in `error.reasons`, in the label `reason` of `wardgate_route_rejections_total`, and in what
`wardgate explain` prints. They are never renamed.

When no candidate is left, the reason that stands first here among those that were given decides the answer: it is the
one that is the most useful to hear. `fault` says whose it is to mend, and stands in the error body, the metrics and the
log. This page is generated from the program (`make docs`); a test compares the two.

| word | fault | meaning | answer when it decides | what fixes it |
|---|---|---|---|---|
"""


def page() -> str:
    """The whole page."""
    return _HEAD + "".join(_row(reason) for reason in sorted(Reason, key=lambda one: answer_of(one).place))


def _row(reason: Reason) -> str:
    meaning, answer = REASONS[reason], answer_of(reason)
    told = f"{answer.status} `{answer.code}`" + (f", param `{answer.param}`" if answer.param else "")
    cells = (f"`{reason}`", meaning.fault, meaning.sentence, told, fix_in_general(reason))
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


if __name__ == "__main__":
    sys.stdout.write(page())
