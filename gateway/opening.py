"""Opens the parts at start-up: the rules, the keystore, and the record of services.

Everything is checked before the first request is taken; what is wrong stops the start with a sentence.
"""

import contextlib
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version

from prometheus_client import CollectorRegistry

from gateway.access_tokens import AccessTokens
from gateway.accounts import Accounts
from gateway.admission import Admission
from gateway.alerting.delivering import Alerting
from gateway.alerting.sending import Sender
from gateway.bodies import Bodies
from gateway.books import Books
from gateway.budgeting.holder import Holder
from gateway.config import ConfigError, Limits
from gateway.control.gate import Control
from gateway.deciding import RuleBook
from gateway.embedding_lane import EmbeddingLane
from gateway.events import Events
from gateway.habits import HabitKeeper, PaceKeeper
from gateway.health import check_redis_url, open_health, sharing_of
from gateway.keeping import DecisionKeeper
from gateway.lanes import Lanes
from gateway.lending import Lending, operator_of
from gateway.limits import limiter_of, places_of
from gateway.litellm_door import LiteLLMLane
from gateway.live_check import LiveCheck
from gateway.logs import EventLogger, LogSubscriber
from gateway.metrics import Metrics
from gateway.passthrough import PassThroughLane
from gateway.pricing.keeping import PriceKeeper
from gateway.pricing.live import LivePrices, bundled, catalogue_of, live_prices
from gateway.repeats import Repeats
from gateway.rules import Rules, load_rules
from gateway.services import Readiness, Services, utc_now
from gateway.settings import Settings
from gateway.shipping import shipper_of
from gateway.transport import Transport
from keystore.decisions import Keeping
from keystore.journal import Journal
from keystore.keyservice import CommandKeyService, KeyService
from keystore.keystore import Keystore
from keystore.money import nano_of
from keystore.rootkeys import SealingSource
from keystore.tenants import Tenant
from router.catalogue import Catalogue, check_overrides
from router.errors import ModelError, PriceMapError
from router.plans import check_known
from router.retry_budget import RetryBudget


def sealing_source(settings: Settings) -> SealingSource:
    """Where the root keys come from: the environment's text, else a command's output, else a file. ConfigError for a
    command that cannot be read."""
    service = _key_service(settings.sealing_keys_command or "")
    return SealingSource(text=settings.sealing_keys, path=settings.sealing_keys_file, service=service)


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
        keeping=keeping_of(rules.limits),
        ledger_kept=timedelta(days=rules.limits.ledger_kept_days) if rules.limits.ledger_kept_days else None,
        answers_kept_bytes=rules.limits.answers_kept_bytes,
        plan_budgets={plan.name: nano_of(plan.managed_budget_usd_per_month) for plan in rules.plans},
        unusual=rules.alerts.rule,
    )


def keeping_of(limits: Limits) -> Keeping:
    """For how long decisions are kept, and how many."""
    return Keeping(timedelta(hours=limits.decisions_kept_h), limits.decisions_kept_most)


async def open_services(settings: Settings, report: Callable[[str, BaseException], None], log: EventLogger) -> Services:
    """Everything the server needs, checked; raises the errors of the parts. `closing.close_services` undoes it."""
    rules = load_rules(settings)
    check_redis_url(settings)
    async with contextlib.AsyncExitStack() as opened:
        keystore = await open_keystore(settings, rules, create=True)
        opened.push_async_callback(keystore.close)
        in_use: Mapping[str, int] = await keystore.tenants.plans_in_use()
        check_known(rules.plans, in_use)
        operator = await operator_of(keystore, rules.operator)
        await keystore.begin_serving()
        journal = keystore.journal(settings.journal, sync=settings.journal_sync)
        opened.push_async_callback(journal.close, finished=True)  # nothing is in it yet
        prices = await _prices(keystore, log)
        catalogue = await _catalogue(prices, rules, log)
        services = _services(_Opened(settings, rules, keystore, operator, journal, prices, catalogue), report, log)
        opened.pop_all()
    return services


@dataclass(frozen=True, slots=True)
class _Opened:
    """What is open, and what was read from it."""

    settings: Settings
    rules: Rules
    keystore: Keystore
    operator: Tenant | None
    journal: Journal
    prices: LivePrices
    catalogue: Catalogue


