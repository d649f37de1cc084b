"""The rules: provider rows, plans and limits, from the shipped rows and `wardgate.toml`, without a database."""

from dataclasses import dataclass

from gateway.config import Limits, load_config
from gateway.settings import Settings
from keystore.providers import Registry, load_registry
from router.catalogue import Catalogue, build_catalogue
from router.plans import Plans, load_plans
from router.price_map import load_bundled


@dataclass(frozen=True, slots=True)
class Rules:
    """What decides, without a database: the same for the server and for the command line."""

    registry: Registry
    plans: Plans
    limits: Limits


def load_rules(settings: Settings) -> Rules:
    """Read `wardgate.toml` over the shipped rows; raises ConfigError, RegistryError or PlanError."""
    config = load_config(settings.config)
    return Rules(load_registry(config.providers), load_plans(config.plans), config.limits)


def unserved(plan_name: str, rules: Rules) -> str | None:
    """Why nothing can be served on a plan, if nothing can: a sentence's beginning, without its subject."""
    plan = rules.plans.get(plan_name)
    if plan is None or plan.byok:
        return None
    return f"plan {plan.name} takes no keys of tenants, and the operator's are not used in this version"


def load_catalogue(registry: Registry) -> Catalogue:
    """The catalogue from LiteLLM's bundled price map; LiteLLM itself is not imported."""
    price_map = load_bundled()
    return build_catalogue(price_map.rows, registry, version=price_map.version)
