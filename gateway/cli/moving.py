"""Keys under old names: `wardgate key canonicalise` stores them under the canonical ones, `key undo` puts them back."""

from typing import Annotated

import typer

from gateway.cli.console import AsJson, operate, print_json, print_table
from gateway.cli.names import key_app
from gateway.cli.sealing import FINDINGS, progress_bar
from gateway.control.gate import Operation
from keystore.canonical import Outcome
from keystore.move_journal import Batch
from keystore.move_undo import UndoOutcome, UndoStep
from keystore.moves import MoveReport, Step, UndoReport

__all__ = ["key_app"]
_STEP = ("tenant", "provider_id", "from_name", "to_name", "label", "outcome", "reason")
_BATCH = ("batch", "moved_at", "tenants", "moves", "undone")


@key_app.command("canonicalise")
def canonicalise(
    slug: Annotated[str | None, typer.Argument(help="One tenant; all when left out.")] = None,
    provider: Annotated[str | None, typer.Option(help="One provider; all when left out.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    as_json: AsJson = False,
) -> None:
    """Store keys that are found under a former, family or sibling name again under the canonical one. What answers
    stays the same for every provider. Can be stopped and run again. Exit code 3 when something was left."""
    report = _plan(slug, provider) if dry_run else _move(slug, provider)
    if as_json:
        steps = [_record(step, _STEP) for step in report.steps]
        print_json({"dry_run": dry_run, "batch": report.batch, "counts": report.counts, "steps": steps})
    else:
        _print_steps(report.steps, empty="Every key is found under its canonical name.", planned=dry_run)
        _print_counts(report, dry_run=dry_run)
    if report.counts[Outcome.LEFT]:
        raise typer.Exit(FINDINGS)


def _plan(slug: str | None, provider: str | None) -> MoveReport:
    async def work(at: Operation) -> MoveReport:
        with progress_bar("reading tenants") as advance:
            return MoveReport(None, tuple(await at.keystore.moves.plan(at.found, provider, advance)))

    return operate("key.report", work, tenant=slug, target=provider or "")


def _move(slug: str | None, provider: str | None) -> MoveReport:
    async def work(at: Operation) -> MoveReport:
        with progress_bar("moving keys") as advance:
            return await at.keystore.moves.canonicalise(at.found, provider, advance)

    def describe(done: MoveReport) -> dict[str, object]:
        return {"batch": done.batch, **done.counts}

    return operate("key.canonicalise", work, tenant=slug, target=provider or "", describe=describe)


def _print_counts(report: MoveReport, *, dry_run: bool) -> None:
    if not report.steps:
        return
    counts = report.counts
    print(f"\n{_count(counts, planned=dry_run)}." + (" Nothing was changed: this was a dry run." if dry_run else ""))
    if report.batch:
        print(f"Batch {report.batch}. To put it back: wardgate key undo {report.batch}")


@key_app.command("undo")
def undo(
    batch: Annotated[str | None, typer.Argument(help="The batch to put back; without it, they are listed.")] = None,
    as_json: AsJson = False,
) -> None:
    """Put back what `key canonicalise` moved, where it was not changed since. Can be run again. Exit code 3 when
    something was left."""
    if batch is None:
        _list_batches(as_json=as_json)
        return
    wanted = batch

    async def work(at: Operation) -> UndoReport:
        with progress_bar("putting back") as advance:
            return await at.keystore.moves.undo(wanted, advance)

    report = operate("key.undo", work, target=wanted, describe=lambda done: done.counts)
    if as_json:
        steps = [_record(step, _STEP) for step in report.steps]
        print_json({"batch": report.batch, "counts": report.counts, "steps": steps})
    else:
        _print_steps(report.steps, empty="There was nothing to put back.")
        print(f"\n{_count(report.counts)}.")
    if report.counts[UndoOutcome.LEFT]:
        raise typer.Exit(FINDINGS)


def _list_batches(*, as_json: bool) -> None:
    async def work(at: Operation) -> list[Batch]:
        return await at.keystore.moves.batches()

    found = operate("key.report", work)
    if as_json:
        print_json([_record(one, _BATCH) for one in found])
        return
    rows = [(one.batch, one.moved_at, one.tenants, one.moves, one.undone) for one in found]
    print_table(("batch", "moved", "tenants", "keys", "undone"), rows, empty="No key was moved.")


def _print_steps(steps: tuple[Step, ...] | tuple[UndoStep, ...], *, empty: str, planned: bool = False) -> None:
    print_table(
        ("tenant", "provider", "from", "to", "label", "outcome", "why"),
        [
            (
                *(s.tenant, s.provider_id, s.from_name, s.to_name, s.label or None),
                *(_outcome(s.outcome, planned=planned), s.reason or None),
            )
            for s in steps
        ],
        empty=empty,
    )


def _record(one: object, names: tuple[str, ...]) -> dict[str, object]:
    return {name: getattr(one, name) for name in names}


def _count(counts: dict[str, int], *, planned: bool = False) -> str:
    """3 moved, 0 copied, 1 left; of a plan, 3 to be moved."""
    return ", ".join(f"{count} {_outcome(outcome, planned=planned)}" for outcome, count in counts.items())


def _outcome(outcome: str, *, planned: bool) -> str:
    return f"to be {outcome}" if planned and outcome != Outcome.LEFT else str(outcome)
