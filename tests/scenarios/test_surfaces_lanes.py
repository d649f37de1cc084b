"""The two lanes to a provider on OpenAI's wire, straight and through LiteLLM (`forwarding`): the same to the caller and
to the provider, but for the differences that are rows here, each with its reason."""

import base64
import json
import re
import tomllib
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.harness import RunningGateway
from tests.raw_upstream import RawUpstream, raw_upstream
from tests.scenarios import surfaces as told
from tests.scenarios.surfaces import chunks, quick_client

pytestmark = pytest.mark.slow
VECTORS = Path(__file__).parents[1] / "vectors"
EVERY = 3  # of the vectors' rows that are sent: they are many, and LiteLLM is slow
LANES = ("straight", "through")
HELLO = [{"role": "user", "content": "Hello"}]
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
ROW = """
[providers.{name}]
name = "Acme"
wire = "openai"
base_url = "{url}/v1"
hosts = ["{host}"]
litellm_prefix = "openai"
open_models = true
api_key_env_var = "{key}"
quirks = {{ max_completion_tokens = "max_tokens" }}
forwarding = "{forwarding}"
"""


@dataclass
class Both:
    """One gateway, one upstream, and a provider row for each lane."""

    gateway: RunningGateway
    upstream: RawUpstream
    client: httpx.Client
    token: str

    def fresh(self) -> None:
        """Another tenant: what made a key ill harms no later case."""
        keys = {f"{lane.upper()}_API_KEY": "Same-key.0123456789" for lane in LANES}
        self.token = self.gateway.tenant(f"t-{uuid.uuid4().hex[:12]}", "team", keys)

    def through(self, lane: str, body: Mapping[str, object]) -> tuple[httpx.Response, list[object]]:
        """What the caller gets by this lane, and the bodies that the provider got."""
        self.upstream.requests.clear()
        model = f"{lane}/{body.get('model', 'm')}"
        headers = {"authorization": f"Bearer {self.token}"}
        url = f"{self.gateway.url}/v1/chat/completions"
        answer = self.client.post(url, json={**body, "model": model}, headers=headers)
        return answer, [json.loads(raw.partition(b"\r\n\r\n")[2]) for raw in self.upstream.requests]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    with raw_upstream() as upstream:
        host = upstream.url.removeprefix("http://")
        rows = [
            ROW.format(name=name, url=upstream.url, host=host, key=f"{name.upper()}_API_KEY", forwarding=forwarding)
            for name, forwarding in zip(LANES, ("auto", "litellm"), strict=True)
        ]
        with RunningGateway(tmp_path_factory.mktemp("gw"), "\n".join(rows)) as gateway, quick_client() as client:
            found = Both(gateway, upstream, client, "")
            found.fresh()
            yield found


def seen(answer: httpx.Response) -> tuple[int, str, str | None, str]:
    """What the caller sees, without what names the lane."""
    kind, wait = answer.headers["content-type"], answer.headers.get("retry-after")
    return answer.status_code, kind, wait, re.sub("|".join(LANES), "LANE", answer.text)


def told_apart(different: Mapping[str, object]) -> str:
    return "".join(f"\n{name}: {values!r}" for name, values in different.items())


# --- requests -------------------------------------------------------------------------------------------------------

OWN: Final[Mapping[str, Mapping[str, object]]] = {
    "unknown fields": {"x_own": {"a": [1.5, None]}, "top_k": 4, "cache_control": {"type": "ephemeral"}},
    "a quirk": {"max_completion_tokens": 9},
    "tools": {"tools": [{"type": "function", "function": {"name": "f", "strict": None}}], "tool_choice": "auto"},
    "hints": {"metadata": {"a": "b"}, "store": False, "user": "u", "service_tier": "flex", "seed": 1, "n": 2},
    "options of a stream": {"stream": True, "stream_options": {"include_obfuscation": False, "x_own": 1}},
    "the gateway's own": {"provider": {"sort": "price"}, "wardgate": {}},
}
# What the lanes send differently, by name of a case: the field and why.
SENT_DIFFERENTLY: Final[Mapping[str, str]] = {}


def bodies() -> dict[str, Mapping[str, object]]:
    """Chat bodies of the vectors, and our own."""
    rows = tomllib.loads((VECTORS / "translation.toml").read_text(encoding="utf-8"))
    found = {f"own: {name}": more for name, more in OWN.items()}
    for table, listed in rows.items():
        for row in listed[::EVERY] if isinstance(listed, list) else ():
            if isinstance(row, dict) and isinstance(row.get("body"), str):
                found[f"{table}: {row['situation']}"] = json.loads(row["body"].replace("@PNG@", PNG))
    return found


def test_requests_of_the_vectors_are_the_same_by_both_lanes(both: Both) -> None:
    both.upstream.plain(told.CHAT_PLAIN)
    different: dict[str, object] = {}
    asked = bodies()
    assert len(asked) > 60
    for name, more in asked.items():
        body = {"messages": HELLO, **more}
        straight, through = (both.through(lane, body) for lane in LANES)
        if (seen(straight[0]), straight[1]) != (seen(through[0]), through[1]):
            different[name] = ((seen(straight[0]), straight[1]), (seen(through[0]), through[1]))
    assert different.keys() == SENT_DIFFERENTLY.keys(), told_apart(different)


