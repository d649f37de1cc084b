"""Models that search the web in every call, asked to or not: their provider takes a fee for it beside the tokens.

Owns the names. The price map has what one search costs and not which models always search, nor how often. A name that
is taken for such wrongly is refused where it might cost more than is held; one that is missing costs the operator. Must
not know prices or whose key it is.
"""

import re
from fnmatch import translate
from functools import lru_cache
from typing import Final

from router.model_names import ModelName

# The last part of a name, lower-case, whoever serves it.
ALWAYS: Final = (
    "*-search-preview",  # openai: gpt-4o-search-preview, gpt-4o-mini-search-preview
    "*-search-api",  # openai: gpt-5-search-api
    "*-search",  # perplexity: preset/pro-search
    "sonar",  # perplexity, and whoever resells it
    "sonar-*",
    "*-online",  # perplexity, formerly
    "*deep-research*",  # google, openai, perplexity: many searches to an answer
    "compound",  # groq: it decides itself which tools it runs
    "compound-*",
)
_ALWAYS: Final = re.compile("|".join(translate(each) for each in ALWAYS))


@lru_cache(maxsize=8192)
def searches_unasked(name: ModelName) -> bool:
    """Whether the model of this name searches in every call."""
    return any(_ALWAYS.fullmatch(each) is not None for each in {name.base, name.family})
