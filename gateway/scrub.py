"""Takes secrets out of text that came from elsewhere, before it reaches a caller or a log."""

import re

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


def scrub(text: str, *secrets: str) -> str:
    """`text` without the given values, without anything that looks like a key, and at most LONGEST characters long."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, MASK)
    text = KEY_SHAPES.sub(MASK, text)
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."
