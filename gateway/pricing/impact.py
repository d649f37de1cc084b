"""For whom `auto` would choose another model under other prices.

Owns the question that is put for each tenant: a short chat, under its plan, with the keys that it holds. Tenants that
are alike in that are asked for once. Must not know what a release is.
"""

import asyncio
import json
from dataclasses import dataclass
from datetime import date
from typing import Final

from gateway.chat_request import read_chat_request
from gateway.deciding import RuleBook, decide
from gateway.errors import ApiError
from gateway.rules import Rules
from keystore.keyring import Keyring
from keystore.keystore import Keystore
from keystore.resolve import Found
from keystore.tenants import Tenant
from router.catalogue import Catalogue
from router.price_diff import Choice, Rerank, reranked

MOST_TENANTS: Final = 1000  # each costs three statements
_QUESTION: Final = json.dumps({"model": "auto", "messages": [{"role": "user", "content": "Hello."}]}).encode()


@dataclass(frozen=True, slots=True)
class Impact:
    """The tenants for whom `auto` changes, and how many of all were asked for."""

    changes: tuple[Rerank, ...]
    asked: int
    tenants: int


async def impact_of(keystore: Keystore, rules: Rules, before: Catalogue, after: Catalogue, today: date) -> Impact:
    """What `auto` gives each tenant under both catalogues, compared."""
    tenants = await keystore.tenants.list()
    asked = tenants[:MOST_TENANTS]
    held = [(tenant, await keystore.names.keyring(tenant)) for tenant in asked]
    choices = await asyncio.to_thread(_choices, held, rules, before, after, today)
    return Impact(reranked(choices), len(asked), len(tenants))


def _choices(
    held: list[tuple[Tenant, Keyring]], rules: Rules, before: Catalogue, after: Catalogue, today: date
) -> list[Choice]:
    books = [RuleBook(rules.registry, rules.plans, catalogue, rules.aliases) for catalogue in (before, after)]
    known: dict[object, tuple[str | None, str | None]] = {}
    choices: list[Choice] = []
    for tenant, keyring in held:
        found = [(one.provider_id, one.setting_key) for one in keyring.resolutions.values() if isinstance(one, Found)]
        kind = (tenant.plan, tenant.default_model, tuple(sorted(found)))
        if kind not in known:
            old, new = (_choice(tenant, keyring, book, today) for book in books)
            known[kind] = old, new
        choices.append(Choice(tenant.slug, *known[kind]))
    return choices


def _choice(tenant: Tenant, keyring: Keyring, book: RuleBook, today: date) -> str | None:
    try:
        decision = decide(read_chat_request(_QUESTION), tenant, keyring, book, today, enough=1)
    except ApiError:  # its plan has no row
        return None
    return decision.ranked[0].offer.id if decision.ranked else None
