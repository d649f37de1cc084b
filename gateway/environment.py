"""The process itself: no provider credentials in its environment, its memory out of others' reach, its own limits.

LiteLLM reads them when a key is missing and would spend the operator's money for a tenant (LIBRARIES.md 1.8). Wardgate
never passes an empty key; with nothing in the environment there is nothing to fall back to either.
"""

import contextlib
import ctypes
import gc
import re
import sys
from collections.abc import Iterable, Iterator, MutableMapping
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


def allow_files() -> None:
    """As many open files as the system allows: each connection is one, and the usual 1,024 are few."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


COLLECT_AFTER: Final = 20_000  # new objects: a request makes some hundreds, and nearly all go by themselves


def put_off_garbage_collection() -> None:
    """No collection until `spare_garbage_collection`: what a start makes, it keeps, and each full collection would look
    through all of it again. What was imported up to now no collection looks through at all."""
    gc.disable()
    gc.freeze()


@contextlib.contextmanager
def kept_for_good() -> Iterator[None]:
    """What is made inside stays to the end: no collection looks through it, meanwhile or later. Each would stop all
    requests for half a second once LiteLLM is there."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collects:
            gc.enable()


def spare_garbage_collection() -> None:
    """What the process holds now it holds to its end: no later collection, nor the one at the exit, looks through it.

    LiteLLM's import leaves so much that each full collection would stop all requests, and the exit would take seconds.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 20)
    gc.enable()


SWITCH_S: Final = 0.0005  # Python's own 5 ms would be a stop of all requests whenever a helper thread works


def share_fairly() -> None:
    """Let a helper thread (large bodies, SQLite) hold the interpreter for half a millisecond at a time."""
    sys.setswitchinterval(SWITCH_S)
