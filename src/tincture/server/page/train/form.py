"""The inputs of a training: those that matter first, then all others by their groups; with the webui's labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.blocks import Block
from gradio.components import Component

from tincture.errors import UsageError
from tincture.kinds.registry import AdapterKind, find_kind, kind_names, kinds
from tincture.models.samplers import SAMPLERS
from tincture.server.page.parts import choices
from tincture.server.page.parts.components import number, panel
from tincture.server.page.parts.fields import Form
from tincture.server.page.parts.requests import TYPED
from tincture.server.page.train.schedule_plot import draw_schedule
from tincture.settings.presets import PRESETS, find_preset
from tincture.settings.train import FIELDS

if TYPE_CHECKING:
    from tincture.server.requests.places import Places
    from tincture.server.service import Service

BEGIN = "subject"
"""The preset that the page begins with."""
CLIPPING = (("disabled", "none"), ("value", "value"), ("norm", "norm"))
OPTIMIZERS = ("AdamW", "Adam", "Adamax", "NAdam", "RAdam", "Adafactor", "RMSprop", "SGD", "Adagrad")
# these have an input of their own, or none: the queue knows which device it is
ELSEWHERE = ("kind", "name", "learning_rate", "model", "device")
QUEUE = "Queue"
# what the webui calls them, and what their inputs take; all else comes from the settings
OPTIONS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "data": {
            "label": "Dataset directory",
            "info": "A data set, or a folder's path; FOLDER:3 takes each picture 3 times an epoch.",
            "allow_custom_value": True,
            "value": None,
        },
        "template": {"label": "Prompt template", "allow_custom_value": True},
        "steps": {"label": "Max steps", "step": 1, "min_width": 120},
        "batch_size": {"label": "Batch size", "step": 1, "min_width": 120},
        "gradient_accumulation_steps": {"label": "Gradient accumulation steps", "step": 1, "min_width": 120},
        "clip_grad_mode": {"label": "Gradient Clipping", "choices": CLIPPING},
        "clip_grad_value": {"label": "Gradient Clipping value"},
        "width": {"step": 8},
        "height": {"step": 8},
        "log_dir": {"label": "Log directory", "value": "textual_inversion"},
        "preview_every": {
            "label": "Save an image to log directory every N steps, 0 to disable",
            "step": 1,
            "min_width": 240,
        },
        "save_every": {
            "label": "Save a copy of embedding to log directory every N steps, 0 to disable",
            "step": 1,
            "min_width": 240,
        },
        "preview_prompts": {"label": "Prompts of the previews"},
        "preview_with_embedding": {"label": "Save images with embedding in PNG chunks", "value": True},
        "use_weight": {"label": "Use PNG alpha channel as loss weight"},
        "shuffle_tags": {"label": "Shuffle tags by ',' when creating prompts."},
        "tag_drop_out": {
            "label": "Drop out tags when creating prompts.",
            "minimum": 0,
            "maximum": 0.99,
            "step": 0.01,
        },
        "latent_sampling_method": {"label": "Choose latent sampling method"},
        "optimizer": {"choices": OPTIMIZERS, "allow_custom_value": True},
        "preview_sampler": {"choices": list(SAMPLERS)},
    }
)


@dataclass(frozen=True)
class TrainInputs:
    """The inputs beside those of ``form``, by kind where there are two.

    Attributes:
        preset: what the settings shall begin from; it is no setting itself.
        kind: which kind is trained.
        of_kind: what is seen only where a kind is trained, by that kind.
        groups: the accordions, by the names of the groups.
    """

    form: Form
    preset: gr.Dropdown
    kind: gr.Radio
    of_kind: Mapping[str, Sequence[Block]]
    groups: Mapping[str, gr.Accordion]
    names: Mapping[str, Component]
    rates: Mapping[str, Component]
    more_data: Component
    previews_from_try: Component
    turn: Mapping[str, Component]

    @property
    def components(self) -> set[Component]:
        own = {self.preset, self.kind, *self.names.values(), *self.rates.values(), *self.turn.values()}
        return self.form.components | own | {self.more_data, self.previews_from_try}

    def settings(self, given: Mapping[Component, Any], kind: str, model: str) -> dict[str, Any]:
        """Fields of ``TrainSettings``, as they were typed; UsageError says what is missing."""
        values = self.form.read(given)
        typed = values["data"]  # one text, or none, two or more
        folders = [*([typed] if isinstance(typed, str) else typed), *_lines(given[self.more_data])]
        name = given[self.names[kind]]
        if not name:
            raise UsageError(f"No {kind} is chosen; choose one, or create it first.")
        if not folders:
            raise UsageError("No dataset directory is given; choose a data set, or type the path of a folder.")
        rate = str(given[self.rates[kind]] or "").strip()
        data = folders if len(folders) > 1 else folders[0]
        card = find_kind(kind).has_card and values["preview_with_embedding"] and bool(values["preview_every"])
        values["preview_with_embedding"] = card  # the webui's users leave it ticked, whatever they train
        values |= {name: FIELDS[name].default for name in find_kind(kind).not_for_it}  # they are not seen
        return {**values, "kind": kind, "name": name, "data": data, "learning_rate": rate, "model": model}

    def of_preset(self, name: str, kind: str, model: str) -> dict[Component, Any]:
        """What the inputs show of a preset: its values, and the usual ones of what only other presets change."""
        values = find_preset(name).settings(kind, model)
        others = {each for preset in PRESETS for each in preset.settings(kind, model)} - {"learning_rate"}
        shown = self.form.shown(values)
        rate = str(values.get("learning_rate") or find_kind(kind).learning_rate)
        return {**{self.form.inputs[each]: shown[self.form.inputs[each]] for each in others}, self.rates[kind]: rate}

    def missing(self, given: Mapping[Component, Any]) -> str:
        """What has to be chosen before there is anything to plan, as a sentence; empty where nothing is."""
        kind = find_kind(given[self.kind])
        lacks = [] if given[self.names[kind.name]] else [f"{kind.one} to train"]
        lacks += [] if given[self.form.inputs["data"]] or _lines(given[self.more_data]) else ["a data set"]
        return f"Choose {' and '.join(lacks)}; then the plan stands here." if lacks else ""

    def titles(self, given: Mapping[Component, Any]) -> dict[gr.Accordion, Any]:
        """The accordions with the number of values in each that are other ones than the form began with."""
        counts = dict.fromkeys(self.groups, 0)
        for name, component in self.form.inputs.items():
            group = FIELDS[name].group
            if group in counts and component in given and name not in FIRST:
                counts[group] += self.form.is_changed(name, given[component])
        counts[QUEUE] = sum((given[each] or None) != (each.value or None) for each in self.turn.values())
        return {self.groups[group]: gr.Accordion(label=_title(group, count)) for group, count in counts.items()}

    def place(self, given: Mapping[Component, Any]) -> dict[str, Any]:
        """Arguments of ``Service.submit`` that say when and where the training runs."""
        values = {name: given[component] for name, component in self.turn.items()}
        hours = values.pop("hours")
        return {
            "priority": int(values["priority"] or 0),
            "timeout_s": None if hours is None else 3600.0 * hours,
            "device": values.get("device") or "",
        }

    def shown(self, settings: Mapping[str, Any], places: Places) -> dict[Component, Any]:
        """What the inputs show of a training's settings, whose values are those of a job; the model aside."""
        kind, data = settings["kind"], settings["data"]
        folder, *more = [places.shown(Path(text)) for text in ([data] if isinstance(data, str) else data)]
        return {
            **self.form.shown(settings),
            self.kind: kind,
            **{component: settings["name"] if kind == each else None for each, component in self.names.items()},
            self.rates[kind]: settings["learning_rate"],
            self.form.inputs["data"]: folder,
            self.more_data: "\n".join(more),
            self.previews_from_try: False,
        }


