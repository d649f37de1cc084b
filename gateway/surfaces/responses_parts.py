"""The parts of a message: from the Responses API's `input_text`, `input_image`... to chat's `text`, `image_url`...

Pure. Owns which part may stand in a message of which role.
"""

from collections.abc import Callable, Mapping

from gateway.surfaces.responses_lacking import LEAVE_OUT, Lacking, Object, malformed, object_of, text_of

Part = dict[str, object]
Reader = Callable[[Object, str, Lacking], Part | None]

_BREAKPOINT = "prompt_cache_breakpoint"  # of the same name and shape in both APIs
_DETAILS = ("low", "high", "auto")


def content(held: object, role: str, where: str, lacking: Lacking) -> object:
    """A message's content as chat has it: a text, or the parts that are carried. One plain part of text is a text."""
    if isinstance(held, str):
        return held
    if not isinstance(held, list):
        raise malformed(where, "a string or a list of parts")
    parts: list[Part] = []
    for index, part in enumerate(held):
        carried = _part(object_of(part, f"{where}[{index}]"), role, f"{where}[{index}]", lacking)
        if carried is not None:
            parts.append(carried)
    if not parts:
        return ""
    return parts[0]["text"] if len(parts) == 1 and parts[0].keys() == {"type", "text"} else parts


def _part(part: Object, role: str, where: str, lacking: Lacking) -> Part | None:
    kind = text_of(part.get("type"), f"{where}.type")
    reader = _READERS[role].get(kind)
    if reader is None:
        lacking.add(f"{where}.type", f"is {kind[:64]}, which has no place in a chat message of the role {role}")
        return None
    carried = reader(part, where, lacking)
    if carried is not None and part.get(_BREAKPOINT) is not None:
        carried[_BREAKPOINT] = part[_BREAKPOINT]
    return carried


def _text(part: Object, where: str, lacking: Lacking) -> Part:
    """`annotations` and `logprobs` are notes on an earlier answer, and no part of what was said: without effect."""
    lacking.add_unknown(part, frozenset({"type", "text", "annotations", "logprobs", _BREAKPOINT}), f"{where}.")
    return {"type": "text", "text": text_of(part.get("text"), f"{where}.text")}


def _refusal(part: Object, where: str, lacking: Lacking) -> Part:
    lacking.add_unknown(part, frozenset({"type", "refusal"}), f"{where}.")
    return {"type": "refusal", "refusal": text_of(part.get("refusal"), f"{where}.refusal")}


def _image(part: Object, where: str, lacking: Lacking) -> Part | None:
    lacking.add_unknown(part, frozenset({"type", "image_url", "detail", "file_id", _BREAKPOINT}), f"{where}.")
    if part.get("file_id") is not None:
        lacking.add(f"{where}.file_id", "names an uploaded file, and a chat image is a URL", _send("image_url"))
        return None
    image: Part = {"url": text_of(part.get("image_url"), f"{where}.image_url")}
    if part.get("detail") in _DETAILS:
        image["detail"] = part["detail"]
    elif part.get("detail") is not None:
        lacking.add(f"{where}.detail", "is not low, high or auto, which are chat's", "use one of them")
    return {"type": "image_url", "image_url": image}


def _file(part: Object, where: str, lacking: Lacking) -> Part | None:
    known = frozenset({"type", "file_data", "file_id", "filename", "file_url", "detail", _BREAKPOINT})
    lacking.add_unknown(part, known, f"{where}.")
    if part.get("file_url") is not None:
        lacking.add(f"{where}.file_url", "is a URL, and a chat file is not fetched", _send("file_data"))
        return None
    if part.get("detail") not in (None, "auto"):
        lacking.add(f"{where}.detail", "has no place in a chat file")
    names = ("file_data", "file_id", "filename")
    return {"type": "file", "file": {name: part[name] for name in names if part.get(name) is not None}}


def _audio(part: Object, where: str, lacking: Lacking) -> Part:
    lacking.add_unknown(part, frozenset({"type", "input_audio"}), f"{where}.")
    return {"type": "input_audio", "input_audio": object_of(part.get("input_audio"), f"{where}.input_audio")}


def _as_it_is(part: Object, where: str, lacking: Lacking) -> Part:
    """A part in chat's own shape, which stands in bodies of mixed shape."""
    return dict(part)


def _send(field: str) -> str:
    return f"send it as a data: URL in `{field}`, or {LEAVE_OUT}"


_TEXTS: Mapping[str, Reader] = {"input_text": _text, "output_text": _text, "text": _text}
_READERS: Mapping[str, Mapping[str, Reader]] = {
    "system": _TEXTS,
    "developer": _TEXTS,
    "tool": _TEXTS,
    "assistant": {**_TEXTS, "refusal": _refusal},
    "user": {
        **_TEXTS,
        "input_image": _image,
        "input_file": _file,
        "input_audio": _audio,
        "image_url": _as_it_is,
        "file": _as_it_is,
    },
}
