"""`wardgate key`: a tenant's provider keys. A value comes from standard input or a prompt, never from an argument."""

import getpass
import sys
from typing import Annotated

import typer

from gateway.cli.console import AsJson, operate, print_json, print_table
from gateway.cli.tenants import Slug
from gateway.control.gate import Operation
from keystore.credential_info import CredentialInfo
from keystore.resolve import Found, provider_for_setting

app = typer.Typer(help="Provider keys of tenants. Values are read from stdin or a prompt.", no_args_is_help=True)
SettingKey = Annotated[str, typer.Argument(help="The name that it is stored under, e.g. MINIMAX_API_KEY.")]


def as_row(info: CredentialInfo) -> dict[str, object]:
    return {
        "setting_key": info.setting_key,
        "provider": info.provider_id,
        "store": info.store.value,
        "version": info.version,
        "state": state_of(info),
        "hint": info.hint,
        "created_at": info.created_at,
        "updated_at": info.updated_at,
    }


def state_of(info: CredentialInfo) -> str:
    """active, shadowed, or why the value is never used."""
    return info.state if info.unusable is None else f"unusable: {info.unusable.value}"


def read_value(setting_key: str) -> str:
    """The value from standard input without its final line break, or from a prompt that does not echo."""
    if sys.stdin.isatty():
        return getpass.getpass(f"{setting_key}: ")
    value = sys.stdin.read()
    return value.removesuffix("\n").removesuffix("\r")


@app.command("set")
def set_key(slug: Slug, setting_key: SettingKey, as_json: AsJson = False) -> None:
    """Store a key, sealed: printf %s VALUE | wardgate key set SLUG SETTING_KEY"""
    value = read_value(setting_key)

    async def work(at: Operation) -> CredentialInfo:
        return await at.keystore.credentials.set(at.tenant, setting_key, value)

    info = operate("key.set", work, tenant=slug, target=setting_key, describe=lambda one: {"version": one.version})
    if as_json:
        print_json(as_row(info))
    else:
        print(f"Stored {info.setting_key} for {slug} (provider {info.provider_id}, version {info.version}), sealed.")


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
        ("stored as", "provider", "store", "version", "state", "ends in", "updated"),
        [(i.setting_key, i.provider_id, i.store, i.version, state_of(i), i.hint, i.updated_at) for i in infos],
        empty=f"{slug} holds no provider key. Store one: printf %s VALUE | wardgate key set {slug} MINIMAX_API_KEY",
    )


@app.command("remove")
def remove(slug: Slug, setting_key: SettingKey, as_json: AsJson = False) -> None:
    """Remove a stored key; a row of a legacy table is never touched."""

    async def work(at: Operation) -> dict[str, object]:
        await at.keystore.credentials.remove(at.tenant, setting_key)
        owner = provider_for_setting(setting_key, at.keystore.registry)
        found = (await at.keystore.keyring(at.tenant)).resolutions.get(owner.id) if owner else None
        return {
            "tenant": slug,
            "setting_key": setting_key,
            "removed": True,
            "provider": owner.id if owner else None,
            "answers_now": found.setting_key if isinstance(found, Found) else None,
            "store": found.store if isinstance(found, Found) else None,
        }

    done = operate("key.remove", work, tenant=slug, target=setting_key)
    if as_json:
        print_json(done)
        return
    print(f"Removed {setting_key} of {slug}.")
    if done["answers_now"]:
        print(f"{done['provider']} is now answered with {done['answers_now']} from {done['store']}.")
