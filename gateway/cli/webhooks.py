"""`wardgate webhook`: where alerts are sent to. A secret is shown once, when it is made."""

import sys
from datetime import timedelta
from typing import Annotated

import typer

from gateway.alerting.sending import Sender, Sent, check_url
from gateway.alerting.trying import told, told_of_try, told_once, try_webhook
from gateway.cli.console import AsJson, operate, print_json, print_table
from gateway.cli.ends import FINDINGS
from gateway.config import ConfigError
from gateway.control.gate import Operation
from keystore.clock import utc_now
from keystore.webhooks import LONGEST_OVERLAP, NewSecret, WebhookInfo

app = typer.Typer(help="Where alerts of budgets and of unusual spending are sent to.", no_args_is_help=True)
WebhookId = Annotated[str, typer.Argument(help="The id that `wardgate webhook list` shows.")]
_HOURS = LONGEST_OVERLAP / timedelta(hours=1)


@app.command("add")
def add(
    url: Annotated[str, typer.Argument(help="https://HOST/PATH, or - to read it from stdin.")],
    name: Annotated[str, typer.Option(help="A note on what it is for.")] = "",
    as_json: AsJson = False,
) -> None:
    """Add a webhook and print its secret once; every alert is sent to each webhook from now on. Its URL is stored
    sealed and never shown: where its path is a secret, give it on stdin."""
    given = sys.stdin.readline().strip() if url == "-" else url

    async def work(at: Operation) -> NewSecret:
        return await at.keystore.webhooks.add(check_url(given, at.rules.alerts.webhook_hosts), name=name)

    _show_once(operate("webhook.add", work, describe=lambda one: {"webhook": one.info.id}), as_json)


@app.command("list")
def list_webhooks(as_json: AsJson = False) -> None:
    """List webhooks. Of a URL the host is shown, for the rest may be a secret."""

    async def work(at: Operation) -> list[WebhookInfo]:
        return await at.keystore.webhooks.list()

    rows = [told(info) for info in operate("webhook.list", work)]
    if as_json:
        print_json(rows)
        return
    print_table(
        ("id", "name", "host", "added", "secret since"),
        [list(row.values()) for row in rows],
        empty="There are no webhooks. Add one: wardgate webhook add https://HOST/PATH",
    )


@app.command("rotate")
def rotate(
    webhook_id: WebhookId,
    overlap_hours: Annotated[float, typer.Option(help="How long the former secret signs beside the new one.")] = 24.0,
    as_json: AsJson = False,
) -> None:
    """Make another secret and print it once."""
    if not 0 <= overlap_hours <= _HOURS:  # false for nan too
        raise ConfigError(f"--overlap-hours must be from 0 to {_HOURS:g}, not {overlap_hours:g}")
    overlap = timedelta(hours=overlap_hours)

    async def work(at: Operation) -> NewSecret:
        return await at.keystore.webhooks.rotate(webhook_id, overlap=overlap)

    _show_once(operate("webhook.rotate", work, target=webhook_id), as_json)
    if overlap and not as_json:
        typer.echo(f"For {overlap_hours:g} hours the former secret signs beside it.", err=True)


@app.command("test")
def test(webhook_id: WebhookId, as_json: AsJson = False) -> None:
    """Send a webhook.test now, once. Exit code 3 when it is not delivered."""

    async def work(at: Operation) -> Sent:
        sender = Sender(at.rules.alerts.webhook_hosts, now=utc_now)
        try:
            return await try_webhook(at.keystore, sender, webhook_id)
        finally:
            await sender.aclose()

    sent = operate("webhook.test", work, target=webhook_id, describe=lambda one: {"delivered": one.delivered})
    if as_json:
        print_json(told_of_try(webhook_id, sent))
    else:
        print(f"{webhook_id}: {_said(sent)}.")
    if not sent.delivered:
        raise typer.Exit(FINDINGS)


@app.command("remove")
def remove(webhook_id: WebhookId, as_json: AsJson = False) -> None:
    """Remove a webhook, and what was still to be sent to it."""

    async def work(at: Operation) -> WebhookInfo:
        return await at.keystore.webhooks.remove(webhook_id)

    info = operate("webhook.remove", work, target=webhook_id)
    if as_json:
        print_json(told(info) | {"removed": True})
    else:
        print(f"{info.id} at {info.host} is removed.")


def _said(sent: Sent) -> str:
    if sent.delivered:
        return f"delivered, the receiver answered {sent.status}"
    return f"not delivered: {sent.why or f'the receiver answered {sent.status}'}"


def _show_once(new: NewSecret, as_json: bool) -> None:
    if as_json:
        print_json(told_once(new))
        return
    print(new.secret)
    typer.echo(f"This is shown once. It signs what {new.info.id} at {new.info.host} is sent.", err=True)
