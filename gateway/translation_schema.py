"""Which JSON schemas LiteLLM carries to a translated wire without dropping, rewriting or adding a keyword.

Pure rules over a schema; knows no request. A rule returns what is wrong (and what would help), or None.
"""

from collections.abc import Callable, Mapping

SchemaRule = Callable[[Mapping[str, object]], str | None]

_ROOT = frozenset({"type", "properties", "required", "additionalProperties", "$defs"})
_ANSWER = frozenset(
    """type title description default examples enum const format pattern properties required items additionalProperties
    anyOf allOf""".split()  # noqa: SIM905 - a list of words
)
_GEMINI = frozenset(
    """type title description default enum format pattern minLength maxLength minimum maximum minItems maxItems
    minProperties maxProperties properties required items nullable propertyOrdering""".split()  # noqa: SIM905
)
_GEMINI_FORMATS = ("date-time", "enum")
_SIMPLE = frozenset({"string", "number", "integer", "boolean", "object", "array", "null"})
_JSON_TYPES: Mapping[type, tuple[str, ...]] = {
    str: ("string",),
    bool: ("boolean",),
    int: ("integer", "number"),
    float: ("number",),
    type(None): ("null",),
}


def without_dialect(schema: Mapping[str, object]) -> Mapping[str, object]:
    """Without `$schema` at the root: it names the dialect, as zod's schemas do, and asks nothing. LiteLLM drops it."""
    return {key: value for key, value in schema.items() if key != "$schema" or not isinstance(value, str)}


def carried_whole(schema: Mapping[str, object]) -> str | None:
    """Every schema is carried as it is."""
    return None


def check_root(schema: Mapping[str, object]) -> str | None:
    """Anthropic's tools: an object whose root has no keyword but these; what is below is carried whole."""
    if schema and schema.get("type") != "object":
        return 'must have "type": "object" at its root; say so'
    if extra := schema.keys() - _ROOT:
        return f"has `{min(extra)}` at its root, which would be dropped; leave it out"
    if "properties" in schema and not isinstance(schema["properties"], dict):
        return "has `properties` that are no object; send an object"
    return None


def check_answer_schema(schema: object, where: str = "the schema") -> str | None:
    """Anthropic's structured answers: other keywords become invented descriptions, objects become closed."""
    if not isinstance(schema, dict):
        return f"has something that is no object in {where}; send an object"
    if extra := schema.keys() - _ANSWER - ({"$schema"} if where == "the schema" else set()):
        return f"has `{min(extra)}` in {where}, which would be rewritten; leave it out"
    kind = schema.get("type")
    if "object" in (kind if isinstance(kind, list) else [kind]) and schema.get("additionalProperties") is not False:
        return f'needs "additionalProperties": false in {where}, which would be added; say so'
    if not _enum_fits(schema):
        return f"has an `enum` in {where} that does not fit one `type`; name the one type of its values"
    return _below(schema, where, check_answer_schema)


def check_gemini_tool(schema: object, where: str = "its root") -> str | None:
    """Gemini's tools: OpenAPI's subset, written plainly, because LiteLLM rewrites the rest or drops it."""
    if not isinstance(schema, dict):
        return f"has something that is no object in {where}; send an object"
    root = where == "its root"
    if root and not schema:
        return None
    if "anyOf" in schema and schema.keys() == {"anyOf"} and not root:
        return _below(schema, where, check_gemini_tool)
    if isinstance(schema.get("type"), list):
        return _several_types(schema, where, root=root)
    if extra := schema.keys() - _GEMINI:
        return f"has `{min(extra)}` in {where}, which would be dropped or rewritten; leave it out"
    return _gemini_keywords(schema, where, root=root) or _below(schema, where, check_gemini_tool)


def _several_types(schema: Mapping[str, object], where: str, *, root: bool) -> str | None:
    kinds = schema["type"]
    named = (
        isinstance(kinds, list)
        and kinds
        and all(isinstance(kind, str) and kind in _SIMPLE - {"array"} for kind in kinds)
    )
    if named and not root and schema.keys() <= {"type", "description"}:
        return None
    return f"has several types in {where} beside other keywords, which would be dropped; use `anyOf`"


def _gemini_keywords(schema: Mapping[str, object], where: str, *, root: bool) -> str | None:
    kind = schema.get("type")
    if not isinstance(kind, str) or kind not in _SIMPLE or (root and kind != "object"):
        return f"needs one `type` in {where}{', which is object' if root else ''}; say so"
    if kind == "array" and not schema.get("items"):
        return f"needs `items` in {where}, or objects would be asked for; name their type"
    if ("properties" in schema) != (kind == "object") and "properties" in schema:
        return f"has `properties` in {where} but is no object; leave them out"
    if "items" in schema and kind != "array":
        return f"has `items` in {where} but is no array; leave them out"
    if "format" in schema and schema["format"] not in _GEMINI_FORMATS:
        return f"has a `format` in {where} that would be dropped; leave it out"
    values = schema.get("enum", ["-"])
    if not (isinstance(values, list) and all(isinstance(value, str) and value for value in values)):
        return f"has an `enum` in {where} with other values than texts; list texts"
    if "enum" in schema and kind != "string":
        return f"has an `enum` in {where} but is no string; leave it out"
    return None


def _enum_fits(schema: Mapping[str, object]) -> bool:
    """LiteLLM drops the type beside an enum whose values are of another."""
    values, kind = schema.get("enum"), schema.get("type")
    if values is None or kind is None:
        return True
    return isinstance(values, list) and all(kind in _JSON_TYPES.get(type(value), ()) for value in values)


def _below(schema: Mapping[str, object], where: str, rule: Callable[[object, str], str | None]) -> str | None:
    """The first thing wrong in the schemas inside."""
    inside: list[tuple[object, str]] = []
    properties = schema.get("properties", {})
    if not isinstance(properties, dict):
        return f"has `properties` in {where} that are no object; send an object"
    inside += [(held, f"`{name}`") for name, held in properties.items()]
    if "items" in schema:
        inside.append((schema["items"], f"the items of {where}"))
    for several in ("anyOf", "allOf"):
        branches = schema.get(several, [])
        if not isinstance(branches, list):
            return f"has `{several}` in {where} that is no list; send a list"
        inside += [(branch, f"`{several}` of {where}") for branch in branches]
    return next((wrong for held, place in inside if (wrong := rule(held, place)) is not None), None)
