"""The parts of a path, as they are declared and documented."""

from typing import Annotated, Literal

from fastapi import Path

Tenant = Annotated[
    str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$", description="The tenant's slug or id, e.g. acme.")
]
SettingKey = Annotated[
    str, Path(max_length=128, description="The name that the key is stored under, e.g. MINIMAX_API_KEY.")
]
TokenId = Annotated[str, Path(pattern=r"^[0-9A-Za-z]{12}$", description="The id of a token: 12 characters.")]
AliasName = Annotated[str, Path(max_length=63, description="An alias for models, e.g. fast.")]
ProviderId = Annotated[str, Path(max_length=64, description="A provider, e.g. minimax.")]
RequestId = Annotated[str, Path(pattern=r"^req_[0-9a-f]{32}$", description="`x-wardgate-request-id` of the answer.")]
WebhookId = Annotated[str, Path(pattern=r"^wh_[0-9a-f]{12}$", description="The id of a webhook.")]
Spend = Annotated[
    Literal["managed", "byok"], Path(description="Whose keys are paid with: the operator's, or the tenant's own.")
]
LimitName = Annotated[
    Literal["requests_per_minute", "tokens_per_minute", "concurrency"], Path(description="What the limit bounds.")
]
Period = Annotated[Literal["day", "month"], Path(description="How long a budget lasts before it begins anew, UTC.")]
