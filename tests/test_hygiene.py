"""House rules that no linter holds: no host or path of a workplace in the project, docstrings, sizes, no prints."""

import ast
import configparser
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

PROJECT = Path(__file__).parents[1]
PACKAGES = ("gateway", "router", "keystore")
MOST_LINES = 400
LONGER: dict[str, int] = {}  # file -> lines, each with the reason why

# --- the files -------------------------------------------------------------------------------------------------------


def project_files() -> list[Path]:
    """Tracked files and those that would be: what a commit can hold."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=PROJECT,
        capture_output=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout: " + listed.stderr.decode(errors="replace").strip())
    paths = [PROJECT / name for name in listed.stdout.decode().split("\0") if name]
    return [path for path in paths if path.is_file()]


def texts() -> Iterator[tuple[str, str]]:
    """Every text file, by its path in the project."""
    for path in project_files():
        content = path.read_bytes()
        if b"\0" not in content:
            yield path.relative_to(PROJECT).as_posix(), content.decode("utf-8")


def modules() -> Iterator[tuple[str, str]]:
    for name, text in texts():
        if name.endswith(".py") and text.strip():
            yield name, text


def test_files_are_found() -> None:
    names = {name for name, _ in texts()}
    assert {"pyproject.toml", "gateway/events.py", "tests/test_hygiene.py", "Dockerfile"} <= names


# --- hosts and paths -------------------------------------------------------------------------------------------------


def index_hosts() -> set[str]:
    """Hosts that packages come from: the public ones, and those that this machine is set to use."""
    public = {"py" + "pi.org", "python" + "hosted.org", "registry." + "npmjs.org", "registry." + "yarnpkg.com"}
    names = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX")
    urls = [url for name in names for url in os.environ.get(name, "").split()]
    for path in (
        Path("/etc/pip.conf"),
        Path.home() / ".pip" / "pip.conf",
        Path.home() / ".config" / "pip" / "pip.conf",
    ):
        parser = configparser.RawConfigParser()
        parser.read(path)
        for section in parser.sections():
            urls += parser.get(section, "index-url", fallback="").split()
            urls += parser.get(section, "extra-index-url", fallback="").split()
    configured = {host for url in urls if (host := urlsplit(url).hostname)}
    return public | configured - {"localhost", "127.0.0.1"}


WORKPLACES = re.compile(
    r"(?<![\w./-])/(?:" + "|".join(("wor" + "k/", "roo" + "t/", "tm" + "p/w/", "hom" + r"e/\w", "Use" + r"rs/\w")) + ")"
)


def test_no_file_names_a_package_index() -> None:
    hosts = index_hosts()
    assert [(name, host) for name, text in texts() for host in hosts if host in text] == []


def test_no_file_names_a_path_of_a_workplace() -> None:
    assert [(name, found.group()) for name, text in texts() for found in WORKPLACES.finditer(text)] == []


@pytest.mark.parametrize("path", ["/roo" + "t/x", "see /wor" + "k/main", "'/tm" + "p/w/prom'", "/hom" + "e/someone"])
def test_path_of_a_workplace_would_be_found(path: str) -> None:
    assert WORKPLACES.search(path)


@pytest.mark.parametrize(
    "path", ["docs/work/x", "/var/lib", "/tmp/wardgate", "/data/root/x", "https://x.example/work/"]
)
def test_other_path_is_no_workplace(path: str) -> None:
    assert not WORKPLACES.search(path)


# --- modules ---------------------------------------------------------------------------------------------------------


def test_every_module_begins_with_a_docstring() -> None:
    assert [name for name, text in modules() if ast.get_docstring(ast.parse(text)) is None] == []


def test_no_module_is_longer_than_a_room() -> None:
    ours = [(name, text) for name, text in modules() if name.split("/")[0] in (*PACKAGES, "ops")]
    lengths = {name: len(text.splitlines()) for name, text in ours}
    too_long = {name: lines for name, lines in lengths.items() if lines > LONGER.get(name, MOST_LINES)}
    assert too_long == {}, "find the second noun and give it a module of its own"
    assert [name for name in LONGER if lengths.get(name, 0) <= MOST_LINES] == [], "no longer needs an exception"


def prints(text: str) -> list[int]:
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    return [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]


def test_only_the_command_line_prints() -> None:
    ours = [(name, text) for name, text in modules() if name.split("/")[0] in PACKAGES]
    assert [(name, prints(text)) for name, text in ours if prints(text) and not name.startswith("gateway/cli/")] == []
    assert prints("x = 1\nprint(x)") == [2]
