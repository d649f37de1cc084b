"""What may be stored as a provider key: the value, the fields that come with it, and the label that tells it apart.

Owns the refusals; each names what is wrong and never shows a value. Pure. Must not know databases or ciphers.
"""

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Final
from urllib.parse import urlsplit

from keystore.errors import CredentialRefused, did_you_mean
from keystore.providers import BASE_URL, Auth, Provider, filled, host_of
from keystore.resolve import UNUSABLE_BECAUSE, inspect_value
from keystore.sealing import Opened
from keystore.service_account import compact

MAX_GRACE: Final = timedelta(days=30)
MAX_WEIGHT: Final = 1000
_LABEL: Final = re.compile(r"(?:[a-z0-9][a-z0-9_.-]{0,62})?")
# What was copied along with a value, and no provider takes as part of a key.
_WRAPPED: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    (re.compile(r"bearer\s.*", re.IGNORECASE | re.DOTALL), "it begins with Bearer; send what follows that word alone"),
    (re.compile(r"([\"']).*\1", re.DOTALL), "it stands in quotes; send what is between them alone"),
    (
        re.compile(r"(export\s+)?[A-Z][A-Z0-9_]*_(KEY|TOKEN)\s*=.*", re.DOTALL),
        "it begins with a name and =; send what follows the = alone",
    ),
)


def accepted(setting_key: str, value: str, fields: Mapping[str, str], provider: Provider) -> Opened:
    """What is to be sealed. It may travel to the hosts that the provider has today, or to that of its own base URL.
    Raises CredentialRefused."""
    if provider.auth is Auth.GOOGLE_SERVICE_ACCOUNT:
        value = _service_account(setting_key, value)
    _refuse_unusable(setting_key, value)
    _refuse_unlike(setting_key, value, provider)
    _check_names(setting_key, fields, provider)
    try:
        there = filled(provider, fields)
    except ValueError as error:
        rule = "1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit"
        raise CredentialRefused(f"the key {setting_key} is not stored: the field {error}; it is {rule}") from None
    hosts = frozenset(there.hosts)
    if BASE_URL in fields:
        hosts = frozenset({_approved_host(setting_key, fields[BASE_URL], there)})
    return Opened(value.encode("utf-8"), hosts, dict(fields))


def check_label(label: str) -> None:
    """Raises CredentialRefused for a label that is none."""
    if not _LABEL.fullmatch(label):
        raise CredentialRefused("a label is 1 to 63 of a-z, 0-9, '_', '.' and '-', and begins with a letter or digit")


def check_turn(weight: int | None, position: int | None) -> None:
    """Raises CredentialRefused for a weight or a position outside its range."""
    if weight is not None and not 1 <= weight <= MAX_WEIGHT:
        raise CredentialRefused(f"a weight is a whole number from 1 to {MAX_WEIGHT}")
    if position is not None and not 0 <= position <= MAX_WEIGHT:
        raise CredentialRefused(f"a position is a whole number from 0 to {MAX_WEIGHT}; 0 is tried first")


def check_grace(grace: timedelta) -> None:
    """Raises CredentialRefused for a grace time outside its range."""
    if not timedelta(0) <= grace <= MAX_GRACE:
        raise CredentialRefused(f"a grace time is from 0 to {MAX_GRACE.days} days")


def _refuse_unusable(setting_key: str, value: str) -> None:
    why = inspect_value(value)
    if why is not None:
        raise CredentialRefused(f"the value for {setting_key} is not stored: {UNUSABLE_BECAUSE[why]}")
    for wrapped, told in _WRAPPED:
        if wrapped.fullmatch(value.strip()):
            raise CredentialRefused(f"the value for {setting_key} is not stored: {told}")


def _refuse_unlike(setting_key: str, value: str, provider: Provider) -> None:
    pattern = provider.key_pattern
    if pattern is not None and not re.fullmatch(pattern, value.strip()):
        raise CredentialRefused(
            f"the value for {setting_key} is not stored: it does not look like a key of {provider.name}"
        )


def _service_account(setting_key: str, value: str) -> str:
    """Its JSON without the line breaks between its parts, which nothing could carry."""
    text = compact(value)
    if text is None:
        raise CredentialRefused(
            f"the value for {setting_key} is not stored: it is not the JSON of a service account key with an RSA key"
        )
    return text


def _check_names(setting_key: str, fields: Mapping[str, str], provider: Provider) -> None:
    known = [*provider.fields, *([BASE_URL] if provider.tenant_base_url else [])]
    for name in fields:
        if name == BASE_URL and name not in known:
            raise CredentialRefused(
                f"the key {setting_key} is not stored: keys of {provider.name} have no base URL of their own here;"
                f" the operator allows it with tenant_base_url = true in [providers.{provider.id}]"
            )
        if name not in known:
            hint = did_you_mean(name, known) if name.isprintable() and len(name) <= 63 else ""
            raise CredentialRefused(
                f"the key {setting_key} is not stored: {provider.name} has no such field{hint}"
                if known
                else f"the key {setting_key} is not stored: keys of {provider.name} come without fields"
            )
    lacking = [name for name in provider.fields if name not in fields]
    if lacking:
        what = "; ".join(f"{name}: {provider.fields[name]}" for name in lacking)
        raise CredentialRefused(f"the key {setting_key} is not stored without its fields ({what})")


def _approved_host(setting_key: str, base_url: str, provider: Provider) -> str:
    """The host of a key's own base URL, which must be one of the row's."""
    refusal = f"the key {setting_key} is not stored: its base URL"
    try:
        parts, host = urlsplit(base_url), host_of(base_url)
    except ValueError:
        raise CredentialRefused(f"{refusal} is no URL") from None
    plain = base_url.isascii() and base_url.isprintable() and not set(base_url) & set(" \\{}@?#")
    if not plain or parts.scheme not in ("https", "http"):
        raise CredentialRefused(f"{refusal} must be a plain URL without user, query or fragment")
    if host not in provider.hosts:
        raise CredentialRefused(
            f"{refusal} goes to a host that the operator has not approved for {provider.name};"
            f" approved are {', '.join(provider.hosts)}"
        )
    return host
