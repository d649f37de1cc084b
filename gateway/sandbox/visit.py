"""The head of one request: what can be known before its body is read."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from gateway.sandbox.exchange import Scope
from gateway.sandbox.journal import Arrived
from gateway.sandbox.keys import QUERY_CARRIER, GivenKey, given_key, redact
from gateway.sandbox.routes import Operation, Route, find


@dataclass(frozen=True, slots=True)
class Visit:
    """Method, path, query, headers, and what follows from them: the route and the key."""

    method: str
    path: str
    shown_path: str  # as it was sent, percent signs and all
    query: Mapping[str, str]
    header_list: tuple[tuple[str, str], ...]
    key: GivenKey
    route: Route

    @classmethod
    def of(cls, scope: Scope) -> "Visit":
        """The head as ASGI gives it."""
        header_list = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        shown = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
        key, route = given_key(dict(header_list), query), find(scope["method"], scope["path"])
        return cls(scope["method"], scope["path"], shown, query, header_list, key, route)

    @property
    def headers(self) -> dict[str, str]:
        """The headers by name; the last of several with one name."""
        return dict(self.header_list)

    def arrived(self, number: int) -> Arrived:
        """The journal's first record of this request."""
        return Arrived(
            number=number,
            method=self.method,
            path=self.shown_path,
            query=redact(self.query.items(), {QUERY_CARRIER}),
            headers=redact(self.header_list),
            key_carrier=self.key.carrier,
            key_tail=self.key.tail,
            key_sha256=self.key.sha256,
            wire="" if self.route.operation is Operation.UNKNOWN else self.route.wire.name,
            model=self.route.model,
        )
