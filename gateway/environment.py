"""The process itself: no provider credentials in its environment, its memory out of others' reach, its own limits.

LiteLLM reads them when a key is missing and would spend the operator's money for a tenant (LIBRARIES.md 1.8). Wardgate
never passes an empty key; with nothing in the environment there is nothing to fall back to either.
"""

import contextlib
import ctypes
import re
import sys
from collections.abc import Iterable, MutableMapping
from typing import Final

from keystore.providers import Registry
from keystore.resolve import names_for

PR_SET_DUMPABLE = 4  # linux/prctl.h
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


def family_names(registry: Registry) -> frozenset[str]:
    """Every name under which a key of some row is looked for, former and sibling names included."""
    names = {name for provider in registry.providers for name, _ in names_for(provider, registry)}
    return frozenset(name for name in names if not name.startswith("WARDGATE_"))


def forbid_dumps() -> None:
    """Keep keys in memory from core files and, on Linux, from other processes of the same user (ptrace, /proc)."""
    with contextlib.suppress(ImportError, OSError, ValueError):  # not everywhere, and not worth a failed start
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


SWITCH_S: Final = 0.0005  # Python's own 5 ms would be a stop of all requests whenever a helper thread works


def share_fairly() -> None:
    """Let a helper thread (large bodies, SQLite) hold the interpreter for half a millisecond at a time."""
    sys.setswitchinterval(SWITCH_S)
