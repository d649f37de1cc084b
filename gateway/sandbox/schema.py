"""A value that fits a JSON schema, filled by type: what the sandbox answers where a model would think.

Covers simple schemas: objects, arrays, texts, numbers, enums, constants, local references, the first of alternatives.
Types may be written in upper case, as Gemini does. Nothing is random.
"""

from collections.abc import Mapping
from typing import Any

DEEPEST = 8  # a schema that refers to itself ends here
TEXTS = {
    "date": "2026-01-02",
    "date-time": "2026-01-02T03:04:05Z",
    "email": "someone@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def fill(schema: Mapping[str, Any]) -> Any:
    """A value of the schema; None where the schema says nothing that can be read."""
    return _fill(schema, schema, 0)


def _fill(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> Any:
    if depth > DEEPEST:
        return None
    if "$ref" in schema:
        return _fill(_referred(str(schema["$ref"]), root), root, depth + 1)
    for fixed in ("const", "default"):
        if fixed in schema:
            return schema[fixed]
    if schema.get("enum"):
        return schema["enum"][0]
    for alternatives in ("anyOf", "oneOf", "allOf"):
        if schema.get(alternatives):
            return _fill(schema[alternatives][0], root, depth + 1)
    return _of_type(_type(schema), schema, root, depth)


def _of_type(kind: str, schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> Any:
    match kind:
        case "object":
            return {name: _fill(part, root, depth + 1) for name, part in schema.get("properties", {}).items()}
        case "array":
            count = max(int(schema.get("minItems", 1)), 1) if depth < DEEPEST else 0
            return [_fill(schema.get("items", {"type": "string"}), root, depth + 1) for _ in range(count)]
        case "string":
            text = TEXTS.get(str(schema.get("format")), "text")
            return text.ljust(int(schema.get("minLength", 0)), "x")[: int(schema.get("maxLength", len(text) + 999))]
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case _:
            return None


def _type(schema: Mapping[str, Any]) -> str:
    named = schema.get("type", "object" if "properties" in schema else "null")
    kinds = [named] if isinstance(named, str) else [kind for kind in named if kind != "null"]
    return str(kinds[0]).lower() if kinds else "null"


def _referred(pointer: str, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of the root that a local reference (`#/$defs/City`) names; an empty schema when there is none."""
    place: Any = root
    for step in pointer.removeprefix("#").strip("/").split("/"):
        if step:
            place = place.get(step, {}) if isinstance(place, Mapping) else {}
    return place if isinstance(place, Mapping) else {}
