"""What one row of a settings table is: a secret by its name, a secret by its value, or a setting.

Owns the patterns of names and values. By row and not by provider: a secret that no provider knows is still a secret.
Pure. Must not know databases or ciphers.
"""

import math
import re
from collections import Counter
from collections.abc import Collection
from enum import StrEnum
from typing import Final

from keystore.resolve import Unusable, inspect_value

MAX_NAME: Final = 128  # characters; a credential's name is no longer


class Kind(StrEnum):
    """Why a row is a secret, or that it is none."""

    KNOWN_NAME = "known_name"
    SECRET_NAME = "secret_name"  # noqa: S105 - a name
    SECRET_VALUE = "secret_value"  # noqa: S105 - a name
    SETTING = "setting"


class Outcome(StrEnum):
    """What becomes of a row. The last two are only reported: nothing of them is taken over."""

    MIGRATED = "migrated"
    OLDER = "older"
    QUARANTINED = "quarantined"
    SETTING = "setting"
    NO_TENANT = "no_tenant"
    NAME_UNUSABLE = "name_unusable"


KEPT: Final = frozenset({Outcome.MIGRATED, Outcome.OLDER, Outcome.QUARANTINED})  # these have a credential
UNKNOWN_NAME: Final = "unknown_name"  # quarantined: no provider has a key of this name
OTHER_SPELLING: Final = "other_spelling"  # quarantined: the tenant's rows have its id, and this one its slug

_NAME: Final = re.compile(
    r"(?:^|.*[_\-. ])(?:(?:api[_\-. ]?key|secret|token)s?|access[_\-. ]?key.*)", re.IGNORECASE | re.DOTALL
)
_PLAIN: Final = re.compile(r"[+-]?\d{1,9}(?:\.\d{1,9})?|true|false|yes|no|on|off", re.IGNORECASE)
_PREFIX: Final = re.compile(
    r"(?:sk-|sk_live_|sk_test_|rk_live_|gsk_|xai-|pplx-|nvapi-|AIza|AKIA|ASIA|ghp_|gho_|github_pat_|glpat-|hf_|r8_"
    r"|xox[abp]-|SG\.|whsec_|ya29\.)[A-Za-z0-9_\-.]{12,}"
    r"|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
_DENSE: Final = re.compile(r"[A-Za-z0-9_\-+/=]{24,256}")
_BITS: Final = 4.0  # per character; English words and paths have fewer


def classify(name: str, value: bytes | None, known: Collection[str]) -> Kind:
    """The kind of a row. `known` are the names that a provider row asks for."""
    if name in known:
        return Kind.KNOWN_NAME
    text = (value or b"")[:4096].decode("utf-8", "replace").strip()
    if _NAME.fullmatch(name.strip()):
        return Kind.SETTING if _PLAIN.fullmatch(text) else Kind.SECRET_NAME
    return Kind.SECRET_VALUE if _looks_like_a_key(text) else Kind.SETTING


def quarantine(name: str, value: bytes | None, known: Collection[str]) -> str | None:
    """Why a secret is kept without being used, or None when it is to be used."""
    try:
        why = inspect_value((value or b"").decode("utf-8"))
    except UnicodeDecodeError:
        why = Unusable.DAMAGED
    if why is not None:
        return why.value
    return None if name in known else UNKNOWN_NAME


def _looks_like_a_key(text: str) -> bool:
    if _PREFIX.match(text) or '"private_key"' in text:
        return True
    classes = (r"[a-z]", r"[A-Z]", r"[0-9]")
    return (
        _DENSE.fullmatch(text) is not None and all(re.search(each, text) for each in classes) and _bits(text) >= _BITS
    )


def _bits(text: str) -> float:
    """Shannon's entropy per character."""
    total = len(text)
    return -sum(count / total * math.log2(count / total) for count in Counter(text).values())
