"""The command line imports a command when it is run; the rows that stand for the commands say what the commands say."""

import pytest
import typer

from gateway.cli.late import COMMANDS
from gateway.cli.root import app
from tests.gateway.imported import imported_by

HEAVY = ("sqlalchemy", "fastapi", "pydantic", "uvicorn", "cryptography", "structlog", "prometheus_client")


@pytest.mark.parametrize("name", COMMANDS)
def test_row_says_of_a_command_what_the_command_says(name: str) -> None:
    command = COMMANDS[name].load(name)
    first = " ".join(command.help.split("\n\n")[0].split())
    assert (command.name, first, command.hidden) == (name, COMMANDS[name].help, COMMANDS[name].hidden)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_nothing_of_a_command_is_imported_for_the_list_of_commands(arguments: list[str]) -> None:
    loaded = imported_by(f"import sys; sys.argv[1:] = {arguments}; from gateway.entry import main; main()")
    assert not loaded & {*HEAVY, *(f"gateway.cli.{row.module}" for row in COMMANDS.values())}


def test_list_is_that_of_the_rows() -> None:
    assert set(typer.main.get_command(app).commands) == set(COMMANDS)  # type: ignore[attr-defined]
