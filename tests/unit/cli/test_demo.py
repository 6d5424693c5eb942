from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

import tincture
from tincture.cli import main
from tincture.cli.demo import table

REPORT = {"oracle": {"accuracy": 0.9951}, "embedding": {"after": {"fidelity": 0.9}}, "seed": 3}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    module = types.ModuleType("tincture.demo")
    module.run = lambda **given: made.append(given) or REPORT  # type: ignore[attr-defined, func-returns-value]
    monkeypatch.setitem(sys.modules, "tincture.demo", module)
    monkeypatch.setattr(tincture, "demo", module, raising=False)
    return made


def test_the_report_is_a_table(calls: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo"]) == 0
    assert calls == [{"out": Path("demo-out"), "seed": 0}]
    assert capsys.readouterr().out == table(REPORT) + "\n"


def test_the_table_joins_keys_by_dots() -> None:
    assert table(REPORT).splitlines() == [
        "oracle.accuracy           0.995",
        "embedding.after.fidelity  0.900",
        "seed                      3",
    ]


def test_flags_reach_the_job(calls: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--out", "o", "--subject", "small cyan dotted moon", "--style", "outline", "--seed", "4", "--json"]
    assert main(["demo", *words]) == 0
    assert calls == [{"out": Path("o"), "seed": 4, "subject": "small cyan dotted moon", "style": "outline"}]
    assert json.loads(capsys.readouterr().out) == REPORT
