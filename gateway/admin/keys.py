"""Provider keys over HTTP: for an operator those of any tenant, in self-service those of the token's tenant.

Owns that both are the same operations. A value comes in, sealed away at once, and never goes out.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated

from fastapi import Query

from gateway.admin.calls import Call, OfCall
from gateway.admin.models import KeyActivation, KeyOut, KeyQuery, KeyRemoved, KeyTurn, KeyValue, LabelQuery
from gateway.admin.pages import Page, PageQuery, cut
from gateway.admin.parts import SettingKey, Tenant
from gateway.control.gate import Operation
from keystore.credential_info import CredentialInfo
from keystore.errors import CredentialUnknown
from keystore.resolve import Found, provider_for_setting


def key_out(info: CredentialInfo) -> KeyOut:
    return KeyOut(
        setting_key=info.setting_key,
        label=info.label,
        provider=info.provider_id,
        store=info.store.value,
        version=info.version,
        state=info.state,
        unusable=info.unusable.value if info.unusable else None,
        quarantine=info.quarantine,
        hint=info.hint,
        weight=info.weight,
        position=info.position,
        grace_until=info.grace_until,
        fields=dict(info.fields),
        created_at=info.created_at,
        updated_at=info.updated_at,
    )


def _place(info: CredentialInfo) -> tuple[str, str, str, int]:
    return (info.setting_key, info.label, info.store.value, info.version)


def _named(call: Call, setting_key: str) -> str:
    """The name for the audit, when it is one: whatever else stands in a path may be anything."""
    registry = call.services.keystore.registry
    return setting_key if provider_for_setting(setting_key, registry) is not None else ""


def _version(info: CredentialInfo) -> Mapping[str, object]:
    return {"version": info.version, "label": info.label, "state": info.state}


def _hours(number: float) -> timedelta:
    return timedelta(hours=number)


# --- the operations --------------------------------------------------------------------------------------------------


async def _list(call: Call, tenant: str, query: KeyQuery) -> Page[KeyOut]:
    async def work(at: Operation) -> list[CredentialInfo]:
        return list(await at.keystore.credentials.list(at.tenant))

    wanted = [
        info
        for info in await call.run(work, tenant=tenant)
        if query.provider in (None, info.provider_id) and query.state in (None, info.state)
    ]
    return cut(wanted, query, key_out, _place)


async def _versions(call: Call, tenant: str, setting_key: str, query: PageQuery) -> Page[KeyOut]:
    async def work(at: Operation) -> Sequence[CredentialInfo]:
        held = [one for one in await at.keystore.credentials.list(at.tenant) if one.setting_key == setting_key]
        ever = await _ever(at, setting_key, held=bool(held))
        return list({_place(one): one for one in (*ever, *held)}.values())

    return cut(await call.run(work, tenant=tenant, target=_named(call, setting_key)), query, key_out, _place)


async def _ever(at: Operation, setting_key: str, *, held: bool) -> Sequence[CredentialInfo]:
    """Every version that there ever was; a name that the legacy table alone holds has none."""
    try:
        return await at.keystore.credentials.versions(at.tenant, setting_key)
    except CredentialUnknown:
        if held:
            return ()
        raise


async def _set(call: Call, tenant: str, setting_key: str, body: KeyValue) -> KeyOut:
    async def work(at: Operation) -> CredentialInfo:
        return await at.keystore.credentials.set(
            at.tenant,
            setting_key,
            body.value.get_secret_value(),
            label=body.label,
            weight=body.weight,
            position=body.position,
            activate=body.activate,
            grace=_hours(body.grace_hours),
            fields=body.fields,
            expected_version=body.expected_version,
        )

    return key_out(await call.run(work, tenant=tenant, target=_named(call, setting_key), describe=_version))


async def _activate(call: Call, tenant: str, setting_key: str, body: KeyActivation) -> KeyOut:
    async def work(at: Operation) -> CredentialInfo:
        grace = _hours(body.grace_hours)
        return await at.keystore.credentials.activate(
            at.tenant, setting_key, body.version, label=body.label, grace=grace
        )

    return key_out(await call.run(work, tenant=tenant, target=_named(call, setting_key), describe=_version))


async def _change(call: Call, tenant: str, setting_key: str, body: KeyTurn) -> KeyOut:
    async def work(at: Operation) -> CredentialInfo:
        return await at.keystore.credentials.change(
            at.tenant, setting_key, label=body.label, weight=body.weight, position=body.position
        )

    return key_out(await call.run(work, tenant=tenant, target=_named(call, setting_key), describe=_version))


async def _remove(call: Call, tenant: str, setting_key: str, label: str | None) -> KeyRemoved:
    async def work(at: Operation) -> KeyRemoved:
        await at.keystore.credentials.remove(at.tenant, setting_key, label)
        owner = provider_for_setting(setting_key, at.keystore.registry)
        found = (await at.keystore.names.keyring(at.tenant)).resolutions.get(owner.id) if owner else None
        now = found if isinstance(found, Found) else None
        return KeyRemoved(
            setting_key=setting_key,
            provider=owner.id if owner else None,
            answers_now=now.setting_key if now else None,
            store=now.store.value if now else None,
        )

    return await call.run(work, tenant=tenant, target=_named(call, setting_key))


# --- an operator's ---------------------------------------------------------------------------------------------------


async def list_keys(call: OfCall, tenant: Tenant, query: Annotated[KeyQuery, Query()]) -> Page[KeyOut]:
    """The names under which the tenant's keys are stored, never their values."""
    return await _list(call, tenant, query)


