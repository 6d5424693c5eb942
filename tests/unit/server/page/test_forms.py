"""What the page makes of settings, and settings of what is typed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from tests.served import quick_service
from tincture.errors import UsageError
from tincture.server.page.parts.fields import Form, help_of, label_of
from tincture.server.page.train import create, preprocess
from tincture.server.page.train import form as train_form
from tincture.server.page.train import tab as train
from tincture.server.page.train.labels import OPTIONS
from tincture.settings.preprocess import PREPROCESS_FIELDS, PreprocessSettings
from tincture.settings.train import FIELDS, TrainSettings


def full_form(fields: Any) -> Form:
    form = Form(fields, "x")
    form.add_all(fields)
    return form


def shown(form: Form) -> dict[Any, Any]:
    """What the page sends when nothing was touched."""
    return {component: component.value for component in form.inputs.values()}


def test_an_untouched_form_gives_the_defaults() -> None:
    form = full_form(FIELDS)
    given = shown(form)
    given |= {form.inputs["kind"]: "embedding", form.inputs["name"]: "moon", form.inputs["data"]: "pictures"}
    read = TrainSettings.from_dict(form.read(given))
    assert read == TrainSettings(kind="embedding", name="moon", data="pictures")


def test_an_untouched_form_of_preprocessing_gives_the_defaults() -> None:
    form = full_form(PREPROCESS_FIELDS)
    given = shown(form) | {form.inputs["source"]: "a", form.inputs["destination"]: "b"}
    assert PreprocessSettings.from_dict(form.read(given)) == PreprocessSettings(source="a", destination="b")


@pytest.mark.parametrize("fields", [FIELDS, PREPROCESS_FIELDS])
def test_every_input_has_label_and_help_without_flags(fields: Any) -> None:
    for name, component in full_form(fields).inputs.items():
        assert component.label == label_of(name)
        assert component.info and "--" not in component.info, name
        assert component.elem_id == f"x-{name}"


def test_help_names_labels_where_the_command_line_has_flags() -> None:
    assert help_of(FIELDS["join_string"]) == "What joins the words found by “Word regex”."


@pytest.mark.parametrize(
    ("name", "typed", "value"),
    [
        ("data", "one\n\n two ", ["one", "two"]),
        ("data", "one", "one"),
        ("preview_prompts", "a moon\na sun", ["a moon", "a sun"]),
        ("offload", "", None),
        ("offload", "no", False),
        ("preview_guidance_scale", None, None),
        ("vae", None, ""),
    ],
)
def test_what_is_typed_is_read(name: str, typed: Any, value: Any) -> None:
    form = Form(FIELDS, "x")
    component = form.add(name)
    assert form.read({component: typed}) == {name: value}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"preview_prompts": ["a moon", "a sun"], "offload": False, "preview_guidance_scale": None, "steps": 7},
        {"data": ["one", "two:3"], "offload": True, "preview_guidance_scale": 7.5, "template": "mine", "varsize": True},
    ],
)
def test_a_form_shows_settings_and_gives_them_back(changes: Any) -> None:
    form = full_form(FIELDS)
    settings = TrainSettings(kind="hypernetwork", name="ink", data="pictures").to_dict() | changes
    read = TrainSettings.from_dict(form.read(form.shown(settings)))
    assert read == TrainSettings.from_dict(settings)


def test_settings_that_are_not_named_show_their_defaults() -> None:
    form = Form(FIELDS, "x", begin={"steps": 5})
    steps, rate = form.add("steps"), form.add("batch_size")
    assert form.shown({"batch_size": 3}) == {steps: FIELDS["steps"].default, rate: 3}


def test_a_number_that_is_missing_is_named_by_its_label() -> None:
    form = Form(FIELDS, "x")
    component = form.add("steps", label="Max steps")
    with pytest.raises(UsageError, match="Max steps is empty; give a number, such as 1000"):
        form.read({component: None})


@pytest.mark.parametrize(
    ("wanted", "text", "result"),
    [(False, " ", None), (True, "", [0.0, 0.3, 0.3, 0.0]), (True, "0, 0.1, 0.2, 0", [0, 0.1, 0.2, 0])],
)
def test_dropout_as_the_webui_takes_it(wanted: bool, text: str, result: Any) -> None:
    assert create.dropout_structure(wanted, text, layers=4) == result


def test_a_dropout_structure_without_dropout_is_a_mistake() -> None:
    with pytest.raises(UsageError, match="“Use dropout” is off"):
        create.dropout_structure(False, "0, 0.3, 0", 3)


def test_a_captioner_counts_where_its_box_is_ticked() -> None:
    values = {"captioner": "blip", "tagger": "wd", "source": "moons", "destination": ""}
    made = {"captioner": "blip", "tagger": "", "source": "moons", "destination": "moons-crops"}
    assert preprocess.chosen(values, {"captioner": True, "tagger": False}) == made
    with pytest.raises(UsageError, match="“Use BLIP for caption” is ticked, but no model is named"):
        preprocess.chosen({**values, "captioner": " "}, {"captioner": True, "tagger": False})


@pytest.mark.parametrize(
    ("source", "destination", "result"),
    [("datasets/moon", "", "datasets/moon-crops"), ("datasets/moon", "mine", "mine"), (None, None, "")],
)
def test_a_place_for_crops_is_proposed_where_none_is_given(source: Any, destination: Any, result: str) -> None:
    assert preprocess.proposed(source, destination) == result


def test_a_proposal_follows_the_source_and_what_was_typed_stays() -> None:
    assert preprocess.follow_source("moon", "", "") == ("moon-crops", "moon-crops")
    assert preprocess.follow_source("sun", "moon-crops", "moon-crops") == ("sun-crops", "sun-crops")
    assert preprocess.follow_source("sun", "mine", "moon-crops") == ("mine", "")


def test_previews_from_try_it_need_a_prompt() -> None:
    assert train.previews({"preview_prompts": " a moon ", "preview_seed": 3}) == {
        "preview_prompts": ["a moon"],
        "preview_seed": 3,
    }
    with pytest.raises(UsageError, match="no prompt stands there"):
        train.previews({"preview_prompts": "  "})


@pytest.mark.parametrize(("typed", "read"), [(None, 0.0), (5, 5), (0.5, 0.5)], ids=["emptied", "too_large", "whole"])
def test_a_slider_that_is_being_typed_in_comes_as_it_stands(typed: float | None, read: float) -> None:
    form = Form(FIELDS, "x", options=OPTIONS)
    slider = form.add("tag_drop_out")
    assert form.read({slider: slider.preprocess(typed)}) == {"tag_drop_out": read}


@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        ({"device": ("cuda:0",)}, {"priority", "hours"}),
        ({"device": ("cuda:0", "cuda:1")}, {"priority", "hours", "device"}),
        ({"device": ("cuda:0", "cuda:1"), "ray": "auto"}, {"priority", "hours", "gpus", "cpus"}),
    ],
    ids=["one-device", "two-devices", "a-cluster"],
)
def test_a_training_is_asked_where_it_shall_run_as_far_as_there_is_a_choice(
    tmp_path: Path, settings: dict[str, Any], asked: set[str]
) -> None:
    service = quick_service(tmp_path, **settings)

    async def build() -> train_form.TrainInputs:  # Gradio wants a loop
        with gr.Blocks():
            return train_form.build(service)

    inputs = asyncio.run(build())
    assert inputs.turn.keys() == asked
    given = {component: None for component in inputs.turn.values()}
    place = inputs.place(given)
    assert place == {"priority": 0, "timeout_s": None, "device": "", **dict.fromkeys(asked & {"gpus", "cpus"})}
    service.queue.store.close()
    if "gpus" in asked:
        given |= {inputs.turn["gpus"]: 0.0, inputs.turn["cpus"]: 4.0}
        assert (inputs.place(given)["gpus"], inputs.place(given)["cpus"]) == (0, 4)
