"""`wardgate key doctor`: what is wrong with stored keys, and what to do next. Never shows a value."""

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Annotated

import typer

from gateway.cli.console import AsJson, operate, print_json, print_table
from gateway.cli.moving import key_app
from gateway.cli.sealing import progress_bar
from gateway.control.gate import Operation
from gateway.doctoring import Examined, examine, examine_all
from gateway.live_check import AT_ONCE, LiveCheck, LiveResult
from gateway.rules import Rules
from gateway.transport import Transport
from keystore.health import KeyHealth, Level

__all__ = ["key_app"]
FINDINGS = 3  # exit code when a key has a problem


@key_app.command("doctor")
def doctor(
    slug: Annotated[str | None, typer.Argument(help="The tenant's short name; every tenant when left out.")] = None,
    provider: Annotated[str | None, typer.Option(help="The keys of one provider alone.")] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Ask each key's provider, with one call, which models it sees.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Examine every stored key and say what to do next. Exit code 3 when one has a problem."""

    async def work(at: Operation) -> list[Examined]:
        async with _live_check(at.rules, live) as asking:
            if slug is None:
                with progress_bar("examining tenants") as advance:
                    return await examine_all(at, provider=provider, live=asking, told=advance)
            with progress_bar("asking providers") as advance:
                return await examine(at, provider=provider, live=asking, told=advance)

    found = operate("key.doctor", work, tenant=slug, target=provider or "", describe=_summary)
    if as_json:
        print_json([as_record(one) for one in found])
    else:
        whose = f"{slug} holds no provider key" if slug else "No provider key is stored"
        _print(found, f"{whose}{f' of {provider}' if provider else ''}.")
    if any(one.health.level is Level.PROBLEM for one in found):
        raise typer.Exit(FINDINGS)


@asynccontextmanager
async def _live_check(rules: Rules, wanted: bool) -> AsyncIterator[LiveCheck | None]:
    if not wanted:
        yield None
        return
    transport = Transport(
        connect_timeout_s=rules.limits.connect_timeout_s, max_connections=AT_ONCE, listed=rules.listed_hosts
    )
    try:
        yield LiveCheck(transport)
    finally:
        await transport.aclose()


def _summary(found: Sequence[Examined]) -> Mapping[str, object]:
    """For the audit: how many keys of which level, and how many were tried at their providers."""
    levels = Counter(one.health.level.value for one in found)
    return {"keys": len(found), **levels, "asked": sum(one.live is not None for one in found)}


def as_record(one: Examined) -> dict[str, object]:
    """The whole of it, for scripts."""
    health, key = one.health, one.health.key
    return {
        "tenant": health.tenant,
        "setting_key": key.setting_key,
        "label": key.label,
        "provider": health.provider_id,
        "store": key.store,
        "version": key.version,
        "state": health.state,
        "hint": key.hint,
        "hosts": sorted(key.hosts),
        "fields": key.fields,
        "quarantine": key.quarantine,
        "grace_until": key.grace_until,
        "created_at": key.created_at,
        "updated_at": key.updated_at,
        "answers": [{"provider": answer.provider_id, "via": answer.via} for answer in health.answers],
        "shadowed_by": health.shadowed_by,
        "conflicts": health.conflicts,
        "last_success_at": health.last_success_at,
        "last_rejected_at": health.last_rejected_at,
        "last_rejected_status": health.last_rejected_status,
        "level": health.level,
        "findings": [
            {"check": each.check, "level": each.level, "text": each.text, "step": each.step or None}
            for each in health.findings
        ],
        "next_step": health.next_step,
        "live": _live_record(one.live) if one.live else None,
    }


def _live_record(live: LiveResult) -> dict[str, object]:
    names = ("outcome", "status", "models", "more", "names", "proves", "text")
    return {"provider": live.provider_id} | {name: getattr(live, name) for name in names}


def _print(found: Sequence[Examined], empty: str) -> None:
    print_table(
        (
            "tenant",
            "stored as",
            "label",
            "provider",
            "store",
            "version",
            "state",
            "answers for",
            "last success",
            "last rejection",
            "level",
            "next step",
        ),
        [_row(one.health) for one in found],
        empty=empty,
    )
    for one in found:
        if one.live is not None:
            label = f" ({one.health.key.label})" if one.health.key.label else ""
            typer.echo(f"{one.health.tenant} {one.health.key.setting_key}{label}: {one.live.text}.")


def _row(health: KeyHealth) -> tuple[object, ...]:
    key, rejected = health.key, health.last_rejected_at
    return (
        health.tenant,
        key.setting_key,
        key.label or None,
        health.provider_id,
        key.store,
        key.version or None,
        health.state,
        [f"{answer.provider_id} ({answer.via.value})" for answer in health.answers],
        health.last_success_at,
        f"{rejected:%Y-%m-%d %H:%M} ({health.last_rejected_status})" if rejected else None,
        health.level,
        health.next_step,
    )
