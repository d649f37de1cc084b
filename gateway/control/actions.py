"""The actions of the control plane, as rows: who may do each, and whether it changes anything.

An operation that has no row here cannot be run at all. A tenant's token may do what has a `tenant_right`, on its own
tenant alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from keystore.rights import Right


@dataclass(frozen=True, slots=True)
class Action:
    """One row."""

    name: str
    right: Right
    tenant_right: Right | None = None

    @property
    def writes(self) -> bool:
        return self.right is Right.ADMIN_WRITE


_READ = Right.ADMIN_READ
_WRITE = Right.ADMIN_WRITE
_ROWS = (
    Action("tenant.add", _WRITE),
    Action("tenant.list", _READ),
    Action("tenant.show", _READ),
    Action("tenant.set_plan", _WRITE),
    Action("tenant.explain", _READ),
    Action("key.set", _WRITE, Right.KEYS_WRITE),
    Action("key.activate", _WRITE, Right.KEYS_WRITE),
    Action("key.change", _WRITE, Right.KEYS_WRITE),  # weight and position
    Action("key.remove", _WRITE, Right.KEYS_WRITE),
    Action("key.list", _READ, Right.KEYS_READ),
    Action("key.doctor", _READ, Right.KEYS_READ),
    Action("key.report", _READ),
    Action("key.conflicts", _READ),
    Action("key.canonicalise", _WRITE),
    Action("key.undo", _WRITE),
    Action("token.create", _WRITE),
    Action("token.rotate", _WRITE),
    Action("token.revoke", _WRITE),
    Action("token.seal", _WRITE),
    Action("token.list", _READ),
    Action("plan.list", _READ),
    Action("price.show", _READ),  # status, releases, differences, what was live when
    Action("price.refresh", _WRITE),
    Action("price.approve", _WRITE),
    Action("price.reject", _WRITE),
    Action("price.roll_back", _WRITE),
    Action("provider.list", _READ),
    Action("provider.impact", _READ),  # retire, rename, diff: what would change
    Action("sealing.status", _READ),
    Action("sealing.verify", _READ),
    Action("sealing.add", _WRITE),
    Action("sealing.activate", _WRITE),
    Action("sealing.rewrap", _WRITE),
    Action("sealing.retire", _WRITE),
    Action("sealing.rotate_tenant", _WRITE),
    Action("sealing.shred", _WRITE),
    Action("import.plan", _READ),
    Action("import.apply", _WRITE),
    Action("import.verify", _READ),
    Action("import.scrub", _WRITE),
    Action("import.list", _READ),
    Action("audit.list", _READ),
    Action("audit.verify", _READ),
    Action("api.describe", _READ, Right.KEYS_READ),  # the OpenAPI document
)
ACTIONS: Mapping[str, Action] = MappingProxyType({row.name: row for row in _ROWS})
OPERATOR_RIGHTS = frozenset({Right.ADMIN_READ.value, Right.ADMIN_WRITE.value})
