"""Imports over HTTP: which there are, and how far each is. An import itself is `wardgate import`: it takes long."""

from typing import Annotated

from fastapi import Query

from gateway.admin.calls import OfCall
from gateway.admin.pages import Page, PageQuery, cut
from gateway.admin.reports import ImportOut
from gateway.control.gate import Operation
from keystore.importing.journal import ImportInfo


def _import(one: ImportInfo) -> ImportOut:
    names = [name for name in ImportOut.model_fields if name != "object"]
    return ImportOut.model_validate({name: getattr(one, name) for name in names})


async def list_imports(call: OfCall, query: Annotated[PageQuery, Query()]) -> Page[ImportOut]:
    """The imports and how far each is, the oldest first."""

    async def work(at: Operation) -> list[ImportInfo]:
        return list(await at.keystore.importing.list())

    return cut(await call.run(work), query, _import, lambda one: (one.started_at.isoformat(), one.import_id))
