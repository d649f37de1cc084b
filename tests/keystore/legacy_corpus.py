"""A tenant_settings table with everything that such tables were seen to hold: 25 classes of rows (RELIABILITY 4.6).

`corpus(count)` gives rows in a fixed order for a seed; each secret's value has a canary in it, so that a search of the
disk is exact. Rows of `SQLITE_ONLY` classes cannot exist on PostgreSQL.
"""

import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

CANARY = "Cn4rY.C4nary"  # the dot: no envelope has it there by chance
SQLITE_ONLY = frozenset({"damaged bytes", "nul byte", "blob"})


@dataclass(frozen=True)
class Row:
    """One row and the class that made it. `value` is text, bytes (stored as a text of these bytes) or None."""

    kind: str
    tenant_id: str
    name: str | None
    value: Any
    created_at: str | None
    updated_at: str | None


@dataclass
class Corpus:
    """The tenants that are known here (slug -> id), and the rows."""

    tenants: dict[str, str]
    rows: list[Row]

    def of(self, kind: str) -> list[Row]:
        return [row for row in self.rows if row.kind == kind]


T1, T2, FUTURE = "2026-01-01 10:00:00", "2026-03-01 10:00:00", "2031-01-01 00:00:00"


class _Maker:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def key(self, prefix: str = "sk-") -> str:
        letters = "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
        return prefix + CANARY + "".join(self.random.choices(letters, k=32))


def corpus(count: int, *, seed: int = 1, per_tenant: int = 40, sqlite: bool = True) -> Corpus:
    """About `count` rows (never more), every class in turn, over as many tenants as that takes."""
    maker = _Maker(seed)
    tenants: dict[str, str] = {}
    rows: list[Row] = []
    while len(rows) < count:
        tenant_id = str(uuid.UUID(int=maker.random.getrandbits(128), version=4))
        slug = f"tenant-{len(tenants)}"
        tenants[slug] = tenant_id
        made = [row for row in _of_tenant(maker, tenant_id, slug, per_tenant) if sqlite or row.kind not in SQLITE_ONLY]
        rows += made[: count - len(rows)]
    maker.random.shuffle(rows)
    return Corpus(tenants, rows)


def _of_tenant(maker: _Maker, tenant: str, slug: str, at_least: int) -> Iterator[Row]:
    """All classes once for one tenant, then plain settings until there are `at_least` rows."""
    key = maker.key

    def row(kind: str, name: str | None, value: Any, *, of: str = tenant, at: str | None = T1) -> Row:
        return Row(kind, of, name, value, at, at)

    made = [
        row("plain key", "OPENAI_API_KEY", key()),
        row("setting", "timezone", "Europe/Berlin"),
        row("former name", "MINIMAX_2_7_API_KEY", key()),
        row("canonical beside former", "MINIMAX_API_KEY", "<same_value_as_MINIMAX_2_7_API_KEY>"),
        row("older duplicate", "GROQ_API_KEY", key("gsk_"), at=T1),
        row("newer duplicate", "GROQ_API_KEY", key("gsk_"), at=T2),
        row("equal times", "XAI_API_KEY", key("xai-")),
        row("equal times", "XAI_API_KEY", key("xai-")),
        row("newline only", "MISTRAL_API_KEY", same := key()),
        row("newline only", "MISTRAL_API_KEY", same + "\n", at=T2),
        row("null", "COHERE_API_KEY", None),
        row("empty", "TOGETHER_API_KEY", ""),
        row("blank", "FIREWORKS_API_KEY", "  \t "),
        row("masked", "PERPLEXITY_API_KEY", "sk-****1234"),
        row("reference", "DEEPINFRA_API_KEY", "os.environ/DEEPINFRA"),
        row("encrypted", "REPLICATE_API_TOKEN", "gAAAAABm" + key("")),
        row("oversized", "HUGE_SECRET", key() + "x" * (17_000 if maker.random.random() > 0.02 else 1_000_000)),
        row("control characters", "SLACK_TOKEN", key("xoxb-") + "\x07"),
        row("nul byte", "SMTP_SECRET", key() + "\0tail"),
        row("damaged bytes", "STRIPE_SECRET", key("sk_live_").encode() + b"\xff\xfe"),
        row("blob", "S3_ACCESS_KEY_ID", key().encode()),
        row("case variant", "openai_api_key", key()),
        row("upper uuid", "DEEPSEEK_API_KEY", key(), of=tenant.upper()),
        row("bare uuid", "ANTHROPIC_API_KEY", key(), of=tenant.replace("-", "")),
        row("spelled by slug", "GOOGLE_API_KEY", key(), of=slug),
        row("space in name", " OPENAI_API_KEY ", key()),
        row("null times", "DEEPSEEK_API_KEY", key(), at=None),
        row("future", "GOOGLE_API_KEY", key(), at=FUTURE),
        row("confusable", "ОPENAI_API_KEY", key()),
        row("removed provider", "ACME_LLM_API_KEY", key()),
        row("shared variable", "GOOGLE_FLASH_API_KEY", key("AIza")),
        row("secret by value", "integration", key("ghp_")),
        row("null name", None, key(), at=T1),
        row("unknown tenant", "OPENAI_API_KEY", key(), of=f"gone-{slug}"),
        row("plain number under a secret's name", "MAX_TOKEN", "4096"),
    ]
    yield from made
    for number in range(at_least - len(made)):
        yield row("setting", f"feature_{number}", str(maker.random.random() > 0.5).lower())