def _services(opened: _Opened, report: Callable[[str, BaseException], None], log: EventLogger) -> Services:
    """The parts put together; nothing is asked for any more."""
    settings, rules, keystore, operator = opened.settings, opened.rules, opened.keystore, opened.operator
    journal, prices, catalogue = opened.journal, opened.prices, opened.catalogue
    if keystore.reads_legacy:
        log.info("keystore.legacy_table", note="a tenant_settings table is read as a second source of keys")
    if keystore.legacy_note:
        log.warning("keystore.legacy_table", note=keystore.legacy_note)
    limits = rules.limits
    transport = Transport(
        connect_timeout_s=limits.connect_timeout_s,
        max_connections=limits.max_connections,
        listed=rules.listed_hosts,
    )
    metrics = Metrics(
        CollectorRegistry(),
        providers=[provider.id for provider in rules.registry.providers],
        models=[offer.model for offer in catalogue.offers],
    )
    books = Books(RuleBook(rules.registry, rules.plans, catalogue, rules.aliases))
    control = Control(keystore, rules)
    pricing = _pricing(keystore, rules, control, books, metrics, prices.number, log)
    keeper = DecisionKeeper(keystore.decisions, report, now=utc_now)
    events = Events(metrics, LogSubscriber(log), keeper)
    metrics.watch_event_failures(lambda: events.failures)
    metrics.watch_decisions_dropped(lambda: keeper.dropped)
    health = open_health(events, metrics)
    budgets = Holder(keystore.budget_use)
    metrics.watch_overruns(lambda: budgets.counts.overruns)
    retry_budget = RetryBudget()
    limiter = limiter_of(settings, keystore, metrics, log)
    places = places_of(limits, limiter, metrics, log)
    keystore.bulk_pauses.tell = places.room.pause
    places.room.pause(keystore.bulk_pauses.paused)
    repeats = Repeats(keystore.answers, report, away=lambda: keystore.away)
    metrics.watch_repeats(lambda: repeats.counts)
    return Services(
        books=books,
        keystore=keystore,
        control=control,
        prices=pricing,
        transport=transport,
        lane=_lanes(transport, limits),
        live_check=LiveCheck(transport),
        events=events,
        keeper=keeper,
        metrics=metrics,
        limits=limits,
        habits=HabitKeeper(),
        paces=PaceKeeper(),
        readiness=Readiness(),
        health=health,
        retry_budget=retry_budget,
        bodies=Bodies(limits.max_held_bytes),
        accounts=Accounts(journal, utc_now, time.monotonic, report, budgets, metrics.budget_refused),
        budgets=budgets,
        alerting=_alerting(keystore, rules, events, metrics, log),
        lending=Lending(keystore, operator),
        repeats=repeats,
        admission=Admission(limiter, metrics.limited),
        places=places,
        journal=journal,
        shipper=shipper_of(journal, keystore, metrics, log),
        sharing=sharing_of(settings, health, retry_budget, metrics, log),
        report=report,
        origins=rules.origins,
    )


def _lanes(transport: Transport, limits: Limits) -> Lanes:
    tokens, answer_s, idle_s = AccessTokens(transport), limits.answer_timeout_s, limits.idle_timeout_s
    straight = PassThroughLane(transport, answer_timeout_s=answer_s, idle_timeout_s=idle_s)
    litellm = LiteLLMLane(transport, tokens, answer_timeout_s=answer_s, idle_timeout_s=idle_s)
    return Lanes(straight, litellm, EmbeddingLane(transport, answer_timeout_s=answer_s), tokens)


def _alerting(keystore: Keystore, rules: Rules, events: Events, metrics: Metrics, log: EventLogger) -> Alerting:
    """What hears of thresholds and unusual spending."""
    alerting = Alerting(
        keystore,
        Sender(rules.alerts.webhook_hosts, now=utc_now),
        events,
        log,
        given_up_after=timedelta(hours=rules.alerts.webhook_retry_hours),
        now=utc_now,
        filled=metrics.set_filled,
        waiting=metrics.set_webhooks_waiting,
    )
    keystore.budget_spent.tell, keystore.spending.tell = alerting.crossed, alerting.unusual
    return alerting


def _pricing(
    keystore: Keystore,
    rules: Rules,
    control: Control,
    books: Books,
    metrics: Metrics,
    serving: int | None,
    log: EventLogger,
) -> PriceKeeper:
    """What moves this process to other prices, and says everywhere which it serves: it has been said of the first."""

    def moved(catalogue: Catalogue) -> None:
        release, rows = version("wardgate"), rules.registry.version
        metrics.set_build(version=release, catalogue=catalogue.version, registry=rows)
        metrics.set_models([offer.model for offer in catalogue.offers])
        keystore.replicas.catalogue = catalogue.version

    moved(books.current.catalogue)
    told = metrics.price_refreshed
    return PriceKeeper(keystore, rules, control, books, log, serving=serving, moved=moved, refreshed=told, now=utc_now)


async def _catalogue(prices: LivePrices, rules: Rules, log: EventLogger) -> Catalogue:
    """The first catalogue. A row of `[models]` over nothing stops the start; over a model that a later release lost, it
    is told: a gateway that ran with it must be able to start again."""
    catalogue = await catalogue_of(prices, rules)
    try:
        check_overrides(rules.overrides, catalogue)
    except ModelError as error:
        if prices.number is None:
            raise
        log.warning("models.override_without_model", why=str(error))
    return catalogue


async def _prices(keystore: Keystore, log: EventLogger) -> LivePrices:
    """What is live; the bundled map, with a word about it, where the live release cannot be read."""
    try:
        return await live_prices(keystore)
    except PriceMapError as error:
        log.error("prices.live_release_not_readable", why=str(error), instead="the bundled map")
        return bundled()
