"""The body of a chat completion: what is refused, what is kept exactly, and that nobody else waits for it."""

import asyncio
import gzip
import json
import time
import zlib

import pytest

from gateway import json_body
from gateway.chat_request import MAX_MESSAGES, ChatRequest, read_chat_request
from gateway.errors import ApiError, Problem
from gateway.fronts import COMPLETIONS_FRONT
from gateway.json_body import MAX_FIELDS, MAX_VALUES
from router.needs import read_needs

HEAD = '"model": "auto", "messages": [{"role": "user", "content": "a"}]'


def body(field: str) -> bytes:
    return f"{{{HEAD}, {field}}}".encode()


def refusal(raw: bytes) -> Problem:
    with pytest.raises(ApiError) as caught:
        read_chat_request(raw)
    assert caught.value.problem.status == 400
    assert len(caught.value.problem.message) < 400
    return caught.value.problem


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ('"temperature": 0.1, "temperature": 0.9', "temperature"),
        ('"model": "minimax/MiniMax-M2"', "model"),
        ('"metadata": {"a": {"b": 1, "\\u0062": 1}}', "b"),
        ('"tools": [{"type": "x"}, {"type": "x", "type": "x"}]', "type"),
        ('"metadata": {"": 1, "": 1}', ""),
    ],
)
def test_name_that_stands_twice_is_refused_by_name(field: str, name: str) -> None:
    problem = refusal(body(field))
    assert problem.code == "invalid_json" and f"`{name}`" in problem.message and "twice" in problem.message


@pytest.mark.parametrize(
    "text", ['a:b, "c": {"d": [1', "\\", 'x\\"', "\\\\", "{}[]:,", "é\u2028", "1" * 30, '\\":\\\\":']
)
@pytest.mark.parametrize("chunk", [1, 2, 7, 1000])
def test_text_that_looks_like_structure_is_text(text: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_body, "CHUNK_BYTES", chunk)
    for ascii_only in (True, False):
        raw = json.dumps({"model": "auto", "messages": [{"role": "user", "content": text}], "user": text, "n": 1})
        raw = raw if ascii_only else json.dumps(json.loads(raw), ensure_ascii=False)
        assert read_chat_request(raw.encode()).parameters["user"] == text


@pytest.mark.parametrize("number", ["18446744073709551615", "-9223372036854775808", "9007199254740993", "0"])
def test_whole_number_of_64_bits_is_kept_exactly(number: str) -> None:
    assert read_chat_request(body(f'"seed": {number}')).parameters["seed"] == int(number)


@pytest.mark.parametrize("number", ["18446744073709551616", "-9223372036854775809", "1" * 30, "-" + "9" * 5000])
@pytest.mark.parametrize("chunk", [1, 5, 100_000])
def test_whole_number_beyond_64_bits_is_refused_wherever_it_is(
    number: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_body, "CHUNK_BYTES", chunk)
    for field in (f'"seed": {number}', f'"metadata": {{"a": [1.5, {number}]}}'):
        problem = refusal(body(field))
        assert problem.code == "invalid_json" and "64 bits" in problem.message


@pytest.mark.parametrize(
    "number", ["0.1234567890123456789012345", "1e-0000000000000000000000005", "12345678901234567890.5"]
)
def test_long_fraction_is_a_number(number: str) -> None:
    assert read_chat_request(body(f'"temperature": {number}')).parameters["temperature"] == float(number)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", '"\\ud800"', '{"\\udfff": 1}'])
def test_what_is_no_json_value_is_refused(value: str) -> None:
    assert refusal(body(f'"metadata": {{"a": {value}}}')).code == "invalid_json"


def test_number_of_fields_is_bounded() -> None:
    many = ", ".join(f'"x{number}": 1' for number in range(MAX_FIELDS))
    assert "fields" in refusal(body(many)).message


def test_answers_that_are_paid_for_and_not_shown_are_judged() -> None:
    raw = json.dumps({"model": "auto", "prompt": ["a", "b"], "best_of": 5, "n": 2}).encode()
    request = COMPLETIONS_FRONT.read(raw, {})
    assert (request.body["n"], request.parameters["n"]) == (10, 4)


def test_number_of_values_and_messages_is_bounded() -> None:
    assert "values" in refusal(body('"tools": [' + "{}," * MAX_VALUES + "{}]")).message
    many = json.dumps({"model": "auto", "messages": [{"role": "user", "content": "a"}] * (MAX_MESSAGES + 1)}).encode()
    assert refusal(many).param == "messages"