FIRST = (
    *("data", "template", "steps", "batch_size", "gradient_accumulation_steps"),
    *("preview_every", "save_every", "preview_prompts"),
)
"""The settings that matter first, besides what is trained and its rate."""


def build(service: Service) -> TrainInputs:
    """All inputs, in the order in which they are read."""
    model, preset = service.default_model(), find_preset(BEGIN)
    form = Form(FIELDS, "tr", preset.settings(kind_names()[0], model), OPTIONS)
    schedules = _Schedules(form)
    with gr.Group():
        begin = _preset()
        with gr.Row():
            kind, names = _trained(service)
        with gr.Row():
            form.add("data", choices=choices.datasets(service))
            form.add("template", choices=choices.templates(service))
    with gr.Group():
        rates, drawings = _rates(model)
        with gr.Row():
            form.add_all(["steps", "batch_size", "gradient_accumulation_steps"])
    for each in kinds():
        schedules.inputs.append((rates[each.name], drawings[each.name], each.learning_rate))
    with gr.Group():
        previews = _previews(form)
    groups, more_data, turn = _groups(form, service, schedules)
    schedules.draw_as_typed()
    of_kind = {each.name: _of(each, form, names, rates, drawings) for each in kinds()}
    return TrainInputs(form, begin, kind, of_kind, groups, names, rates, more_data, previews, turn)


def _preset() -> gr.Dropdown:
    purposes = " ".join(f"{preset.title}: {preset.help}" for preset in PRESETS)
    return gr.Dropdown(
        choices=[(preset.title, preset.name) for preset in PRESETS],
        value=BEGIN,
        label="Start from",
        info=purposes,
        elem_id="tr-preset",
    )


def _trained(service: Service) -> tuple[gr.Radio, dict[str, Component]]:
    kind = gr.Radio(
        choices=[(each.name.capitalize(), each.name) for each in kinds()],
        value=kind_names()[0],
        label="What is trained",
        info="Only what concerns it is shown below.",
        elem_id="tr-kind",
    )
    names: dict[str, Component] = {
        each: gr.Dropdown(
            choices=choices.adapters(service, each),
            value=None,
            label=each.capitalize(),
            info=f"The {each} to train; make one in Create {each}.",
            elem_id=f"tr-{each}",
            visible=each == kind_names()[0],
        )
        for each in kind_names()
    }
    return kind, names