# --- answers --------------------------------------------------------------------------------------------------------

STREAMS: Final[Mapping[str, bytes]] = {
    "whole": chunks(told.CHUNK, told.CHUNK_END, told.CHUNK_USAGE),
    "no usage": chunks(told.CHUNK, told.CHUNK_END),
    "no end mark": chunks(told.CHUNK, told.CHUNK_END, done=False),
    "cut": chunks(told.CHUNK, done=False),
    "empty": b"",
    "comments and odd line ends": b": hi\r\n\r\ndata:"
    + json.dumps(told.CHUNK_END).encode()
    + b"\r\n\r\ndata: [DONE]\n\n",
    "an error first": b'data: {"error": {"message": "broke", "code": 429}}\n\n',
    "an error later": chunks(told.CHUNK, done=False) + b'data: {"error": {"message": "broke", "code": 500}}\n\n',
    "no JSON later": chunks(told.CHUNK, done=False) + b"data: {oops\n\n",
    "own fields": chunks(told.CHUNK | {"x_own": {"a": 1.5}}, told.CHUNK_END | {"citations": ["c"]}),
    "half an emoji": b'data: {"choices":[{"index":0,"delta":{"content":"\\ud83d"}}]}\n\n' + chunks(told.CHUNK_END),
}
STATUSES = {
    "400 Bad Request": '{"error": {"message": "bad value", "param": "temperature", "code": "unsupported"}}',
    "401 Unauthorized": '{"error": {"message": "Incorrect API key provided"}}',
    "402 Payment Required": '{"error": {"message": "Insufficient Balance"}}',
    "403 Forbidden": '{"error": {"message": "region"}}',
    "404 Not Found": '{"error": {"message": "The model does not exist", "code": "model_not_found"}}',
    "413 Too Large": "<html>too large</html>",
    "422 Unprocessable Entity": '{"detail": [{"loc": ["body"], "msg": "wrong"}]}',
    "429 Too Many Requests": '{"error": {"message": "slow down", "type": "rate_limit"}}',
    "500 Internal Server Error": '{"error": {"message": "oops"}}',
    "503 Service Unavailable": "",
    "529 Overloaded": '{"error": {"message": "overloaded", "type": "overloaded_error"}}',
    "307 Temporary": "{}",
}
PLAIN: Final[Mapping[str, str]] = {
    "whole": told.CHAT_PLAIN.decode(),
    "own shape": '{"choices":[{"message":{"content":null,"tool_calls":[{"id":"c","type":"function","function":'
    '{"name":"f","arguments":"{"}}]},"finish_reason":"eos"}],"created":99999999999999999999}',
    "an error": '{"error": {"message": "no such thing", "code": 404}}',
    "no choices": '{"choices": []}',
    "a list": "[]",
    "no JSON": "oops",
    "nothing": "",
}
# What the caller sees differently, by name of a case, and why.
SEEN_DIFFERENTLY: Final[Mapping[str, str]] = {}


def answers() -> dict[str, tuple[bytes, bool]]:
    """Whole answers by name, and whether a stream is asked for."""
    upstream = RawUpstream("")
    found: dict[str, tuple[bytes, bool]] = {}
    for name, content in STREAMS.items():
        told.stream(upstream, content)
        found[f"stream: {name}"] = (upstream.answer, True)
    for streamed in (False, True):
        for status, text in STATUSES.items():
            upstream.plain(text, status, "retry-after: 3\r\n")
            found[f"{status}, stream {streamed}"] = (upstream.answer, streamed)
        for name, text in PLAIN.items():
            upstream.plain(text)
            found[f"plain: {name}, stream {streamed}"] = (upstream.answer, streamed)
    return found


@pytest.mark.parametrize("wanted", [False, True])
def test_every_answer_is_the_same_by_both_lanes(both: Both, wanted: bool) -> None:
    different: dict[str, object] = {}
    cases = {name: case for name, case in answers().items() if not wanted or name.startswith("stream: ")}
    for name, (answer, streamed) in cases.items():
        if name.startswith("4"):  # it may make the key ill
            both.fresh()
        both.upstream.answer = answer
        options = {"stream_options": {"include_usage": True}} if wanted else {}
        body = {"model": uuid.uuid4().hex, "messages": HELLO, "stream": streamed, **options}
        straight, through = (both.through(lane, body)[0] for lane in LANES)
        if seen(straight) != seen(through):
            different[name] = (seen(straight), seen(through))
    assert different.keys() == SEEN_DIFFERENTLY.keys(), told_apart(different)


def test_cost_and_usage_are_counted_on_both_lanes(both: Both) -> None:
    for lane in LANES:
        for streamed in (False, True):
            both.upstream.plain(told.CHAT_PLAIN)
            if streamed:
                told.stream(both.upstream, STREAMS["whole"])
            before = both.gateway.metric("wardgate_tokens_total", provider=lane)
            both.through(lane, {"messages": HELLO, "stream": streamed})
            assert both.gateway.settled("wardgate_tokens_total", provider=lane) - before == 18
