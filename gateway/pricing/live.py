"""The prices that are live, as rows and as a catalogue: the live release's, or the bundled map's where there is none.

Owns the way from the database to a catalogue. Must not know how a release came to be live.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.rules import Rules, catalogue_from
from keystore.keystore import Keystore
from keystore.price_releases import Release
from router.catalogue import Catalogue
from router.price_map import load_bundled
from router.price_release import unpack, version_of
from router.price_rows import Row


@dataclass(frozen=True, slots=True)
class LivePrices:
    """Rows and what they are called; `number` None: the bundled map."""

    number: int | None
    version: str
    rows: Mapping[str, Row]


def bundled() -> LivePrices:
    """The map that came with LiteLLM. PriceMapError when it is absent."""
    price_map = load_bundled()
    return LivePrices(None, price_map.version, price_map.rows)


async def live_prices(keystore: Keystore) -> LivePrices:
    """What is live now. PriceMapError when the live release cannot be read."""
    return await prices_of(keystore, await keystore.prices.live())


async def prices_of(keystore: Keystore, release: Release | None) -> LivePrices:
    """The rows of a release, of the bundled map for None. PriceMapError, PriceReleaseUnknown."""
    if release is None:
        return await asyncio.to_thread(bundled)
    content = await keystore.prices.content(release.number)
    rows = await asyncio.to_thread(unpack, content, release.digest)
    return LivePrices(release.number, version_of(release.number, release.digest), rows)


async def live_catalogue(keystore: Keystore, rules: Rules) -> Catalogue:
    """The catalogue that a gateway on this database serves."""
    return await catalogue_of(await live_prices(keystore), rules)


async def catalogue_of(prices: LivePrices, rules: Rules) -> Catalogue:
    """Built in a thread: it takes some tens of milliseconds, and requests go on meanwhile."""
    return await asyncio.to_thread(catalogue_from, prices.rows, rules.registry, rules.overrides, version=prices.version)
