"""The paths of the data plane, which endpoint each leads to, and what is said of a path that leads nowhere.

Plain ASGI and a table: a web framework is imported for the control plane alone. No path is answered with a redirect: an
SDK would follow it. Must not know what an endpoint does.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from gateway.asgi import App, Receive, Scope, Send, send_body
from gateway.errors import Problem
from gateway.tally import KEY, Tally
from gateway.wording import ANTHROPIC, OPENAI, RESPONSES, Wording
from router.reasons import Fault

CONTROL: Final = frozenset({"admin", "keys", "aliases"})  # the first words of the control plane's paths
SECRETIVE: Final = frozenset({"admin", "keys"})  # parts of a path that may hold a key
_WORDINGS: Final = {"messages": ANTHROPIC, "responses": RESPONSES}
_PART: Final = re.compile(r"\{(\w+)(:path)?\}")


@dataclass(frozen=True, slots=True)
class Place:
    """One path with its method and its endpoint. `{name}` stands for one part of the path, `{name:path}` for the rest
    of it; the endpoint finds them in `scope["path_params"]`."""

    path: str
    method: str
    endpoint: App
    pattern: re.Pattern[str] | None = field(init=False)  # None: the path has no such parts

    def __post_init__(self) -> None:
        text = _PART.sub(lambda part: f"(?P<{part[1]}>{'.*' if part[2] else '[^/]+'})", self.path)
        object.__setattr__(self, "pattern", None if text == self.path else re.compile(text))

    @property
    def methods(self) -> tuple[str, ...]:
        """Those that are answered: with GET also HEAD."""
        return ("GET", "HEAD") if self.method == "GET" else (self.method,)


class Paths:
    """Hands a request to its endpoint; what begins as the control plane's paths do, to `control`."""

    def __init__(self, places: Sequence[Place], control: App) -> None:
        self.places = tuple(places)
        self._control = control
        self._endpoints = {(way, place.path): place.endpoint for place in places for way in place.methods}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._endpoints.get((scope["method"], scope["path"]))
        await (endpoint or self._other)(scope, receive, send)

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if first_word(path) in CONTROL:
            await self._control(scope, receive, send)
            return
        for place in self.places:
            found = place.pattern.fullmatch(path) if place.pattern else None
            if place.path != path and found is None:
                continue
            if scope["method"] in place.methods:
                inner = {**scope, "path_params": found.groupdict() if found else {}}
                await place.endpoint(inner, receive, send)
            else:
                await _refuse(scope, send, 405, {"allow": ", ".join(place.methods)})
            return
        await _refuse(scope, send, 404, {})


def first_word(path: str) -> str:
    """The first part of a path, behind `/v1` where it begins so."""
    return path.strip("/").removeprefix("v1/").split("/")[0]


def wording_of(path: str) -> Wording:
    """The wire that errors under this path are told in."""
    return _WORDINGS.get(first_word(path), OPENAI)


def path_refused(scope: Scope, status: int, headers: dict[str, str], detail: str = "") -> tuple[bytes, dict[str, str]]:
    """The body and the headers of an answer about the path itself, noted in the tally."""
    method, path = scope["method"], _shown(scope["path"])
    known = {
        404: (
            "unknown_path",
            f"There is nothing at {method} {path}. Chat completions are at POST /v1/chat/completions.",
        ),
        405: ("method_not_allowed", f"{path[:1].upper()}{path[1:]} does not take {method}; see the `allow` header."),
    }
    code, message = known.get(status, ("invalid_request", detail))
    problem = Problem(status, code, message, Fault.CALLER, headers=headers)
    tally: Tally = scope[KEY]
    tally.note(problem)
    wording, told = wording_of(scope["path"]), problem.response_headers()
    if wording.id_header is not None:
        told[wording.id_header] = tally.client_request_id or tally.request_id
    return wording.body(problem, tally.request_id), told


async def _refuse(scope: Scope, send: Send, status: int, headers: dict[str, str]) -> None:
    body, told = path_refused(scope, status, headers)
    await send_body(send, status, body, headers=told, head=scope["method"] == "HEAD")


def _shown(path: str) -> str:
    """The path for a message; one that was meant for the control plane may hold a key, and is not repeated."""
    return "this path" if SECRETIVE & set(path.casefold().split("/")) else path[:200]
