"""The rules: provider rows, plans and limits, from the shipped rows and `wardgate.toml`, without a database."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field

from gateway.alert_settings import AlertSettings
from gateway.config import Limits, load_config
from gateway.price_settings import PriceSettings
from gateway.settings import Settings
from keystore.providers import Registry, host_of, load_registry
from keystore.templates import host_pattern, places_of
from router.aliases import NO_ALIASES, Aliases, load_aliases
from router.catalogue import Catalogue, build_catalogue, check_overrides
from router.overrides import NO_OVERRIDES, Overrides, load_overrides
from router.plans import Plans, load_plans
from router.price_map import load_bundled
from router.price_rows import Row
from router.quality import load_quality


class ListedHosts(Container[str]):
    """Hosts as rows write them: a place that a key's field fills in stands for whatever may fill it."""

    def __init__(self, hosts: Iterable[str]) -> None:
        listed = frozenset(hosts)
        self._patterns = [host_pattern(host) for host in sorted(listed) if places_of(host)]
        self._exact = listed

    def __contains__(self, host: object) -> bool:
        if not isinstance(host, str):
            return False
        return host in self._exact or any(pattern.fullmatch(host) for pattern in self._patterns)


@dataclass(frozen=True, slots=True)
class Rules:
    """What decides, without a database: the same for the server and for the command line."""

    registry: Registry
    plans: Plans
    limits: Limits
    prices: PriceSettings = field(default_factory=PriceSettings)
    aliases: Aliases = NO_ALIASES
    overrides: Overrides = NO_OVERRIDES
    listed_hosts: Container[str] = frozenset()  # that the operator names: they may be at private addresses
    origins: frozenset[str] = frozenset()  # of pages that may call from a browser
    operator: str | None = None  # the tenant whose keys plans lend
    alerts: AlertSettings = field(default_factory=AlertSettings)


def load_rules(settings: Settings) -> Rules:
    """Read `wardgate.toml` over the shipped rows; raises ConfigError, RegistryError, PlanError, AliasError or
    ModelError."""
    config = load_config(settings.config)
    registry = load_registry(config.providers)
    aliases = load_aliases({name: row for name, row in config.models.items() if "/" not in name})
    overrides = load_overrides({name: row for name, row in config.models.items() if "/" in name}, registry)
    plans, listed = load_plans(config.plans), _listed_hosts(config.providers, registry)
    return Rules(
        registry,
        plans,
        config.limits,
        config.prices,
        aliases,
        overrides,
        listed,
        config.origins,
        config.operator,
        config.alerts,
    )


def _listed_hosts(rows: Mapping[str, Mapping[str, object]], registry: Registry) -> Container[str]:
    """Those that the operator wrote, as `host_of` spells them."""
    named = {provider_id: registry.get(provider_id) for provider_id in rows}
    hosts = {host for key, row in named.items() if row and "hosts" in rows[key] for host in row.hosts}
    hosts |= {host_of(row.token_url) for key, row in named.items() if row and "token_url" in rows[key]}
    return ListedHosts(hosts)


def unserved(plan_name: str, rules: Rules) -> str | None:
    """Why nothing can be served on a plan, if nothing can: a sentence's beginning, without its subject."""
    plan = rules.plans.get(plan_name)
    if plan is None or plan.byok or (rules.operator is not None and plan.managed_models):
        return None
    return f"plan {plan.name} takes no keys of tenants, and the operator's are not lent to it"


def load_catalogue(registry: Registry, overrides: Overrides = NO_OVERRIDES) -> Catalogue:
    """The catalogue from LiteLLM's bundled price map with the operator's models over it; LiteLLM itself is not
    imported. Raises ModelError for a row over a model that the map does not have."""
    price_map = load_bundled()
    catalogue = catalogue_from(price_map.rows, registry, overrides, version=price_map.version)
    check_overrides(overrides, catalogue)
    return catalogue


def catalogue_from(
    rows: Mapping[str, Row], registry: Registry, overrides: Overrides = NO_OVERRIDES, *, version: str
) -> Catalogue:
    """The catalogue from the rows of a price map or release, with the operator's models over it."""
    return build_catalogue(rows, registry, version=version, overrides=overrides, quality=load_quality())
