"""`wardgate bulk`: pause the bulk requests of a tenant, and let them go on."""

import typer

from gateway.cli.console import AsJson, operate, print_json, print_table
from gateway.cli.tenants import Slug
from gateway.control.gate import Operation
from keystore.bulk_pauses import Pause

app = typer.Typer(help="Pause the bulk requests of a tenant, and let them go on.", no_args_is_help=True)


def _told(pause: Pause) -> dict[str, object]:
    return {"tenant": pause.tenant, "paused": True, "since": pause.since.isoformat()}


@app.command("pause")
def pause(slug: Slug, as_json: AsJson = False) -> None:
    """Let bulk requests of a tenant wait from now on, in every process; what runs goes on."""

    async def work(at: Operation) -> Pause:
        return await at.keystore.bulk_pauses.pause(at.tenant)

    found = operate("bulk.pause", work, tenant=slug)
    if as_json:
        print_json(_told(found))
    else:
        since = f"{found.since:%Y-%m-%d %H:%M} UTC"
        print(f"Bulk of {slug} is paused since {since}; let it go on: wardgate bulk resume {slug}")


@app.command("resume")
def resume(slug: Slug, as_json: AsJson = False) -> None:
    """Let bulk requests of a tenant go on, within seconds."""

    async def work(at: Operation) -> bool:
        return await at.keystore.bulk_pauses.resume(at.tenant)

    was = operate("bulk.resume", work, tenant=slug, describe=lambda one: {"was_paused": one})
    if as_json:
        print_json({"tenant": slug, "paused": False, "was_paused": was})
    else:
        print(f"Bulk of {slug} goes on." if was else f"Bulk of {slug} was not paused.")


@app.command("list")
def list_paused(as_json: AsJson = False) -> None:
    """List the tenants whose bulk requests are paused."""

    async def work(at: Operation) -> list[Pause]:
        return await at.keystore.bulk_pauses.list()

    found = operate("bulk.list", work)
    if as_json:
        print_json([_told(each) for each in found])
    else:
        print_table(
            ("tenant", "paused since"),
            [(each.tenant, each.since) for each in found],
            empty="Nobody's bulk is paused.",
        )
