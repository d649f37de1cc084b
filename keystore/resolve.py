"""Which stored name holds a tenant's key for a provider, and which stored values are no keys at all.

Owns the order of names, the rule of the winner, and the rules of unusable values; the tables are tests/vectors/
resolution.toml and key_values.toml. Pure: a function of the held names and the provider rows. Must not know databases,
ciphers, secrets at rest, or any particular provider.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from keystore.providers import Provider, Registry, setting_key_of

MAX_VALUE_BYTES: Final = 16 * 1024  # longer than any provider's key; RELIABILITY 4.6


class Via(StrEnum):
    """By which rule a name belongs to a provider, in the order in which they are tried."""

    CANONICAL = "canonical"
    FAMILY = "family"
    FORMER = "former"
    SIBLING = "sibling"


class Unusable(StrEnum):
    """Why a stored value is never used as a key."""

    EMPTY = "empty"
    PLACEHOLDER = "placeholder"
    MASKED = "masked"
    REFERENCE = "reference"
    CONTROL_CHARACTERS = "control_characters"
    OVERSIZED = "oversized"
    ENCRYPTED = "encrypted"
    DAMAGED = "damaged"
    WRONG_HOST = "wrong_host"
    LACKS_FIELDS = "lacks_fields"


UNUSABLE_BECAUSE: Final[Mapping[Unusable, str]] = MappingProxyType(
    {
        Unusable.EMPTY: "it is empty",
        Unusable.PLACEHOLDER: "it is a placeholder that was never filled in",
        Unusable.MASKED: "it is a masked key, not the key itself",
        Unusable.REFERENCE: "it refers to a key kept elsewhere, and references are never followed",
        Unusable.CONTROL_CHARACTERS: "it holds characters that cannot travel in a request header",
        Unusable.OVERSIZED: f"it is longer than {MAX_VALUE_BYTES} bytes",
        Unusable.ENCRYPTED: "it is encrypted by another system",
        Unusable.DAMAGED: "its seal does not open: it was changed, moved or sealed with another key",
        Unusable.WRONG_HOST: "it was sealed for other hosts than this provider's; set it again to bind it to these",
        Unusable.LACKS_FIELDS: "it came without the fields that this provider needs; set it again with --field",
    }
)


class Store(StrEnum):
    """Where a name is held: the system of record, or a tenant_settings table that is only read."""

    CREDENTIALS = "credentials"
    LEGACY = "legacy"


@dataclass(frozen=True, slots=True)
class HeldName:
    """One stored name and what is known of its value without the value. Equal fingerprints mean equal values."""

    setting_key: str
    store: Store
    unusable: Unusable | None
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class Skipped:
    """A name that is held, with a value that is not used."""

    setting_key: str
    why: Unusable


@dataclass(frozen=True, slots=True)
class Found:
    """The name to use. `skipped` are the provider's held names without a usable value; `conflicts` its other names
    whose usable value differs from the one found."""

    provider_id: str
    setting_key: str
    via: Via
    store: Store
    skipped: tuple[Skipped, ...]
    conflicts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Missing:
    """No name has a usable value. `tried` are all names that were looked for, in order."""

    provider_id: str
    tried: tuple[str, ...]
    skipped: tuple[Skipped, ...]


Names = tuple[tuple[str, Via], ...]  # the names of one provider's keys, best first


# --- names ---------------------------------------------------------------------------------------------------------


def names_for(provider: Provider, registry: Registry) -> Names:
    """The names under which a key of this provider may be stored, best first, each once (DESIGN, "Key resolution")."""
    first: dict[str, Via] = {}
    for setting_key, via in _names(provider, registry):
        first.setdefault(setting_key, via)
    return tuple(first.items())


def _names(provider: Provider, registry: Registry) -> Iterator[tuple[str, Via]]:
    yield setting_key_of(provider.id), Via.CANONICAL
    yield provider.api_key_env_var, Via.FAMILY
    for former in provider.former_ids:
        yield setting_key_of(former), Via.FORMER
    for other in registry.providers:
        if _same_account(other, provider):
            yield setting_key_of(other.id), Via.SIBLING


def _same_account(other: Provider, provider: Provider) -> bool:
    """One key family alone does not prove one account (T37): the hosts must be the same too."""
    same_family = other.api_key_env_var == provider.api_key_env_var
    return other.id != provider.id and same_family and set(other.hosts) == set(provider.hosts)


def provider_for_setting(setting_key: str, registry: Registry) -> Provider | None:
    """The provider whose key this name is: by canonical name, then family, then former id; live rows before retired."""
    rows = (*registry.live(), *(row for row in registry.providers if row.retired))
    ranked = [
        (row.retired, via_rank, row)
        for row in rows
        for via_rank, owned in enumerate(_owned_names(row))
        if setting_key in owned
    ]
    return min(ranked, key=lambda each: each[:2])[2] if ranked else None


def _owned_names(row: Provider) -> tuple[frozenset[str], ...]:
    return (
        frozenset({setting_key_of(row.id)}),
        frozenset({row.api_key_env_var}),
        frozenset(setting_key_of(former) for former in row.former_ids),
    )


def known_names(registry: Registry) -> frozenset[str]:
    """Every name that any row could ask for."""
    return frozenset(name for row in registry.providers for owned in _owned_names(row) for name in owned)


class NameTable:
    """The names of every live provider, worked out once for a registry: which names each one's keys may have, who asks
    for a name, and what is said of a tenant that holds none of them."""

    __slots__ = ("asked_by", "missing", "names")

    def __init__(self, registry: Registry) -> None:
        self.names: Mapping[str, Names] = {row.id: names_for(row, registry) for row in registry.live()}
        self.missing: Mapping[str, Missing] = {
            provider_id: Missing(provider_id, tuple(name for name, _ in names), ())
            for provider_id, names in self.names.items()
        }
        asked: dict[str, list[str]] = {}
        for provider_id, names in self.names.items():
            for name, _ in names:
                asked.setdefault(name, []).append(provider_id)
        self.asked_by: Mapping[str, tuple[str, ...]] = {name: tuple(ids) for name, ids in asked.items()}


# --- the winner ----------------------------------------------------------------------------------------------------


def resolve(held: Mapping[str, HeldName], provider: Provider, registry: Registry) -> Found | Missing:
    """The first of the provider's names that is held with a usable value, or what was tried."""
    return first_usable(held, provider.id, names_for(provider, registry))


