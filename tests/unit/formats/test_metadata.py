from __future__ import annotations

from typing import Any

import pytest

from tincture.formats.metadata import json_object, metadata_of, provenance_of, text_of

SPEC = {"architecture": "a", "implementation": "i", "title": "t", "usage_hint": "u"}


@pytest.mark.parametrize(
    "provenance",
    [
        {},
        {"seed": 1, "settings": {"a": [1.5, None]}},
        {"author": "A", "license": "CC0-1.0", "description": "d", "date": "2026-11-21"},
        {"metadata": {"ss_tag": "x", "modelspec.thumbnail": "data:,"}},
        {"author": 3, "metadata": "x"},
    ],
)
def test_provenance_comes_back(provenance: dict[str, Any]) -> None:
    metadata = metadata_of(provenance, **SPEC)
    assert all(isinstance(text, str) for text in metadata.values())
    assert provenance_of(metadata) == provenance


def test_the_standards_keys_stand_where_other_programs_look() -> None:
    metadata = metadata_of({"author": "A", "license": "CC0-1.0", "metadata": {"modelspec.title": "old"}}, **SPEC)
    assert (metadata["modelspec.author"], metadata["modelspec.license"]) == ("A", "CC0-1.0")
    assert (metadata["modelspec.title"], metadata["modelspec.architecture"]) == ("t", "a")


def test_what_another_program_wrote_or_changed_is_taken_up() -> None:
    assert provenance_of({"modelspec.author": "B", "ss_tag": "x"}) == {"author": "B", "metadata": {"ss_tag": "x"}}
    changed = metadata_of({"author": "A", "seed": 1}, **SPEC) | {"modelspec.author": "B"}
    assert provenance_of(changed) == {"author": "B", "seed": 1}


def test_computed_and_known_keys_are_no_provenance() -> None:
    metadata = {**metadata_of({}, **SPEC), "modelspec.hash_sha256": "0x1", "own": "x"}
    assert provenance_of(metadata, known=["own"]) == {}


@pytest.mark.parametrize("text", [None, 3, "", "[1]", "nonsense", "[" * 100_000, '{"a": ' * 100_000])
def test_what_is_no_object_gives_an_empty_one(text: object) -> None:
    assert json_object(text) == {}


@pytest.mark.parametrize(
    "text",
    ['{"a": NaN}', '{"a": [1e999]}', '{"a": {"b": "\\ud800"}}', '{"\\ud800": 1}', '{"a": %s}' % ("[" * 60 + "]" * 60)],
)
def test_what_strict_json_in_utf8_cannot_hold_is_left_out(text: str) -> None:
    assert json_object(text) == {}


@pytest.mark.parametrize(("value", "text"), [("Käse", "Käse"), ("", ""), ("a\ud800", ""), (3, ""), (None, "")])
def test_texts_are_those_that_can_be_written(value: object, text: str) -> None:
    assert text_of(value) == text
