"""Sentences about settings name the inputs as the page labels them, whichever form and setting it is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tincture.errors import UsageError
from tincture.server.page.parts.fields import Form, in_labels, label_of
from tincture.server.page.train.labels import OPTIONS, TRAIN_LABELS
from tincture.settings.conversion import CONVERSION_FIELDS, ConversionRequest
from tincture.settings.drawing import REQUEST_FIELDS, DrawingRequest
from tincture.settings.fields import CheckedSettings, FieldSpec
from tincture.settings.merging import MERGE_FIELDS, MergeRequest
from tincture.settings.preprocess import PREPROCESS_FIELDS, PreprocessSettings
from tincture.settings.train import FIELDS, TrainSettings

KINDS: Mapping[type[CheckedSettings], tuple[Mapping[str, FieldSpec], dict[str, Any]]] = {
    TrainSettings: (FIELDS, {"kind": "embedding", "name": "rex", "data": "pictures"}),
    PreprocessSettings: (PREPROCESS_FIELDS, {"source": "a", "destination": "b"}),
    DrawingRequest: (REQUEST_FIELDS, {"prompts": ["a"]}),
    ConversionRequest: (CONVERSION_FIELDS, {"path": "a", "out": "b"}),
    MergeRequest: (MERGE_FIELDS, {"sources": ["a", "b"], "out": "c"}),
}


def every_setting() -> Iterator[Any]:
    for settings, (specs, _) in KINDS.items():
        yield from (pytest.param(settings, name, id=f"{settings.__name__}-{name}") for name in specs)


@pytest.mark.parametrize(("settings", "name"), list(every_setting()))
@pytest.mark.parametrize("labelled", [True, False], ids=["by_the_form", "by_itself"])
def test_a_wrong_value_is_named_by_its_label(settings: type[CheckedSettings], name: str, labelled: bool) -> None:
    specs, given = KINDS[settings]
    labels = {each: f"Label {number}" for number, each in enumerate(specs)} if labelled else {}
    with pytest.raises(UsageError) as caught:
        settings.from_dict({**given, name: {"a": "table"}}, source="a.toml")
    words = in_labels(caught.value.sentence, labels)
    alias = specs[name].alias
    if not (alias and labelled):
        assert f"“{labels.get(name) or label_of(name)}” " in words
    assert not re.search(rf"(?<![\w“'\"]){name}\b (?:is|has)", words)


@pytest.mark.parametrize(
    ("sentence", "shown"),
    [
        ("steps is 0, but must be at least 1.", "“Max steps” is 0, but must be at least 1."),
        ("A setting in a.toml is not allowed: seed is -1.", "A setting in a.toml is not allowed: “Seed” is -1."),
        ("2 are wrong:\n  steps is 0\n  data is ''", "2 are wrong:\n  “Max steps” is 0\n  “Dataset directory” is ''"),
        ("varsize and buckets are both on; give one.", "“Do not resize images” and “Buckets” are both on; give one."),
        ("The schedule ends, though steps is 300.", "The schedule ends, though “Max steps” is 300."),
        ("give --gradient-accumulation-steps", "give “Gradient accumulation steps”"),
        ("`buckets` keeps more", "“Buckets” keeps more"),
        ("loss_scale is 1, but loss is 'mse', which", "“Loss scale” is 1, but “Loss” is 'mse', which"),
        ("masks is 'steps is 0', but keep_tags is 1", "“Masks” is 'steps is 0', but “Keep tags” is 1"),
        ("the name 'a --data b' is taken", "the name 'a --data b' is taken"),
        ("The base model has no steps; the seed is gone.", "The base model has no steps; the seed is gone."),
    ],
)  # fmt: skip
def test_names_become_labels_and_other_words_stay(sentence: str, shown: str) -> None:
    assert in_labels(sentence, TRAIN_LABELS) == shown


def test_a_form_knows_a_setting_by_each_of_its_names() -> None:
    form = Form(FIELDS, "x", options=OPTIONS)
    form.add_all(["companions", "steps"])
    assert form.labels == {"with": "Trained together with", "companions": "Trained together with", "steps": "Max steps"}