@pytest.mark.parametrize(
    ("options", "param", "code"),
    [
        ('{"include_usage": "yes"}', "stream_options.include_usage", "invalid_request"),
        ('{"include_usage": 1}', "stream_options.include_usage", "invalid_request"),
        ('{"include_obfuscation": 0}', "stream_options.include_obfuscation", "invalid_request"),
        ("[]", "stream_options", "invalid_request"),
    ],
)
def test_stream_option_of_another_type_is_refused_by_name(options: str, param: str, code: str) -> None:
    problem = refusal(body(f'"stream": true, "stream_options": {options}'))
    assert (problem.param, problem.code) == (param, code)


@pytest.mark.parametrize(
    ("options", "usage"),
    [
        ("null", False),
        ("{}", False),
        ('{"include_usage": true, "include_obfuscation": false}', True),
        ('{"include_usage": false}', False),
    ],
)
def test_stream_options_are_read(options: str, usage: bool) -> None:
    assert read_chat_request(body(f'"stream": true, "stream_options": {options}')).include_usage is usage


def test_two_names_of_one_limit_are_refused() -> None:
    assert refusal(body('"max_tokens": 5, "max_completion_tokens": 5')).param == "max_completion_tokens"
    read = read_chat_request(body('"max_tokens": 5, "max_completion_tokens": null'))
    assert dict(read.parameters) == {"max_tokens": 5}


def test_long_name_of_a_field_is_cut() -> None:
    problem = refusal(body(f'"{"abcdefgh" * 10_000}_api_key": 1'))
    assert problem.code == "unsupported_parameter" and problem.param is not None and len(problem.param) < 80


def test_unknown_field_is_kept_as_it_was_written() -> None:
    request = read_chat_request(body('"new_field": {"b" : 1,"a":[ 1.50 ]}, "x": null'))
    assert dict(request.unknown) == {"new_field": {"b": 1, "a": [1.5]}, "x": None}
    assert bytes(request.fields["new_field"]) == b'{"b" : 1,"a":[ 1.50 ]}'
    assert "new_field" not in request.parameters


HOSTILE = {
    "empty objects": body('"tools": [' + "{}," * 1_300_000 + "{}]"),
    "as many objects as may be": body('"tools": [{"a": [' + '{"a":1},' * 49_000 + '{"a":1}]}]'),
    "one name": body('"' + "abcdefgh" * 500_000 + '": 1'),
    "one number": body('"seed": ' + "1" * 4_000_000),
    "quotes": body('"user": "' + '\\"' * 2_000_000 + '"'),
    "backslashes": body('"user": "' + "\\\\" * 2_000_000 + '"'),
    "messages": ('{"model": "auto", "messages": [' + '{"role":"user","content":"a"},' * 130_000 + "1]}").encode(),
    "parts": (
        '{"model": "auto", "messages": [{"role": "user", "content": ['
        + ",".join(['{"type":"text","text":"' + "é" * 20 + '"}'] * 33_000)
        + "]}]}"
    ).encode(),
}  # fmt: skip


async def longest_stall(raw: bytes) -> float:
    """How long the event loop stood still at most while `raw` was read and what it needs was worked out."""
    done, worst = False, 0.0

    async def tick() -> None:
        nonlocal worst
        while not done:
            before = time.monotonic()
            await asyncio.sleep(0.001)
            worst = max(worst, time.monotonic() - before)

    async def read() -> None:
        nonlocal done
        await asyncio.sleep(0.01)
        try:
            request: ChatRequest = await asyncio.to_thread(read_chat_request, raw)
            read_needs(request.body)
        except ApiError:
            pass
        await asyncio.sleep(0)
        done = True

    await asyncio.gather(tick(), read())
    return worst


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_body_of_megabytes_does_not_stop_the_event_loop(name: str) -> None:
    stalls: list[float] = []
    while len(stalls) < 5 and (not stalls or min(stalls) >= 0.1):  # another process may take the core meanwhile
        stalls.append(await longest_stall(HOSTILE[name]))
    assert min(stalls) < 0.1, stalls


def test_function_may_answer_with_null() -> None:
    """OpenAI's reference: the content of a function message is required and may be null; that of a tool message not."""
    raw = {"model": "auto", "messages": [{"role": "function", "name": "f", "content": None}]}
    assert read_chat_request(json.dumps(raw).encode()).messages == raw["messages"]
    raw = {"model": "auto", "messages": [{"role": "tool", "tool_call_id": "c", "content": None}]}
    assert refusal(json.dumps(raw).encode()).param == "messages[0].content"


@pytest.mark.parametrize(
    ("raw", "kind"),
    [(gzip.compress(b"{}"), "gzip"), (zlib.compress(b"{}"), "zlib"), (b"\x28\xb5\x2f\xfd\x04\x00", "zstd")],
    ids=["gzip", "zlib", "zstd"],
)
def test_compressed_body_is_called_that(raw: bytes, kind: str) -> None:
    problem = refusal(raw)
    assert problem.code == "invalid_json" and f"compressed ({kind})" in problem.message
