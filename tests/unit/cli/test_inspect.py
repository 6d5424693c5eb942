from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tincture import inspect_file
from tincture.cli import main
from tincture.cli.inspect import as_text
from tincture.formats.picture_text import save_png

GOLDEN = Path(__file__).parents[2] / "golden"
EMBEDDING, HYPERNETWORK = GOLDEN / "gold-one.pt", GOLDEN / "relu-optim.pt"


def test_one_file_for_a_person(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(EMBEDDING)]) == 0
    lines = capsys.readouterr().out.splitlines()
    column = len("num vectors") + 2
    shown = {line[:column].strip(): line[column:] for line in lines}
    report = inspect_file(EMBEDDING)
    assert shown["kind"] == "embedding"
    assert shown["widths"] == "clip_l 768"
    assert (shown["checksum"], shown["short hash"]) == (report["checksum"], report["short_hash"])
    assert all(len(line) <= 110 or " " not in line[column:].strip() for line in lines)


def test_one_file_for_a_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(HYPERNETWORK), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == inspect_file(HYPERNETWORK)


def test_several_files_are_all_told_and_one_failure_is_the_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.pt").write_bytes(b"hello")
    files = [str(EMBEDDING), str(tmp_path / "bad.pt"), str(HYPERNETWORK)]
    assert main(["inspect", *files]) == 1
    captured = capsys.readouterr()
    assert captured.out.count("sha256") == 2
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
    assert main(["inspect", *files, "--json"]) == 1
    reports = json.loads(capsys.readouterr().out)
    assert [report["path"] for report in reports] == files
    assert [("error" in report) for report in reports] == [False, True, False]
    assert main(["inspect", files[0], files[2], "--json"]) == 0


def test_a_file_that_is_nothing_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.pt").write_bytes(b"hello")
    for words in ([], ["--json"]):
        assert main(["inspect", str(tmp_path / "bad.pt"), *words]) == 1
        captured = capsys.readouterr()
        assert (captured.out, captured.err.count("\n")) == ("", 1)


def test_long_texts_are_cut_and_commands_for_the_terminal_taken_out(tmp_path: Path) -> None:
    save_png(np.zeros((8, 8, 3), np.uint8), tmp_path / "a.png", "a \x1b[2Jmoon " + "x " * 1000 + "\nSteps: 20")
    text = as_text(inspect_file(tmp_path / "a.png"))
    assert "\x1b" not in text
    assert "characters)" in text
    assert len(text) < 1500
