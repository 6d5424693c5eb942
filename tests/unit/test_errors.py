"""Who reads a refusal reads his own words: flags at the command line, names of settings everywhere else."""

from __future__ import annotations

import ast
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tincture.cli.session import with_flags
from tincture.errors import ModelError, StorageError, TinctureError, UsageError, foreign, in_names
from tincture.server.http.errors import answer_of

PACKAGE = Path(__file__).parents[2] / "src" / "tincture"
A_FLAG = re.compile(r"--[a-z][a-z0-9-]*")
A_COMMAND = re.compile(r"tincture [a-z]+(?: [A-Z.]+)*(?: --[a-z-]+(?: [A-Z]+(?= -))?)+")


def sentences() -> Iterator[str]:
    """Every text in the package that names a flag, but those of the command line itself; gaps are dots."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.is_relative_to(PACKAGE / "cli"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
        docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "..." for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner | docs:
                yield node.value


FLAGGED = sorted({text for text in sentences() if A_FLAG.search(A_COMMAND.sub("", text)) and " " in text})


def test_there_are_sentences_to_try() -> None:
    assert len(FLAGGED) > 20


@pytest.mark.parametrize("sentence", FLAGGED)
def test_only_the_command_line_has_flags(sentence: str) -> None:
    flags = A_FLAG.findall(A_COMMAND.sub("", sentence))
    for error in (UsageError(sentence), ModelError(sentence), StorageError(sentence)):
        assert not A_FLAG.search(A_COMMAND.sub("", str(error)))
        assert all(f"`{flag[2:].replace('-', '_')}`" in str(error) for flag in flags)
        assert not A_FLAG.search(A_COMMAND.sub("", bytes(answer_of(error).body).decode()))
        assert error.sentence == sentence
        assert all(flag in with_flags(str(error)) for flag in flags)


def test_what_is_no_setting_stays_as_it_is() -> None:
    for text in (
        "The file a--b.png",
        "The path '/data/--model' and '--vae'",
        "x --- y",
        "tincture serve --allow-hub",
        "Start it by tincture serve --ray auto --device cuda.",
        "As `tincture inspect --json` says it",
        "tincture train embedding 'rex' --data FOLDER --batch-size 4 begins one.",
        "Give --address=HOST:PORT",
        "-- ",
    ):
        assert in_names(text) == text


def test_words_of_others_are_no_settings() -> None:
    ray = "Run `ray start --address=h:1`\nor ray start --head, or set `num_cpus` by --num-cpus 2 (--block)."
    for sentence in (f"Ray says: {foreign(ray)}.", f"Ray says: {foreign(RuntimeError(ray))}. Give --batch-size."):
        for shown in (in_names(sentence), with_flags(sentence)):
            assert "ray start --address=h:1' or ray start '--head', or set 'num_cpus' by '--num-cpus' 2" in shown
    assert "`batch_size`" in in_names(sentence)
    assert "--batch-size" in with_flags(sentence)
    assert foreign(RuntimeError()) == "RuntimeError"
    assert foreign("word " * 100, 20) == "word word word word"


def test_words_of_ours_stay_ours() -> None:
    assert in_names(f"Not done: {foreign(UsageError('Give --batch-size 1.'))}") == "Not done: Give `batch_size` 1"


def test_an_error_stays_what_it_is_between_processes() -> None:
    error: TinctureError = pickle.loads(pickle.dumps(UsageError("Give --batch-size 1.")))
    assert (type(error), str(error), error.sentence) == (UsageError, "Give `batch_size` 1.", "Give --batch-size 1.")
