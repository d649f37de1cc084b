"""`wardgate audit`: who did what on the control plane, and whether the record of it is whole."""

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Annotated

import typer

from gateway.cli.console import AsJson, operate, print_json, print_table
from gateway.config import ConfigError
from gateway.control.actions import ACTIONS
from gateway.control.gate import Operation
from keystore.audit import GAP, OUTCOMES, AuditRow, Phase, Verdict
from keystore.errors import counted, did_you_mean

FINDINGS = 3
_NONE = "No row is of this kind."
MOST = 1000
app = typer.Typer(help="The record of every operation of the control plane.", no_args_is_help=True)


def as_row(row: AuditRow) -> dict[str, object]:
    return {
        "seq": row.seq,
        "at": row.at,
        "operation": row.operation,
        "phase": row.phase,
        "actor_kind": row.actor_kind,
        "actor": row.actor,
        "origin": row.origin,
        "action": row.action,
        "tenant_id": row.tenant_id,
        "target": row.target,
        "outcome": row.outcome,
        "detail": row.detail,
    }


@app.command("list")
def list_rows(
    tenant: Annotated[str | None, typer.Option(help="Of one tenant, by slug.")] = None,
    action: Annotated[str | None, typer.Option(help="E.g. key.set.")] = None,
    actor: Annotated[str | None, typer.Option(help="A user, or a token's id.")] = None,
    outcome: Annotated[str | None, typer.Option(help="begun, done, refused, failed, denied; found, of a gap.")] = None,
    since: Annotated[str | None, typer.Option(help="A time, e.g. 2026-11-21T12:00:00Z.")] = None,
    before: Annotated[int | None, typer.Option(help="Rows before this number: the next page.")] = None,
    limit: Annotated[int, typer.Option(help=f"At most {MOST}.", min=1, max=MOST)] = 50,
    as_json: AsJson = False,
) -> None:
    """List what was done, newest first. A write has two rows: one when it began, one when it had ended."""
    start = _time(since)
    _check("--action", action, {*ACTIONS, GAP})
    _check("--outcome", outcome, OUTCOMES)

    async def work(at: Operation) -> list[AuditRow]:
        return await at.keystore.audit.list(
            tenant_id=at.tenant.id if tenant else None,
            action=action,
            actor=actor,
            outcome=outcome,
            since=start,
            before=before,
            limit=limit,
        )

    rows = operate("audit.list", work, tenant=tenant)
    if as_json:
        print_json([as_row(row) for row in rows])
        return
    ended = {row.operation for row in rows if row.phase is not Phase.BEGIN}
    print_table(
        ("no", "at", "who", "from", "action", "target", "outcome"),
        [
            (
                r.seq,
                f"{r.at:%Y-%m-%d %H:%M:%S}",
                f"{r.actor_kind} {r.actor}",
                r.origin,
                r.action,
                _about(r),
                _outcome(r, ended),
            )
            for r in rows
        ],
        empty=_NONE if any((tenant, action, actor, outcome, since, before)) else "Nothing was done yet.",
    )
    if len(rows) == limit and rows[-1].seq > 1:
        typer.echo(f"These are the newest {limit}; the next page: --before {rows[-1].seq}", err=True)


def _check(option: str, given: str | None, known: Collection[str]) -> None:
    """ConfigError for a word that no row can have."""
    if given is not None and given not in known:
        near = did_you_mean(given, known) or f"; known: {', '.join(sorted(known))}"
        raise ConfigError(f"{option}: there is no {given!r}{near}")


def _about(row: AuditRow) -> str:
    """What it was done to; of a token that was made, its id."""
    made = row.detail.get("token")
    return " -> ".join(each for each in (row.target, str(made) if made else "") if each)


def _outcome(row: AuditRow, ended: set[str]) -> str:
    """A beginning whose end is not on this page may be going on, or have broken off."""
    return "begun, no end here" if row.phase is Phase.BEGIN and row.operation not in ended else row.outcome


@app.command("verify")
def verify(
    expect: Annotated[str | None, typer.Option(help="A head (NUMBER:SEAL) that this command printed earlier.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check that no row was changed, removed or added past Wardgate. Exit code 3 when one was."""

    async def work(at: Operation) -> Verdict:
        return await at.keystore.audit.verify(expect)

    verdict = operate("audit.verify", work)
    if as_json:
        found = {"rows": verdict.rows, "head": verdict.head, "whole": verdict.whole, "faults": verdict.faults}
        print_json(found)
    else:
        found_so = "whole" if verdict.whole else "NOT WHOLE"
        print(f"{counted(verdict.rows, 'row')}, {found_so}. Head: {verdict.head or 'none yet'}")
        for fault in verdict.faults:
            print(f"  {fault}")
    if not verdict.whole:
        raise typer.Exit(FINDINGS)


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"--since takes a time like 2026-11-21T12:00:00Z, not {text!r}") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
