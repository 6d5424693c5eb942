"""What changed since a run is said, and what is not known is not compared."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from tincture.run.past.changes import changes, facts_here, facts_of_file, facts_of_record
from tincture.workspace import Workspace

RECORD: dict[str, Any] = {
    "model_hash": "0123456789",
    "pictures": 5,
    "data_hash": "a",
    "validation_hash": "",
    "prior_hash": "p",
    "template_lines": ["a [name]", "[filewords]"],
    "software": "tincture 0.1.0",
    "libraries": {"torch": "2.6", "diffusers": "0.42"},
    "arithmetic": [{"threads": 1, "torch": "2.6"}],
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, []),
        ({"model_hash": "f" * 10}, ["The base model is another one: its hash was 0123456789, and is ffffffffff."]),
        ({"data_hash": "b", "pictures": 6}, ["The pictures are others: there were 5, and there are 6."]),
        ({"data_hash": "b"}, ["The pictures, their captions or masks have changed."]),
        ({"validation_hash": "v"}, ["The validation pictures, their captions or masks have changed."]),
        ({"prior_hash": ""}, ["The regularisation pictures, their captions or masks have changed."]),
        ({"template_lines": ["[name]"]}, ["The prompt template has other lines."]),
        ({"software": "tincture 0.2.0"}, ["It was made by tincture 0.1.0; this is tincture 0.2.0."]),
        ({"libraries": {"torch": "2.7"}}, ["Libraries have other versions: torch 2.6, now 2.7."]),
        ({"arithmetic": [{"threads": 2}]}, ["It was computed otherwise: threads 1, now 2."]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_each_change_is_a_sentence(change: dict[str, Any], said: list[str]) -> None:
    assert changes(facts_of_record(RECORD), facts_of_record({**RECORD, **change})) == said


@pytest.mark.parametrize("known", [{}, {"provenance": None}, {"provenance": {"software": "tincture 0.1.0"}}])
def test_what_is_not_known_is_not_compared(known: dict[str, Any]) -> None:
    assert changes(facts_of_file(known), facts_of_record(RECORD)) == []
    assert changes(facts_of_record({"arithmetic": "x", "template_lines": 3}), facts_of_record(RECORD)) == []


def test_a_file_says_the_same_as_its_run() -> None:
    made = {key: value for key, value in RECORD.items() if key not in ("template_lines", "arithmetic", "model_hash")}
    made["template_hash"] = facts_of_record(RECORD)["template_hash"]
    facts = facts_of_file({"model_hash": "0123456789", "provenance": made})
    assert facts == {key: value for key, value in facts_of_record(RECORD).items() if key != "arithmetic"}


def test_what_counts_here_is_found_without_a_picture(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.templates.mkdir()
    (workspace.templates / "mine.txt").write_text("a [name]\n[filewords]\n")
    workspace.models.mkdir(parents=True)
    (workspace.models / "base.safetensors").write_bytes(b"weights")
    found = facts_here({"template": "mine", "model": "base"}, workspace)
    assert found["template_hash"] == facts_of_record(RECORD)["template_hash"]
    assert found["model_hash"] == hashlib.sha256(b"weights").hexdigest()[:10]
    assert found["software"].startswith("tincture ") and found["libraries"].keys() >= {"torch", "diffusers"}
    assert facts_here({"template": "gone", "model": "gone"}, workspace).keys() == {"software", "libraries"}
    said = changes(facts_of_file({"model_hash": "0" * 10, "provenance": {"software": "tincture 0.0.1"}}), found)
    assert [sentence.split(" ")[0] for sentence in said] == ["The", "It"]
