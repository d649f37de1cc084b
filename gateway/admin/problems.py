"""What went wrong, as an answer that repeats nothing of what was sent.

Owns the table from the keystore's errors to statuses and sentences. An error's own words are passed on only where the
row says so, and never when they hold a text of the request's body.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from gateway.auth import KEYSTORE_AWAY
from gateway.control.gate import NotAllowed
from gateway.errors import INTERNAL, Problem
from keystore import errors
from keystore.rights import Right
from keystore.token_format import TokenKind
from router.reasons import Fault

SHORTEST: Final = 3  # characters of a body's text that an answer may not repeat
WORDS: Final = frozenset({*Right, *TokenKind})  # which may stand in a body and in a sentence of ours
INVALID: Final = "invalid_request"


class ProviderUnknown(errors.KeystoreError):
    """There is no such provider."""


class TooManyTenants(errors.KeystoreError):
    """There are too many tenants to read each of them for one request."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """How an error is answered. `own_words`: its message names what would help and is told."""

    status: int
    code: str
    sentence: str
    own_words: bool = False


_RING = "The sealing keys of this gateway cannot be used now; `wardgate sealing status` says more."
TABLE: Final[Mapping[type[errors.KeystoreError], Refusal]] = MappingProxyType(
    {
        NotAllowed: Refusal(403, "not_allowed", "This token may not do this."),
        ProviderUnknown: Refusal(404, "provider_unknown", "There is no such provider."),
        TooManyTenants: Refusal(
            409,
            "too_many_tenants",
            "There are too many tenants to read each for one request; ask with `wardgate key` or `wardgate provider`.",
        ),
        errors.TenantUnknown: Refusal(404, "tenant_unknown", "There is no such tenant."),
        errors.TenantExists: Refusal(
            409, "tenant_exists", "A tenant with this slug or id, or a spelling of it, exists."
        ),
        errors.TenantInvalid: Refusal(
            400, "tenant_invalid", "This is no slug or id of a tenant: a-z, 0-9 and '-', up to 63 of them."
        ),
        errors.UnknownPlan: Refusal(400, "plan_unknown", "There is no such plan; GET /admin/plans lists the plans."),
        errors.CredentialUnknown: Refusal(
            404,
            "key_unknown",
            "There is no such key here. One of the store `legacy` is removed with the application that wrote it.",
        ),
        errors.CredentialRefused: Refusal(
            400, "key_refused", "This cannot be stored as a provider key.", own_words=True
        ),
        errors.CredentialConflict: Refusal(
            409, "key_conflict", "Somebody else changed this key, or its state does not allow this.", own_words=True
        ),
        errors.SettingUnknown: Refusal(
            400, "setting_unknown", "No provider has a key of this name; e.g. the key of `openai` is OPENAI_API_KEY."
        ),
        errors.CredentialError: Refusal(409, "key_unusable", "This key cannot be used."),
        errors.TokenUnknown: Refusal(404, "token_unknown", "There is no such token."),
        errors.TokenInvalid: Refusal(400, "token_refused", "A token cannot be made like this.", own_words=True),
        errors.AliasRefused: Refusal(
            400,
            "alias_refused",
            "This alias cannot be set or removed: its name is a-z, 0-9, '.', '_' and '-' and not `auto` or `default`;"
            " it has `models` or an `objective`, one of them; and it does not lead back to itself.",
        ),
        errors.MoveUnknown: Refusal(404, "batch_unknown", "There is no such batch; GET /admin/keys/moves lists them."),
        errors.DecisionUnknown: Refusal(
            404, "request_unknown", "No decision is kept under this request id.", own_words=True
        ),
        errors.RegistryError: Refusal(400, "provider_refused", "The provider rows cannot be changed like this."),
        errors.SealingRefused: Refusal(409, "sealing_refused", "It is not time for this step.", own_words=True),
        errors.EnvelopeDamaged: Refusal(
            409, "envelope_damaged", "A sealed value does not open; it was changed or moved."
        ),
        errors.SealingError: Refusal(503, "sealing_unavailable", _RING),
        errors.AuditBroken: Refusal(400, "audit_head_refused", "A head has the form NUMBER:SEAL.", own_words=True),
        errors.ImportRefused: Refusal(409, "import_refused", "The settings table cannot be adopted like this."),
        errors.PriceReleaseUnknown: Refusal(
            404, "price_release_unknown", "There is no such price release; GET /admin/prices/releases lists them."
        ),
        errors.PriceRowUnknown: Refusal(
            400, "price_row_unknown", "No such row waits in this price release; GET its rows to see which do."
        ),
        errors.PriceConflict: Refusal(
            409, "price_conflict", "Somebody else decided meanwhile, or the release's state forbids it.", own_words=True
        ),
        errors.PricesBusy: Refusal(
            409, "price_refresh_running", "Another process is refreshing the prices now; ask again in a minute."
        ),
        errors.PriceReleaseError: Refusal(409, "price_release_refused", "The price releases cannot be changed so."),
        errors.IdempotencyReused: Refusal(
            409, "idempotency_key_reused", "This idempotency key was used for another request.", own_words=True
        ),
        errors.IdempotencyBusy: Refusal(
            409, "idempotency_in_progress", "The first request with this key has not ended yet.", own_words=True
        ),
        errors.BudgetUnknown: Refusal(
            404,
            "budget_unknown",
            "There is no such budget; GET /admin/tenants/{tenant}/budgets lists them. A path ends in managed or byok,"
            " then day or month.",
        ),
        errors.BudgetInvalid: Refusal(
            400,
            "budget_refused",
            "This budget cannot be set: its amount is 0 to 1,000,000,000 dollars with at most nine decimals, and it is"
            " the tenant's or one of its tokens'.",
        ),
        errors.BudgetError: Refusal(409, "budget_unusable", "This budget cannot be used."),
        errors.WebhookUnknown: Refusal(
            404, "webhook_unknown", "There is no such webhook; GET /admin/webhooks lists them."
        ),
        errors.WebhookInvalid: Refusal(400, "webhook_refused", "This cannot be a webhook.", own_words=True),
        errors.LimitUnknown: Refusal(
            404,
            "limit_unknown",
            "There is no such limit; GET /admin/tenants/{tenant}/limits lists them. A path ends in"
            " requests_per_minute, tokens_per_minute or concurrency.",
        ),
        errors.LimitInvalid: Refusal(
            400,
            "limit_refused",
            "This limit cannot be set: it is a whole number from 1 to 10,000,000,000, of the tenant or one of its"
            " tokens.",
        ),
        errors.LimitError: Refusal(409, "limit_unusable", "This limit cannot be used."),
        errors.LedgerUnknown: Refusal(
            404, "ledger_row_unknown", "The ledger has no row of this request id.", own_words=True
        ),
        errors.LedgerGap: Refusal(503, "ledger_gap", "Lines of a journal are missing before those to be written."),
        errors.JournalUnwritable: Refusal(503, "ledger_unavailable", "What requests cost cannot be written down now."),
        errors.RowsRefused: Refusal(503, "ledger_rows_refused", "The database refuses rows of the ledger."),
        errors.SchemaBehind: Refusal(503, "schema_behind", "The database has an older schema.", own_words=True),
        errors.SchemaNewer: Refusal(503, "schema_newer", "The database has a newer schema.", own_words=True),
    }
)
FIELDS: Final[Mapping[type[errors.KeystoreError], str]] = MappingProxyType(
    {errors.UnknownPlan: "plan", errors.SettingUnknown: "setting_key", errors.PriceRowUnknown: "rows"}
)


def problem_of(error: errors.KeystoreError, body: object = None) -> Problem:
    """The answer for an error of the keystore; `body` is what was sent, of which no text is repeated."""
    if isinstance(error, errors.DatabaseUnavailable):
        return KEYSTORE_AWAY
    kind = next((each for each in type(error).__mro__ if each in TABLE), None)
    if kind is None:
        return INTERNAL
    row = TABLE[kind]
    fault = Fault.GATEWAY if row.status >= 500 else Fault.CALLER
    sentence = row.sentence
    if row.own_words and not any(text in str(error) for text in texts_in(body)):
        sentence = _sentence(str(error))
    busy = row.status == 503 or kind is errors.IdempotencyBusy
    wait = 2.0 if busy else None
    return Problem(
        row.status, row.code, sentence, fault, param=FIELDS.get(kind), retry_after_s=wait, caller_may_retry=busy
    )


def scope_problem(right: str) -> Problem:
    """The token is not of the kind, or lacks the scope, that is needed."""
    message = f"This token lacks the scope {right!r}; ask the operator for one that has it."
    return Problem(403, "scope_required", message, Fault.CALLER)


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:] + ("" if words.endswith(".") else ".")


def texts_in(value: object) -> Iterator[str]:
    """Every text in a JSON value, names too, that is long enough and no word of ours."""
    if isinstance(value, str) and len(value) >= SHORTEST and value not in WORDS:
        yield value
    elif isinstance(value, Mapping):
        for name, held in value.items():
            yield from texts_in(name)
            yield from texts_in(held)
    elif isinstance(value, list):
        for each in value:
            yield from texts_in(each)


def invalid(found: Sequence[Mapping[str, str]]) -> Problem:
    """400 with the fields and rules that were broken."""
    first = found[0]
    message = "; ".join(f"{each['field']}: {each['rule']}" for each in found[:5])
    return Problem(400, INVALID, message, Fault.CALLER, param=first["field"], extra={"errors": list(found[:20])})
