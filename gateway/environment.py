"""Takes provider credentials out of the process's environment.

LiteLLM reads them when a key is missing and would spend the operator's money for a tenant (LIBRARIES.md 1.8). Wardgate
never passes an empty key; with nothing in the environment there is nothing to fall back to either.
"""

import re
from collections.abc import Iterable, MutableMapping

PROVIDER_VARIABLE = re.compile(
    r"(?!WARDGATE_)(?:.*_API_KEY|.*_API_BASE|.*_BASE_URL|AWS_.*|AZURE_.*|GOOGLE_APPLICATION_CREDENTIALS|VERTEX.*"
    r"|HF_TOKEN|HUGGINGFACE_TOKEN|ANTHROPIC_.*|OPENAI_.*|LITELLM_.*|DATABRICKS_.*|WATSONX_.*|REPLICATE_.*)\Z"
)


def scrub_environment(environ: MutableMapping[str, str], family_names: Iterable[str] = ()) -> list[str]:
    """Remove every provider variable and the given key-family names; returns the names that were removed."""
    wanted = set(family_names)
    found = sorted(name for name in environ if name in wanted or PROVIDER_VARIABLE.match(name))
    for name in found:
        del environ[name]
    return found
