"""How an account is written into a line of the journal: the names and the shapes of what a row of the ledger says.

Pure. Must not know what a call costs, nor when a line is written.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from gateway.scrub import KEY_SHAPES, MASK
from gateway.tally import Tally
from keystore.ledger_row import State
from keystore.money import MOST
from router.charge import Charge
from router.query import KeySource

_NAME: Final = 256  # characters of a model's name that are kept
Booked = tuple[KeySource, int]  # what budgets count of a call, in nano-dollars, with whose key it was made


def asked_by(tally: Tally, began: datetime, state: State, outcome: str) -> dict[str, object]:
    """The fields of a LedgerRow without which it is none; nothing of them is a caller's own text."""
    return {
        "request_id": tally.request_id,
        "began_at": began,
        "tenant_id": tally.tenant_id,
        "token_id": tally.token_id or "",
        "endpoint": tally.endpoint,
        "state": state,
        "outcome": outcome,
        "stream": tally.stream,
        "provider": tally.provider,
        "model": tally.model,
        "key_source": tally.key_source,
        "attempts": tally.attempts,
    }


def begun(tally: Tally, began: datetime, state: State, outcome: str) -> dict[str, object]:
    """All that are known when somebody is asked."""
    return asked_by(tally, began, state, outcome) | {
        "client_request_id": tally.client_request_id,
        "model_asked": _asked(tally),
        "key_via": tally.key_via,
        "setting_key": tally.setting_key,
        "catalogue": tally.catalogue or None,
    }


def _asked(tally: Tally) -> str | None:
    """The model as the caller wrote it: a key may stand where a name belongs, or half a character."""
    asked = tally.requested_model
    if asked is None or asked in (tally.model, f"{tally.provider}/{tally.model}"):
        return asked
    return KEY_SHAPES.sub(MASK, asked[:_NAME].encode(errors="replace").decode())


def together(booked: Iterable[Booked]) -> int:
    """In nano-dollars."""
    return min(sum(nano for _, nano in booked), MOST)


def by_keys(booked: Sequence[Booked], source: str | None, cost: int | None) -> dict[str, int]:
    """What budgets are told of a row beside its cost and key: of calls with keys of both kinds, or where the cost is
    not known, what counts for each kind."""
    if cost is not None and all(each == source for each, _ in booked):
        return {}
    found = {"managed_nano": together(one for one in booked if one[0] is KeySource.MANAGED)}
    if cost is None:
        found["byok_nano"] = together(one for one in booked if one[0] is KeySource.BYOK)
    return found


def told(cost: Charge | None) -> list[tuple[object, ...]]:
    """The lines of a charge: class, units, price in dollars, nano-dollars."""
    return [
        (one.price_class, str(one.units), None if one.price is None else format(one.price, "f"), one.nano)
        for one in (() if cost is None else cost.lines)
    ]


def ms(seconds: float) -> int:
    """In whole milliseconds."""
    return round(seconds * 1000)
