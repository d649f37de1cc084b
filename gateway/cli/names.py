"""Names over time: `wardgate key report` and `key conflicts`; `wardgate provider retire`, `rename` and `diff`."""

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.console import AsJson, operate, print_json, print_table
from gateway.cli.keys import app as key_app
from gateway.cli.rows import provider_app
from gateway.cli.sealing import progress_bar
from gateway.config import load_config
from gateway.control.gate import Operation
from gateway.control.targets import check_said
from gateway.rules import load_catalogue
from keystore.impact import Change, renamed, retired
from keystore.names import Conflict, Report
from keystore.providers import Registry, load_registry

__all__ = ["key_app", "provider_app"]
BROKEN = 1  # exit code when somebody breaks, so that a pipeline stops
ProviderId = Annotated[str, typer.Argument(help="A provider of `wardgate provider list`.")]


@key_app.command("report")
def report(
    provider: Annotated[str | None, typer.Option(help="One provider; all when left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """Who is still found under a former, family or sibling name, and which former names nobody needs any more."""

    async def work(at: Operation) -> Report:
        with progress_bar("reading tenants") as advance:
            return await at.keystore.names.report(provider, advance)

    found = operate("key.report", work, target=provider or "")
    if as_json:
        verdicts = [_verdict(one) for one in found.verdicts]
        print_json({"uses": [_use(one) for one in found.uses], "former_names": verdicts})
        return
    print_table(
        ("tenant", "provider", "stored as", "found as", "store", "canonical name", "last used"),
        [(u.tenant, u.provider_id, u.setting_key, u.via, u.store, u.canonical, u.last_used_at) for u in found.uses],
        empty="Every key is found under its canonical name.",
    )
    print()
    print_table(
        ("provider", "former name", "verdict"),
        [
            (v.provider_id, v.setting_key, "safe to retire" if v.safe else f"needed by {', '.join(v.tenants)}")
            for v in found.verdicts
        ],
        empty="No provider has a former name.",
    )


def _use(one: object) -> dict[str, object]:
    names = ("tenant", "provider_id", "setting_key", "canonical", "via", "store", "last_used_at")
    return {name: getattr(one, name) for name in names}


def _verdict(one: object) -> dict[str, object]:
    return {name: getattr(one, name) for name in ("provider_id", "setting_key", "tenants", "safe")}


@key_app.command("conflicts")
def conflicts(as_json: AsJson = False) -> None:
    """Tenants with two different keys behind one provider, and which of them answers."""

    async def work(at: Operation) -> list[Conflict]:
        with progress_bar("reading tenants") as advance:
            return await at.keystore.names.conflicts(advance)

    found = operate("key.conflicts", work)
    if as_json:
        names = ("tenant", "provider_id", "winner", "via", "others")
        print_json([{name: getattr(one, name) for name in names} for one in found])
        return
    print_table(
        ("tenant", "provider", "answers", "as", "differs"),
        [(one.tenant, one.provider_id, one.winner, one.via, one.others) for one in found],
        empty="No tenant holds two different keys for one provider.",
    )


@provider_app.command("retire")
def retire(provider_id: ProviderId, as_json: AsJson = False) -> None:
    """Who breaks if this row becomes a tombstone. Changes nothing. Exit code 1 when somebody does."""
    rows = f"[providers.{provider_id}]\nretired = true"
    _impact(lambda registry: retired(registry, provider_id), f"retire {provider_id}", rows, as_json)


@provider_app.command("rename")
def rename(old: ProviderId, new: Annotated[str, typer.Argument(help="The new id.")], as_json: AsJson = False) -> None:
    """Who breaks if a provider gets another id, or is merged into another row. Changes nothing. Exit code 1 when
    somebody does."""
    check_said(new, "the new id")
    _impact(lambda registry: renamed(registry, old, new), f"rename {old} {new}", None, as_json, shown=(new, old))


@provider_app.command("diff")
def diff(
    file: Annotated[Path, typer.Argument(help="A wardgate.toml that would take the place of the one in force.")],
    as_json: AsJson = False,
) -> None:
    """Who breaks if this file were in force. Changes nothing. Exit code 1 when somebody does."""
    after = load_registry(load_config(file, named_by="").providers)
    _impact(lambda _: after, f"diff {file.name}", None, as_json)


def _impact(
    change: Callable[[Registry], Registry], target: str, rows: str | None, as_json: bool, shown: tuple[str, ...] = ()
) -> None:
    async def work(at: Operation) -> tuple[list[Change], Registry, Registry]:
        after = change(at.rules.registry)
        with progress_bar("reading tenants") as advance:
            return await at.keystore.names.impact(after, advance), at.rules.registry, after

    changes, before, after = operate("provider.impact", work, target=target)
    gone = sorted(_models(before) - _models(after))
    rows = rows or "\n\n".join(_toml(after, provider_id) for provider_id in shown) or None
    broken = any(one.breaks for one in changes)
    if as_json:
        lines = [{**{name: getattr(one, name) for name in _LINE}, "breaks": one.breaks} for one in changes]
        print_json({"breaks": broken, "changes": lines, "models_gone": gone, "rows": rows})
    else:
        print_table(
            ("tenant", "provider", "answers after", "effect", "key before", "key after", "why"),
            [
                (c.tenant, c.provider_id, c.successor, c.effect, c.before, c.after, c.why)
                for c in sorted(changes, key=lambda one: not one.breaks)
            ],
            empty="Nothing changes for any tenant.",
        )
        if gone:
            print(f"{len(gone)} models are no longer offered under these ids, e.g. {', '.join(gone[:5])}.")
        if rows:
            print(f"\nFor wardgate.toml:\n\n{rows}")
    if broken:
        raise typer.Exit(BROKEN)


_LINE = ("tenant", "provider_id", "successor", "effect", "before", "after", "why")


def _models(registry: Registry) -> set[str]:
    retired_ids = {row.id for row in registry.providers if row.retired}
    return {offer.id for offer in load_catalogue(registry).offers if offer.provider_id not in retired_ids}


def _toml(registry: Registry, provider_id: str) -> str:
    """A row as wardgate.toml has it; a tombstone gives up the names that its heir has taken over."""
    row = registry.get(provider_id)
    if row is None:
        return ""
    written: dict[str, object] = {"retired": True, "former_ids": (), "catalogue_ids": ()}
    if not row.retired:
        every = {field.name: getattr(row, field.name) for field in fields(row) if field.init and field.name != "id"}
        written = {name: value for name, value in every.items() if value or name == "former_ids"}
    return "\n".join([f"[providers.{provider_id}]", *(f"{name} = {_value(value)}" for name, value in written.items())])


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{name} = {_value(one)}" for name, one in value.items()) + " }"
    return json.dumps(str(value))  # a basic string of TOML is written as JSON's is
