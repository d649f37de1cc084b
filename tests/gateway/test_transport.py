"""What may leave: only a request that carries the handle, once, to a host for which its key is meant."""

import httpx
import pytest

from gateway.transport import HANDLE, CurrentExchangeTransport, Exchange, Transport, TransportRefusal, with_key
from keystore.keyring import Credential
from keystore.providers import load_registry
from keystore.resolve import Store, Via
from keystore.secret import Secret

KEY = "Zq7-plainLookingKey.0123456789"


def exchange(provider_id: str = "minimax", hosts: tuple[str, ...] = ("api.minimax.io",), **fields: object) -> Exchange:
    provider = load_registry({provider_id: fields} if fields else {}).get(provider_id)
    assert provider is not None
    credential = Credential(
        provider_id, Secret(KEY), frozenset(hosts), "X_API_KEY", Via.CANONICAL, Store.CREDENTIALS, provider
    )
    return Exchange(credential, provider, idle_s=5)


def request(url: str = "https://api.minimax.io/v1/chat/completions", **headers: str) -> httpx.Request:
    return httpx.Request("POST", url, headers={"authorization": f"Bearer {HANDLE}"} | headers, content=b"{}")


FOREIGN = [
    "https://evil.example/v1/chat/completions",
    "https://api.minimax.io.evil.example/v1",
    "https://api.minimax.io:8443/v1",
    "https://user@api.minimax.io/v1",
    "https://api.minimax.io@evil.example/v1",
    "https://API.MINIMAX.IO.:443/v1",
    "https://127.0.0.1/v1",
]


@pytest.mark.parametrize("url", FOREIGN)
def test_key_does_not_leave_for_another_host(url: str) -> None:
    open_exchange = exchange()
    with pytest.raises(TransportRefusal) as caught:
        with_key(request(url), open_exchange)
    assert KEY not in str(caught.value) and isinstance(open_exchange.error, TransportRefusal)


def test_key_does_not_leave_for_a_host_that_only_the_row_or_only_the_key_allows() -> None:
    with pytest.raises(TransportRefusal):
        with_key(request(), exchange(hosts=("api.other.io",)))
    with pytest.raises(TransportRefusal):
        with_key(request("https://api.other.io/v1"), exchange(hosts=("api.other.io", "api.minimax.io")))


def test_request_without_the_handle_does_not_leave() -> None:
    for bad in (
        httpx.Request("POST", "https://api.minimax.io/v1", headers={"authorization": "Bearer operator-key"}),
        httpx.Request("POST", "https://api.minimax.io/v1"),
        request(f"https://api.minimax.io/v1?key={HANDLE}"),
    ):
        with pytest.raises(TransportRefusal):
            with_key(bad, exchange())


def test_second_request_of_an_exchange_does_not_leave() -> None:
    open_exchange = exchange()
    open_exchange.sent = 1
    with pytest.raises(TransportRefusal):
        with_key(request(), open_exchange)


PLACES = {"bearer": ("authorization", f"Bearer {KEY}"), "x-api-key": ("x-api-key", KEY), "api-key": ("api-key", KEY)}


@pytest.mark.parametrize("auth", PLACES)
def test_key_goes_where_the_row_says_and_nowhere_else(auth: str) -> None:
    sent = with_key(
        request(cookie="a=b", **{"x-stainless-os": "Linux", "OpenAI-Organization": "o"}), exchange(auth=auth)
    )
    name, value = PLACES[auth]
    assert sent.headers[name] == value
    assert sum(KEY in held for held in sent.headers.values()) == 1
    assert HANDLE not in str(sent.headers.raw)
    assert sent.headers["accept-encoding"] == "identity" and sent.headers["user-agent"] == "wardgate"
    assert not {"cookie", "x-stainless-os", "openai-organization"} & set(sent.headers)


async def test_request_outside_an_exchange_does_not_leave() -> None:
    with pytest.raises(TransportRefusal):
        await CurrentExchangeTransport().handle_async_request(request())


async def test_transport_closes_without_having_been_used() -> None:
    await Transport(connect_timeout_s=1, max_connections=1).aclose()


@pytest.mark.parametrize("host", ["xn--strae-oqa.example", "api.minimax.io", "[::1]:8080"])
async def test_host_is_looked_up_as_it_was_approved(host: str) -> None:
    """The system reads other letters into a name than the library that parses URLs: to it, the first is strasse."""
    transport = Transport(connect_timeout_s=1, max_connections=1)
    origin = transport._base(f"https://{host}/v1").origin
    assert origin.host == host.partition("]")[0].strip("[")
    await transport.aclose()
