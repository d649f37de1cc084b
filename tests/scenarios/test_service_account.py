"""Keys that do not travel: a service account signs for an access token, and the token alone reaches the provider."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gateway.sandbox.server import SandboxServer
from keystore.errors import CredentialRefused
from tests.harness import RunningGateway, sandbox_config
from tests.raw_upstream import RawUpstream, raw_upstream

NAME = "CLOUD_API_KEY"
ASK = {"model": "cloud/google/gemini-2.5-flash", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture(scope="module")
def private_key() -> RSAPrivateKey:
    return generate_private_key(public_exponent=65537, key_size=2048)


def pem(key: Any) -> str:
    text: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return text.decode()


@pytest.fixture
def account(private_key: RSAPrivateKey) -> dict[str, str]:
    return {
        "type": "service_account",
        "project_id": "acme-1",
        "private_key_id": "kid-canary-1",
        "private_key": pem(private_key),
        "client_email": "wardgate@acme-1.iam.gserviceaccount.com",
    }


@pytest.fixture
def token_endpoint() -> Iterator[RawUpstream]:
    with raw_upstream() as upstream:
        upstream.plain(json.dumps({"access_token": "sk-sandbox-access-token-01", "expires_in": 3600}))
        yield upstream


@pytest.fixture
def gateway(tmp_path: Path, sandbox: SandboxServer, token_endpoint: RawUpstream) -> Iterator[RunningGateway]:
    host = sandbox.url.removeprefix("http://")
    row = (
        f'[providers.cloud]\nwire = "openai"\nbase_url = "{sandbox.url}/v1"\nhosts = ["{host}"]\nopen_models = true\n'
        f'auth = "google-service-account"\ntoken_url = "{token_endpoint.url}/token"\n'
    )
    with RunningGateway(tmp_path, sandbox_config(sandbox.url, row, {"openai": "/v1"})) as running:
        yield running


def part(text: str) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return decoded


def test_access_token_reaches_the_provider_and_the_private_key_nobody(
    gateway: RunningGateway,
    sandbox: SandboxServer,
    token_endpoint: RawUpstream,
    account: dict[str, str],
    private_key: RSAPrivateKey,
) -> None:
    token = gateway.tenant("acme", keys={NAME: json.dumps(account, indent=2)})
    for stream in (False, True, False):
        answer = gateway.post("/v1/chat/completions", token, {**ASK, "stream": stream})
        assert answer.status_code == 200, answer.text
    assert {request.header("authorization") for request in sandbox.requests()} == {"***"}
    assert {request.key_tail for request in sandbox.requests()} == {"n-01"}

    assert len(token_endpoint.requests) == 1  # remembered
    head, _, body = token_endpoint.requests[0].partition(b"\r\n\r\n")
    form = parse_qs(body.decode())
    assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
    signed, _, signature = form["assertion"][0].rpartition(".")
    private_key.public_key().verify(
        base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4)), signed.encode(), PKCS1v15(), SHA256()
    )
    header, claims = map(part, signed.split("."))
    assert header == {"alg": "RS256", "typ": "JWT", "kid": "kid-canary-1"}
    assert claims["iss"] == account["client_email"]
    assert claims["aud"] == f"{token_endpoint.url}/token"
    assert claims["exp"] - claims["iat"] == 3600

    sent = head + body + b"".join(request.raw for request in sandbox.requests())
    secret_lines = account["private_key"].splitlines()[1:-1]
    assert not [line for line in secret_lines if line.encode() in sent or line in gateway.logs.getvalue()]
    assert "access-token" not in gateway.logs.getvalue()


def test_rejected_access_token_is_exchanged_anew(
    gateway: RunningGateway, sandbox: SandboxServer, token_endpoint: RawUpstream, account: dict[str, str]
) -> None:
    token = gateway.tenant("acme", keys={NAME: json.dumps(account)})
    assert gateway.post("/v1/chat/completions", token, ASK).status_code == 200
    sandbox.script("status=401")
    assert gateway.post("/v1/chat/completions", token, ASK).status_code == 424
    assert gateway.post("/v1/chat/completions", token, ASK).status_code == 200
    assert len(token_endpoint.requests) == 2


def test_fresh_access_token_that_is_rejected_is_the_keys_fault(
    gateway: RunningGateway, sandbox: SandboxServer, token_endpoint: RawUpstream, account: dict[str, str]
) -> None:
    token = gateway.tenant("acme", keys={NAME: json.dumps(account)})
    sandbox.script("status=401")
    for _ in range(2):
        assert gateway.post("/v1/chat/completions", token, ASK).status_code == 424
    assert len(sandbox.requests()) == 1  # the second request found the key marked


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        ("400 Bad Request", '{"error": "invalid_grant"}', (424, "provider_key_rejected")),
        ("401 Unauthorized", "{}", (424, "provider_key_rejected")),
        ("429 Too Many Requests", "{}", (429, "rate_limit_exceeded")),
        ("500 Internal Server Error", "{}", (502, "provider_error")),
        ("302 Found", "{}", (502, "provider_error")),
        ("200 OK", "{}", (502, "provider_malformed_answer")),
        ("200 OK", '{"access_token": "a\\nb", "expires_in": 10}', (502, "provider_malformed_answer")),
        ("200 OK", "canary" * 20000, (502, "provider_unreachable")),
    ],
)
def test_exchange_that_fails_is_told(
    gateway: RunningGateway,
    sandbox: SandboxServer,
    token_endpoint: RawUpstream,
    account: dict[str, str],
    status: str,
    body: str,
    told: tuple[int, str],
) -> None:
    token_endpoint.plain(body, status=status)
    token = gateway.tenant("acme", keys={NAME: json.dumps(account)})
    answer = gateway.post("/v1/chat/completions", token, ASK)
    assert (answer.status_code, answer.json()["error"]["code"]) == told
    assert "canary" not in answer.text + gateway.logs.getvalue()
    assert sandbox.requests() == ()


@pytest.mark.parametrize("spoil", ["no json", "no account", "no field", "no key", "ec key", "long key"])
def test_what_is_no_service_account_key_is_refused(
    gateway: RunningGateway, account: dict[str, str], spoil: str
) -> None:
    spoiled = {
        "no json": "canary",
        "no account": json.dumps(account | {"type": "authorized_user"}),
        "no field": json.dumps({name: value for name, value in account.items() if name != "client_email"}),
        "no key": json.dumps(account | {"private_key": "canary"}),
        # Whoever may store keys could stop everybody else for seconds: so long does it take to check one of 8192 bits.
        "long key": json.dumps(account | {"private_key": account["private_key"] + " " * 300}),
        "ec key": json.dumps(account | {"private_key": pem(generate_ec(SECP256R1()))}),
    }
    with pytest.raises(CredentialRefused, match="service account") as refused:
        gateway.tenant("acme", keys={NAME: spoiled[spoil]})
    assert "canary" not in str(refused.value)
