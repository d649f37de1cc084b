"""What LiteLLM does at import, what it is given, and what it can never be made to do."""

import asyncio
import inspect
import json
import subprocess
import sys
import warnings

import pytest

from gateway.access_tokens import AccessTokens
from gateway.chat_request import read_chat_request
from gateway.errors import ApiError
from gateway.litellm_door import LiteLLMLane, import_litellm
from gateway.parameters import PARAMETERS, READ_HERE
from gateway.translation import untranslatable
from gateway.transport import Transport
from router.failure import FailureKind
from tests.gateway.lanes import Lanes, arrived, call_of, outcome, request_of
from tests.raw_upstream import raw_upstream

IMPORT_ALONE = """
import json, socket, sys
looked_up = []
def hook(event, args):
    if event in ("socket.getaddrinfo", "socket.connect", "subprocess.Popen", "os.system"):
        looked_up.append([event, str(args)[:200]])
sys.addaudithook(hook)
import gateway.app, gateway.opening
early = [name for name in ("litellm", "openai") if name in sys.modules]
from gateway.litellm_door import LiteLLMLane, import_litellm
from gateway.transport import Transport
from router.failure import FailureKind
from tests.gateway.lanes import Lanes, arrived, call_of, outcome, request_of
from tests.raw_upstream import raw_upstream
litellm = import_litellm()
proxy = [name for name in sys.modules if name.startswith("litellm.proxy.proxy_server")]
print(json.dumps({"looked_up": looked_up, "early": early, "proxy": proxy, "callbacks": len(litellm.callbacks),
                  "drop": litellm.drop_params, "retries": litellm.num_retries, "key": litellm.api_key}))
"""


def test_import_resolves_no_host_starts_no_process_and_comes_late() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALONE], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen == {"looked_up": [], "early": [], "proxy": [], "callbacks": 0, "drop": False, "retries": 0, "key": None}
    assert done.stderr == ""


async def test_opening_that_nobody_waits_for_ends_before_the_lane_is_closed() -> None:
    """Broken off by the end of the event loop, LiteLLM's first call would print a warning."""
    transport = Transport(connect_timeout_s=2, max_connections=1)
    lane = LiteLLMLane(transport, AccessTokens(transport), answer_timeout_s=1, idle_timeout_s=1)
    await lane.aclose()
    impatient = asyncio.create_task(lane.open())
    await asyncio.sleep(0)
    impatient.cancel()
    await lane.aclose()
    assert not [task for task in asyncio.all_tasks() if "LiteLLMLane._open" in repr(task)]
    await transport.aclose()


# Fields of a chat completion that LiteLLM's own signature shares with OpenAI's; all others of it must be refused.
HARMLESS = {*PARAMETERS, *READ_HERE}
# Names that LiteLLM reads from **kwargs: credentials, destinations, prices, callbacks, retries (RELIABILITY.md, T04).
DANGEROUS = frozenset(
    """api_base api_key base_url extra_headers extra_body extra_query fallbacks num_retries max_retries timeout client
    input_cost_per_token output_cost_per_token mock_response callbacks success_callback failure_callback organization
    aws_access_key_id aws_secret_access_key aws_session_token aws_sts_endpoint azure_ad_token vertex_credentials
    custom_llm_provider proxy_server_request litellm_params litellm_metadata user_config litellm_credential_name
    litellm_embedding_config litellm_params_template api_version region_name use_litellm_proxy ssl_verify
    model_list router_settings no-log cache guardrails""".split()  # noqa: SIM905 - a list of words
)


def test_no_argument_of_litellms_signature_can_be_reached_from_a_body() -> None:
    litellm = import_litellm()
    names = {*inspect.signature(litellm.acompletion).parameters, *inspect.signature(litellm.completion).parameters}
    tried = {name for name in names | DANGEROUS if name not in HARMLESS and name != "kwargs"}
    assert len(tried) > len(DANGEROUS)
    for name in sorted(tried):
        body = {"model": "auto", "messages": [{"role": "user", "content": "x"}], name: "http://127.0.0.1:1"}
        try:
            request = read_chat_request(json.dumps(body).encode())
        except ApiError as error:
            assert error.problem.param == name
        else:
            assert name in request.unknown and name not in request.parameters
            refused = untranslatable(request, "anthropic")
            assert refused is not None and refused.param == name


ANSWER = '{"id":"c", "choices":[{"index":0,"message":{"role":"assistant","content":"x"},"finish_reason":"stop"}]}'


async def test_a_plain_request_on_openais_wire_says_nothing_of_streams_and_its_answer_is_kept_byte_for_byte() -> None:
    async with Lanes() as lanes:
        with raw_upstream() as upstream:
            upstream.plain(ANSWER, headers="connection: close\r\n")
            call = call_of("openai", upstream.url, request_of({"temperature": 0.5}))
            reply = await lanes.by_classes.complete(call)
            assert reply.body == ANSWER.encode()
            assert arrived(upstream).body.keys() == {"model", "messages", "temperature"}


BAD_ANSWERS = [
    (b"HTTP/1.1 429 No\r\ncontent-length: 2\r\nretry-after: 3\r\n\r\n{}", FailureKind.RATE_LIMITED),
    (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", FailureKind.MALFORMED),
    (b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>", FailureKind.MALFORMED),
    (b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{", FailureKind.TRUNCATED),
    (b'HTTP/1.1 200 OK\r\ncontent-length: 22\r\n\r\n{"error":{"code":"x"}} ', FailureKind.SERVER_ERROR),
    (b"", FailureKind.MALFORMED),
]


@pytest.mark.parametrize(("answer", "kind"), BAD_ANSWERS)
async def test_a_bad_plain_answer_on_openais_wire_fails_by_what_was_sent(answer: bytes, kind: FailureKind) -> None:
    async with Lanes() as lanes:
        with raw_upstream() as upstream:
            upstream.answer = answer
            told = await outcome(lanes.by_classes, call_of("openai", upstream.url, request_of({})))
            assert told.failure is not None and told.failure.kind is kind


def test_what_a_provider_sent_where_a_number_was_due_is_written_nowhere() -> None:
    with warnings.catch_warnings(record=True) as written:
        warnings.simplefilter("always")
        litellm = import_litellm()
        usage = litellm.Usage(prompt_tokens=1, completion_tokens=1, total_tokens=2)
        usage.completion_tokens = "canary"
        assert usage.model_dump()["completion_tokens"] == "canary"
    assert not [one for one in written if "canary" in str(one.message)]
