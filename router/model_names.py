"""Names of models: the one parser of families and dated versions, and the sets of models that a plan lists.

A name is what a provider calls a model ("MiniMax-M2", "openai/gpt-oss-120b"); the part before a provider's own slash is
not in it. Names compare without case. Rules are the rows of tests/vectors/model_names.toml. Must not know the
catalogue, prices or plans.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from keystore.providers import Provider, Registry

# A version is a release of the family it follows, written as one last part of the name. What looks alike and is not:
# "-mini" and "-preview" are other models, "-32b" and "-128k" are sizes, "-4-0" is a model number.
_VERSION: Final = re.compile(
    r"""(?<=[^/])[-@](
      (?: 20\d\d-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])    # gpt-4o-2024-08-06
        | 20\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])      # claude-3-5-sonnet-20241022
        | 2[3-9](?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])      # doubao-seed-2-0-lite-260428
        | 2[3-9](?:0[1-9]|1[0-2])                             # mistral-large-2512: year and month
        | (?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])            # gpt-4-0613: month and day
      )(?: [-@]00\d | -v\d:\d )?                              # mistral-small-2503@001, Bedrock's -20250929-v1:0
      | (?:0[1-9]|1[0-2])-20\d\d                              # command-a-03-2025
      | (?:(?<=-preview-)|(?<=-exp-))(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])  # gemini-2.5-pro-preview-05-06
      | 00\d                                                  # gemini-1.5-pro-002
      | v\d:\d                                                # amazon.nova-lite-v1:0
      | latest
    )\Z""",
    re.VERBOSE,
)
# One model has several spellings; a name is read as the one that its maker writes.
_DOT: Final = re.compile(
    r"""p(?<=\dp)(?=\d)                             # glm-4p6 is glm-4.6 where names may hold no dots (Fireworks)
      | -(?<=\d-)(?<![\d.]\d-)(?=\d(?![\da-z.]))    # claude-sonnet-4-5 is claude-sonnet-4.5, not ministral-3-3b
    """,
    re.VERBOSE,
)
_REGION_AND_MAKER: Final = re.compile(  # us.anthropic.claude-..., as Bedrock writes
    r"(?:(?:us|eu|apac|au|jp|ca|global|us-gov)\.)?(?:ai21|amazon|anthropic|cohere|deepseek|google|meta|minimax|mistral"
    r"|moonshot|moonshotai|nvidia|openai|qwen|writer|xai|zai)\.(?=[a-z])"
)
_HOSTED: Final = "-maas"  # as Vertex writes the models of others
_MAKERS: Final[tuple[tuple[str, str], ...]] = (
    ("meta-llama-", "llama-"),
    ("llama-v", "llama-"),
    ("code-llama", "codellama"),
    ("qwen-2", "qwen2"),
    ("qwen-3", "qwen3"),
)
_MADE: Final = tuple(written for written, _ in _MAKERS)
EVERYTHING: Final = "*"
_ODD: Final = re.compile(r"[\s\x00-\x1f\x7f]")
MAX_NAME: Final = 200  # characters; the longest name of the bundled map has 98


@dataclass(frozen=True, slots=True)
class ModelName:
    """One name, read. All parts are lower-case and in one spelling."""

    path: str  # the whole name: "openai/gpt-oss-120b"
    base: str  # its last part: "gpt-oss-120b"
    family: str  # base without its version
    family_path: str  # path without its version
    version: str | None  # "2024-08-06", "latest", or None

    @property
    def exact(self) -> frozenset[str]:
        """What one writes to mean this very model."""
        return frozenset((self.path, self.base))

    @property
    def all(self) -> frozenset[str]:
        """What one writes to mean this model or its family."""
        return frozenset((self.path, self.base, self.family, self.family_path))

    def in_family(self, family: str) -> "ModelName":
        """This name as a member of another family (a path in its maker's spelling)."""
        return replace(self, family=family.rpartition("/")[2], family_path=family)


def parse_name(text: str) -> ModelName:
    """Read a model's name, without a provider's prefix. Every text is a name; most have no version."""
    path = _spelled(text)
    found = _VERSION.search(path)
    family_path = path[: found.start()] if found else path
    return ModelName(
        path=path,
        base=path.rpartition("/")[2],
        family=family_path.rpartition("/")[2],
        family_path=family_path,
        version=found.group(1) if found else None,
    )


def _spelled(text: str) -> str:
    """The name in its maker's spelling, lower-case."""
    path = _DOT.sub(".", text.lower()).removesuffix(_HOSTED)
    head, slash, base = path.rpartition("/")
    found = _REGION_AND_MAKER.match(base)
    base = base[found.end() :] if found else base
    if base.startswith(_MADE):
        for written, meant in _MAKERS:
            if base.startswith(written):
                base = meant + base[len(written) :]
    return head + slash + base


def is_model_name(text: str) -> bool:
    """Whether a provider could have a model of this name: not empty, not endless, no white space or controls."""
    return 0 < len(text) <= MAX_NAME and not _ODD.search(text)


def split_provider(text: str, registry: Registry) -> tuple[Provider, str] | None:
    """The provider whose id, former id or catalogue id stands before the first slash, and the rest; None when what
    stands there is no provider's name."""
    prefix, slash, rest = text.partition("/")
    if not slash or not rest:
        return None
    name = prefix.lower()
    provider = registry.successor(name) or registry.by_catalogue_id(name)
    return (provider, rest) if provider else None


# --- lists of models ------------------------------------------------------------------------------------------------


def pattern_fault(pattern: str) -> str | None:
    """What is wrong with an entry of a model list, or None. `*` is everything, `provider/*` a provider's all, any
    other entry a family, with or without its provider."""
    if not pattern or pattern != pattern.strip():
        return "is empty or has white space around it"
    prefix, _, rest = pattern.rpartition("/")
    if EVERYTHING in prefix or "//" in pattern or pattern.startswith("/") or not rest:
        return 'is not of the form "*", "provider/*", "family" or "provider/family"'
    if EVERYTHING in rest and (rest != EVERYTHING or "/" in prefix):
        return 'has a "*" that neither stands alone nor is all that follows the provider'
    return None


@dataclass(frozen=True, slots=True)
class ModelSet:
    """A compiled list of models: asking costs a few look-ups, whatever the length of the list."""

    everything: bool
    providers: frozenset[str]  # of whom all
    names: frozenset[str]  # of whichever provider
    qualified: frozenset[tuple[str, str]]  # provider id, name

    def holds(self, provider_id: str, name: ModelName) -> bool:
        """Whether the list has this model: by its own name or its family's, never by a part of its name."""
        if self.everything or provider_id in self.providers:
            return True
        words = name.all
        return not self.names.isdisjoint(words) or any((provider_id, word) in self.qualified for word in words)


def compile_models(patterns: Iterable[str], registry: Registry) -> ModelSet:
    """The set that a list of entries means. An entry with a provider's name before its slash is of that provider
    alone; any other slash is part of the model's own name ("meta-llama/Llama-3.3-70B-Instruct")."""
    providers: set[str] = set()
    names: set[str] = set()
    qualified: set[tuple[str, str]] = set()
    for pattern in patterns:
        match split_provider(pattern, registry):
            case (provider, "*"):
                providers.add(provider.id)
            case (provider, rest):
                qualified.add((provider.id, parse_name(rest).path))
            case _:
                names.add(parse_name(pattern).path)
    return ModelSet(EVERYTHING in names, frozenset(providers), frozenset(names - {EVERYTHING}), frozenset(qualified))
