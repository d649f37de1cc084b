"""The sandbox as an ASGI application, with its control paths below `/_sandbox/`.

Owns one sandbox's state (journal and script); two applications share nothing.

- `GET /_sandbox/requests`: what arrived, as a list; `DELETE` forgets it.
- `POST /_sandbox/script` `{"behaviours": ["status=429", ...], "match": {"model": ...}, "repeat": false}`: one behaviour
  for each matching request, in order; `DELETE` forgets it.
"""

import functools
import time
from collections.abc import Callable, Collection, Sequence

import orjson

from gateway.sandbox.behaviours import NORMAL, BehaviourError
from gateway.sandbox.exchange import ClientLeftError, Connections, Exchange, Receive, Scope, Send, SeveredError
from gateway.sandbox.journal import Journal
from gateway.sandbox.keys import KeyCheck
from gateway.sandbox.performance import Performance, Reply, json_reply
from gateway.sandbox.script import Script, add_from_json
from gateway.sandbox.turn import House, Turn
from gateway.sandbox.visit import Visit

CONTROL = "/_sandbox/"
HOLD_S = 120.0  # the longest that a silent connection is kept
MODELS = ("sandbox-small", "sandbox-large", "sandbox-embedding")


class Sandbox:
    """The application. `keys` None accepts whatever begins with `sk-sandbox-`; `gap_s` is the time between tokens."""

    def __init__(
        self,
        *,
        keys: Collection[str] | None = None,
        gap_s: float = 0.0,
        hold_s: float = HOLD_S,
        models: Sequence[str] = MODELS,
        connections: Connections | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.journal = Journal()
        self.script = Script()
        self._connections: Connections = {} if connections is None else connections
        self._house = House(KeyCheck.of(keys), gap_s, hold_s, tuple(models), clock, self.script)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        exchange = Exchange(scope, receive, send, self._connections)
        try:
            if scope["path"].startswith(CONTROL):
                await self._control(exchange, scope["method"], scope["path"].removeprefix(CONTROL))
            else:
                await self._serve(exchange, Visit.of(scope))
        except (ClientLeftError, SeveredError):
            pass  # there is no one to answer
        finally:
            await exchange.close()

    async def _serve(self, exchange: Exchange, visit: Visit) -> None:
        number, began, left = self.journal.open(visit.arrived), time.monotonic(), False
        note = functools.partial(self.journal.update, number)
        try:
            await Turn(self._house, exchange, visit, number, note).take()
        except ClientLeftError:
            left = True
            raise
        finally:
            note(client_left=left, finished=True, duration_s=time.monotonic() - began)

    async def _control(self, exchange: Exchange, method: str, name: str) -> None:
        raw = await exchange.read()
        await Performance(exchange, NORMAL, _ignore, 0, 0).reply(self._controlled(method, name, raw))

    def _controlled(self, method: str, name: str, raw: bytes) -> Reply:
        match method, name:
            case "GET", "requests":
                return json_reply(200, [request.to_json() for request in self.journal.requests()])
            case "DELETE", "requests":
                self.journal.clear()
                return json_reply(200, {"cleared": "requests"})
            case "POST", "script":
                return self._scripted(raw)
            case "DELETE", "script":
                self.script.clear()
                return json_reply(200, {"cleared": "script"})
            case _:
                return json_reply(404, {"error": f"the sandbox has no {method} {CONTROL}{name}"})

    def _scripted(self, raw: bytes) -> Reply:
        try:
            return json_reply(200, {"added": add_from_json(self.script, orjson.loads(raw))})
        except (BehaviourError, orjson.JSONDecodeError) as error:
            return json_reply(400, {"error": str(error)})


def _ignore(**_: object) -> None:
    """Control requests are not recorded."""
