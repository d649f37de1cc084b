"""The measurements inside one process: the router's decisions, the keystore on SQLite, the catalogue."""

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from gateway.deciding import holdings
from gateway.rules import load_catalogue
from keystore.keyring import Keyring
from keystore.keystore import Keystore
from keystore.providers import Registry, load_registry
from keystore.rootkeys import SealingSource
from keystore.tenants import Tenant
from router.catalogue import Catalogue, build_catalogue
from router.decision import Router
from router.explain import refusal
from router.needs import read_needs
from router.plans import Plans, load_plans
from router.price_map import load_bundled
from router.query import Query
from tests.benchmarks.asking import SAID, SYSTEM
from tests.benchmarks.children import BenchmarkError
from tests.benchmarks.load import Say
from tests.benchmarks.served import percentile
from tests.benchmarks.sides import KEY

PLAN = "team"
MODEL = "MiniMax-M2"
TENANT_KEYS = ("MINIMAX_API_KEY", "OPENAI_API_KEY", "DEEPSEEK_API_KEY")
ROUTED = {"route-explicit": f"minimax/{MODEL}", "route-family": MODEL, "route-auto": "auto"}
REMEMBERED = "route-auto-remembered"
WHOLE = "route-auto-whole-map"  # every provider of the price map is registered
NAMES = (*ROUTED, REMEMBERED, WHOLE, "keyring", "token", "unseal", "price-map", "catalogue")


@dataclass(frozen=True, slots=True)
class Timed:
    """How often something was done, and how long once took, in microseconds."""

    name: str
    title: str
    times: int
    per_second: float
    p50_us: float
    p99_us: float


@dataclass(frozen=True, slots=True)
class World:
    """What the measurements work on."""

    registry: Registry
    plans: Plans
    catalogue: Catalogue
    keystore: Keystore
    tenant: Tenant
    token: str
    keyring: Keyring


def measure(names: Sequence[str], seconds: float, say: Say) -> list[Timed]:
    """Each of `names` for about `seconds`."""
    with tempfile.TemporaryDirectory(prefix="wardgate-benchmark-") as folder:
        return asyncio.run(_measure(Path(folder), names, seconds, say))


async def _measure(folder: Path, names: Sequence[str], seconds: float, say: Say) -> list[Timed]:
    world = await _world(folder)
    try:
        found = []
        for name in names:
            say(f"inside one process: {name}, {seconds:.1f} s")
            title, work = _work(name, world)
            found.append(await _timed(name, title, work, seconds))
        return found
    finally:
        await world.keystore.close()


async def _world(folder: Path) -> World:
    registry, plans = load_registry({}), load_plans({})
    keystore = await Keystore.open(
        database_url=f"sqlite+aiosqlite:///{folder}/wardgate.db",
        sealing=SealingSource(text=None, path=folder / "sealing-keys"),
        registry=registry,
        known_plans=plans.names,
        create=True,
    )
    tenant = await keystore.tenants.add("benchmark", PLAN)
    for name in TENANT_KEYS:
        await keystore.credentials.set(tenant, name, KEY)
    token = (await keystore.tokens.create(tenant)).token
    keyring = await keystore.keyring(tenant)
    return World(registry, plans, load_catalogue(registry), keystore, tenant, token, keyring)


def _work(name: str, world: World) -> tuple[str, Callable[[], object]]:
    keystore, now = world.keystore, datetime.now(UTC)
    offers = len(world.catalogue.offers)
    if name in ROUTED:
        return f"decide: {ROUTED[name]}", _routing(ROUTED[name], world)
    if name == REMEMBERED:
        return "decide: auto, remembered", _routing("auto", world, again=True)
    if name == WHOLE:
        whole = replace(world, registry=whole_registry(world.registry))
        whole = replace(whole, catalogue=load_catalogue(whole.registry))
        return f"decide: auto over {len(whole.catalogue.offers)} offers", _routing("auto", whole)
    rows = load_bundled()
    table: dict[str, tuple[str, Callable[[], object]]] = {
        "keyring": (f"read a keyring of {len(TENANT_KEYS)} keys (SQLite)", partial(keystore.keyring, world.tenant)),
        "token": ("check a token (SQLite)", partial(keystore.tokens.authenticate, world.token, now)),
        "unseal": ("unseal one key", partial(keystore.unseal, world.keyring, "minimax")),
        "price-map": (f"read the price map, {len(rows.rows)} rows", load_bundled),
        "catalogue": (
            f"build the catalogue, {offers} offers",
            partial(build_catalogue, rows.rows, world.registry, version=rows.version),
        ),
    }
    return table[name]


def whole_registry(shipped: Registry) -> Registry:
    """The shipped rows, and one for every other provider of the price map."""
    known = {name for row in shipped.providers for name in row.catalogue_ids}
    named = {row.get("litellm_provider") for row in load_bundled().rows.values()}
    others = sorted(str(name) for name in named if isinstance(name, str) and name not in known)
    rows = {}
    for number, name in enumerate(others):
        host = f"other-{number}.example"
        rows[f"other-{number}"] = {
            "wire": "openai",
            "base_url": f"https://{host}/v1",
            "hosts": [host],
            "catalogue_ids": [name],
        }
    return load_registry(rows)


def _routing(model: str, world: World, *, again: bool = False) -> Callable[[], object]:
    plan = world.plans.get(PLAN)
    assert plan is not None
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": SAID}]
    query = Query(
        model=model,
        needs=read_needs({"messages": messages}),
        plan=plan,
        default_model=None,
        today=datetime.now(UTC).date(),
        tenant="benchmark",
    )
    held = holdings(world.keyring)
    router = Router(world.catalogue, world.registry, world.plans)
    decision = router.route(query, held)
    if not decision.ranked:
        raise BenchmarkError(refusal(decision).message)
    return partial(router.fitting if again else router.route, query, held)


async def _timed(name: str, title: str, work: Callable[[], object], seconds: float) -> Timed:
    """Do `work` again and again, one at a time; what it gives is awaited when it can be."""
    times: list[float] = []
    await _once(work)
    began = time.perf_counter()
    while not times or time.perf_counter() < began + seconds:
        started = time.perf_counter()
        await _once(work)
        times.append(time.perf_counter() - started)
    return Timed(
        name, title, len(times), len(times) / sum(times), percentile(times, 50) * 1e6, percentile(times, 99) * 1e6
    )


async def _once(work: Callable[[], object]) -> None:
    given = work()
    if isinstance(given, Awaitable):
        await given
