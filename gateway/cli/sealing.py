"""`wardgate sealing`: the root keys that wrap every tenant's data key. Online, and each step can be run again."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from gateway.cli.console import AsJson, operate, print_json, print_table
from gateway.cli.tenants import Slug
from gateway.control.gate import Operation
from keystore.errors import counted
from keystore.sealing_check import Tally
from keystore.sealing_ops import RootKeyStatus

FINDINGS = 3
app = typer.Typer(help="Root keys: add, activate, rewrap, verify, retire.", no_args_is_help=True)
KekId = Annotated[str, typer.Argument(help="A root key of `wardgate sealing status`, e.g. k202611a.")]
Advance = Callable[[int, int], None]


@contextmanager
def progress_bar(title: str) -> Iterator[Advance]:
    """A bar on standard error where a person watches; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def as_row(status: RootKeyStatus) -> dict[str, object]:
    return {
        "kek_id": status.kek_id,
        "state": status.state,
        "present": status.present,
        "created_at": status.created_at,
        "tenant_keys": status.tenant_keys,
        "service_keys": status.service_keys,
        "replicas_lacking": status.lacking,
    }


@app.command("status")
def status(as_json: AsJson = False) -> None:
    """Each root key: its state, whether it is here, how much it wraps. Exit code 3 when one that is needed is not."""

    async def work(at: Operation) -> list[RootKeyStatus]:
        return await at.keystore.sealing.status()

    found = operate("sealing.status", work)
    if as_json:
        print_json([as_row(one) for one in found])
    else:
        print_table(
            ("root key", "state", "here", "tenant keys", "service keys", "since", "replicas without it"),
            [
                (
                    k.kek_id,
                    k.state,
                    "yes" if k.present else "NO",
                    k.tenant_keys,
                    k.service_keys,
                    k.created_at,
                    k.lacking,
                )
                for k in found
            ],
            empty="There are no root keys.",
        )
    if any(not one.present and one.tenant_keys + one.service_keys for one in found):
        raise typer.Exit(FINDINGS)


def _here(status: RootKeyStatus) -> str:
    return "yes" if status.present else "NO"


@app.command("add")
def add(as_json: AsJson = False) -> None:
    """Make a new root key, pending: it wraps nothing until it is activated."""

    async def work(at: Operation) -> str:
        return await at.keystore.sealing.add()

    kek_id = operate("sealing.add", work, describe=lambda made: {"kek_id": made})
    if as_json:
        print_json({"kek_id": kek_id, "state": "pending"})
    else:
        print(f"Added {kek_id}. Keep a copy of the ring, give it to every replica, then: sealing activate {kek_id}")


@app.command("activate")
def activate(
    kek_id: KekId,
    force: Annotated[bool, typer.Option("--force", help="Even while a replica lacks it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Wrap new tenant keys with this root key. Refused while a live replica does not have it."""

    async def work(at: Operation) -> None:
        await at.keystore.sealing.activate(kek_id, force=force)

    operate("sealing.activate", work, target=kek_id)
    if as_json:
        print_json({"kek_id": kek_id, "state": "active"})
    else:
        print(f"{kek_id} is active. Next: wardgate sealing rewrap")


@app.command("rewrap")
def rewrap(as_json: AsJson = False) -> None:
    """Wrap with the active root key what others wrap. Can be stopped and run again. Exit code 3 when a row failed."""

    async def work(at: Operation) -> Tally:
        with progress_bar("rewrapping") as advance:
            return await at.keystore.sealing.rewrap(advance)

    _show(operate("sealing.rewrap", work, describe=_counts), "Rewrapped", "changed by somebody else meanwhile", as_json)


@app.command("verify")
def verify(as_json: AsJson = False) -> None:
    """Open every tenant key and every envelope. Exit code 3 when one does not open."""

    async def work(at: Operation) -> Tally:
        with progress_bar("verifying") as advance:
            return await at.keystore.sealing.verify(advance)

    _show(
        operate("sealing.verify", work, describe=_counts),
        "Opened",
        "removed, so nothing is left of them to open",
        as_json,
    )


def _counts(tally: Tally) -> dict[str, object]:
    counts = {"processed": tally.processed, "succeeded": tally.succeeded}
    return {**counts, "skipped": tally.skipped, "failed": tally.failed}


def _show(tally: Tally, verb: str, skipped: str, as_json: bool) -> None:
    """`skipped` says what those are of which nothing was opened."""
    if as_json:
        print_json({**_counts(tally), "faults": tally.faults})
    else:
        print(f"{verb} {tally.succeeded} of {tally.processed} (skipped {tally.skipped}, failed {tally.failed}).")
        if tally.skipped:
            print(f"Skipped are those that were {skipped}.")
        for fault in tally.faults:
            print(f"  {fault}")
    if tally.faults:
        raise typer.Exit(FINDINGS)


@app.command("retire")
def retire(kek_id: KekId, as_json: AsJson = False) -> None:
    """Say that a root key is done with. Refused while a row needs it, or without a clean verify of the last hour."""

    async def work(at: Operation) -> bool:
        return await at.keystore.sealing.retire(kek_id)

    changed = operate("sealing.retire", work, target=kek_id)
    if as_json:
        print_json({"kek_id": kek_id, "state": "retired"})
    else:
        said = "is retired" if changed else "was retired already"
        print(f"{kek_id} {said}; its line may be taken out of the ring. Backups of before still need it.")


@app.command("rotate-tenant")
def rotate_tenant(slug: Slug, as_json: AsJson = False) -> None:
    """Give a tenant a new data key and seal its keys again with it."""

    async def work(at: Operation) -> int:
        return await at.keystore.sealing.rotate_tenant(at.tenant)

    sealed = operate("sealing.rotate_tenant", work, tenant=slug, describe=lambda count: {"sealed": count})
    if as_json:
        print_json({"tenant": slug, "sealed": sealed})
    else:
        print(f"{slug} has a new data key; {counted(sealed, 'value')} sealed again.")


@app.command("shred")
def shred(
    slug: Slug,
    yes: Annotated[bool, typer.Option("--yes", help="It cannot be undone.")] = False,
    as_json: AsJson = False,
) -> None:
    """Destroy a tenant's data keys and stored keys. Backups of before open as long as a root key of then exists."""
    if not yes:
        raise typer.BadParameter(f"every provider key of {slug} would be gone for good; say --yes")

    async def work(at: Operation) -> int:
        return await at.keystore.sealing.shred(at.tenant)

    gone = operate("sealing.shred", work, tenant=slug, describe=lambda count: {"destroyed": count})
    if as_json:
        print_json({"tenant": slug, "destroyed": gone})
    else:
        print(f"Destroyed {counted(gone, 'stored value')} of {slug} and the keys that opened them.")
