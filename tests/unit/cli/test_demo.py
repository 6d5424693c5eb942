from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import replace_module
from tincture.cli import main
from tincture.cli.demo import table

REPORT = {"oracle": {"accuracy": 0.9951}, "embedding": {"after": {"fidelity": 0.9}}, "seed": 3}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    made: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def run(*arguments: Any, callbacks: list[Any], on_stage: Callable[[str], None], **keywords: Any) -> dict[str, Any]:
        assert len(callbacks) == 1
        on_stage("Teaching.")
        made.append((arguments, keywords))
        return REPORT

    replace_module(monkeypatch, "run.demo", {"run": run})
    return made


def test_the_report_is_a_table(calls: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo"]) == 0
    assert calls == [((Path("demo-out"),), {"seed": 0})]
    captured = capsys.readouterr()
    assert captured.out == table(REPORT) + "\n"
    assert captured.err == "Teaching.\n"


def test_the_table_joins_keys_by_dots() -> None:
    assert table(REPORT).splitlines() == [
        "oracle.accuracy           0.995",
        "embedding.after.fidelity  0.900",
        "seed                      3",
    ]


def test_flags_reach_the_job(calls: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--out", "o", "--subject", "small cyan dotted moon", "--style", "outline", "--seed", "4", "--json"]
    assert main(["demo", *words]) == 0
    assert calls == [((Path("o"),), {"seed": 4, "subject": "small cyan dotted moon", "style": "outline"})]
    assert json.loads(capsys.readouterr().out) == REPORT
