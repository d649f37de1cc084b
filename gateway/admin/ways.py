"""The doctor's next steps in the words of the API: an operator's calls, and those of a tenant on its own keys.

Owns the paths and bodies that are named. What only an operator can do is, to a tenant, something to ask for.
"""

import json
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, urlencode

from keystore.providers import BASE_URL
from keystore.ways import Ways


class AdminCalls:
    """An operator's. What no call does is named with the command that does."""

    def store(self, tenant: str, name: str, label: str, fields: Mapping[str, str]) -> str:
        given = {field: value if field == BASE_URL else value or field.upper() for field, value in fields.items()}
        body = {"value": "VALUE"} | ({"label": label} if label else {}) | ({"fields": given} if given else {})
        return f"PUT {self._key(tenant, name)} with {json.dumps(body)}"

    def activate(self, tenant: str, name: str, version: int, label: str) -> str:
        body = {"version": version} | ({"label": label} if label else {})
        return f"POST {self._key(tenant, name)}/activate with {json.dumps(body)}"

    def remove(self, tenant: str, name: str, label: str | None) -> str:
        return f"DELETE {self._key(tenant, name)}" + ("" if label is None else f"?{urlencode({'label': label})}")

    def look(self, tenant: str, provider_id: str) -> str:
        return f"POST /admin/tenants/{_part(tenant)}/doctor?{urlencode({'provider': provider_id})}"

    def canonicalise(self, tenant: str) -> str:
        return f"POST /admin/keys/canonicalise with {json.dumps({'tenant': tenant})}"

    def set_plan(self, tenant: str, plan: str) -> str:
        return f"PUT /admin/tenants/{_part(tenant)}/plan with {json.dumps({'plan': plan})}"

    def verify_seals(self) -> str:
        return "look with POST /admin/sealing/verify whether more values were changed"

    def operators(self, what: str, how: str = "") -> str:
        return f"{what[:1].upper()}{what[1:]}{f': {how}' if how else ''}."

    def _key(self, tenant: str, name: str) -> str:
        return f"/admin/tenants/{_part(tenant)}/keys/{_part(name)}"


class OwnCalls(AdminCalls):
    """A tenant's."""

    def look(self, tenant: str, provider_id: str) -> str:
        return f"POST /v1/keys/doctor?{urlencode({'provider': provider_id})}"

    def verify_seals(self) -> str:
        return "ask the operator to look whether more values were changed"

    def operators(self, what: str, how: str = "") -> str:
        return f"Ask the operator to {what}."

    def _key(self, tenant: str, name: str) -> str:
        return f"/v1/keys/{_part(name)}"


def _part(text: str) -> str:
    return quote(text, safe="")


ADMIN: Final[Ways] = AdminCalls()
OWN: Final[Ways] = OwnCalls()
