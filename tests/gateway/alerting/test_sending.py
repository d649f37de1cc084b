"""One message to one webhook over real sockets: what is sent, what counts as delivered, and where none may go."""

import ipaddress
import os
import socket
import sys
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from gateway.alerting.sending import Sender, Sent, check_url
from gateway.outbound.addresses import Address
from keystore.clock import utc_now
from keystore.errors import WebhookInvalid
from keystore.secret import Secret
from keystore.webhook_seal import new_secret
from keystore.webhooks import Webhook
from tests.gateway.alerting.test_signing import documented
from tests.harness import Loopback
from tests.receiver import Receiver, receiver

BODY = '{"id": "msg_1", "type": "webhook.test"}'


@pytest.fixture
def heard() -> Iterator[Receiver]:
    with receiver() as running:
        yield running


@pytest.fixture
async def sender() -> AsyncIterator[Sender]:
    made = Sender(Loopback(), now=utc_now)
    yield made
    await made.aclose()


def to(url: str) -> Webhook:
    return Webhook("wh_000000000001", url, (Secret(new_secret(os.urandom)),))


async def test_message_is_posted_with_a_signature(sender: Sender, heard: Receiver) -> None:
    webhook = to(heard.url + "/hook?key=1")
    assert (await sender.send(webhook, "msg_1", BODY)).delivered
    (came,) = heard.heard
    assert (came.path, came.body.decode(), came.headers["webhook-id"]) == ("/hook?key=1", BODY, "msg_1")
    assert came.headers["content-type"] == "application/json"
    assert documented()(webhook.secrets[0].reveal(), came.headers, came.body)


@pytest.mark.parametrize("status", [199 + 1, 204, 301, 302, 307, 400, 404, 410, 429, 500, 503])
async def test_status_says_whether_it_is_delivered_and_no_redirect_is_followed(
    sender: Sender, heard: Receiver, status: int
) -> None:
    heard.statuses, heard.headers = [status], {"location": heard.url + "/elsewhere"}
    sent = await sender.send(to(heard.url + "/hook"), "msg_1", BODY)
    assert (sent.status, sent.delivered, sent.why) == (status, status < 300, "")
    assert [each.path for each in heard.heard] == ["/hook"]


async def test_large_answer_is_not_read_to_its_end(sender: Sender, heard: Receiver) -> None:
    heard.content = b"x" * (8 * 1024 * 1024)
    assert (await sender.send(to(heard.url), "msg_1", BODY)).delivered


async def test_receiver_that_says_nothing_or_is_not_there(sender: Sender, heard: Receiver) -> None:
    heard.silent = threading.Event()
    hasty = Sender(Loopback(), now=utc_now, within_s=0.2)
    assert await hasty.send(to(heard.url), "msg_1", BODY) == Sent(why="there was no answer within 0.2 s")
    await hasty.aclose()
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        sent = await sender.send(to(f"http://127.0.0.1:{nobody.getsockname()[1]}"), "msg_1", BODY)
    assert (sent.status, sent.why) == (None, "the receiver cannot be asked (ConnectError)")


# --- where none may go (T06) -----------------------------------------------------------------------------------------

INWARD = (
    *("https://127.0.0.1/x", "https://[::1]/x", "https://[::ffff:127.0.0.1]/", "https://0.0.0.0/", "https://10.0.0.1/"),
    *(
        "https://169.254.169.254/latest/",
        "https://[fd00:ec2::254]/",
        "https://[64:ff9b::7f00:1]/",
        "https://100.64.0.1/",
    ),
    *("http://hooks.example/x", "http://8.8.8.8/", "file:///etc/passwd", "gopher://hooks.example/", "ftp://h/"),
    *(
        "https://user@hooks.example/",
        "https://u:p@hooks.example/",
        "https://hooks.example/#f",
        "https://",
        "hooks.example",
        "https://xn--a/",
    ),
    *("https://hooks.example/a b", "https://h\u00f6oks.example/", "https://hooks.example/\r\nx: y", "https://h:99999/"),
    "https://hooks.example/" + "x" * 2000,
)


@pytest.mark.parametrize("url", INWARD)
async def test_url_that_leads_inside_is_refused_and_asked_by_nobody(url: str) -> None:
    with pytest.raises(WebhookInvalid) as refused:
        check_url(url, ())
    assert url not in str(refused.value)
    sender = Sender((), now=utc_now)
    assert (await sender.send(to(url), "msg_1", BODY)).status is None
    await sender.aclose()


@pytest.mark.parametrize("url", ["https://2130706433/", "https://0x7f000001/", "https://127.1/", "https://localhost./"])
async def test_name_or_odd_spelling_is_judged_when_it_is_connected_to(url: str) -> None:
    """Whatever the check of the text thinks, no socket is opened to an inner address."""
    connected: list[object] = []
    watching = True

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event == "socket.connect":
            connected.append(arguments[1])

    sys.addaudithook(hook)

    async def resolve(host: str, port: int) -> list[Address]:
        return [ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("10.0.0.1")]

    sender = Sender((), now=utc_now, resolve=resolve)
    sent = await sender.send(to(url), "msg_1", BODY)
    watching = False
    await sender.aclose()
    assert (sent.status, connected) == (None, [])


def test_listed_host_may_be_inside_and_without_tls() -> None:
    listed = ("http://10.0.0.5:8080", "hooks.internal:8443", "127.0.0.1:9")
    for url in ("http://10.0.0.5:8080/x", "https://hooks.internal:8443/", "http://127.0.0.1:9/"):
        assert check_url(url, listed) == url
    for url in ("http://10.0.0.5:8081/", "http://hooks.internal:8443/", "https://10.0.0.5:8080/"):
        with pytest.raises(WebhookInvalid):
            check_url(url, listed)


def test_nothing_of_url_or_secret_is_shown() -> None:
    webhook = to("https://hooks.example/secret")
    assert "hooks.example" not in repr(webhook) and "whsec" not in repr(webhook)
