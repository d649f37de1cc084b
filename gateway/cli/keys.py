"""`wardgate key`: a tenant's provider keys. A value comes from standard input or a prompt, never from an argument."""

import getpass
import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated

import typer

from gateway.cli.console import AsJson, operate, print_json, print_table
from gateway.cli.tenants import Slug
from gateway.control.gate import Operation
from gateway.control.targets import check_said
from keystore.credential_info import CredentialInfo
from keystore.resolve import Found, provider_for_setting

app = typer.Typer(help="Provider keys of tenants. Values are read from stdin or a prompt.", no_args_is_help=True)
SettingKey = Annotated[str, typer.Argument(help="The name that it is stored under, e.g. MINIMAX_API_KEY.")]
Label = Annotated[str, typer.Option(help="Tells several keys of one name apart; without it, the one that has none.")]
Grace = Annotated[float, typer.Option(help="For how many hours the version before stands in if this one is rejected.")]
Weight = Annotated[int | None, typer.Option(help="Share of the requests among labels of the same position; 1.")]
Position = Annotated[int | None, typer.Option(help="Labels are tried in this order; 0 is first.")]


def as_row(info: CredentialInfo) -> dict[str, object]:
    return {
        "setting_key": info.setting_key,
        "label": info.label,
        "provider": info.provider_id,
        "store": info.store.value,
        "version": info.version,
        "state": state_of(info),
        "hint": info.hint,
        "weight": info.weight,
        "position": info.position,
        "source": info.source,
        "fields": dict(info.fields),
        "grace_until": info.grace_until,
        "created_at": info.created_at,
        "updated_at": info.updated_at,
    }


def state_of(info: CredentialInfo) -> str:
    """The state of the row, or why its value is never used."""
    if info.quarantine is not None:
        return f"quarantined: {info.quarantine}"
    return info.state if info.unusable is None else f"unusable: {info.unusable.value}"


def read_value(setting_key: str) -> str:
    """The value from standard input without its final line break, or from a prompt that does not echo."""
    if sys.stdin.isatty():
        return getpass.getpass(f"{setting_key}: ")
    value = sys.stdin.read()
    return value.removesuffix("\n").removesuffix("\r")


def read_fields(given: Sequence[str], base_url: str | None) -> dict[str, str]:
    """The fields of `--field name=value` and `--base-url`; typer.BadParameter for one that is not of this form."""
    fields: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name or name in fields:
            raise typer.BadParameter("a field is given once, as name=value; a field is no place for a secret")
        fields[name] = value
    return fields if base_url is None else fields | {"base_url": base_url}


