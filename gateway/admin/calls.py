"""One call of the admin API or of self-service: who calls, and the one way in which a handler can do something.

Owns that a handler runs the action of its own row and no other. Must not know routes or bodies.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, TypeVar

from fastapi import Depends
from starlette.requests import Request

from gateway.asgi import Scope
from gateway.control.gate import Operation
from gateway.services import Services
from keystore.audit import Actor
from keystore.errors import TenantUnknown
from keystore.tokens import Caller

Result = TypeVar("Result")
CALL = "wardgate.call"  # where the door leaves it in the ASGI scope


@dataclass(slots=True)
class Call:
    """A caller who was found to have the right of `action`. `ran` says that the gate was passed."""

    services: Services
    caller: Caller
    actor: Actor
    action: str
    ran: bool = False

    @property
    def own_tenant(self) -> str:
        """The id of the tenant whose token this is: from the token, and from nowhere else."""
        if self.actor.tenant_id is None:
            raise TenantUnknown
        return self.actor.tenant_id

    async def run(
        self,
        work: Callable[[Operation], Awaitable[Result]],
        *,
        tenant: str | None = None,
        target: str = "",
        describe: Callable[[Result], Mapping[str, object]] | None = None,
    ) -> Result:
        """Do `work` through the gate, which checks again and notes it; as Control.run."""
        self.ran = True
        control = self.services.control
        return await control.run(self.actor, self.action, work, tenant=tenant, target=target, describe=describe)


def actor_of(caller: Caller, scope: Scope) -> Actor:
    """Who acts, for the gate and the audit: the token's id, its rights, and the address that it comes from."""
    client = scope.get("client")
    origin = f"api from {client[0] if client else 'nowhere'}"
    if caller.tenant is None:
        return Actor("admin", caller.token_id, origin, caller.scopes)
    return Actor("tenant", caller.token_id, origin, caller.scopes, caller.tenant.id)


async def _call_of(request: Request) -> Call:
    call: Call = request.scope[CALL]
    return call


OfCall = Annotated[Call, Depends(_call_of)]
