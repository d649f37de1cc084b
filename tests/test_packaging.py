"""The distribution: three import names of its own, locked and hashed requirements, nothing that can be uploaded."""

import ast
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PROJECT = Path(__file__).parents[1]
PYPROJECT: dict[str, Any] = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = ("gateway", "router", "keystore")
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-build.lock")
CLIENT_LOCKS = tuple(sorted(f"tests/clients/locks/{path.name}" for path in PROJECT.glob("tests/clients/locks/*.lock")))
STOLEN = ("1.82.7", "1.82.8")  # litellm releases that carried a credential stealer, OSV MAL-2026-2144

# --- import names ----------------------------------------------------------------------------------------------------


def claimants(package: str) -> set[str]:
    """The installed distributions that bring a top-level module of this name; an editable one brings none."""
    found = set()
    for distribution in metadata.distributions():
        declared = (distribution.read_text("top_level.txt") or "").split()
        files: Iterable[metadata.PackagePath] = distribution.files or ()
        if package in declared or any(file.parts[0] in (package, f"{package}.py") for file in files):
            found.add(distribution.name)
    return found | set(metadata.packages_distributions().get(package, []))


@pytest.mark.parametrize("package", PACKAGES)
def test_import_name_belongs_to_this_distribution_alone(package: str) -> None:
    assert claimants(package) <= {"wardgate"}
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin == str(PROJECT / package / "__init__.py")


def test_import_name_of_another_distribution_would_be_found() -> None:
    assert claimants("structlog") == {"structlog"}
    assert claimants("_pytest") == {"pytest"}


def test_wheel_holds_the_three_packages_with_their_data_and_nothing_else(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=PROJECT, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert {name.split("/")[0] for name in names} == set(PACKAGES)
    data = {f"{package}/py.typed" for package in PACKAGES} | {"keystore/providers.toml", "router/plans.toml"}
    assert data <= names
    sources = {
        path.relative_to(PROJECT).as_posix() for package in PACKAGES for path in (PROJECT / package).rglob("*.py")
    }
    assert sources <= names


def imported(source: str) -> set[str]:
    """The top-level names that a module imports anywhere in it."""
    nodes = list(ast.walk(ast.parse(source)))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    return {name.split(".")[0] for name in names}


def test_nothing_that_is_installed_needs_what_is_not() -> None:
    sources = [path for package in PACKAGES for path in (PROJECT / package).rglob("*.py")]
    assert [path for path in sources if imported(path.read_text(encoding="utf-8")) & {"ops", "tests"}] == []
    assert imported("def f():\n  from ops.cluster import state") == {"ops"}


# --- what pyproject.toml says ----------------------------------------------------------------------------------------


def test_distribution_cannot_be_uploaded() -> None:
    assert "Private :: Do Not Upload" in PYPROJECT["project"]["classifiers"]
    assert "Private :: Do Not Upload" in (metadata.metadata("wardgate").get_all("Classifier") or [])


def test_script_starts_the_command_line() -> None:
    assert PYPROJECT["project"]["scripts"] == {"wardgate": "gateway.entry:main"}
    [script] = [each for each in metadata.entry_points(group="console_scripts") if each.name == "wardgate"]
    assert callable(script.load())


def test_extras_are_those_that_make_and_the_image_count_on() -> None:
    assert set(PYPROJECT["project"]["optional-dependencies"]) == {"dev", "build"}


def test_tools_of_tests_and_builds_are_not_needed_to_run() -> None:
    runtime = {canonicalize_name(Requirement(line).name) for line in PYPROJECT["project"]["dependencies"]}
    extras = PYPROJECT["project"]["optional-dependencies"]
    others = {canonicalize_name(Requirement(line).name) for lines in extras.values() for line in lines}
    assert runtime & others == set()


@pytest.mark.parametrize("version", STOLEN)
def test_stolen_litellm_release_can_never_be_chosen(version: str) -> None:
    [litellm] = [Requirement(line) for line in PYPROJECT["project"]["dependencies"] if line.startswith("litellm")]
    assert not litellm.specifier.contains(version)
    assert f"!={version}" in str(litellm.specifier)
    assert litellm.extras == set()  # litellm[proxy] pulls a whole server


# --- the locks -------------------------------------------------------------------------------------------------------


def locked(name: str) -> dict[str, list[str]]:
    """Requirement line -> its hashes."""
    text = (PROJECT / name).read_text(encoding="utf-8").replace("\\\n", " ")
    found = {}
    for line in text.splitlines():
        requirement, *hashes = re.split(r"\s+--hash=", line.strip())
        if requirement and not requirement.startswith("#"):
            found[requirement] = hashes
    return found


def versions(name: str) -> dict[str, set[str]]:
    """Distribution -> the versions that the lock pins (more than one where markers tell platforms apart)."""
    found: dict[str, set[str]] = {}
    for line in locked(name):
        requirement = Requirement(line)
        found.setdefault(canonicalize_name(requirement.name), set()).add(str(requirement.specifier))
    return found


@pytest.mark.parametrize("name", LOCKS + CLIENT_LOCKS)
def test_lock_names_no_host(name: str) -> None:
    text = (PROJECT / name).read_text(encoding="utf-8")
    assert ":" + "//" not in text
    assert not re.search(r"^\s*(?:-i|--index-url|--extra-index-url|--find-links|--trusted-host|-r|-e)\b", text, re.M)


@pytest.mark.parametrize("name", LOCKS + CLIENT_LOCKS)
def test_every_requirement_of_a_lock_is_pinned_and_hashed(name: str) -> None:
    lines = locked(name)
    assert lines
    for line, hashes in lines.items():
        assert re.fullmatch(r"==[^,*]+", str(Requirement(line).specifier)), line
        assert hashes, line
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest) for digest in hashes), line


