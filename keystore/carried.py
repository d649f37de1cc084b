"""Rows of a token that the token in its place has too. Must not know what the tables are for."""

from typing import Any

from sqlalchemy import ColumnElement, Insert, Table, insert, literal, select


def carried(table: Table, tenant_id: str, old: str, new: str, **instead: ColumnElement[Any]) -> Insert:
    """Gives the token `new` the rows of the tenant's token `old`; columns that are named have what is given instead."""
    values = {column.name: column for column in table.c} | {"token_id": literal(new)} | instead
    theirs = select(*values.values()).where(table.c.tenant_id == tenant_id, table.c.token_id == old)
    return insert(table).from_select(list(values), theirs)
