"""What the audit may say that an operation was about, and what an error may repeat of an argument.

Owns one rule in one place: a text is noted only where it is a well-formed name of the kind that the action's row says,
and repeated only where it does not look like a secret, so that a key or token in the wrong place is kept nowhere. Pure.
Must not know the terminal or HTTP.
"""

import re
from collections.abc import Iterable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final

from gateway.rules import Rules
from gateway.scrub import KEY_SHAPES
from keystore.errors import KeystoreError
from keystore.resolve import known_names
from keystore.token_format import is_token_id
from router.aliases import ALIAS_NAME

NOT_A_NAME: Final = "(not a name)"
_SHORTEST: Final = 3  # characters of an argument that can be a secret at all
_PLAIN: Final = re.compile(r"[\w ./:@,+=~%-]*")
_RUN: Final = re.compile(r"[A-Za-z0-9]{20,}")
_LOGIN: Final = re.compile(r"://[^/]*@")
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_KEY: Final = re.compile(r"(?P<name>[^ ]*)(?: \((?P<label>[^ ]*)\))?")


class NotAName(KeystoreError):
    """What was given as a name has the shape of a secret."""


class Target(Enum):
    """What kind of thing an action is about."""

    NOTHING = "nothing"
    TENANT = "tenant"
    KEY = "key"
    TOKEN = "token"  # noqa: S105 - a name
    PROVIDER = "provider"
    CHANGE = "change"
    PLAN = "plan"
    ROOT_KEY = "root key"
    BATCH = "batch"
    MODEL = "model"
    ALIAS = "alias"
    REQUEST = "request"
    RELEASE = "price release"
    BUDGET = "budget"
    WEBHOOK = "webhook"
    LIMIT = "limit"


_LIMITED: Final = "(?:requests_per_minute|tokens_per_minute|concurrency)"
_TOKEN_ID: Final = "[0-9A-Za-z]{12}"  # noqa: S105 - a form
_FORMS: Final[Mapping[Target, re.Pattern[str]]] = MappingProxyType(
    {
        Target.TENANT: re.compile(r"[a-z0-9][a-z0-9-]{0,62}"),
        Target.CHANGE: re.compile(r"(?:retire|rename|diff)(?: [A-Za-z0-9][A-Za-z0-9_.-]{0,63}){0,2}"),
        Target.ROOT_KEY: re.compile(r"[a-z][a-z0-9_-]{0,31}"),
        Target.ALIAS: ALIAS_NAME,
        Target.RELEASE: re.compile(r"[a-z0-9][a-z0-9.-]{0,19}"),
        Target.BUDGET: re.compile(r"(?:managed|byok) (?:day|month)(?: [0-9A-Za-z]{12})?"),
        Target.WEBHOOK: re.compile(r"wh_[0-9a-f]{12}"),
        Target.LIMIT: re.compile(rf"{_LIMITED}(?: {_LIMITED}){{0,2}}(?: {_TOKEN_ID})?|{_TOKEN_ID}"),
        Target.REQUEST: re.compile(r"req_[0-9a-f]{32}"),
        Target.MODEL: re.compile(r"[A-Za-z0-9][\w./:@-]{0,255}", re.ASCII),
    }
)
_NAME: Final = re.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+|[a-z][a-z0-9]*(?:_[a-z0-9]+)+")
_LABEL: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")


def noted(kind: Target, text: str, rules: Rules) -> str:
    """`text` as the audit keeps it: itself where it is a well-formed name of `kind`, else NOT_A_NAME; "" is nothing."""
    return text if not text or _is_name(kind, text, rules) else NOT_A_NAME


def _is_name(kind: Target, text: str, rules: Rules) -> bool:
    match kind:
        case Target.NOTHING:
            return False
        case Target.KEY:
            return _is_key(text, rules)
        case Target.TOKEN:
            return is_token_id(text)
        case Target.PROVIDER:
            return rules.registry.get(text) is not None
        case Target.PLAN:
            return text in rules.plans.names
        case Target.BATCH:
            return _UUID.fullmatch(text) is not None
    return _FORMS[kind].fullmatch(text) is not None and (kind is Target.REQUEST or may_be_said(text))


def _is_key(text: str, rules: Rules) -> bool:
    """A name that keys are stored under, and perhaps a label: `OPENAI_API_KEY (spare)`."""
    parts = _KEY.fullmatch(text)
    if parts is None:
        return False
    name, label = parts["name"], parts["label"]
    known = name in known_names(rules.registry) or (_NAME.fullmatch(name) is not None and may_be_said(name))
    return known and (label is None or (_LABEL.fullmatch(label) is not None and may_be_said(label)))


def may_be_said(text: str) -> bool:
    """Whether an error may repeat this: not what has the shape of a key, is dense, holds a login or odd characters."""
    dense = any(not run.isalpha() and not run.isdecimal() for run in _RUN.findall(text))
    odd = _PLAIN.fullmatch(text) is None or _LOGIN.search(text) is not None
    return not (dense or odd or KEY_SHAPES.search(text))


def check_said(text: str, what: str) -> None:
    """NotAName when `text` may not be said, where it would be told again or stored as a name."""
    if not may_be_said(text):
        raise NotAName(f"what was given as {what} has the shape of a secret; nothing was done")


def without_secrets(message: str, arguments: Iterable[str]) -> str:
    """`message` with NOT_A_NAME in the place of each argument, or half of a `name=value`, that may not be said."""
    parts = {part for text in arguments for part in (text, text.strip(), *text.partition("=")[::2])}
    for part in sorted((one for one in parts if len(one) >= _SHORTEST and not may_be_said(one)), key=len, reverse=True):
        for form in (repr(part), part, repr(part)[1:-1], " ".join(part.split())):
            message = message.replace(form, NOT_A_NAME) if form else message
    return message
