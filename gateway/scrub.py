"""Takes secrets out of text that came from elsewhere, before it reaches a caller or a log."""

import base64
import re
from string import ascii_lowercase, ascii_uppercase
from typing import Final
from urllib.parse import quote

MASK = "[redacted]"
LONGEST = 600  # characters of an upstream's message that are passed on

# Shapes of provider keys and of our own tokens; a second line of defence behind the exact value.
KEY_SHAPES = re.compile(
    r"\bwg_(?:live|test|admin)_[0-9A-Za-z_]{8,}"
    r"|\b(?:sk|pk|rk|gsk|xai|pplx|csk|nvapi|hf|fw|r8|tgp_v1)[-_][0-9A-Za-z_\-*.]{6,}"
    r"|\bAIza[0-9A-Za-z_\-]{10,}"
    r"|\beyJ[0-9A-Za-z_\-]{10,}\.[0-9A-Za-z_\-.]+"
    r"|(?i:\bbearer\s+)[0-9A-Za-z_\-.=+/]{6,}"
    r"|(?<=[?&]key=)[^&\s\"']+"
)


LOWER: Final = str.maketrans(ascii_uppercase, ascii_lowercase)  # as long as the text, unlike str.lower()
WINDOW: Final = 8  # characters of a key that may not be told in a row
PIECE: Final = WINDOW // 2
PLAIN_ID: Final = re.compile(r"req_[0-9A-Za-z_]+|[0-9A-Fa-f-]+")  # in which nothing looks like a key
URL: Final = re.compile(r"\bhttps?://[^\s\"'<>]+")
PUBLIC_HOST: Final = re.compile(r"https?://(?:[a-z0-9-]+\.)+[a-z]{2,}(?:[/?#]|\Z)", re.IGNORECASE)
INTERNAL: Final = re.compile(r"\.(?:internal|local|lan|corp|cluster|svc|home|intranet)(?:[/?#]|\Z)", re.IGNORECASE)
CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


def scrub(text: str, *secrets: str) -> str:
    """`text` without the given values (whole, in pieces of WINDOW characters, or in base64), without what looks like a
    key, an internal URL or a control character, and at most LONGEST characters long."""
    text = CONTROLS.sub(" ", text[: 8 * LONGEST])
    for secret in secrets:
        for form in _forms(secret):
            text = _without(text, form)
    text = KEY_SHAPES.sub(MASK, URL.sub(_public, text))
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."


def tells_of(text: str, secret: str) -> bool:
    """Whether a short ASCII text holds WINDOW characters of a secret in a row (all of it, where it is shorter), or what
    looks like a key. Quick for what is neither: every WINDOW in a row holds one of the pieces that are looked for."""
    lower, key = text.lower(), secret.lower()
    for at in range(0, max(1, len(lower) - PIECE + 1), WINDOW - PIECE + 1):
        if lower[at : at + PIECE] in key:
            if any(lower[from_ : from_ + WINDOW] in key for from_ in range(max(1, len(lower) - WINDOW + 1))):
                return True
            break
    return looks_like_key(text)


def looks_like_key(text: str) -> bool:
    """Whether what looks like a key stands in it."""
    return PLAIN_ID.fullmatch(text) is None and KEY_SHAPES.search(text) is not None


def _forms(secret: str) -> list[str]:
    """The ways in which a secret may be echoed; nothing for an empty one."""
    if not secret:
        return []
    raw = secret.encode()
    encoded = [base64.b64encode(raw), base64.urlsafe_b64encode(raw), base64.b64encode(b"Bearer " + raw)]
    return [secret, quote(secret, safe=""), *(form.decode().rstrip("=") for form in encoded)]


def _without(text: str, form: str) -> str:
    """`text` without `form` and without any WINDOW characters of it in a row, whatever their case."""
    if len(form) < WINDOW:
        return text.replace(form, MASK)
    pieces = {form[at : at + WINDOW].translate(LOWER) for at in range(len(form) - WINDOW + 1)}
    lower, hidden = text.translate(LOWER), [False] * len(text)
    for at in range(len(lower) - WINDOW + 1):
        if lower[at : at + WINDOW] in pieces:
            hidden[at : at + WINDOW] = [True] * WINDOW
    shown, masked = [], False
    for character, hide in zip(text, hidden, strict=True):
        if not hide:
            shown.append(character)
        elif not masked:
            shown.append(MASK)
        masked = hide
    return "".join(shown)


def _public(match: re.Match[str]) -> str:
    """A URL of a public host as it is; any other names what is inside somebody's network."""
    url = match.group()
    return url if PUBLIC_HOST.match(url) and not INTERNAL.search(url.partition("//")[2].partition("/")[0]) else MASK
