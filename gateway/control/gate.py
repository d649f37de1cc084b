"""The one gate of the control plane: the command line, the admin API and self-service all pass here.

Owns the check of the caller's right, made again for each operation and never taken from the route, and the notes in
the audit: a write is noted before it begins and when it has ended, so that one that broke off shows as unfinished; what
only reads is noted once. While the audit cannot be written, nothing is changed; what only reads goes on without a note
where the audit's own key is lost, which the command line says. Must not know HTTP or the terminal.
"""

import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from gateway.control.actions import ACTIONS, Action
from gateway.control.targets import noted
from gateway.rules import Rules
from keystore.audit import Actor, Entry, Phase
from keystore.errors import KeystoreError
from keystore.keystore import Keystore
from keystore.rights import Right
from keystore.tenants import Tenant

Result = TypeVar("Result")


class NotAllowed(KeystoreError):
    """This caller may not do that."""


@dataclass(frozen=True, slots=True)
class Operation:
    """What the work of one operation is given. `found` is the tenant that was named, if one was."""

    keystore: Keystore
    rules: Rules
    actor: Actor
    found: Tenant | None

    @property
    def tenant(self) -> Tenant:
        """The tenant that the operation is about."""
        if self.found is None:
            raise LookupError("this operation names no tenant")
        return self.found


class Control:
    """Runs operations on one keystore under one set of rules."""

    def __init__(self, keystore: Keystore, rules: Rules) -> None:
        self._keystore = keystore
        self._rules = rules

    async def admit(self, actor: Actor, action: str, *, here: bool = True) -> None:
        """Refuse, and note, what `actor` may not do at all, before anything that it sent is read; `here` is False at a
        door that is not for its kind. It is checked again when the operation runs. NotAllowed."""
        row = ACTIONS[action]
        if not (here and _may(actor, row)):
            await _Notes(self._keystore, actor, row, "").ended("denied", {})
            raise NotAllowed(f"this needs the right {needed_right(actor, row).value!r}")

    async def run(
        self,
        actor: Actor,
        action: str,
        work: Callable[[Operation], Awaitable[Result]],
        *,
        tenant: str | None = None,
        target: str = "",
        describe: Callable[[Result], Mapping[str, object]] | None = None,
    ) -> Result:
        """Do `work` if `actor` may, and note it. `tenant` is a slug or id; `target` names the thing in the audit, where
        it is a name of the kind that the action's row says; `describe` says more about the result (never a value).
        NotAllowed, else the work's own errors."""
        row = ACTIONS[action]
        note = _Notes(self._keystore, actor, row, noted(row.target, target, self._rules))
        found = await self._find(actor, row, tenant, note)
        if row.writes:
            await note.write(Phase.BEGIN, "begun")
        try:
            result = await work(Operation(self._keystore, self._rules, actor, found))
        except KeystoreError as error:
            await note.ended("refused", {"error": type(error).__name__})
            raise
        except BaseException as error:
            await note.ended("failed", {"error": type(error).__name__})
            raise
        await note.ended("done", dict(describe(result)) if describe else {})
        return result

    async def _find(self, actor: Actor, action: Action, named: str | None, note: "_Notes") -> Tenant | None:
        """The tenant, when the actor may do this to it. Who may not learns nothing about which tenants there are."""
        if not _may(actor, action):
            await note.ended("denied", {})
            raise NotAllowed(f"this needs the right {action.right.value!r}")
        own = actor.tenant_id is not None
        if named is None:
            if own:
                raise NotAllowed("this needs a tenant")
            return None
        try:
            tenant = await self._keystore.tenants.get(named)
        except KeystoreError as error:
            await note.ended("refused", {"error": type(error).__name__})  # not the name: it may be anything
            raise
        if own and tenant.id != actor.tenant_id:
            await note.ended("denied", {})
            raise NotAllowed("a tenant's token acts for its own tenant alone")
        note.tenant_id = tenant.id
        return tenant


def needed_right(actor: Actor, action: Action) -> Right:
    """The right that this kind of actor needs; the operator's where no tenant may."""
    return action.right if actor.tenant_id is None else action.tenant_right or action.right


def _may(actor: Actor, action: Action) -> bool:
    needed = action.right if actor.tenant_id is None else action.tenant_right
    return needed is not None and needed.value in actor.rights


class _Notes:
    """The audit's rows of one operation."""

    def __init__(self, keystore: Keystore, actor: Actor, action: Action, target: str) -> None:
        self._audit = keystore.audit
        self._actor = actor
        self._action = action
        self._target = target
        self._operation = str(uuid.uuid4())
        self._begun = False
        self.tenant_id = actor.tenant_id

    async def write(self, phase: Phase, outcome: str, detail: Mapping[str, object] | None = None) -> None:
        self._begun = self._begun or phase is Phase.BEGIN
        entry = Entry(
            self._operation,
            phase,
            self._actor,
            self._action.name,
            self.tenant_id,
            self._target,
            outcome,
            detail or {},
        )
        if self._action.writes or self._audit.can_note:
            await self._audit.append(entry)

    async def ended(self, outcome: str, detail: Mapping[str, object]) -> None:
        await self.write(Phase.END if self._begun else Phase.WHOLE, outcome, detail)
