"""Preprocess images, with the labels that webui users know; it runs as a job, beside trainings.

What an option needs and is not there stands below its box, before it is ticked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.components import Component
from gradio.context import Context

from tincture.errors import TinctureError, UsageError
from tincture.preprocessing.describer_kinds import find_describers
from tincture.server.library.describers import missing_for, missing_for_faces
from tincture.server.page.parts import choices
from tincture.server.page.parts.components import panel
from tincture.server.page.parts.drafts import forget_when_done
from tincture.server.page.parts.fields import Form
from tincture.server.page.parts.markup import warning
from tincture.server.page.parts.messages import failed, interrupted, submitted
from tincture.server.page.parts.requests import COMMAND, STEP, TYPED, hidden
from tincture.server.page.parts.way_on import follow_by_itself
from tincture.server.queue.queue import OVERWRITE
from tincture.settings.preprocess import PREPROCESS_FIELDS

if TYPE_CHECKING:
    from tincture.server.service import Service

PICTO_SIDE, USUAL_SIDE = 64, 512
CAPTIONS = ("ignore", "copy", "prepend", "append")
OBJECTIVES = (("Maximize area", "area"), ("Minimize error", "error"))
VALIDATION = "Part of the pictures that goes to the folder validation, the rest to train; 0: no such folders."
# a model's name counts where its box is ticked
TICKED = {"captioner": "Use BLIP for caption", "tagger": "Use deepbooru for caption"}


def build(service: Service) -> Component:
    """The form; returns the list of sources, which others read anew."""
    form = Form(PREPROCESS_FIELDS, "pp")
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            ticks, needs = _inputs(form, service)
        with gr.Column(scale=2, min_width=300, elem_classes="beside"):
            with gr.Row():
                button = gr.Button("Preprocess", variant="primary", elem_id="pp-start")
                stop = gr.Button("Interrupt", elem_id="pp-interrupt")
            overwrite = gr.Checkbox(
                label="Overwrite",
                info="Crops that were made with other settings are made anew; else such a destination is refused.",
                elem_id="pp-overwrite",
            )
            message, waiting = panel(elem_id="pp-message"), hidden()

    def start(given: dict[Component, Any]) -> tuple[str, str]:
        try:
            values = chosen(form.read(given), {name: given[tick] for name, tick in ticks.items()})
            if given[overwrite]:
                values[OVERWRITE] = True
            job = service.queue.submit("preprocess", values, source="page")
            return submitted(service, job), job.id
        except TinctureError as error:
            return failed(error, form.labels), ""

    started = button.click(start, {*form.components, *ticks.values(), overwrite}, [message, waiting], **COMMAND)
    forget_when_done(started, message, "pp")
    follow_by_itself(started, "run", waiting)
    stop.click(lambda: interrupted(service, "preprocess"), None, message, **COMMAND)
    _say_what_is_needed(service, form, needs)
    source, destination = form.inputs["source"], form.inputs["destination"]
    former = hidden()
    gr.on([source.change], follow_source, [source, destination, former], [destination, former], **STEP)
    return source


def proposed(source: str | None, destination: str | None) -> str:
    """A place for the crops, where none is given yet."""
    folder = (source or "").strip().rstrip("/\\")
    return destination or (f"{folder}-crops" if folder else "")


def follow_source(source: str | None, destination: str | None, former: str) -> tuple[str, str]:
    """The place for the crops of another source, and again the proposal, if it is one: what was typed stays."""
    place = proposed(source, destination if destination != former else "")
    return place, place if place == proposed(source, "") else ""


def chosen(values: Mapping[str, Any], ticks: Mapping[str, bool]) -> dict[str, Any]:
    """The settings as the ticked boxes have them: a model counts where its box is ticked; see ``proposed`` too.

    Raises:
        UsageError: a box is ticked, but no model is named.
    """
    for name, ticked in ticks.items():
        if ticked and not values[name].strip():
            raise UsageError(f"“{TICKED[name]}” is ticked, but no model is named; say below where it lies.")
    place = proposed(values["source"], values["destination"])  # who is quick presses before it stands in its input
    return {**values, "destination": place, **{name: "" for name, ticked in ticks.items() if not ticked}}


def lacking(service: Service, captioner: str | None, tagger: str | None) -> tuple[str, str, str]:
    """What the focal crop, the captioner and the tagger need and is not there, as HTML; empty for what can be used."""
    models = {"captioner": (captioner or "").strip(), "tagger": (tagger or "").strip()}
    missing = [missing_for_faces(), *(missing_for(service.places, what, model) for what, model in models.items())]
    focal, blip, tags = (warning(sentence) if sentence else "" for sentence in missing)
    return focal, blip, tags


def _say_what_is_needed(service: Service, form: Form, needs: Mapping[str, Component]) -> None:
    """As the page begins, whenever the tab is opened, and as a model is named."""
    models: list[Any] = [form.inputs[name] for name in TICKED]
    inside, page = Context.block, Context.root_block
    assert page is not None
    events = [page.load, *(model.change for model in models)]
    while inside is not None and not isinstance(inside, gr.Tab):
        inside = inside.parent
    if inside is not None:
        events.append(inside.select)
    gr.on(events, lambda *named: lacking(service, *named), models, list(needs.values()), **TYPED)


def _inputs(form: Form, service: Service) -> tuple[dict[str, Component], dict[str, Component]]:
    """Ticks of the models, and what says what an option needs, by the option."""
    needs: dict[str, Component] = {}
    with gr.Group():
        form.add(
            "source",
            label="Source directory",
            info="A data set of this server, or the path of a folder of pictures.",
            choices=choices.datasets(service),
            allow_custom_value=True,
            value=None,
        )
        form.add(
            "destination",
            label="Destination directory",
            info="Folder for the crops; one in datasets/ can be chosen as a data set afterwards.",
            value="",
        )
        side = PICTO_SIDE if service.default_model() == "picto" else USUAL_SIDE
        with gr.Row():
            form.add("width", value=side, step=8, min_width=120)
            form.add("height", value=side, step=8, min_width=120)
        form.add(
            "existing_captions",
            label="Existing Caption txt Action",
            info="What becomes of captions beside the pictures: ignored, copied as they are, or put before or behind "
            "what BLIP and deepbooru say.",
            choices=CAPTIONS,
        )
    with gr.Group():
        form.add("keep_original_size", label="Keep original size")
        form.add("flip", label="Create flipped copies")
    _with_options(form, "split", "Split oversized images", _split)
    _with_options(form, "focal_crop", "Auto focal point crop", _focal)
    needs["focal_crop"] = panel(elem_id="pp-needs-focal_crop")
    _with_options(form, "multicrop", "Auto-sized crop", _multicrop)
    with gr.Group():
        found = find_describers(service.workspace)
        ticks: dict[str, Component] = {}
        for name, label in TICKED.items():
            ticks[name] = _described(form, name, label, found.get(name, ""))
            needs[name] = panel(elem_id=f"pp-needs-{name}")
    with gr.Group():
        form.add("validation_share", label="Validation share", info=VALIDATION, minimum=0, maximum=0.9, step=0.01)
    with gr.Accordion("Advanced", open=False):
        for group, names in list(form.left()):
            with gr.Accordion(group, open=False):
                form.add_all(names)
    return ticks, needs


def _with_options(form: Form, name: str, label: str, fill: Any) -> None:
    """A box to tick, and what else there is to say where it is ticked."""
    with gr.Group():
        box: Any = form.add(name, label=label)
        with gr.Column(visible=False, elem_classes="inner") as options:
            fill(form)
    box.change(lambda ticked: gr.Column(visible=ticked), box, options, **STEP)


def _described(form: Form, name: str, label: str, model: str) -> Component:
    """A box to tick, and the name of the model beside it."""
    about = "Describe each crop in words." if name == "captioner" else "Describe each crop by tags."
    box = gr.Checkbox(label=label, info=about, elem_id=f"pp-use-{name}")
    with gr.Column(visible=False, elem_classes="inner") as options:
        form.add(name, label="BLIP model" if name == "captioner" else "Tagger model", value=model)
    box.change(lambda ticked: gr.Column(visible=ticked), box, options, **STEP)
    return box


def _split(form: Form) -> None:
    form.add("split_threshold", label="Split image threshold", minimum=0, maximum=1, step=0.05)
    form.add("overlap_ratio", label="Split image overlap ratio", minimum=0, maximum=0.9, step=0.05)


def _focal(form: Form) -> None:
    form.add("focal_face_weight", label="Focal point face weight", minimum=0, maximum=1, step=0.05)
    form.add("focal_entropy_weight", label="Focal point entropy weight", minimum=0, maximum=1, step=0.05)
    form.add("focal_corner_weight", label="Focal point edges weight", minimum=0, maximum=1, step=0.05)
    form.add("focal_debug", label="Create debug image")


def _multicrop(form: Form) -> None:
    with gr.Row():
        form.add("multicrop_min_dim", label="Dimension lower bound", step=8, min_width=120)
        form.add("multicrop_max_dim", label="Dimension upper bound", step=8, min_width=120)
    with gr.Row():
        form.add("multicrop_min_area", label="Area lower bound")
        form.add("multicrop_max_area", label="Area upper bound")
    form.add("multicrop_objective", label="Resizing objective", choices=OBJECTIVES)
    form.add("multicrop_threshold", label="Error threshold", minimum=0, maximum=1, step=0.01)
