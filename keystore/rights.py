"""What a token may do: the scopes by kind, and what a token that names none has.

Owns the words. Must not know tokens' text, databases or the operations behind a scope.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from keystore.errors import TokenInvalid, did_you_mean
from keystore.token_format import TokenKind


class Right(StrEnum):
    """A scope of a token."""

    ADMIN_READ = "admin:read"
    ADMIN_WRITE = "admin:write"
    KEYS_READ = "keys:read"
    KEYS_WRITE = "keys:write"
    INFERENCE = "inference"  # the data plane
    BULK = "inference:bulk"  # the data plane too, and every request is bulk


_TENANTS: Final = (Right.INFERENCE, Right.BULK, Right.KEYS_READ, Right.KEYS_WRITE)
_ADMINS: Final = (Right.ADMIN_READ, Right.ADMIN_WRITE)
_OF_KIND: Final[Mapping[TokenKind, tuple[Right, ...]]] = MappingProxyType(
    {TokenKind.LIVE: _TENANTS, TokenKind.TEST: _TENANTS, TokenKind.ADMIN: _ADMINS}
)
_WITHOUT_SCOPES: Final[Mapping[TokenKind, tuple[Right, ...]]] = MappingProxyType(
    {TokenKind.LIVE: (Right.INFERENCE,), TokenKind.TEST: (Right.INFERENCE,), TokenKind.ADMIN: _ADMINS}
)


def rights_of(kind: TokenKind, scopes: Iterable[str]) -> frozenset[str]:
    """What a token of this kind with these scopes may do; a scope that the kind cannot have gives nothing, and one for
    bulk gives what bulk needs."""
    named = frozenset(scopes)
    if Right.BULK.value in named:
        named |= {Right.INFERENCE.value}
    allowed = _OF_KIND[kind] if named else _WITHOUT_SCOPES[kind]
    return frozenset(right.value for right in allowed if not named or right.value in named)


def checked_scopes(kind: TokenKind, scopes: Iterable[str]) -> tuple[str, ...]:
    """The scopes, each once. TokenInvalid names one that this kind of token cannot have."""
    known = [right.value for right in _OF_KIND[kind]]
    for scope in scopes:
        if scope not in known:
            near = did_you_mean(scope, known)
            raise TokenInvalid(
                f"a token of the kind {kind.value} has no scope {scope!r}{near} (scopes: {', '.join(known)})"
            )
    return tuple(dict.fromkeys(scopes))
