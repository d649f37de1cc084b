"""What a new tenant does first: whose key it stores, under which name, to use which model.

Owns the choice: the tenant's default model, else the plan's; its provider, else the plan's default provider. Must not
know how it is told.
"""

from dataclasses import dataclass

from gateway.rules import Rules
from keystore.providers import setting_key_of
from keystore.tenants import Tenant
from router.model_names import split_provider


@dataclass(frozen=True, slots=True)
class FirstKey:
    """The key that opens the default model."""

    provider: str
    setting_key: str
    model: str


def first_key(tenant: Tenant, rules: Rules) -> FirstKey | None:
    """What to store first; None where the plan takes no keys of tenants, or no provider stands out."""
    plan = rules.plans.get(tenant.plan)
    if plan is None or not plan.byok:
        return None
    own = tenant.default_model if tenant.default_model and tenant.default_model.lower() != "default" else None
    model = own or plan.default_model
    qualified = split_provider(model, rules.registry)
    provider_id = qualified[0].id if qualified else plan.default_provider
    if provider_id is None:
        return None
    return FirstKey(provider_id, setting_key_of(provider_id), model)
