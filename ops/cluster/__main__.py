"""`python -m ops.cluster`: up, down, status, roll, kill."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ops.cluster import control, state
from ops.cluster.settings import FOLDER, MOST, Plan
from ops.cluster.waiting import ClusterError, Say

if TYPE_CHECKING:
    from ops.cluster.cluster import Cluster

UP_S: Final = 120.0
DOWN_S: Final = 60.0
app = typer.Typer(no_args_is_help=True, add_completion=False, help="A whole Wardgate cluster on this machine.")
Folder = Annotated[Path, typer.Option(help="Where its state and its logs are.")]


def say(text: str) -> None:
    """Progress, with the time."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


@app.command()
def up(
    replicas: Annotated[int, typer.Option(min=1, max=MOST)] = 3,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The proxy's; 0 takes any free one.")] = 0,
    drain: Annotated[float, typer.Option(min=0, max=600, help="Seconds that running answers have at a stop.")] = 10.0,
    folder: Folder = FOLDER,
    detach: Annotated[bool, typer.Option(help="Come back once it is ready; `down` ends it.")] = False,
) -> None:
    """Start all of it; Ctrl-C ends all of it."""
    found = state.read(folder)
    if found is not None and any(map(state.lives, _noted(found))):
        raise ClusterError("a cluster runs already; `down` ends it")
    if detach:
        _detached(folder, ["--replicas", str(replicas), "--port", str(port), "--drain", str(drain)])
    else:
        asyncio.run(_run(Plan(replicas=replicas, folder=folder, port=port, drain_s=drain)))


async def _run(plan: Plan) -> None:
    """Until a signal."""
    from ops.cluster.cluster import Cluster, short_folder

    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None
    for sign in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sign, task.cancel)
    listeners: list[Say] = [say]

    def tell_all(text: str) -> None:
        for tell in listeners:
            tell(text)

    cluster = Cluster(plan, tell_all)

    async def obey(order: dict[str, Any], tell: Say) -> object:
        listeners.append(tell)
        try:
            return await _obeyed(cluster, order)
        finally:
            listeners.remove(tell)

    try:
        async with short_folder() as short, cluster, control.listening(short / "control", obey):
            cluster.control = str(short / "control")
            cluster.note()
            _show_the_way(cluster)
            await asyncio.Event().wait()
    except asyncio.CancelledError:
        say("all of it has ended")


async def _obeyed(cluster: "Cluster", order: dict[str, Any]) -> object:
    match order:
        case {"do": "status"}:
            return cluster.status()
        case {"do": "roll"}:
            return await cluster.roll()
        case {"do": "kill", "number": int(number)}:
            await cluster.kill(number)
            return None
    raise ClusterError("that is no order")


def _show_the_way(cluster: "Cluster") -> None:
    body = '{"model": "minimax/MiniMax-M2", "messages": [{"role": "user", "content": "Hello"}]}'
    say("ready. Ctrl-C, or `.venv/bin/python -m ops.cluster down`, ends all of it. Try it:")
    print(
        f"\ncurl -i {cluster.url}/v1/chat/completions -H 'Authorization: Bearer {cluster.token}' "
        f"-H 'Content-Type: application/json' -d '{body}'\n",
        flush=True,
    )


def _detached(folder: Path, options: list[str]) -> None:
    """In a process of its own, whose words are shown until it is ready. Raises ClusterError."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "up.log"
    command = [sys.executable, "-m", "ops.cluster", "up", "--folder", str(folder), *options]
    with log.open("wb") as out:
        log.chmod(0o600)  # it shows a token
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    until, shown = time.monotonic() + UP_S, 0
    while True:
        ended, ready = child.poll() is not None, bool((state.read(folder) or {}).get("control"))
        text = log.read_text(errors="replace")
        print(text[shown:], end="", flush=True)
        shown = len(text)
        if ready and text.endswith("\n\n"):
            return
        if ended or time.monotonic() > until:
            child.terminate()
            raise ClusterError(f"it did not start; see {log}")
        time.sleep(0.1)


@app.command()
def down(folder: Folder = FOLDER) -> None:
    """End what `up` started, and nothing else; it may be called twice."""
    found = state.read(folder)
    if found is None:
        say("nothing runs")
        return
    ended = state.end([found["supervisor"]], DOWN_S)  # it ends its children itself
    left = state.end(found["children"], 10.0)  # it had been killed
    state.forget(folder)
    say(f"ended: {', '.join([*ended, *left])}" if ended or left else "nothing ran any more")


@app.command()
def status(folder: Folder = FOLDER, as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """Who runs where, and who is ready. Exit code 1 when none runs."""
    told = _ordered(folder, {"do": "status"})
    if as_json:
        print(json.dumps(told, indent=2))
        return
    print(f"proxy {told['proxy']['url']}  refused {told['proxy']['refused']}  upstream {told['upstream']}")
    for one in told["replicas"]:
        word = "ready" if one.get("ready") else "away"
        print(f"{one['name']}  {word}  process {one['pid']}  {one['url']}  metrics {one['metrics']}")
        print(f"  restarts {one['restarts']}  open {one.get('open', 0)}  taken {one.get('taken', 0)}  log {one['log']}")


@app.command()
def roll(folder: Folder = FOLDER) -> None:
    """A rolling restart: one replica after another."""
    _ordered(folder, {"do": "roll"})


@app.command()
def kill(number: Annotated[int, typer.Argument(min=1)], folder: Folder = FOLDER) -> None:
    """kill -9 for one replica, which is started again."""
    _ordered(folder, {"do": "kill", "number": number})


def _ordered(folder: Path, what: dict[str, Any]) -> Any:
    found = state.read(folder)
    if found is None or not state.lives(found["supervisor"]):
        raise ClusterError("no cluster runs" + (", but parts of one do; `down` ends them" if _left(found) else ""))
    if not found["control"]:
        raise ClusterError("the cluster is not ready yet")
    return asyncio.run(control.order(found["control"], what, say))


def _left(found: dict[str, Any] | None) -> bool:
    return found is not None and any(map(state.lives, found["children"]))


def _noted(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [found["supervisor"], *found["children"]]


def main() -> None:
    """The command line; a refusal is a sentence and exit code 1."""
    os.umask(0o077)
    try:
        app()
    except ClusterError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
