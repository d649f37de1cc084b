"""Opens the parts at start-up: the rules, the keystore, and the record of services.

Everything is checked before the first request is taken; what is wrong stops the start with a sentence.
"""

import shlex
from collections.abc import Callable, Mapping
from importlib.metadata import version

from prometheus_client import CollectorRegistry
from structlog.typing import FilteringBoundLogger

from gateway.config import ConfigError
from gateway.control.gate import Control
from gateway.deciding import RuleBook
from gateway.events import Events
from gateway.health import check_redis_url, open_health, sharing_of
from gateway.litellm_door import LiteLLMLane
from gateway.live_check import LiveCheck
from gateway.logs import LogSubscriber
from gateway.metrics import Metrics
from gateway.rules import Rules, load_catalogue, load_rules
from gateway.services import Readiness, Services
from gateway.settings import Settings
from gateway.transport import Transport
from keystore.keyservice import CommandKeyService, KeyService
from keystore.keystore import Keystore
from keystore.rootkeys import SealingSource
from keystore.secret import Secret
from router.plans import check_known
from router.retry_budget import RetryBudget


def sealing_source(settings: Settings) -> SealingSource:
    """Where the root keys come from: the environment's text, else a command's output, else a file. ConfigError for a
    command that cannot be read."""
    text = settings.sealing_keys.get_secret_value() if settings.sealing_keys else ""
    service = _key_service(settings.sealing_keys_command or "")
    return SealingSource(text=Secret(text) if text else None, path=settings.sealing_keys_file, service=service)


def _key_service(command: str) -> KeyService | None:
    try:
        words = tuple(shlex.split(command))
    except ValueError as error:
        raise ConfigError(f"WARDGATE_SEALING_KEYS_COMMAND: {error}") from None
    return CommandKeyService(words) if words else None


async def open_keystore(settings: Settings, rules: Rules, *, create: bool, partial: bool = False) -> Keystore:
    """Open the database and the ring; raises KeystoreError. With `create`, an empty database is migrated; with
    `partial`, for looking only, root keys may be missing."""
    return await Keystore.open(
        database_url=settings.database_url,
        sealing=sealing_source(settings),
        registry=rules.registry,
        known_plans=rules.plans.names,
        create=create,
        partial=partial,
    )


async def open_services(
    settings: Settings, report: Callable[[str, BaseException], None], log: FilteringBoundLogger
) -> Services:
    """Everything the server needs, checked; raises the errors of the parts. `close_services` undoes it."""
    rules = load_rules(settings)
    check_redis_url(settings)
    catalogue = load_catalogue(rules.registry)
    keystore = await open_keystore(settings, rules, create=True)
    try:
        in_use: Mapping[str, int] = await keystore.tenants.plans_in_use()
        check_known(rules.plans, in_use)
        await keystore.begin_serving()
    except BaseException:
        await keystore.close()
        raise
    if keystore.reads_legacy:
        log.info("keystore.legacy_table", note="a tenant_settings table is read as a second source of keys")
    if keystore.legacy_note:
        log.warning("keystore.legacy_table", note=keystore.legacy_note)
    limits = rules.limits
    transport = Transport(
        connect_timeout_s=limits.connect_timeout_s,
        max_connections=limits.max_connections,
    )
    metrics = Metrics(
        CollectorRegistry(),
        providers=[provider.id for provider in rules.registry.providers],
        models=[offer.model for offer in catalogue.offers],
    )
    metrics.set_build(version=version("wardgate"), catalogue=catalogue.version, registry=rules.registry.version)
    events = Events(metrics, LogSubscriber(log))
    metrics.watch_event_failures(lambda: events.failures)
    health = open_health(events, metrics)
    retry_budget = RetryBudget()
    return Services(
        book=RuleBook(rules.registry, rules.plans, catalogue),
        keystore=keystore,
        control=Control(keystore, rules),
        transport=transport,
        lane=LiteLLMLane(transport, answer_timeout_s=limits.answer_timeout_s, idle_timeout_s=limits.idle_timeout_s),
        live_check=LiveCheck(transport),
        events=events,
        metrics=metrics,
        limits=limits,
        readiness=Readiness(),
        health=health,
        retry_budget=retry_budget,
        sharing=sharing_of(settings, health, retry_budget, metrics, log),
        report=report,
    )


async def close_services(services: Services) -> None:
    """Close what was opened."""
    if services.sharing is not None:
        await services.sharing.close()
    await services.lane.aclose()
    await services.transport.aclose()
    await services.keystore.close()
