"""How long a model is to think, from Anthropic's fields to chat's `reasoning_effort`.

Pure. Owns the table from budgets to efforts, which is docs/translation.md's the other way round.
"""

from typing import Final

from gateway.surfaces.messages_fields import Json, Lacks, Object, an_object, only, text, whole

# Tokens from which a budget is this effort; less than the last is `low`.
EFFORT_FROM: Final = ((4096, "high"), (2048, "medium"))
DISPLAYS: Final = (None, "summarized", "omitted")


def chat_reasoning(body: Object, lacks: Lacks) -> Json:
    """`reasoning_effort`, or nothing where the model decides by itself."""
    config, thinking = body.get("output_config"), body.get("thinking")
    effort = config.get("effort") if isinstance(config, dict) else None
    asked = {} if effort is None else {"reasoning_effort": text(effort, "output_config.effort")}
    if thinking is None:
        return dict(asked)
    held = an_object(thinking, "thinking")
    kind = text(held.get("type"), "thinking.type")
    only(held, "thinking", ("type", "budget_tokens", "display"), lacks)
    if held.get("display") not in DISPLAYS:
        lacks.add("thinking.display", "is a way of showing thoughts that only Anthropic has")
    if kind == "enabled":
        return _enabled(held, dict(asked), lacks)
    if kind == "disabled":
        if asked:
            lacks.add("output_config.effort", "beside thinking that is disabled has no place in chat completions")
        return {"reasoning_effort": "none"}
    if kind != "adaptive":
        lacks.add("thinking.type", "is a way of thinking that only Anthropic has")
    return dict(asked)


def hides_thoughts(body: Object) -> bool:
    """Whether the caller asked not to be shown what the model thought."""
    thinking = body.get("thinking")
    return isinstance(thinking, dict) and thinking.get("display") == "omitted"


def _enabled(held: Object, asked: Json, lacks: Lacks) -> Json:
    budget = whole(held.get("budget_tokens"), "thinking.budget_tokens")
    if asked:
        lacks.add("thinking.budget_tokens", "and `output_config.effort` are one field in chat completions", "send one")
        return asked
    return {"reasoning_effort": next((effort for least, effort in EFFORT_FROM if budget >= least), "low")}
