"""`GET /v1/usage`: what the caller's tenant used, and what it cost."""

import asyncio
from urllib.parse import parse_qsl

from gateway.admin.problems import problem_of
from gateway.asgi import Receive, Scope, Send, send_body
from gateway.errors import ApiError, bad_request
from gateway.events import Endpoint
from gateway.receiving import identify
from gateway.services import Services
from gateway.tally import KEY, Tally
from gateway.usage_report import FIELDS, Rendered, UsageRefused, check_names, check_provider, read_wanted, rendered
from keystore.errors import DatabaseUnavailable
from keystore.tenants import Tenant


class Usage:
    """A plain ASGI endpoint. The tenant is that of the token, and nothing that is sent names one."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tally: Tally = scope[KEY]
        tally.endpoint = Endpoint.USAGE
        admitted = await identify(scope, self._services, tally)
        try:
            answer = await self._answer(scope, admitted.tenant)
        except UsageRefused as refused:
            raise bad_request(str(refused), param=refused.field) from None
        except DatabaseUnavailable as error:
            raise ApiError(problem_of(error)) from error
        await send_body(send, 200, answer.body, headers=answer.headers, head=scope["method"] == "HEAD")

    async def _answer(self, scope: Scope, tenant: Tenant) -> Rendered:
        services = self._services
        sent = parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        check_names([name for name, _ in sent], FIELDS)
        wanted = read_wanted(dict(sent), services.now().date())
        page = await services.keystore.usage.page(wanted.question, tenant_id=tenant.id)
        check_provider(wanted.question, page, services.books.current.registry.providers)
        return await asyncio.to_thread(rendered, wanted, page)
