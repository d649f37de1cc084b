"""`wardgate serve`, `demo`, `sandbox` and `migrate`: what runs, and what must have run before."""

import asyncio
from contextlib import ExitStack
from typing import Annotated

import typer

from gateway.bootstrap import DEMO_PROVIDER, Bootstrap, bootstrap, points_at_sandbox, write_config
from gateway.cli.begins import settings
from gateway.cli.console import AsJson, opened, operator, print_json
from gateway.config import DEFAULT_PATH
from gateway.control.gate import Control
from gateway.listeners import PortTaken
from gateway.rules import Rules, load_rules
from gateway.settings import Settings
from keystore.errors import counted
from keystore.migrate import migrate as run_migrations

SANDBOX_PORT = 9200
MOST_WORKERS = 64
LOOPBACK = "127.0.0.1:"
OTHER_PORT = (
    "stop what listens there, or delete wardgate.toml and take another port: make run ARGS='--sandbox-port 9299'"
)


def serve(
    workers: Annotated[
        int,
        typer.Option(min=1, max=MOST_WORKERS, help="Processes on the one port, each with its own memory."),
    ] = 1,
) -> None:
    """Serve on WARDGATE_HOST:WARDGATE_PORT until SIGTERM; an empty database is migrated first."""
    from gateway.cli import serving

    serving.serve(workers)


def worker(number: int, port: int, wire: int) -> None:
    """One of several processes that serve: started by `serve --workers`, never by hand."""
    from gateway.cli import serving

    serving.worker(number, port, wire)


def demo(sandbox_port: Annotated[int, typer.Option(help="The sandbox's port.")] = SANDBOX_PORT) -> None:
    """Serve with the sandbox as MiniMax, a demo tenant and a token: what `make run` does."""
    from gateway.cli.serving import run
    from gateway.sandbox.server import SandboxError, SandboxServer

    chosen = settings()
    if chosen.config is None and write_config(DEFAULT_PATH, sandbox_port):
        print(f"Wrote {DEFAULT_PATH}: MiniMax is the sandbox at 127.0.0.1:{sandbox_port}.")
    rules = load_rules(chosen)
    with ExitStack() as stack:
        if points_at_sandbox(rules.registry, sandbox_port):
            try:
                stack.enter_context(SandboxServer(port=sandbox_port))
            except SandboxError as error:
                raise PortTaken(f"{error}; {OTHER_PORT}") from None
            made: Bootstrap | None = asyncio.run(_bootstrap(chosen))
        else:
            print(no_sandbox(rules, sandbox_port))
            made = None
        run(chosen, lambda listening: _announce(listening.url, listening.metrics_url, made))


def no_sandbox(rules: Rules, sandbox_port: int) -> str:
    """Why there is no demo, and the way to one."""
    provider = rules.registry.get(DEMO_PROVIDER)
    ports = [host.removeprefix(LOOPBACK) for host in (provider.hosts if provider else ()) if host.startswith(LOOPBACK)]
    says = "MiniMax does not point at the sandbox in your configuration"
    ways = "delete wardgate.toml to have it written anew"
    if ports:
        says += f", but at {LOOPBACK}{ports[0]}; the sandbox is to listen on {sandbox_port}"
        ways = f"start with --sandbox-port {ports[0]}, or {ways}"
    return f"{says}: no demo tenant, no sandbox, no token. For a demo, {ways}."


async def _bootstrap(chosen: Settings) -> Bootstrap:
    async with opened(chosen) as (keystore, _):
        return await bootstrap(keystore)


def _announce(url: str, metrics_url: str, made: Bootstrap | None) -> None:
    lines = ["", f"Wardgate serves {url} (metrics: {metrics_url}/metrics). Ctrl-C stops it."]
    if made is not None:
        lines += [
            "",
            f"Tenant   {made.tenant.slug} on plan {made.tenant.plan}; keys stored as {', '.join(made.names)}",
        ]
        lines += [f"Token    {made.token}"]
        lines += (
            [f"Admin    {made.admin_token} (shown once; for the admin API: {url}/admin/openapi.json)"]
            if made.admin_token
            else []
        )
        lines += ["", "Try it:", "", _curl(url, made.token), ""]
    print("\n".join(lines), flush=True)


def _curl(url: str, token: str) -> str:
    return (
        f"curl -i {url}/v1/chat/completions -H 'Authorization: Bearer {token}' "
        "-H 'Content-Type: application/json' "
        """-d '{"model": "auto", "messages": [{"role": "user", "content": "Hello"}]}'"""
    )


def sandbox(
    host: Annotated[str, typer.Option(help="Loopback unless you know better.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes any free port.")] = SANDBOX_PORT,
    key: Annotated[list[str] | None, typer.Option(help="An accepted key; repeatable. Default: sk-sandbox-*.")] = None,
    gap_ms: Annotated[float, typer.Option(help="Milliseconds between two tokens of a stream.")] = 0.0,
) -> None:
    """Run the stand-in for a provider: it speaks OpenAI's wire and misbehaves as told (docs/sandbox.md)."""
    from gateway.sandbox.server import SandboxError, run_sandbox

    accepted = "keys that begin with sk-sandbox-" if not key else f"{len(key)} given key(s)"

    def announce(url: str) -> None:
        print(f"The sandbox listens on {url}/v1 and accepts {accepted}. Ctrl-C stops it.", flush=True)

    try:
        run_sandbox(host, port, keys=key or None, gap_s=gap_ms / 1000.0, on_ready=announce)
    except SandboxError as error:
        raise PortTaken(f"{error}; choose another with --port") from None


def migrate(as_json: AsJson = False) -> None:
    """Bring the database to this version's schema; does nothing when it is there already."""
    chosen = settings()
    applied = asyncio.run(run_migrations(chosen.database_url))
    sealed = asyncio.run(_seal_tokens(chosen)) if "0002" in applied and "0001" not in applied else []
    if as_json:
        print_json({"applied": applied, "sealed_tokens": sealed})
    elif applied:
        print(f"Migrated: {', '.join(applied)}.")
        if sealed:
            print(f"Sealed what was there: {counted(len(sealed), 'token')}.")
    else:
        print("The database is up to date.")


async def _seal_tokens(chosen: Settings) -> list[str]:
    """Tokens of before they had seals are taken over once, when the schema that has seals is made."""
    async with opened(chosen) as (keystore, rules):
        control = Control(keystore, rules)
        return await control.run(operator(), "token.seal", lambda at: at.keystore.tokens.seal_unsealed())
