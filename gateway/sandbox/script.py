"""The script: behaviours that wait for the requests they are meant for, first come first served.

Owned by one sandbox; filled over `POST /_sandbox/script` or by SandboxServer.script, from any thread.
"""

import difflib
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gateway.sandbox.behaviours import Behaviour, BehaviourError, from_json


@dataclass(frozen=True, slots=True)
class Caller:
    """What a script can tell requests apart by."""

    wire: str
    model: str
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Match:
    """Which requests a scene is for: each field that is set must be equal."""

    wire: str | None = None
    model: str | None = None
    key: str | None = field(default=None, repr=False)

    def covers(self, caller: Caller) -> bool:
        """Whether the scene is for this request."""
        wanted = ((self.wire, caller.wire), (self.model, caller.model), (self.key, caller.key))
        return all(want is None or want == got for want, got in wanted)


@dataclass(slots=True)
class Scene:
    """Behaviours for matching requests, one each; a repeating scene begins again at its end."""

    match: Match
    waiting: deque[Behaviour]
    repeat: bool

    def take(self) -> Behaviour:
        behaviour = self.waiting.popleft()
        if self.repeat:
            self.waiting.append(behaviour)
        return behaviour


class Script:
    """Scenes in the order in which they were added; the first that covers a request gives its next behaviour."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._scenes: list[Scene] = []

    def add(self, behaviours: Sequence[Behaviour], match: Match, *, repeat: bool = False) -> None:
        """Queue the behaviours for the requests that `match` covers."""
        if not behaviours:
            raise BehaviourError("a script needs at least one behaviour")
        with self._lock:
            self._scenes.append(Scene(match, deque(behaviours), repeat))

    def next_for(self, caller: Caller) -> Behaviour | None:
        """The behaviour for this request, taken from the queue; None when nothing waits for it."""
        with self._lock:
            for scene in self._scenes:
                if scene.match.covers(caller):
                    behaviour = scene.take()
                    if not scene.waiting:
                        self._scenes.remove(scene)
                    return behaviour
        return None

    def clear(self) -> None:
        """Forget all scenes."""
        with self._lock:
            self._scenes.clear()


def add_from_json(script: Script, body: object) -> int:
    """Add the scene of one `POST /_sandbox/script`; returns how many behaviours it holds."""
    fields = _known(body, {"behaviours", "match", "repeat"}, "script")
    orders, repeat = fields.get("behaviours"), fields.get("repeat", False)
    if not isinstance(orders, list) or not isinstance(repeat, bool):
        raise BehaviourError("a script is {'behaviours': [...], 'match': {...}, 'repeat': true or false}")
    script.add([from_json(order) for order in orders], match_from_json(fields.get("match", {})), repeat=repeat)
    return len(orders)


def match_from_json(fields: object) -> Match:
    """The match of a scene: an object with `wire`, `model`, `key`, or some of them."""
    known = _known(fields, {"wire", "model", "key"}, "script's match")
    if any(not isinstance(value, str) for value in known.values()):
        raise BehaviourError("the fields of a script's match are texts")
    return Match(**{name: str(value) for name, value in known.items()})


def _known(value: object, names: set[str], what: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise BehaviourError(f"a {what} is a JSON object")
    for name in value.keys() - names:
        near = difflib.get_close_matches(str(name), names, 1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(sorted(names))}"
        raise BehaviourError(f"a {what} has no field '{name}': {hint}")
    return value
