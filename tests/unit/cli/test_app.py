from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import tincture
from tests.unit.cli.conftest import FakeRecipe
from tincture.cli import main
from tincture.errors import DataError, UsageError

COMMANDS = (
    [],
    ["demo"],
    ["create"],
    ["create", "embedding"],
    ["create", "hypernetwork"],
    ["train"],
    ["train", "embedding"],
    ["train", "hypernetwork"],
    ["resume"],
    ["preview"],
    ["generate"],
    ["inspect"],
    ["convert"],
    ["doctor"],
)


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_has_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--help"]) == 0
    assert "Usage: tincture" in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["create"], ["train"]])
def test_a_group_without_a_command_shows_help_as_bad_usage(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert "Commands:" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"tincture {tincture.version()}\n"
    assert main(["--version", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"version": tincture.version()}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["trian"], "'trian'"),
        (["create", "embedding"], "'NAME'"),
        (["create", "embedding", "cat", "--vectors", "many"], "'--vectors'"),
        (["train", "embedding", "cat", "--batch-siez", "1"], "--batch-size"),
        (["train", "embedding", "cat", "--precision", "fp8"], "'--precision'"),
    ],
)
def test_bad_usage_is_one_sentence_and_exit_2(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str], recipe: FakeRecipe
) -> None:
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert told in captured.err
    assert "--help" in captured.err
    assert not recipe.calls


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (DataError("No picture in 'd'."), 1, "error: No picture in 'd'.\n"),
        (UsageError("Not that."), 2, "error: Not that.\n"),
        (KeyError("boom"), 1, "error: KeyError: 'boom' (run with --debug for the traceback)\n"),
    ],
)
def test_an_error_is_a_sentence_and_an_exit_code(
    error: Exception, code: int, line: str, recipe: FakeRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe.answers["create"] = error
    assert main(["create", "embedding", "cat"]) == code
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", line)


@pytest.mark.parametrize(
    "words", [["--debug", "create", "embedding", "cat"], ["create", "embedding", "cat", "--debug"]]
)
def test_debug_shows_the_traceback(words: list[str], recipe: FakeRecipe, capsys: pytest.CaptureFixture[str]) -> None:
    recipe.answers["create"] = DataError("No picture.")
    assert main(words) == 1
    told = capsys.readouterr().err
    assert "Traceback" in told
    assert told.endswith("error: No picture.\n")


def test_keyboard_interrupt_ends_with_130(recipe: FakeRecipe) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    recipe.answers["create"] = interrupt
    assert main(["create", "embedding", "cat"]) == 130


@pytest.mark.filterwarnings("default")
def test_warnings_are_plain_lines_on_stderr(recipe: FakeRecipe, capsys: pytest.CaptureFixture[str]) -> None:
    def warn(*_: object, **__: object) -> Path:
        warnings.warn("x.png is skipped: truncated", stacklevel=1)
        return Path("cat.pt")

    recipe.answers["create"] = warn
    before = warnings.showwarning
    assert main(["create", "embedding", "cat"]) == 0
    captured = capsys.readouterr()
    assert captured.err == "warning: x.png is skipped: truncated\n"
    assert captured.out == "made cat.pt\n"
    assert warnings.showwarning is before


def test_root_by_flag_before_or_behind_the_command_or_by_variable(
    recipe: FakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [tmp_path / name for name in ("before", "behind", "variable")]
    for folder in folders:
        folder.mkdir()
    assert main(["--root", str(folders[0]), "create", "embedding", "cat"]) == 0
    assert main(["create", "embedding", "cat", "--root", str(folders[1])]) == 0
    monkeypatch.setenv("TINCTURE_ROOT", str(folders[2]))
    assert main(["create", "embedding", "cat"]) == 0
    assert [keywords["workspace"].root for _, _, keywords in recipe.calls] == folders


def test_root_that_is_not_there_is_refused(recipe: FakeRecipe, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["create", "embedding", "cat", "--root", "nowhere"]) == 2
    assert "'nowhere'" in capsys.readouterr().err
    assert not recipe.calls


@pytest.mark.parametrize(
    ("line", "word", "offered"),
    [
        ("tincture cre", 1, {"create"}),
        ("tincture train embedding --precision ", 3 + 1, {"auto", "fp32", "bf16", "fp16"}),
    ],
)
def test_the_shell_completes_commands_and_choices(line: str, word: int, offered: set[str]) -> None:
    asked = {"_TINCTURE_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(word)}
    done = subprocess.run(
        [sys.executable, "-m", "tincture"], env={**os.environ, **asked}, capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) == offered


def test_the_package_offers_every_name() -> None:
    assert all(getattr(tincture, name).__name__ == name for name in tincture.__all__)


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        tincture.nothing_of_that_name  # noqa: B018
