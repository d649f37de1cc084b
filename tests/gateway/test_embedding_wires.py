"""What goes out for embeddings on another wire is what LiteLLM would send, where LiteLLM reads nothing into the texts;
and what is asked beyond that is refused by name."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.embedding_wires import WIRES, NotEmbeddings, answered, embedding_refused, said
from gateway.litellm_door import import_litellm
from gateway.transport import HANDLE
from keystore.keyring import Credential
from keystore.providers import Provider, host_of, provider_from_row
from keystore.resolve import Store, Via
from keystore.secret import Secret
from tests.gateway.lanes import AUTHS, PATHS, Lanes
from tests.raw_upstream import RawUpstream, raw_upstream

MODELS = {"gemini": "gemini-embedding-001", "cohere_chat": "embed-v4.0"}
LITELLMS = {"gemini": "gemini", "cohere_chat": "cohere"}  # its prefix for embeddings
ANSWERS: dict[str, Any] = {
    "gemini": {"embeddings": [{"values": [1.0, 2.0]}], "usageMetadata": {"promptTokenCount": 3}},
    "cohere_chat": {"embeddings": {"float": [[1.0, 2.0]]}, "meta": {"billed_units": {"input_tokens": 3}}},
}


def row(prefix: str, base: str) -> Provider:
    table = {"wire": "litellm", "base_url": base + PATHS[prefix], "hosts": [host_of(base)], "auth": AUTHS[prefix]}
    return provider_from_row("tested", {**table, "litellm_prefix": prefix})


@pytest.fixture
def upstream() -> Iterator[RawUpstream]:
    with raw_upstream() as running:
        yield running


async def by_litellm(prefix: str, upstream: RawUpstream, body: dict[str, Any]) -> tuple[str, Any]:
    """The path and the body of LiteLLM's own call."""
    litellm = import_litellm()
    provider = row(prefix, upstream.url)
    upstream.plain(json.dumps(ANSWERS[prefix]))
    base = WIRES[prefix].url(provider.base_url, "") if prefix == "cohere_chat" else provider.base_url
    hosts = frozenset({host_of(upstream.url)})
    key = Credential("tested", Secret("sk-x"), hosts, "TESTED_API_KEY", Via.CANONICAL, Store.CREDENTIALS, provider)
    async with Lanes() as lanes:
        lanes.transport.begin(key, provider, idle_s=10)
        model = f"{LITELLMS[prefix]}/{MODELS[prefix]}"
        await litellm.aembedding(model=model, api_key=HANDLE, api_base=base, max_retries=0, **body)
    (raw,) = upstream.requests
    head, _, content = raw.partition(b"\r\n\r\n")
    return head.split(b" ")[1].decode(), json.loads(content)


SAME: dict[str, dict[str, Any]] = {
    "one text": {"input": "a"},
    "several": {"input": ["a", "b é", "c"]},
    "fewer numbers": {"input": ["a"], "dimensions": 256},
}


@pytest.mark.parametrize("prefix", WIRES)
@pytest.mark.parametrize("name", SAME)
async def test_what_goes_out_is_what_litellm_sends(upstream: RawUpstream, prefix: str, name: str) -> None:
    body = SAME[name]
    path, theirs = await by_litellm(prefix, upstream, body)
    ours = said(WIRES[prefix], MODELS[prefix], body, frozenset())
    url = WIRES[prefix].url(row(prefix, upstream.url).base_url, MODELS[prefix])
    assert url == upstream.url + path
    ours.pop("embedding_types", None)  # LiteLLM leaves out what Cohere's second version requires
    theirs.pop("embedding_types", None)
    assert ours == theirs


REFUSED = [
    ("gemini", {"input": [1, 2]}, "input"),
    ("gemini", {"input": [[1], [2]]}, "input"),
    ("gemini", {"input": []}, "input"),
    ("gemini", {"input": ["a", 1]}, "input"),
    ("gemini", {"input": {"a": 1}}, "input"),
    ("gemini", {"input": "a", "dimensions": 0}, "dimensions"),
    ("gemini", {"input": "a", "dimensions": True}, "dimensions"),
    ("gemini", {"input": "a", "encoding_format": "int8"}, "encoding_format"),
    ("gemini", {"input": "a", "user": "u"}, "user"),
    ("gemini", {"input": "a", "input_type": "search_query"}, "input_type"),
    ("gemini", {"input": "a", "task_type": "x y"}, "task_type"),
    ("gemini", {"input": "a", "x_unknown": 1}, "x_unknown"),
    ("cohere_chat", {"input": "a", "task_type": "RETRIEVAL_QUERY"}, "task_type"),
    ("cohere_chat", {"input": "a", "input_type": 1}, "input_type"),
    ("cohere_chat", {"input": "a", "texts": ["b"]}, "texts"),
    ("bedrock", {"input": "a"}, "model"),
]


@pytest.mark.parametrize(("prefix", "body", "param"), REFUSED)
def test_what_a_wire_does_not_carry_is_refused_by_name(prefix: str, body: dict[str, Any], param: str) -> None:
    provider = provider_from_row(
        "tested", {"wire": "litellm", "base_url": "https://x.example", "hosts": ["x.example"], "litellm_prefix": prefix}
    )
    refused = embedding_refused(provider, body)
    assert refused is not None and refused.param == param


@pytest.mark.parametrize("text", ["data:text/plain;base64,YQ==", "files/abc", "gs://bucket/a.png", "https://a/b.png"])
@pytest.mark.parametrize("prefix", WIRES)
def test_a_text_is_a_text_whatever_it_looks_like(prefix: str, text: str) -> None:
    told = json.dumps(said(WIRES[prefix], "m", {"input": text}, frozenset()))
    assert json.dumps(text) in told and not any(word in told for word in ("file_data", "inline_data", "images"))


NO_VECTORS: list[Any] = [
    {},
    {"embeddings": None},
    {"embeddings": []},
    {"embeddings": {}},
    {"embeddings": {"float": [[1.0], [2.0]]}},
    {"embeddings": [{"values": []}]},
    {"embeddings": {"float": [[]]}},
    {"embeddings": [{"values": [1, "2"]}]},
    {"embeddings": {"float": [[True]]}},
    {"embeddings": [{"values": None}]},
    {"embeddings": [{"values": [1.0]}, {"values": [1.0]}]},
]


@pytest.mark.parametrize("document", NO_VECTORS)
@pytest.mark.parametrize("prefix", WIRES)
def test_answer_without_the_vectors_is_malformed(prefix: str, document: Any) -> None:
    with pytest.raises(NotEmbeddings):
        answered(WIRES[prefix], document, "m", {"input": "a"})


@pytest.mark.parametrize("prefix", WIRES)
def test_vectors_come_as_asked_and_only_counted_tokens_are_told(prefix: str) -> None:
    told = answered(WIRES[prefix], ANSWERS[prefix], "m", {"input": "a"})
    assert told["data"] == [{"object": "embedding", "index": 0, "embedding": [1.0, 2.0]}]
    assert told["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    packed = answered(WIRES[prefix], ANSWERS[prefix], "m", {"input": "a", "encoding_format": "base64"})
    assert packed["data"] == [{"object": "embedding", "index": 0, "embedding": "AACAPwAAAEA="}]
    uncounted = answered(WIRES[prefix], {"embeddings": ANSWERS[prefix]["embeddings"]}, "m", {"input": "a"})
    assert "usage" not in uncounted
