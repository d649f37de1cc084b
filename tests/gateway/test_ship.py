"""What is shipped fits what was built: the image, fly.toml and docs/deploy.md name settings, ports and commands that
exist. No container engine is needed; the image's health check is run against a real port."""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.late import COMMANDS
from gateway.config import Limits
from gateway.ending import STOP_S
from gateway.logs import LEVELS
from gateway.metric_specs import SPECS
from gateway.settings import NAMES, Settings, read_settings
from gateway.tally import Tally

PROJECT = Path(__file__).parents[2]
SETTINGS = {f"WARDGATE_{name.upper()}" for name in NAMES}

# --- reading the files -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Instruction:
    """One line of a Dockerfile, continuation lines joined."""

    word: str
    rest: str


def instructions() -> list[Instruction]:
    text = (PROJECT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines()]
    return [Instruction(*line.split(None, 1)) for line in lines if line and not line.startswith("#")]


def stages() -> list[list[Instruction]]:
    found: list[list[Instruction]] = []
    for each in instructions():
        if each.word == "FROM":
            found.append([])
        found[-1].append(each)
    return found


def final(word: str) -> list[str]:
    """What the running stage says under one word."""
    return [each.rest for each in stages()[-1] if each.word == word]


def image_environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for line in final("ENV") for pair in shlex.split(line))


def context_sources() -> set[str]:
    """What the image takes from the checkout."""
    copies = [shlex.split(each.rest) for each in instructions() if each.word == "COPY"]
    return {source for words in copies if not words[0].startswith("--from") for source in words[:-1]}


FLY: dict[str, Any] = tomllib.loads((PROJECT / "fly.toml").read_text(encoding="utf-8"))
DEPLOY = (PROJECT / "docs" / "deploy.md").read_text(encoding="utf-8")

# --- the image -------------------------------------------------------------------------------------------------------


def test_image_has_one_stage_that_builds_and_one_that_runs() -> None:
    assert [stage[0].rest for stage in stages()] == ["python:3.12-slim AS build", "python:3.12-slim"]


def test_image_installs_nothing_that_the_locks_do_not_hash() -> None:
    commands = [part for each in instructions() if each.word == "RUN" for part in each.rest.split("&&")]
    installs = [shlex.split(part) for part in commands if re.search(r"\bpip\b.*\b(install|wheel|download)\b", part)]
    assert len(installs) == 4
    for words in installs:
        hashed = {"--require-hashes", "--only-binary"} <= set(words)
        assert hashed or {"--no-deps", "--no-index"} <= set(words), words
    locks = {word for words in installs for word in words if word.endswith(".lock")}
    assert locks == {"requirements.lock", "requirements-build.lock"}
    assert all((PROJECT / lock).is_file() for lock in locks)


