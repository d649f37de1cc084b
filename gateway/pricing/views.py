"""Price releases as they are shown, on the command line and over HTTP alike.

Owns the fields. Must not know terminals or HTTP.
"""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from gateway.pricing.live import bundled
from gateway.pricing.refreshing import RefreshReport, source_id
from gateway.rules import Rules
from keystore.keystore import Keystore
from keystore.price_releases import Period, Release, ReleaseState, WaitingRow
from router.price_diff import Diff
from router.price_release import version_of


def release_view(release: Release) -> dict[str, Any]:
    """A release without its rows."""
    return {
        "release": release.number,
        "version": version_of(release.number, release.digest),
        "state": release.state.value,
        "models": release.rows,
        "compared_with": release.base_version,
        "counts": release.counts,
        "impact": release.impact,
        "note": release.note,
        "sources": release.sources,
        "staged_at": release.staged_at,
        "staged_by": release.staged_by,
        "decided_at": release.decided_at,
        "decided_by": release.decided_by,
    }


def row_view(row: WaitingRow) -> dict[str, Any]:
    """A quarantined row."""
    return {
        "name": row.name,
        "why": row.why,
        "detail": row.detail,
        "decision": row.decision,
        "decided_at": row.decided_at,
        "decided_by": row.decided_by,
    }


def diff_view(against: str, release: Release, found: Diff) -> dict[str, Any]:
    """What a release changes."""
    changed = [
        {"name": one.name, "field": one.field, "before": one.before, "after": one.after, "factor": one.factor}
        for one in found.changed
    ]
    return {
        "release": release.number,
        "compared_with": against,
        "counts": dict(found.counts),
        "added": list(found.added),
        "gone": list(found.gone),
        "changed": changed,
        "became_free": list(found.became_free),
        "lost_price": list(found.lost_price),
        "other": list(found.other),
        "impact": release.impact,
    }


def period_view(period: Period | None) -> dict[str, Any]:
    """What was live from when on; the bundled map where no release had been."""
    if period is None:
        return {"release": None, "version": "bundled", "since": None, "cause": None, "by": None}
    return {
        "release": period.number,
        "version": period.version,
        "since": period.since,
        "cause": period.cause.value,
        "by": period.by,
    }


def report_view(report: RefreshReport) -> dict[str, Any]:
    """What a refresh did."""
    return {
        "outcome": report.outcome.value,
        "note": report.note,
        "release": release_view(report.release) if report.release else None,
        "sources": [asdict(source) | {"outcome": source.outcome.value} for source in report.sources],
    }


async def status_view(keystore: Keystore, rules: Rules, now: datetime) -> dict[str, Any]:
    """What is live and since when, what waits for a decision, where prices come from, and who serves what."""
    live = await keystore.prices.live()
    version = version_of(live.number, live.digest) if live else bundled().version
    latest = await keystore.prices.periods(1)
    since = period_view(latest[0]) if latest else period_view(None)
    staged = [one for one in await keystore.prices.recent() if one.state is ReleaseState.STAGED]
    return {
        "live": since | {"release": live.number if live else None, "version": version},
        "staged": release_view(staged[0]) if staged else None,
        "waiting_rows": [
            {"release": one.number} | row_view(row)
            for one in [*staged, *([live] if live else [])]
            for row in await keystore.prices.waiting(one.number)
            if row.decision == "pending"
        ],
        "sources": await _sources(keystore, rules, now),
        "replicas": [
            {
                "name": one.name,
                "catalogue": one.catalogue,
                "current": _is_of(one.catalogue, version),
                "seen_at": one.seen_at,
            }
            for one in await keystore.replicas.live()
        ],
        "settings": _settings(rules),
    }


def _is_of(catalogue: str | None, version: str) -> bool:
    """Whether a process serves this release: behind a "+" stands which of the operator's models lie over it."""
    return (catalogue or "").partition("+")[0] == version


async def _sources(keystore: Keystore, rules: Rules, now: datetime) -> list[dict[str, Any]]:
    ids = [source_id(url) for url in rules.prices.urls]
    known = await keystore.price_sources.of(ids)
    return [
        {
            "name": one.name,
            "fetched_at": one.fetched_at,
            "asked_at": one.asked_at,
            "due_at": one.due_at,
            "overdue": rules.prices.refresh and one.due_at < now,
            "error": one.error,
        }
        for each in ids
        if (one := known.get(each))
    ]


def _settings(rules: Rules) -> Mapping[str, object]:
    prices = rules.prices
    return {
        "refresh": prices.refresh,
        "urls": len(prices.urls),
        "refresh_hours": prices.refresh_hours,
        "auto_approve": prices.auto_approve.value,
        "max_factor": prices.max_factor,
        "max_lost": prices.max_lost,
        "max_growth": prices.max_growth,
    }
