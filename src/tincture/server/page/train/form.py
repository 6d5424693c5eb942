"""The inputs of a training, in the webui's order and with its labels; the rest of our settings stand under Advanced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.components import Component

from tincture.errors import UsageError
from tincture.kinds.embedding import EMBEDDING
from tincture.kinds.registry import AdapterKind, find_kind, kind_names, kinds
from tincture.models.samplers import SAMPLERS
from tincture.server.page.parts import choices
from tincture.server.page.parts.components import number, panel
from tincture.server.page.parts.fields import Form
from tincture.server.page.parts.requests import TYPED
from tincture.server.page.train.preprocess import PICTO_SIDE, USUAL_SIDE
from tincture.server.page.train.schedule_plot import draw_schedule
from tincture.settings.train import FIELDS

if TYPE_CHECKING:
    from tincture.server.requests.places import Places
    from tincture.server.service import Service

# what the webui's own page begins with
STEPS = 100_000
# picto learns within some hundred steps, and its previews take no time
PICTO: Mapping[str, Any] = {**EMBEDDING.preset, "preview_every": 50, "save_every": 100}
TEMPLATE = "style_filewords"
CLIPPING = (("disabled", "none"), ("value", "value"), ("norm", "norm"))
OPTIMIZERS = ("AdamW", "Adam", "Adamax", "NAdam", "RAdam", "Adafactor", "RMSprop", "SGD", "Adagrad")
# these have an input of their own, or none: the queue knows which device it is
ELSEWHERE = ("kind", "name", "learning_rate", "model", "device")


@dataclass(frozen=True)
class TrainInputs:
    """The inputs beside those of ``form``, by kind where there are two."""

    form: Form
    names: Mapping[str, Component]
    rates: Mapping[str, Component]
    more_data: Component
    previews_from_try: Component
    turn: Mapping[str, Component]

    @property
    def components(self) -> set[Component]:
        own = {*self.names.values(), *self.rates.values(), *self.turn.values(), self.more_data, self.previews_from_try}
        return self.form.components | own

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
        return {**values, "kind": kind, "name": name, "data": data, "learning_rate": rate, "model": model}

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
            **{component: settings["name"] if kind == each else None for each, component in self.names.items()},
            self.rates[kind]: settings["learning_rate"],
            self.form.inputs["data"]: folder,
            self.more_data: "\n".join(more),
            self.previews_from_try: False,
        }


def build(service: Service) -> TrainInputs:
    """All inputs, in the order in which they are read."""
    picto = service.default_model() == "picto"
    form = Form(FIELDS, "tr", PICTO if picto else {})
    schedules = _Schedules(form)
    with gr.Group(), gr.Row():
        names = {kind: _adapter(service, kind) for kind in kind_names()}
    with gr.Group():
        rates, drawings = _rates(picto, PICTO["steps"] if picto else STEPS)
        with gr.Row():
            form.add("clip_grad_mode", label="Gradient Clipping", choices=CLIPPING)
            form.add("clip_grad_value", label="Gradient Clipping value")
        schedules.draw("clip_grad_value")
        with gr.Row():
            form.add("batch_size", label="Batch size", step=1, min_width=120)
            form.add("gradient_accumulation_steps", label="Gradient accumulation steps", step=1, min_width=120)
        form.add("steps", label="Max steps", value=STEPS, step=1)
    for kind in kinds():
        schedules.inputs.append((rates[kind.name], drawings[kind.name], kind.learning_rate))
    with gr.Group():
        more_data = _data(form, service, PICTO_SIDE if picto else USUAL_SIDE)
    with gr.Group():
        previews = _output(form)
    with gr.Group():
        _captions(form)
    turn = _advanced(form, service, schedules)
    schedules.draw_as_typed()
    return TrainInputs(form, names, rates, more_data, previews, turn)


def _adapter(service: Service, kind: str) -> Component:
    return gr.Dropdown(
        choices=choices.adapters(service, kind),
        value=None,
        label=kind.capitalize(),
        info=f"The {kind} to train; make one in Create {kind}.",
        elem_id=f"tr-{kind}",
    )


def _rates(picto: bool, steps: int) -> tuple[dict[str, Component], dict[str, Component]]:
    rates: dict[str, Component] = {}
    drawings: dict[str, Component] = {}
    for kind in kinds():
        begin = _begin(kind, picto)
        rates[kind.name] = gr.Textbox(
            value=begin,
            label=f"{kind.name.capitalize()} Learning rate",
            info="One rate, or a schedule: 0.005:100, 1e-3:1000, 1e-5 is 0.005 until step 100, 1e-3 until step 1000, "
            "then 1e-5.",
            elem_id=f"tr-{kind.name}-rate",
        )
        drawings[kind.name] = panel(draw_schedule(begin, steps), elem_id=f"tr-{kind.name}-schedule")
    return rates, drawings


def _begin(kind: AdapterKind, picto: bool) -> str:
    """The rate that the page begins with; a lone one as people write it, not as 1e-05."""
    usual = kind.learning_rate
    if picto:
        return str(kind.preset.get("learning_rate", usual))
    return usual if ":" in usual else f"{Decimal(usual):f}"


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


def _data(form: Form, service: Service, side: int) -> Component:
    form.add(
        "data",
        label="Dataset directory",
        info="A data set of this server, or the path of a folder; FOLDER:3 takes each picture 3 times an epoch.",
        choices=choices.datasets(service),
        allow_custom_value=True,
        value=None,
    )
    more = gr.Textbox(
        label="Further dataset directories",
        info="One a line; their pictures are trained together with those above.",
        lines=1,
        elem_id="tr-more-data",
    )
    form.add("log_dir", label="Log directory", value="textual_inversion")
    templates = choices.templates(service)
    chosen = TEMPLATE if TEMPLATE in templates else None
    form.add("template", label="Prompt template", choices=templates, allow_custom_value=True, value=chosen)
    with gr.Row():
        form.add("width", value=side, step=8, min_width=120)
        form.add("height", value=side, step=8, min_width=120)
    form.add("varsize", label="Do not resize images")
    return more


def _output(form: Form) -> Component:
    with gr.Row():
        form.add(
            "preview_every", label="Save an image to log directory every N steps, 0 to disable", step=1, min_width=240
        )
        form.add(
            "save_every",
            label="Save a copy of embedding to log directory every N steps, 0 to disable",
            step=1,
            min_width=240,
        )
    form.add("preview_with_embedding", label="Save images with embedding in PNG chunks", value=True)
    return gr.Checkbox(
        label="Read parameters (prompt, etc...) from Try it when making previews",
        info="Prompt, negative prompt, steps, sampler, guidance and seed are those of the tab Try it, as they stand "
        "when the training is submitted. Otherwise a prompt of the data is drawn.",
        elem_id="tr-from-try",
    )


def _captions(form: Form) -> None:
    form.add("use_weight", label="Use PNG alpha channel as loss weight")
    form.add("shuffle_tags", label="Shuffle tags by ',' when creating prompts.")
    form.add("tag_drop_out", label="Drop out tags when creating prompts.", minimum=0, maximum=0.99, step=0.01)
    form.add("latent_sampling_method", label="Choose latent sampling method")


def _advanced(form: Form, service: Service, schedules: _Schedules) -> dict[str, Component]:
    special: dict[str, dict[str, Any]] = {
        "optimizer": {"choices": OPTIMIZERS, "allow_custom_value": True},
        "preview_sampler": {"choices": list(SAMPLERS)},
    }
    with gr.Accordion("Advanced", open=False, elem_id="tr-advanced"):
        for group, names in list(form.left(ELSEWHERE)):
            with gr.Accordion(group, open=False):
                for name in names:
                    form.add(name, **special.get(name, {}))
                    schedules.draw(name)
        with gr.Accordion("Queue", open=False, elem_id="tr-queue"):
            return _turn(service)


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
