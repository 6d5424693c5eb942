from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from typer.main import get_group

from tincture import cli
from tincture.cli import main
from tincture.cli.commands import entries, load_command
from tincture.cli.session import new_group


@pytest.mark.parametrize("name", entries())
def test_the_list_says_what_the_command_says_of_itself(name: str) -> None:
    first = load_command(name).help.partition("\n\n")[0]
    assert " ".join(first.split()) == entries()[name].summary


def test_no_command_of_a_module_is_missing_from_the_list() -> None:
    modules = {path.stem for path in Path(inspect.getfile(cli)).parent.glob("*.py")}
    assert {entry.module for entry in entries().values()} <= modules
    for module in modules:
        register = getattr(__import__(f"tincture.cli.{module}", fromlist=["register"]), "register", None)
        if register is not None:
            register(app := new_group(module))
            there = {name for name, entry in entries().items() if entry.module == module}
            assert set(get_group(app).commands) == there, module


def test_the_help_names_every_command_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in listed if line.strip()] == list(entries())


def test_a_command_that_is_not_there_is_told_from_those_that_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generat", "a cat"]) == 2
    assert capsys.readouterr().err == (
        "error: No such command 'generat'. Did you mean 'generate'? See tincture --help.\n"
    )