def first_usable(held: Mapping[str, HeldName], provider_id: str, names: Names) -> Found | Missing:
    """`resolve` with the provider's names at hand."""
    skipped = tuple(
        Skipped(name, why) for name, _ in names if name in held and (why := held[name].unusable) is not None
    )
    usable = [(held[name], via) for name, via in names if name in held and held[name].unusable is None]
    if not usable:
        return Missing(provider_id, tuple(name for name, _ in names), skipped)
    winner, via = usable[0]
    conflicts = tuple(each.setting_key for each, _ in usable if each.fingerprint != winner.fingerprint)
    return Found(provider_id, winner.setting_key, via, winner.store, skipped, conflicts)


# --- values --------------------------------------------------------------------------------------------------------

_MASKED: Final = re.compile(r"\*{3,}|•{2,}|…|\.{3,}|^\[?(?:redacted|masked|hidden)\]?$", re.IGNORECASE)
_ALL_STARS: Final = re.compile(r"[*•]+")
_REFERENCE: Final = re.compile(
    r"\$[A-Za-z_{(]"  # $KEY, ${KEY}, $(command)
    r"|(?:os\.environ|process\.env|env|secrets)[/.:\[]"
    r"|(?:oidc|secret|vault|op|ssm|arn|file|projects)[/:]"
    r"|[A-Za-z][A-Za-z0-9+.-]*://"  # file:///run/key, https://keys.example, aws-sm://name
    r"|%[A-Za-z_][A-Za-z0-9_]*%$"  # %KEY%
    r"|\{\{.*\}\}$"  # {{ secrets.KEY }}
)
_ENCRYPTED: Final = re.compile(
    r"gAAAA[A-Za-z0-9_-]"  # Fernet
    r"|wg[0-9]+\.[^.]+\."  # our own envelope
    r"|U2FsdGVkX1"  # openssl enc, salted
    r"|AQICAH"  # AWS KMS
    r"|ENC\[|ENC\("  # SOPS, Jasypt
    r"|-----BEGIN (?:PGP MESSAGE|AGE ENCRYPTED FILE)"
)
# What is left of a value when case, brackets and separators are taken away.
_PLACEHOLDER: Final = re.compile(
    r"(?:sk|pk|gsk|key|token)?x{4,}"
    r"|(?:sk|pk|gsk)?(?:insert|enter|put|paste|add|replace|replacewith|use)?your[a-z0-9]{0,40}(?:key|token|secret)"
    r"(?:here|goeshere)?"
    r"|(?:insert|enter|put|paste|add|replace)[a-z0-9]{0,40}(?:key|token|secret)(?:here)?"
    r"|(?:api)?(?:key|token|secret)(?:goes)?here|apikey|changeme|changethis|replaceme|fillmein|placeholder|todo|tbd|fixme"
    r"|none|null|nil|undefined|na|notset|unset|empty|example(?:key)?"
)


def inspect_value(value: str | None) -> Unusable | None:
    """Why this stored value is not a key, or None when it may be one. White space around it does not matter: it is
    taken off when the key is used."""
    text = (value or "").strip()
    if not text:
        return Unusable.EMPTY
    if len(text.encode("utf-8", "surrogatepass")) > MAX_VALUE_BYTES:
        return Unusable.OVERSIZED
    return next((why for why, is_so in _TESTS if is_so(text)), None)


def _is_masked(text: str) -> bool:
    return _MASKED.search(text) is not None or _ALL_STARS.fullmatch(text) is not None


def _is_placeholder(text: str) -> bool:
    if re.search(r"<[^<>]*>", text) or re.fullmatch(r"\[[^\]]*\]|\{[^{}\":]*\}", text):
        return True
    return _PLACEHOLDER.fullmatch(re.sub(r"[^a-z0-9]", "", text.lower())) is not None


def _is_reference(text: str) -> bool:
    return _REFERENCE.match(text) is not None


def _is_encrypted(text: str) -> bool:
    return _ENCRYPTED.match(text) is not None


def _cannot_travel(text: str) -> bool:
    return not all(" " <= character <= "~" for character in text)


_TESTS: Final = (
    (Unusable.MASKED, _is_masked),
    (Unusable.REFERENCE, _is_reference),
    (Unusable.PLACEHOLDER, _is_placeholder),
    (Unusable.ENCRYPTED, _is_encrypted),
    (Unusable.CONTROL_CHARACTERS, _cannot_travel),
)
