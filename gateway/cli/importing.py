"""`wardgate import`: take over a tenant_settings table. Plan, apply, verify, and only then scrub.

Exit codes: 0 done, 1 refused, 2 usage, 3 done with findings: rows without a tenant or with an unusable name, rows that
changed, a gate that does not hold, plain text that is left.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.console import AsJson, operate, print_json, print_table
from gateway.control.gate import Operation
from keystore.importing.classify import Outcome
from keystore.importing.importer import Applied, ImportOptions, Planned
from keystore.importing.journal import ImportInfo
from keystore.importing.scrub import Scrubbed
from keystore.importing.source import TenantTable
from keystore.importing.survey import Progress as Told
from keystore.importing.verify import Rotate, Verified

FINDINGS = 3
REPORTED = (Outcome.NO_TENANT.value, Outcome.NAME_UNUSABLE.value)
MANIFEST = Path("wardgate-import.jsonl")
app = typer.Typer(help="Take over a tenant_settings table of another application.", no_args_is_help=True)

From = Annotated[
    str | None,
    typer.Option("--from", help="URL of another database, or - to read it from stdin; left out: Wardgate's own."),
]
TenantsTable = Annotated[str | None, typer.Option(help="The table of the source that holds its tenants.")]
IdColumn = Annotated[str, typer.Option("--tenant-id-column", help="Its column with the id.")]
SlugColumn = Annotated[str, typer.Option("--tenant-slug-column", help="Its column with the short name.")]
PlanColumn = Annotated[str | None, typer.Option("--tenant-plan-column", help="Its column with the plan.")]
Create = Annotated[bool, typer.Option("--create-tenants", help="Make the tenants that are not here yet.")]
Plan = Annotated[str | None, typer.Option("--plan", help="Their plan, where the source does not tell it.")]
Batch = Annotated[int, typer.Option(min=1, max=10_000, help="Rows in one transaction.")]


def _options(
    table: str | None, id_column: str, slug_column: str, plan_column: str | None, create: bool, plan: str | None
) -> ImportOptions:
    if plan_column and not table:
        raise typer.BadParameter("--tenant-plan-column needs --tenants-table")
    where = TenantTable(table, id_column, slug_column, plan_column) if table else None
    return ImportOptions(where, create, plan)


def _url(source: str | None) -> str | None:
    """The source's URL; a password in it need not be an argument, which every user of the machine can read."""
    return sys.stdin.readline().strip() if source == "-" else source