def test_clients_in_javascript_are_pinned_and_hashed_and_run_no_scripts() -> None:
    folder = PROJECT / "tests" / "clients" / "js"
    packages = json.loads((folder / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    assert all("integrity" in package for name, package in packages.items() if name)
    assert not any("resolved" in package for package in packages.values())
    settings = (folder / ".npmrc").read_text(encoding="utf-8").split()
    assert {"ignore-scripts=true", "omit-lockfile-registry-resolved=true"} <= set(settings)


def test_page_on_clients_tells_the_versions_that_are_locked() -> None:
    page, folder = (PROJECT / "docs" / "clients.md").read_text(encoding="utf-8"), PROJECT / "tests" / "clients"
    javascript = json.loads((folder / "js" / "package.json").read_text(encoding="utf-8"))["dependencies"]
    told = {f"{name} {version}" for name, version in javascript.items() if name != "zod"}
    for wanted in folder.glob("locks/*.in"):
        name = Requirement(wanted.read_text(encoding="utf-8").splitlines()[-1]).name
        told |= {f"{name} {pin[2:]}" for pin in versions(f"tests/clients/locks/{wanted.stem}.lock")[name]}
    told |= {f"{name} {pin[2:]}" for name in ("openai", "anthropic") for pin in versions("requirements-dev.lock")[name]}
    assert {one for one in told if one not in page} == set()


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("requirements.lock", PYPROJECT["project"]["dependencies"]),
        ("requirements-dev.lock", PYPROJECT["project"]["optional-dependencies"]["dev"]),
        ("requirements-build.lock", PYPROJECT["project"]["optional-dependencies"]["build"]),
        ("requirements-build.lock", PYPROJECT["build-system"]["requires"]),
    ],
)
def test_lock_satisfies_what_pyproject_asks_for(name: str, wanted: list[str]) -> None:
    pins = versions(name)
    for line in wanted:
        requirement = Requirement(line)
        pinned = {pin.removeprefix("==") for pin in pins[canonicalize_name(requirement.name)]}
        assert all(requirement.specifier.contains(version, prereleases=True) for version in pinned), line


def test_tests_run_on_the_versions_that_are_shipped() -> None:
    runtime, dev = versions("requirements.lock"), versions("requirements-dev.lock")
    assert {name: dev.get(name) for name in runtime} == runtime


@pytest.mark.parametrize("name", LOCKS)
def test_lock_holds_no_stolen_release_and_no_server_of_litellm(name: str) -> None:
    pins = versions(name)
    assert not {f"=={version}" for version in STOLEN} & pins.get("litellm", set())
    assert "litellm-proxy-extras" not in pins


def test_installed_litellm_is_the_locked_one() -> None:
    assert {f"=={Version(metadata.version('litellm'))}"} == versions("requirements.lock")["litellm"]