async def show_key(
    call: OfCall, tenant: Tenant, setting_key: SettingKey, query: Annotated[PageQuery, Query()]
) -> Page[KeyOut]:
    """Every version that there ever was under this name, of every label."""
    return await _versions(call, tenant, setting_key, query)


async def set_key(call: OfCall, tenant: Tenant, setting_key: SettingKey, body: KeyValue) -> KeyOut:
    """Seal a value as a new version. The value that is active already makes no new one."""
    return await _set(call, tenant, setting_key, body)


async def activate_key(call: OfCall, tenant: Tenant, setting_key: SettingKey, body: KeyActivation) -> KeyOut:
    """Make a waiting version the active one; the one before stands in during the grace time."""
    return await _activate(call, tenant, setting_key, body)


async def change_key(call: OfCall, tenant: Tenant, setting_key: SettingKey, body: KeyTurn) -> KeyOut:
    """Set the weight or the position of a key among those of the same name."""
    return await _change(call, tenant, setting_key, body)


async def remove_key(
    call: OfCall, tenant: Tenant, setting_key: SettingKey, query: Annotated[LabelQuery, Query()]
) -> KeyRemoved:
    """Destroy every version of one label, or of every label. A row of a legacy table is never touched."""
    return await _remove(call, tenant, setting_key, query.label)


# --- a tenant's own --------------------------------------------------------------------------------------------------


async def list_own(call: OfCall, query: Annotated[KeyQuery, Query()]) -> Page[KeyOut]:
    """The names under which your keys are stored, never their values."""
    return await _list(call, call.own_tenant, query)


async def show_own(call: OfCall, setting_key: SettingKey, query: Annotated[PageQuery, Query()]) -> Page[KeyOut]:
    """Every version that there ever was under this name, of every label."""
    return await _versions(call, call.own_tenant, setting_key, query)


async def set_own(call: OfCall, setting_key: SettingKey, body: KeyValue) -> KeyOut:
    """Seal a value as a new version. The value that is active already makes no new one."""
    return await _set(call, call.own_tenant, setting_key, body)


async def activate_own(call: OfCall, setting_key: SettingKey, body: KeyActivation) -> KeyOut:
    """Make a waiting version the active one; the one before stands in during the grace time."""
    return await _activate(call, call.own_tenant, setting_key, body)


async def change_own(call: OfCall, setting_key: SettingKey, body: KeyTurn) -> KeyOut:
    """Set the weight or the position of a key among those of the same name."""
    return await _change(call, call.own_tenant, setting_key, body)


async def remove_own(call: OfCall, setting_key: SettingKey, query: Annotated[LabelQuery, Query()]) -> KeyRemoved:
    """Destroy every version of one label, or of every label. A row of a legacy table is never touched."""
    return await _remove(call, call.own_tenant, setting_key, query.label)
