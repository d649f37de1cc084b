"""The errors of the keystore: one base, one class per thing that can go wrong.

Owns the words. A class docstring is the default message; a message says what was tried and what would help, quotes
the thing, and never holds a secret. Must not know SQL, ciphers or any other module of the keystore.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from enum import StrEnum
from typing import Final


class KeystoreError(Exception):
    """The keystore could not do what was asked."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


# --- provider registry ---------------------------------------------------------------------------------------------


class RegistryError(KeystoreError):
    """A provider row is not valid."""


# --- database ------------------------------------------------------------------------------------------------------


class DatabaseUnavailable(KeystoreError):
    """The database cannot be reached, read or written."""


class ValueRefused(DatabaseUnavailable):
    """The database is there, and cannot hold a value."""


class SchemaBehind(KeystoreError):
    """The database has an older schema than this Wardgate; run `wardgate migrate`."""


class SchemaNewer(KeystoreError):
    """The database was migrated by a newer Wardgate; run that version, or restore the database from before it."""


# --- sealing -------------------------------------------------------------------------------------------------------


class SealingError(KeystoreError):
    """The sealing keys cannot be used."""


class RingMissing(SealingError):
    """The database holds sealed keys, but the sealing keys that open them are not here."""


class RingDamaged(SealingError):
    """The sealing keys cannot be read."""


class RingMismatch(SealingError):
    """These sealing keys are not the ones this database was sealed with."""


class RingExposed(SealingError):
    """The file of the sealing keys can be read by others."""


class SealingRefused(SealingError):
    """It is not time for this step of changing the sealing keys."""


class EnvelopeDamaged(SealingError):
    """A sealed value does not open: it was changed, moved, or sealed with another key."""


# --- tenants -------------------------------------------------------------------------------------------------------


class TenantError(KeystoreError):
    """The tenant cannot be used."""


class TenantUnknown(TenantError):
    """There is no such tenant."""


class TenantExists(TenantError):
    """A tenant with this slug or id exists."""


class TenantInvalid(TenantError):
    """A tenant's slug is 1 to 63 of a-z, 0-9 and "-", and begins with a letter or digit."""


class UnknownPlan(TenantError):
    """There is no such plan."""


# --- credentials ---------------------------------------------------------------------------------------------------


class CredentialError(KeystoreError):
    """The credential cannot be used."""


class CredentialUnknown(CredentialError):
    """The tenant holds no key under this name."""


class CredentialRefused(CredentialError):
    """This value cannot be stored as a provider key."""


class CredentialConflict(CredentialError):
    """Somebody else changed this key meanwhile, or its state does not allow what was asked."""


class AliasRefused(KeystoreError):
    """This name for models cannot be used."""


class MoveUnknown(CredentialError):
    """No keys were moved in such a batch."""


class SettingUnknown(CredentialError):
    """No provider has a key of this name."""


class CredentialUnusable(CredentialError):
    """The tenant holds no key for this provider that can be used."""


# --- tokens --------------------------------------------------------------------------------------------------------


class TokenError(KeystoreError):
    """The token cannot be used."""


class TokenUnknown(TokenError):
    """There is no token with this id."""


class TokenInvalid(TokenError):
    """A token cannot be made like this."""


class Refusal(StrEnum):
    """Why a token was not accepted. For logs and metrics; a client is told only that it was not."""

    MALFORMED = "malformed"
    UNKNOWN = "unknown"
    EXPIRED = "expired"
    REVOKED = "revoked"
    TAMPERED = "tampered"  # its row is not as Wardgate wrote it


class TokenRefused(TokenError):
    """The token is not accepted."""

    def __init__(self, why: Refusal) -> None:
        super().__init__(f"the token is {why.value}")
        self.why = why


# --- audit ---------------------------------------------------------------------------------------------------------


class AuditBroken(KeystoreError):
    """The audit's chain does not hold."""


# --- writes that come twice -----------------------------------------------------------------------------------------


class IdempotencyError(KeystoreError):
    """The write with this idempotency key is not done."""


class IdempotencyReused(IdempotencyError):
    """This idempotency key was used for another request; take a new one for each request."""


class IdempotencyBusy(IdempotencyError):
    """The first request with this idempotency key has not ended yet; ask again in a moment."""


# --- journal -------------------------------------------------------------------------------------------------------


class JournalUnwritable(KeystoreError):
    """The journal of what was used cannot be written."""


class RowsRefused(KeystoreError):
    """The database is there, and refuses rows of the ledger."""


# --- budgets -------------------------------------------------------------------------------------------------------


class BudgetError(KeystoreError):
    """The budget cannot be used."""


class BudgetUnknown(BudgetError):
    """There is no such budget."""


class BudgetInvalid(BudgetError):
    """A budget cannot be set like this."""


# --- alerts --------------------------------------------------------------------------------------------------------


class WebhookUnknown(KeystoreError):
    """There is no such webhook."""


class WebhookInvalid(KeystoreError):
    """A webhook cannot be like this."""


# --- limits --------------------------------------------------------------------------------------------------------


class LimitError(KeystoreError):
    """The limit cannot be used."""


class LimitUnknown(LimitError):
    """There is no such limit."""


class LimitInvalid(LimitError):
    """A limit cannot be set like this."""


# --- decisions -----------------------------------------------------------------------------------------------------


class DecisionUnknown(KeystoreError):
    """No decision is kept under this request id."""


# --- ledger --------------------------------------------------------------------------------------------------------


class LedgerUnknown(KeystoreError):
    """The ledger has no row of this request id."""


class LedgerGap(KeystoreError):
    """Lines of a journal are missing before those that were to be written."""


# --- import --------------------------------------------------------------------------------------------------------


class ImportRefused(KeystoreError):
    """The settings table cannot be adopted like this."""


# --- prices --------------------------------------------------------------------------------------------------------


class PriceReleaseError(KeystoreError):
    """The price releases cannot be changed like this."""


class PriceReleaseUnknown(PriceReleaseError):
    """There is no such price release."""


class PriceRowUnknown(PriceReleaseError):
    """No row of this name waits in this price release."""


class PriceConflict(PriceReleaseError):
    """Somebody else decided meanwhile, or the release's state does not allow what was asked."""


class PricesBusy(PriceReleaseError):
    """Another process is refreshing the prices now; ask again in a minute."""


# --- words ---------------------------------------------------------------------------------------------------------


# How alike two words are (difflib's ratio) for one to be a slip for the other. Names of keys share their ends, so that
# GROQ_API_KEY and BEDROCK_API_KEY are alike to 0.74.
_ALIKE: Final = 0.75


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word most like `word`, whatever the case of either, or None when none is near."""
    folded = {each.casefold(): each for each in sorted(known)}
    found = get_close_matches(word.casefold(), folded, n=1, cutoff=_ALIKE)
    return folded[found[0]] if found else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A sentence's tail that names the nearest known word: `; did you mean "acme"?`, or nothing."""
    near = nearest(word, known)
    return f'; did you mean "{near}"?' if near else ""


def counted(number: int, thing: str, things: str = "") -> str:
    """`1 row`, `2 rows`; `things` where the plural is another one."""
    return f"{number} {thing if number == 1 else things or thing + 's'}"