def test_image_takes_from_the_checkout_only_what_is_there_and_let_through() -> None:
    ignore = (PROJECT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in ignore if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {line.removeprefix("!") for line in rules if line.startswith("!")} == context_sources()
    assert [name for name in context_sources() if not (PROJECT / name).exists()] == []


def test_running_stage_holds_the_environment_alone() -> None:
    assert final("COPY") == ["--from=build /opt/wardgate /opt/wardgate"]
    assert final("ADD") == []
    assert image_environment()["PATH"].startswith("/opt/wardgate/bin:")


def test_image_runs_as_a_user_without_rights_who_owns_the_volume() -> None:
    [user] = final("USER")
    uid, gid = map(int, user.split(":"))
    assert uid >= 10_000
    made = " ".join(final("RUN"))
    assert f"--uid {uid} " in made
    assert f"--gid {gid} " in made
    assert "install --directory --owner wardgate --group wardgate --mode 0700 /data" in made
    words = [each.word for each in stages()[-1]]
    assert words.index("RUN") < words.index("USER") < words.index("CMD")


def test_image_settings_exist_and_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = {name: value for name, value in image_environment().items() if name.startswith("WARDGATE_")}
    assert set(ours) <= SETTINGS
    for name, value in ours.items():
        monkeypatch.setenv(name, value)
    settings = read_settings(os.environ)
    assert settings.host == "0.0.0.0"
    assert settings.database_url == "sqlite+aiosqlite:////data/wardgate.db"
    assert settings.sealing_keys_file == Path("/data/sealing-keys")


def test_image_keeps_all_that_must_not_be_lost_on_its_volume() -> None:
    [volume] = json.loads(*final("VOLUME"))
    environment = image_environment()
    assert environment["WARDGATE_DATABASE_URL"].endswith(f"//{volume}/wardgate.db")
    assert Path(environment["WARDGATE_SEALING_KEYS_FILE"]).parent == Path(volume)
    assert final("WORKDIR") == [volume]


def test_image_exposes_the_ports_that_it_listens_on() -> None:
    environment = image_environment()
    assert final("EXPOSE") == [f"{environment['WARDGATE_PORT']} {environment['WARDGATE_METRICS_PORT']}"]


def test_image_starts_the_gateway_and_is_stopped_by_the_signal_that_drains_it() -> None:
    assert json.loads(*final("CMD")) == ["wardgate", "serve"]
    assert "wardgate serve" in commands()
    assert final("STOPSIGNAL") == ["SIGTERM"]


# --- the health check ------------------------------------------------------------------------------------------------


@contextmanager
def answering(status: int, asked: list[str]) -> Iterator[int]:
    """A port that answers each GET with `status` and notes its path."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def check_health(port: int) -> int:
    [healthcheck] = final("HEALTHCHECK")
    words = json.loads(healthcheck[healthcheck.index("CMD ") + 4 :])
    assert words[0] == "python"
    environment = {"WARDGATE_PORT": str(port), "HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    return subprocess.run([sys.executable, *words[1:]], env=environment, capture_output=True, check=False).returncode


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False), (404, False)])
def test_health_check_follows_readyz(status: int, healthy: bool) -> None:
    asked: list[str] = []
    with answering(status, asked) as port:
        assert (check_health(port) == 0) is healthy
    assert asked == ["/readyz"]


def test_health_check_fails_when_nothing_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
    assert check_health(port) != 0


# --- fly.toml --------------------------------------------------------------------------------------------------------


def test_fly_ports_are_the_images() -> None:
    environment = image_environment()
    assert FLY["http_service"]["internal_port"] == int(environment["WARDGATE_PORT"])
    assert FLY["metrics"] == {"port": int(environment["WARDGATE_METRICS_PORT"]), "path": "/metrics"}


def test_fly_gives_a_running_answer_its_time() -> None:
    assert FLY["kill_signal"] == "SIGTERM"
    assert STOP_S < FLY["kill_timeout"] <= 300  # seconds; Fly's own limit
    assert FLY["http_service"]["http_options"]["idle_timeout"] >= Limits().answer_timeout_s


def test_fly_migrates_before_it_serves() -> None:
    assert shlex.split(FLY["deploy"]["release_command"]) == ["wardgate", "migrate"]
    assert shlex.split(FLY["processes"]["app"]) == ["sh", "-c", "wardgate migrate && exec wardgate serve"]


def test_fly_checks_both_health_routes() -> None:
    assert {check["path"] for check in FLY["http_service"]["checks"]} == {"/readyz", "/livez"}
    assert all(check["method"] == "GET" for check in FLY["http_service"]["checks"])


def test_fly_keeps_the_images_data_on_a_volume() -> None:
    [volume] = json.loads(*final("VOLUME"))
    assert FLY["mounts"]["destination"] == volume
    environment = image_environment()
    same = ("WARDGATE_DATABASE_URL", "WARDGATE_SEALING_KEYS_FILE")
    assert {name: FLY["env"][name] for name in same} == {name: environment[name] for name in same}


def test_fly_sets_only_settings_that_exist_and_no_secret() -> None:
    assert set(FLY["env"]) <= SETTINGS
    assert "WARDGATE_SEALING_KEYS" not in FLY["env"]
    assert FLY["env"]["WARDGATE_LOG_LEVEL"] in LEVELS


def test_fly_machine_has_room_for_litellm_and_never_sleeps() -> None:
    assert [machine["memory"] for machine in FLY["vm"]] == ["1gb"]
    assert FLY["http_service"]["auto_stop_machines"] == "off"
    assert FLY["http_service"]["min_machines_running"] >= 1


# --- docs/deploy.md --------------------------------------------------------------------------------------------------


@cache
def commands() -> frozenset[str]:
    """Every command of the CLI with and without its sub-command: `wardgate serve`, `wardgate tenant add`."""
    found = set()
    for name, row in COMMANDS.items():
        inner = getattr(row.load(name), "commands", {})
        found |= {f"wardgate {name} {each}" for each in inner} if inner else {f"wardgate {name}"}
    return frozenset(found)


def test_environment_table_lists_every_setting_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(WARDGATE_[A-Z_]+)` \| ([^|]+?) \|", DEPLOY, flags=re.MULTILINE))
    assert set(rows) == SETTINGS
    for name, cell in rows.items():
        default = getattr(Settings(), name.removeprefix("WARDGATE_").lower())
        if default is not None:
            told = str(default).lower() if isinstance(default, bool) else str(default)
            assert cell.strip("`") == told, name
        else:
            assert not cell.startswith("`") or name == "WARDGATE_CONFIG", name


def commands_in(text: str) -> set[str]:
    """What follows the word `wardgate` in code: one word, or two when there are."""
    code = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL) + re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text))
    found = re.findall(r"(?<![\w-])(?=(wardgate (?!wardgate\b)[a-z]+(?: [a-z-]+)?))", code)
    return {match if match in commands() else " ".join(match.split()[:2]) for match in found}


def test_commands_in_the_guide_exist() -> None:
    named = commands_in(DEPLOY)
    assert named - commands() == set()
    assert {"wardgate migrate", "wardgate tenant add", "wardgate key set", "wardgate token create"} <= named
    assert commands_in("```sh\ndocker exec wardgate wardgate frob it\n```") == {"wardgate frob"}


def test_metrics_headers_and_lines_in_the_guide_exist() -> None:
    series = set(re.findall(r"\bwardgate_[a-z_]+", DEPLOY)) - {"wardgate_data"}
    assert series <= {spec.name for spec in SPECS}
    assert {"wardgate_key_resolutions_total", "wardgate_build_info"} <= series
    tally = Tally("r", "POST", 0.0, catalogue="c", provider="p", model="m", key_source="byok", key_via="former")
    assert set(re.findall(r"x-wardgate-[a-z-]+", DEPLOY)) <= set(tally.response_headers())
    logs = (PROJECT / "gateway" / "logs.py").read_text(encoding="utf-8")
    assert all(f'"{event}"' in logs for event in re.findall(r"\b(?:key|route)\.[a-z_]+\b", DEPLOY))


def test_alerts_in_the_guide_exist() -> None:
    alerts = (PROJECT / "ops" / "prometheus" / "alerts.yml").read_text(encoding="utf-8")
    named = re.findall(r"`(Wardgate[A-Z]\w+)`", DEPLOY)
    assert named
    assert [name for name in named if f"alert: {name}\n" not in alerts] == []