@contextmanager
def _bar(what: str) -> Iterator[Told]:
    """A progress bar on stderr, if that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn("rows"), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


# --- plan and apply ------------------------------------------------------------------------------------------------


@app.command("plan")
def plan(
    source: From = None,
    manifest: Annotated[Path, typer.Option(help="Where the manifest is written (mode 0600, no values).")] = MANIFEST,
    tenants_table: TenantsTable = None,
    tenant_id_column: IdColumn = "id",
    tenant_slug_column: SlugColumn = "slug",
    tenant_plan_column: PlanColumn = None,
    create_tenants: Create = False,
    tenant_plan: Plan = None,
    as_json: AsJson = False,
) -> None:
    """Look at every row and say what would become of it; nothing is changed."""
    options = _options(
        tenants_table, tenant_id_column, tenant_slug_column, tenant_plan_column, create_tenants, tenant_plan
    )
    url = _url(source)

    async def work(at: Operation) -> Planned:
        with _bar("reading") as progress:
            return await at.keystore.importing.plan(url, options, manifest, progress)

    planned = operate("import.plan", work, describe=lambda one: {"source": one.source, "rows": one.rows})
    if as_json:
        print_json(asdict(planned) | {"manifest": str(manifest)})
    else:
        _print_plan(planned)
        print(f"The manifest is {manifest}. Nothing was changed.")
    _end(findings=_lacks(planned))


@app.command("apply")
def apply(
    source: From = None,
    manifest: Annotated[
        Path | None, typer.Option(help="A plan's manifest: rows that are not as it says are counted.")
    ] = None,
    tenants_table: TenantsTable = None,
    tenant_id_column: IdColumn = "id",
    tenant_slug_column: SlugColumn = "slug",
    tenant_plan_column: PlanColumn = None,
    create_tenants: Create = False,
    tenant_plan: Plan = None,
    remap: Annotated[
        bool, typer.Option("--remap", help="Take this --tenants-table in the place of that of an earlier run.")
    ] = False,
    batch: Batch = 500,
    as_json: AsJson = False,
) -> None:
    """Seal every secret of the table. May be broken off and run again: what is done is not done twice."""
    options = _options(
        tenants_table, tenant_id_column, tenant_slug_column, tenant_plan_column, create_tenants, tenant_plan
    )
    url = _url(source)

    async def work(at: Operation) -> Applied:
        with _bar("sealing") as progress:
            return await at.keystore.importing.apply(
                url, options, manifest, batch=batch, progress=progress, remap=remap
            )

    done = operate("import.apply", work, describe=lambda one: {"import": one.plan.import_id, "taken": one.taken})
    if as_json:
        print_json(asdict(done))
    else:
        _print_applied(done)
    _end(findings=_lacks(done.plan) or bool(done.edited or done.refused or done.since_plan))


def _print_applied(done: Applied) -> None:
    _print_plan(done.plan)
    print(
        f"Worked through {done.taken} rows that were news, settings too; {done.elsewhere} were done by another run"
        " meanwhile. What became of each is counted above."
    )
    if done.created:
        print(f"Made tenants: {', '.join(done.created)}.")
    for why in done.refused:
        print(f"Not made: {why}")
    if done.edited:
        print(f"{done.edited} rows were edited all the while; run this again.")
    if done.since_plan:
        print(f"{done.since_plan} rows are not as in the manifest; they were taken over as they are.")
    print("Next: wardgate import verify")


def _print_plan(planned: Planned) -> None:
    print(f"{planned.rows} rows of tenant_settings, {planned.source}.")
    counts = [(what, name, rows) for what, of in planned.counts.items() for name, rows in of.items()]
    print_table(("count of", "is", "rows"), counts, empty="The table is empty.")
    if planned.conflicts:
        print("Held more than once, with different values (the newest is in force):")
        rows = [
            (each["tenant"], each["setting_key"], each["rows"], each["why"] or "in force") for each in planned.conflicts
        ]
        print_table(("tenant", "stored as", "rows", "the newest is"), rows, empty="")
    if planned.create:
        print(f"Tenants to be made: {', '.join(f'{new.slug} ({new.plan})' for new in planned.create)}.")
    if planned.no_tenant:
        print(f"Secrets of no tenant here: {', '.join(planned.no_tenant)}. Map them, or --create-tenants --plan PLAN.")
    if planned.unknown_plans:
        print(f"Plans that the gateway does not know: {', '.join(planned.unknown_plans)}. Their tenants are not made.")
    if planned.ambiguous_tenants:
        print(f"Tenants that share a slug, and are not followed: {', '.join(planned.ambiguous_tenants)}.")


def _lacks(planned: Planned) -> bool:
    reported = planned.counts["outcomes"].keys() & set(REPORTED)
    return bool(reported or planned.unknown_plans or planned.ambiguous_tenants)


# --- verify, scrub, list -------------------------------------------------------------------------------------------


@app.command("verify")
def verify(source: From = None, as_json: AsJson = False) -> None:
    """Check that every row is accounted for, opens to the same bytes, and answers as before."""
    url = _url(source)

    async def work(at: Operation) -> Verified:
        with _bar("checking") as progress:
            return await at.keystore.importing.verify(url, progress)

    result = operate("import.verify", work, describe=lambda one: {"passed": one.passed, "rows": one.rows})
    if as_json:
        print_json(asdict(result) | {"passed": result.passed})
    else:
        _print_verified(result)
    _end(findings=not result.passed or _reported(result) > 0)


@app.command("scrub")
def scrub(
    yes: Annotated[bool, typer.Option("--yes", help="Yes, take the plain text out of the old table.")] = False,
    batch: Batch = 500,
    as_json: AsJson = False,
) -> None:
    """Take the plain text of every verified secret out of Wardgate's own database's tenant_settings. Not undone."""
    if not yes:
        raise typer.BadParameter("the old application can no longer read its keys after this; say --yes")

    async def work(at: Operation) -> tuple[Scrubbed, Verified]:
        with _bar("scrubbing") as progress:
            return await at.keystore.importing.scrub(batch=batch, progress=progress)

    done, result = operate("import.scrub", work, describe=lambda both: {"blanked": both[0].blanked})
    if as_json:
        print_json(asdict(done) | {"verified": asdict(result) | {"passed": result.passed}})
    else:
        _print_scrubbed(done)
        if left := _reported(result):
            print(f"{left} secrets of no tenant here, or with a name that cannot be stored, are as they were.")
        _print_rotate(result.rotate)
    left_over = done.edited or done.found or not done.log_emptied or _reported(result)
    _end(findings=bool(left_over) or not result.passed)


@app.command("list")
def list_imports(as_json: AsJson = False) -> None:
    """List the imports and how far each is."""

    async def work(at: Operation) -> list[ImportInfo]:
        return list(await at.keystore.importing.list())

    imports = operate("import.list", work)
    if as_json:
        print_json([asdict(info) for info in imports])
        return
    rows = [(i.import_id, i.source, i.state, i.started_at, i.updated_at, i.verified_at) for i in imports]
    print_table(
        ("import", "source", "state", "begun", "updated", "verified"),
        rows,
        empty="Nothing was imported. Look first: wardgate import plan",
    )


def _print_verified(result: Verified) -> None:
    empty = "No row is as it was taken over." if result.rows else "The table is empty."
    print_table(("rows", "count"), list(result.outcomes.items()), empty=empty)
    print(
        f"{result.rows} rows, {result.credentials_opened} credentials opened, {result.lookups} look-ups compared,"
        f" {result.scrubbed} scrubbed, {result.gone} gone from the table, {result.removed_since} removed here."
    )
    for tenant, name, place in result.changed_since:
        print(f"Changed since: {tenant} {name} (row {place}); `wardgate import apply` takes it over.")
    for tenant, name in result.set_here:
        print(f"Set here, and answers before the old row: {tenant} {name}.")
    for failure in result.failures:
        print(f"Does not hold: {failure}.")
    _print_rotate(result.rotate)
    print("All gates hold." if result.passed else "Not verified.")
    if left := _reported(result):
        print(
            f"{left} secrets of no tenant here, or with a name that cannot be stored, are not sealed: exit code"
            f" {FINDINGS}. Map their tenants with `wardgate import apply --tenants-table`, or --create-tenants."
        )


def _print_rotate(keys: tuple[Rotate, ...]) -> None:
    """What lay in plain text: only a new key at the provider ends that."""
    if keys:
        print("These keys lay in plain text. Make each anew at its provider:")
    rows = [(one.tenant, one.provider or None, one.setting_key, one.hint, one.state) for one in keys]
    print_table(("tenant", "provider", "stored as", "ends in", "state"), rows, empty="No key lay in plain text.")


def _print_scrubbed(done: Scrubbed) -> None:
    print(f"Took the plain text out of {done.blanked} rows.")
    for tenant, name, place in done.edited:
        print(f"Left as it is, for it was written since: {tenant} {name} (row {place}).")
    if not done.log_emptied:
        print("The write-ahead log could not be emptied, for another process reads it: run this again without it.")
    if done.found is not None:
        print(f"Scrubbed values that are still in the database's files: {done.found}.")
    if done.warning:
        print(f"{done.warning}.")


def _reported(result: Verified) -> int:
    """How many rows are only reported: nothing of them is sealed."""
    return sum(result.outcomes.get(outcome, 0) for outcome in REPORTED)


def _end(*, findings: bool) -> None:
    if findings:
        raise typer.Exit(FINDINGS)
