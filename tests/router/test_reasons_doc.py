"""docs/reasons.md is what the program says, and every reason has a fix that can be followed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from router.fixes import FIXES, fix_for, fix_in_general
from router.reasons import Reason
from router.reasons_doc import page

PROJECT = Path(__file__).parents[2]


def test_page_in_docs_is_what_is_generated() -> None:
    written = (PROJECT / "docs" / "reasons.md").read_text(encoding="utf-8")
    assert written == page(), "run `make docs`"


def test_command_prints_the_page() -> None:
    done = subprocess.run([sys.executable, "-m", "router.reasons_doc"], capture_output=True, check=True, cwd=PROJECT)
    assert done.stdout.decode() == page()


def test_page_has_each_reason_once_in_a_row_of_five_cells() -> None:
    rows = [line for line in page().splitlines() if line.startswith("| `")]
    assert sorted(re.match(r"\| `(\w+)`", row)[1] for row in rows) == sorted(Reason)  # type: ignore[index]
    assert {len(re.split(r"(?<!\\)\|", row)) for row in rows} == {7}
    assert all(cell.strip() for row in rows for cell in row.split("|")[1:-1])


def test_every_reason_has_a_fix_in_one_plain_sentence() -> None:
    assert set(FIXES) == set(Reason)
    for reason in Reason:
        told = fix_in_general(reason)
        assert told[0].islower() and not told.endswith(".") and "{" not in told


@pytest.mark.parametrize("reason", list(Reason))
def test_fix_names_the_case(reason: Reason) -> None:
    told = fix_for(reason, tenant="acme", provider_id="minimax", model="minimax/MiniMax-M2")
    assert not re.search(r"\{|\}|TENANT|SETTING_KEY|MODEL", told)
    assert "{" not in fix_for(reason, tenant="a{b}", provider_id="", model="").replace("a{b}", "")


def test_fix_names_the_canonical_name_of_the_key() -> None:
    told = fix_for(Reason.NO_CREDENTIAL, tenant="acme", provider_id="minimax", model="m")
    assert told == (
        "store a key for minimax: `printf %s VALUE | wardgate key set acme MINIMAX_API_KEY`, or PUT"
        " /v1/keys/MINIMAX_API_KEY"
    )


def test_where_the_plan_takes_no_keys_the_plan_comes_first() -> None:
    told = fix_for(Reason.NO_CREDENTIAL, tenant="acme", provider_id="minimax", model="m", takes_keys=False)
    assert told.index("wardgate tenant set-plan acme PLAN") < told.index("; then store a key for minimax")
    same = fix_for(Reason.LACKS_TOOLS, tenant="acme", provider_id="minimax", model="m", takes_keys=False)
    assert same == FIXES[Reason.LACKS_TOOLS]