def _of(
    kind: AdapterKind,
    form: Form,
    names: Mapping[str, Component],
    rates: Mapping[str, Component],
    drawings: Mapping[str, Component],
) -> list[Block]:
    """What is seen where this kind is trained, and not for every other kind."""
    shared = [
        form.inputs[name]
        for name in sorted({name for each in kinds() for name in each.not_for_it})
        if name not in kind.not_for_it
    ]
    return [names[kind.name], rates[kind.name], drawings[kind.name], *shared]


def _rates(model: str) -> tuple[dict[str, Component], dict[str, Component]]:
    rates: dict[str, Component] = {}
    drawings: dict[str, Component] = {}
    for kind in kinds():
        begin, first = find_preset(BEGIN).settings(kind.name, model), kind.name == kind_names()[0]
        rate = str(begin.get("learning_rate", kind.learning_rate))
        rates[kind.name] = gr.Textbox(
            value=rate,
            label=f"{kind.name.capitalize()} Learning rate",
            info="One rate, or a schedule: 0.005:100, 1e-3:1000, 1e-5 is 0.005 until step 100, 1e-3 until step 1000, "
            "then 1e-5.",
            elem_id=f"tr-{kind.name}-rate",
            visible=first,
        )
        drawn = draw_schedule(rate, begin.get("steps", FIELDS["steps"].default))
        drawings[kind.name] = panel(drawn, elem_id=f"tr-{kind.name}-schedule", visible=first)
    return rates, drawings


class _Schedules:
    """The inputs of schedules, each with the drawing below it and what counts where nothing is typed."""

    def __init__(self, form: Form) -> None:
        self._form = form
        self.inputs: list[tuple[Any, Component, str]] = []

    def draw(self, name: str) -> None:
        """Below the input of the setting ``name``, which was just added; nothing if that is no schedule."""
        if FIELDS[name].schedule:
            self.inputs.append((self._form.inputs[name], panel(elem_id=f"tr-{name}-schedule"), ""))

    def draw_as_typed(self) -> None:
        """Draws them once the page is loaded, and anew with each change."""
        steps: Any = self._form.inputs["steps"]
        for typed, drawing, usual in self.inputs:

            def plot(text: str | None, count: Any, usual: str = usual) -> str:
                return draw_schedule(text or "", count, usual)

            gr.on(
                [typed.change, steps.change, gr.context.Context.root_block.load], plot, [typed, steps], drawing, **TYPED
            )


def _previews(form: Form) -> Component:
    with gr.Row():
        form.add_all(["preview_every", "save_every"])
    form.add("preview_prompts")
    return gr.Checkbox(
        label="Read parameters (prompt, etc...) from Try it when making previews",
        info="Prompt, negative prompt, steps, sampler, guidance and seed are those of the tab Try it, as they stand "
        "when the training is submitted. Otherwise a prompt of the data is drawn.",
        elem_id="tr-from-try",
    )


def _groups(
    form: Form, service: Service, schedules: _Schedules
) -> tuple[dict[str, gr.Accordion], Component, dict[str, Component]]:
    """An accordion for each group of settings, whatever settings there are; then when and where it runs."""
    more: list[Component] = []
    groups: dict[str, gr.Accordion] = {}
    for group, names in list(form.left(ELSEWHERE)):
        with gr.Accordion(group, open=False, elem_id=f"tr-{group.lower().replace(' ', '-')}") as groups[group]:
            if group == FIELDS["data"].group:
                more.append(_more_data())
            for name in names:
                form.add(name)
                schedules.draw(name)
    with gr.Accordion(QUEUE, open=False, elem_id="tr-queue") as groups[QUEUE]:
        return groups, more[0], _turn(service)


def _title(group: str, changed: int) -> str:
    return f"{group} · {changed} changed" if changed else group


def _more_data() -> Component:
    return gr.Textbox(
        label="Further dataset directories",
        info="One a line; their pictures are trained together with those above.",
        lines=1,
        elem_id="tr-more-data",
    )


def _turn(service: Service) -> dict[str, Component]:
    usual = f"{service.settings.job_timeout:g}" if service.settings.job_timeout else "none"
    made: dict[str, Component] = {
        "priority": number(
            0,
            label="Priority",
            info="From -1000 to 1000; the higher, the sooner. Trainings of one priority run in their order.",
            precision=0,
            elem_id="tr-priority",
        ),
        "hours": number(
            None,
            label="Time limit in hours",
            info=f"What runs longer is stopped, saved, and counts as failed. Empty: {usual}.",
            elem_id="tr-hours",
        ),
    }
    if len(service.settings.device) > 1:
        made["device"] = gr.Dropdown(
            choices=[("Any", ""), *((device, device) for device in service.settings.device)],
            value="",
            label="Device",
            info="Any: the one that is free first.",
            elem_id="tr-device",
        )
    return made


def _lines(text: str | None) -> list[str]:
    return [line.strip() for line in (text or "").splitlines() if line.strip()]