@app.command("set")
def set_key(
    slug: Slug,
    setting_key: SettingKey,
    label: Label = "",
    weight: Weight = None,
    position: Position = None,
    field: Annotated[list[str] | None, typer.Option(help="What the provider needs beside the key, name=value.")] = None,
    base_url: Annotated[str | None, typer.Option(help="A base URL of its own, on one of the row's hosts.")] = None,
    pending: Annotated[bool, typer.Option(help="Store it and wait: `wardgate key activate` makes it answer.")] = False,
    grace_hours: Grace = 0.0,
    expect_version: Annotated[
        int | None, typer.Option(help="Refuse unless this is the newest version there (0: none).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Store a key, sealed: printf %s VALUE | wardgate key set SLUG SETTING_KEY"""
    fields = read_fields(field or (), base_url)
    value = read_value(setting_key)

    before: set[str | None] = set()
    refusing: list[str] = []  # the tenant's plan, where it takes no keys of tenants

    async def work(at: Operation) -> CredentialInfo:
        check_said(label, "the label")
        plan = at.rules.plans.get(at.tenant.plan)
        refusing.extend([plan.name] if plan is not None and not plan.byok else [])
        before.update(one.credential_id for one in await at.keystore.credentials.list(at.tenant))
        return await at.keystore.credentials.set(
            at.tenant,
            setting_key,
            value,
            label=label,
            weight=weight,
            position=position,
            activate=not pending,
            grace=timedelta(hours=grace_hours),
            fields=fields,
            expected_version=expect_version,
        )

    info = operate("key.set", work, tenant=slug, target=_target(setting_key, label), describe=_described)
    if as_json:
        print_json(as_row(info))
        return
    if info.credential_id in before:
        print(f"{_told(info)} of {slug} holds this value already (version {info.version}): no new version was made.")
        return
    print(f"Stored {_told(info)} for {slug} (provider {info.provider_id}, version {info.version}), sealed.")
    for plan in refusing:
        print(f"It is not used: plan {plan} takes no keys of tenants. Another: wardgate tenant set-plan {slug} PLAN")
    if info.state == "pending":
        option = f" --label {label}" if label else ""
        print(f"It waits: wardgate key activate {slug} {setting_key} {info.version}{option}")


@app.command("activate")
def activate(
    slug: Slug,
    setting_key: SettingKey,
    version: Annotated[int, typer.Argument(help="A version of `wardgate key versions`.")],
    label: Label = "",
    grace_hours: Grace = 24.0,
    as_json: AsJson = False,
) -> None:
    """Make a waiting version the one that answers, or a former one that is not destroyed yet."""

    async def work(at: Operation) -> CredentialInfo:
        grace = timedelta(hours=grace_hours)
        return await at.keystore.credentials.activate(at.tenant, setting_key, version, label=label, grace=grace)

    info = operate("key.activate", work, tenant=slug, target=_target(setting_key, label), describe=_described)
    if as_json:
        print_json(as_row(info))
    else:
        print(f"{_told(info)} of {slug} now answers in version {info.version}.")


@app.command("change")
def change(
    slug: Slug,
    setting_key: SettingKey,
    label: Label = "",
    weight: Weight = None,
    position: Position = None,
    as_json: AsJson = False,
) -> None:
    """Change in which order, or how often, one of several keys is used."""
    if weight is None and position is None:
        raise typer.BadParameter("say what to change: --weight, --position or both")

    async def work(at: Operation) -> CredentialInfo:
        return await at.keystore.credentials.change(
            at.tenant, setting_key, label=label, weight=weight, position=position
        )

    info = operate("key.change", work, tenant=slug, target=_target(setting_key, label), describe=_described)
    if as_json:
        print_json(as_row(info))
    else:
        print(f"{_told(info)} of {slug} has position {info.position} and weight {info.weight}.")


@app.command("list")
def list_keys(slug: Slug, as_json: AsJson = False) -> None:
    """List the names under which keys are stored, never their values."""

    async def work(at: Operation) -> list[CredentialInfo]:
        return list(await at.keystore.credentials.list(at.tenant))

    infos = operate("key.list", work, tenant=slug)
    if as_json:
        print_json([as_row(info) for info in infos])
        return
    print_table(
        (
            "stored as",
            "label",
            "position",
            "weight",
            "provider",
            "store",
            "version",
            "state",
            "ends in",
            "fields",
            "updated",
        ),
        [
            (
                i.setting_key,
                i.label or None,
                i.position,
                i.weight,
                i.provider_id,
                i.store,
                i.version,
                state_of(i),
                i.hint or None,
                [f"{name}={value}" for name, value in i.fields.items()],
                i.updated_at,
            )
            for i in infos
        ],
        empty=f"{slug} holds no provider key. Store one: printf %s VALUE | wardgate key set {slug} MINIMAX_API_KEY",
    )


@app.command("versions")
def versions(slug: Slug, setting_key: SettingKey, as_json: AsJson = False) -> None:
    """List every version that there ever was under one name, and what became of it."""

    async def work(at: Operation) -> list[CredentialInfo]:
        return list(await at.keystore.credentials.versions(at.tenant, setting_key))

    infos = operate("key.list", work, tenant=slug, target=setting_key)
    if as_json:
        print_json([as_row(info) for info in infos])
        return
    print_table(
        (
            "label",
            "position",
            "weight",
            "version",
            "state",
            "ends in",
            "stands in until",
            "came by",
            "created",
            "updated",
        ),
        [
            (
                *(i.label or None, i.position, i.weight, i.version, state_of(i), i.hint or None),
                *(i.grace_until, i.source, i.created_at, i.updated_at),
            )
            for i in infos
        ],
        empty="There was never a version.",
    )


@app.command("remove")
def remove(
    slug: Slug,
    setting_key: SettingKey,
    label: Annotated[str | None, typer.Option(help="Only the key with this label; all when left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """Remove a stored key and destroy all its versions; a row of a legacy table is never touched."""

    async def work(at: Operation) -> dict[str, object]:
        await at.keystore.credentials.remove(at.tenant, setting_key, label)
        owner = provider_for_setting(setting_key, at.keystore.registry)
        found = (await at.keystore.keyring(at.tenant)).resolutions.get(owner.id) if owner else None
        return {
            "tenant": slug,
            "setting_key": setting_key,
            "label": label,
            "removed": True,
            "provider": owner.id if owner else None,
            "answers_now": found.setting_key if isinstance(found, Found) else None,
            "store": found.store if isinstance(found, Found) else None,
        }

    done = operate("key.remove", work, tenant=slug, target=_target(setting_key, label or ""))
    if as_json:
        print_json(done)
        return
    print(f"Removed {_target(setting_key, label or '')} of {slug}.")
    if done["answers_now"]:
        print(f"{done['provider']} is now answered with {done['answers_now']} from {done['store']}.")


def _target(setting_key: str, label: str) -> str:
    return f"{setting_key} ({label})" if label else setting_key


def _told(info: CredentialInfo) -> str:
    return _target(info.setting_key, info.label)


def _described(info: CredentialInfo) -> dict[str, object]:
    """What the audit keeps: never a value, and of the fields their names alone."""
    return {"version": info.version, "state": info.state, "fields": sorted(info.fields)}
