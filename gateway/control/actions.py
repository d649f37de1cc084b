"""The actions of the control plane, as rows: who may do each, and whether it changes anything.

An operation that has no row here cannot be run at all. A tenant's token may do what has a `tenant_right`, on its own
tenant alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from gateway.control.targets import Target
from keystore.rights import Right


@dataclass(frozen=True, slots=True)
class Action:
    """One row."""

    name: str
    right: Right
    tenant_right: Right | None = None
    target: Target = Target.NOTHING
    needs_ring: bool = False  # reads, but is worth nothing without every root key

    @property
    def writes(self) -> bool:
        return self.right is Right.ADMIN_WRITE

    @property
    def partial(self) -> bool:
        """Whether it may be done while a root key is missing."""
        return not (self.writes or self.needs_ring)


_READ = Right.ADMIN_READ
_WRITE = Right.ADMIN_WRITE
_ROWS = (
    Action("tenant.add", _WRITE, target=Target.TENANT),
    Action("tenant.list", _READ),
    Action("tenant.show", _READ),
    Action("tenant.set_plan", _WRITE, target=Target.PLAN),
    Action("tenant.explain", _READ, target=Target.MODEL),
    Action("request.show", _READ, target=Target.REQUEST),
    Action("usage.show", _READ),
    Action("usage.receipt", _READ, target=Target.REQUEST),
    Action("usage.reprice", _READ, target=Target.RELEASE),
    Action("ledger.check", _READ),
    Action("ledger.rejected", _READ),
    Action("ledger.replay", _WRITE),
    Action("budget.list", _READ),
    Action("budget.set", _WRITE, target=Target.BUDGET),
    Action("budget.remove", _WRITE, target=Target.BUDGET),
    Action("webhook.list", _READ),
    Action("webhook.add", _WRITE),
    Action("webhook.rotate", _WRITE, target=Target.WEBHOOK),
    Action("webhook.test", _WRITE, target=Target.WEBHOOK),
    Action("webhook.remove", _WRITE, target=Target.WEBHOOK),
    Action("bulk.list", _READ),
    Action("bulk.pause", _WRITE),
    Action("bulk.resume", _WRITE),
    Action("limit.list", _READ),
    Action("limit.set", _WRITE, target=Target.LIMIT),
    Action("limit.remove", _WRITE, target=Target.LIMIT),
    Action("alias.list", _READ, Right.KEYS_READ),
    Action("alias.set", _WRITE, Right.KEYS_WRITE, target=Target.ALIAS),
    Action("alias.remove", _WRITE, Right.KEYS_WRITE, target=Target.ALIAS),
    Action("key.set", _WRITE, Right.KEYS_WRITE, target=Target.KEY),
    Action("key.activate", _WRITE, Right.KEYS_WRITE, target=Target.KEY),
    Action("key.change", _WRITE, Right.KEYS_WRITE, target=Target.KEY),  # weight and position
    Action("key.remove", _WRITE, Right.KEYS_WRITE, target=Target.KEY),
    Action("key.list", _READ, Right.KEYS_READ, target=Target.KEY),
    Action("key.doctor", _READ, Right.KEYS_READ, target=Target.PROVIDER),
    Action("key.report", _READ, target=Target.PROVIDER),
    Action("key.conflicts", _READ),
    Action("key.canonicalise", _WRITE, target=Target.PROVIDER),
    Action("key.undo", _WRITE, target=Target.BATCH),
    Action("token.create", _WRITE),
    Action("token.rotate", _WRITE, target=Target.TOKEN),
    Action("token.revoke", _WRITE, target=Target.TOKEN),
    Action("token.seal", _WRITE),
    Action("token.list", _READ, target=Target.TOKEN),
    Action("plan.list", _READ),
    Action("plan.simulate", _READ),
    Action("price.show", _READ, target=Target.RELEASE),  # status, releases, differences, what was live when
    Action("price.refresh", _WRITE),
    Action("price.approve", _WRITE, target=Target.RELEASE),
    Action("price.reject", _WRITE, target=Target.RELEASE),
    Action("price.roll_back", _WRITE, target=Target.RELEASE),
    Action("provider.list", _READ),
    Action("provider.impact", _READ, target=Target.CHANGE),  # retire, rename, diff: what would change
    Action("sealing.status", _READ),
    Action("sealing.verify", _READ),
    Action("sealing.add", _WRITE),
    Action("sealing.activate", _WRITE, target=Target.ROOT_KEY),
    Action("sealing.rewrap", _WRITE),
    Action("sealing.retire", _WRITE, target=Target.ROOT_KEY),
    Action("sealing.rotate_tenant", _WRITE),
    Action("sealing.shred", _WRITE),
    Action("import.plan", _READ, needs_ring=True),
    Action("import.apply", _WRITE),
    Action("import.verify", _READ, needs_ring=True),
    Action("import.scrub", _WRITE),
    Action("import.list", _READ),
    Action("audit.list", _READ),
    Action("audit.verify", _READ),
    Action("api.describe", _READ, Right.KEYS_READ),  # the OpenAPI document
)
ACTIONS: Mapping[str, Action] = MappingProxyType({row.name: row for row in _ROWS})
OPERATOR_RIGHTS = frozenset({Right.ADMIN_READ.value, Right.ADMIN_WRITE.value})
