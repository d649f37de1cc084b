"""The rules: provider rows, plans and limits, from the shipped rows and `wardgate.toml`, without a database."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.config import Limits, load_config
from gateway.price_settings import PriceSettings
from gateway.settings import Settings
from keystore.providers import Registry, load_registry
from router.catalogue import Catalogue, build_catalogue
from router.plans import Plans, load_plans
from router.price_map import load_bundled
from router.price_rows import Row


@dataclass(frozen=True, slots=True)
class Rules:
    """What decides, without a database: the same for the server and for the command line."""

    registry: Registry
    plans: Plans
    limits: Limits
    prices: PriceSettings = field(default_factory=PriceSettings)


def load_rules(settings: Settings) -> Rules:
    """Read `wardgate.toml` over the shipped rows; raises ConfigError, RegistryError or PlanError."""
    config = load_config(settings.config)
    return Rules(load_registry(config.providers), load_plans(config.plans), config.limits, config.prices)


def load_catalogue(registry: Registry) -> Catalogue:
    """The catalogue from LiteLLM's bundled price map; LiteLLM itself is not imported."""
    price_map = load_bundled()
    return build_catalogue(price_map.rows, registry, version=price_map.version)


def catalogue_from(rows: Mapping[str, Row], rules: Rules, *, version: str) -> Catalogue:
    """The catalogue from the rows of a price release."""
    return build_catalogue(rows, rules.registry, version=version)
