"""What all shapes of the admin API are made of: the two kinds of model, the kinds of text, and the error.

Owns that a model takes no field that it does not name, and that what was sent is in no message.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from ipaddress import ip_network
from types import MappingProxyType
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from gateway.budgeting.telling import AMOUNT
from keystore.acceptance import MAX_GRACE, MAX_WEIGHT


class Sent(BaseModel):
    """What a caller sends."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class Told(BaseModel):
    """What is answered."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, frozen=True)


def printable(text: str) -> str:
    """The text, when it holds printable characters only."""
    if not text.isprintable():
        raise PydanticCustomError("notprintable", "it may hold printable characters only")
    return text


def _network(text: str) -> str:
    try:
        return str(ip_network(text.strip()))
    except ValueError:
        raise PydanticCustomError("no_network", "it must be an address or a network, as 10.0.0.0/8") from None


def _model(text: str) -> str:
    if not text or not text.isprintable() or " " in text:
        raise PydanticCustomError("no_model", "it must be the name of a model, of a family, or a pattern") from None
    return text


def _in_utc(time: datetime) -> datetime:
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise PydanticCustomError("no_time", "it must be a time within the years 1 to 9999 in UTC") from None


SLUG: Final = r"^[a-z0-9][a-z0-9-]{0,62}$"
TENANT: Final = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
PROVIDER: Final = r"^[a-z0-9][a-z0-9_.-]{0,63}$"
BATCH: Final = r"^[0-9a-f-]{36}$"
TOKEN_ID: Final = r"^[0-9A-Za-z]{12}$"  # noqa: S105 - a form
ACTION: Final = r"^[a-z_]+\.[a-z_]+$"
# What each asks for, in words: a caller need not read expressions.
FORMS: Final[Mapping[str, str]] = MappingProxyType(
    {
        SLUG: "it must be 1 to 63 of a-z, 0-9 and '-', and begin with a letter or digit",
        TENANT: "it must be 1 to 64 of A-Z, a-z, 0-9, '-' and '_', and begin with a letter or digit",
        PROVIDER: "it must be 1 to 64 of a-z, 0-9, '_', '.' and '-', and begin with a letter or digit",
        BATCH: "it must be the id of a batch, as GET /admin/keys/moves lists them",
        TOKEN_ID: "it must be the id of a token: 12 characters",
        AMOUNT: "it must be dollars such as 49.90, with at most nine decimals",
        ACTION: "it must be the name of an action, such as key.set",
    }
)

Text = Annotated[str, Field(max_length=200), AfterValidator(printable)]
Word = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(printable)]
TenantName = Annotated[str, Field(pattern=TENANT, description="A tenant's slug or id.")]
Scope = Literal["inference", "inference:bulk", "keys:read", "keys:write", "admin:read", "admin:write"]
Kind = Literal["live", "test", "admin"]
ModelName = Annotated[str, Field(max_length=200), AfterValidator(_model)]
Network = Annotated[str, Field(max_length=64), AfterValidator(_network)]
FieldText = Annotated[str, Field(max_length=500)]
Label = Annotated[str, Field(max_length=63), AfterValidator(printable)]
Weight = Annotated[int, Field(ge=1, le=MAX_WEIGHT, strict=True)]
Position = Annotated[int, Field(ge=0, le=MAX_WEIGHT, strict=True)]
GraceHours = Annotated[float, Field(ge=0, le=MAX_GRACE.days * 24, allow_inf_nan=False, strict=True)]
Time = Annotated[AwareDatetime, AfterValidator(_in_utc)]
Version = Annotated[int, Field(ge=0, lt=2**31, strict=True)]

# --- errors ----------------------------------------------------------------------------------------------------------


class ErrorObject(BaseModel):
    """What was wrong. `code` is the word to decide by; nothing that was sent is repeated."""

    message: str
    type: str
    param: str | None
    code: str
    fault: str
    errors: list[dict[str, str]] | None = None


class ErrorBody(BaseModel):
    """Every answer of 400 and above."""

    error: ErrorObject
