"""The inputs of a training: those that matter first, then all others by their groups; with the webui's labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.blocks import Block
from gradio.components import Component

from tincture.errors import UsageError
from tincture.kinds.registry import AdapterKind, find_kind, kind_names, kinds
from tincture.server.page.parts import choices
from tincture.server.page.parts.components import panel
from tincture.server.page.parts.fields import Form
from tincture.server.page.parts.requests import TYPED
from tincture.server.page.train.labels import OPTIONS
from tincture.server.page.train.schedule_plot import draw_schedule
from tincture.settings.optimizers import USUAL, usual_rate, usual_rates
from tincture.settings.presets import PRESETS, SMALL_MODEL, Preset, find_preset
from tincture.settings.train import FIELDS

if TYPE_CHECKING:
    from tincture.server.requests.places import Places
    from tincture.server.service import Service

BEGIN = "subject"
"""The preset that the page begins with."""
# these have an input of their own, or none: the queue knows which device it is
ELSEWHERE = ("kind", "name", "learning_rate", "model", "device")
QUEUE = "Queue"


@dataclass(frozen=True)
class TrainInputs:
    """The inputs beside those of ``form``, by kind where there are two.

    Attributes:
        kind: which kind is trained.
        of_kind: by kind, what is seen only where it is trained itself, and what is wherever it is trained with others.
        groups: the accordions, by the names of the groups.
    """

    form: Form
    kind: gr.Radio
    of_kind: Mapping[str, tuple[Sequence[Block], Sequence[Block]]]
    groups: Mapping[str, gr.Accordion]
    names: Mapping[str, Component]
    rates: Mapping[str, Component]
    more_data: Component
    previews_from_try: Component
    turn: Mapping[str, Component]

    @property
    def components(self) -> set[Component]:
        own = {self.kind, *self.names.values(), *self.rates.values(), *self.turn.values()}
        return self.form.components | own | {self.more_data, self.previews_from_try}

    def typed(self, given: Mapping[Component, Any], kind: str, model: str) -> dict[str, Any]:
        """Fields of ``TrainSettings``, as they were typed; name and data are empty where nothing is chosen."""
        values = self.form.read(given)
        typed = values["data"]  # one text, or none, two or more
        folders = [*([typed] if isinstance(typed, str) else typed), *_lines(given[self.more_data])]
        rate = str(given[self.rates[kind]] or "").strip()
        data = folders if len(folders) != 1 else folders[0]
        values |= {name: FIELDS[name].default for name in _unseen(kind, values["companions"])}
        values["preview_with_embedding"] &= bool(values["preview_every"])  # the webui's users leave it ticked
        name = given[self.names[kind]] or ""
        return {**values, "kind": kind, "name": name, "data": data, "learning_rate": rate, "model": model}

    def settings(self, given: Mapping[Component, Any], kind: str, model: str) -> dict[str, Any]:
        """The same of a training that may begin; UsageError says what is missing."""
        values = self.typed(given, kind, model)
        if not values["name"]:
            raise UsageError(f"No {kind} is chosen; choose one, or create it first.")
        if not values["data"]:
            raise UsageError("No dataset directory is given; choose a data set, or type the path of a folder.")
        return values

    def of_preset(self, preset: Preset, kind: str, model: str) -> dict[Component, Any]:
        """What the inputs show of a built-in preset: its values, and the usual ones of what only others change."""
        values = preset.settings(kind, model)
        shown = self.form.shown(values)
        return {
            **{self.form.inputs[each]: shown[self.form.inputs[each]] for each in _of_presets()},
            self.rates[kind]: _base_rate(preset, kind, model),
        }

    def of_another(self, preset: Preset, given: Mapping[Component, Any], kind: str, model: str) -> dict[Any, Any]:
        """What inputs show of a built-in preset that still have what it says for another kind or model."""
        variants = [self.of_preset(preset, *each) for each in _kinds_and_models()]
        return {
            component: value
            for component, value in self.of_preset(preset, kind, model).items()
            if given[component] in [shown[component] for shown in variants if component in shown]
        }

    def of_optimizer(self, preset: Preset | None, given: Mapping[Component, Any], model: str) -> dict[Any, Any]:
        """The rates that the chosen optimizer usually has, for those that are as usual with another."""
        optimizer = str(given[self.form.inputs["optimizer"]] or USUAL)
        return {
            component: usual_rate(optimizer, _base_rate(preset, kind, model))
            for kind, component in self.rates.items()
            if str(given[component] or "").strip() in _untouched_rates(kind)
        }

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
            **{name: _whole(values[name]) for name in ("gpus", "cpus") if name in values},
        }

    def shown(self, settings: Mapping[str, Any], kind: str, places: Places) -> dict[Component, Any]:
        """What the inputs show of settings, of which those that are missing are as usual; the model aside.

        What is trained, and on which pictures, stays as it is where the settings do not say it.
        """
        shown = {
            **self.form.shown(settings),
            self.kind: kind,
            self.rates[kind]: settings.get("learning_rate") or find_kind(kind).learning_rate,
            self.previews_from_try: False,
        }
        if name := settings.get("name"):
            shown |= {component: name if kind == each else None for each, component in self.names.items()}
        data = settings.get("data") or ()
        folders = [places.shown(Path(text)) for text in ([data] if isinstance(data, str) else data)]
        shown |= {self.form.inputs["data"]: folders[0], self.more_data: "\n".join(folders[1:])} if folders else {}
        if not folders:
            del shown[self.form.inputs["data"]]
        return shown


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
        with gr.Row():
            kind, names = _trained(service)
        with gr.Row():
            form.add("data", choices=choices.datasets(service), min_width=220)
            form.add("template", choices=choices.templates(service), min_width=220)
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
    return TrainInputs(form, kind, of_kind, groups, names, rates, more_data, previews, turn)


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
            min_width=220,
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
) -> tuple[list[Block], list[Block]]:
    """What is seen where this kind is trained itself, and what is wherever it is, be it together with another."""
    shared = [
        form.inputs[name]
        for name in sorted({name for each in kinds() for name in each.not_for_it})
        if name not in kind.not_for_it
    ]
    return [names[kind.name], rates[kind.name], drawings[kind.name]], shared


def _rates(model: str) -> tuple[dict[str, Component], dict[str, Component]]:
    rates: dict[str, Component] = {}
    drawings: dict[str, Component] = {}
    for kind in kinds():
        first = kind.name == kind_names()[0]
        rates[kind.name] = gr.Textbox(
            value=_base_rate(find_preset(BEGIN), kind.name, model),
            label=f"{kind.name.capitalize()} Learning rate",
            info="One rate, or a schedule: 0.005:100, 1e-3:1000, 1e-5 is 0.005 until step 100, 1e-3 until step 1000, "
            "then 1e-5.",
            elem_id=f"tr-{kind.name}-rate",
            visible=first,
        )
        drawings[kind.name] = panel(elem_id=f"tr-{kind.name}-schedule", visible=first)
    return rates, drawings


class _Schedules:
    """The inputs of schedules, each with the drawing below it and what counts where nothing is typed."""

    def __init__(self, form: Form) -> None:
        self._form = form
        self.inputs: list[tuple[Any, Any, str]] = []

    def draw(self, name: str) -> None:
        """Below the input of the setting ``name``, which was just added; nothing if that is no schedule."""
        if FIELDS[name].schedule:
            self.inputs.append((self._form.inputs[name], panel(elem_id=f"tr-{name}-schedule"), ""))

    def draw_as_typed(self) -> None:
        """Draws them as the page begins, and anew with each change."""
        steps: Any = self._form.inputs["steps"]
        texts, drawings, usual = zip(*self.inputs, strict=True)
        for typed, drawing, fallback in self.inputs:

            def plot(text: str | None, count: Any, fallback: str = fallback) -> str:
                return draw_schedule(text or "", count, fallback)

            drawing.value = plot(typed.value, steps.value)
            typed.change(plot, [typed, steps], drawing, **TYPED)

        def plot_all(count: Any, *typed: str | None) -> list[str]:
            return [draw_schedule(text or "", count, fallback) for text, fallback in zip(typed, usual, strict=True)]

        steps.change(plot_all, [steps, *texts], drawings, **TYPED)


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
        "priority": gr.Number(
            0,
            label="Priority",
            info="From -1000 to 1000; the higher, the sooner. Trainings of one priority run in their order.",
            precision=0,
            elem_id="tr-priority",
        ),
        "hours": gr.Number(
            None,
            label="Time limit in hours",
            info=f"What runs longer is stopped, saved, and counts as failed. Empty: {usual}.",
            elem_id="tr-hours",
        ),
    }
    if service.settings.ray:
        made |= {"gpus": _of_one_machine("GPUs", "one, if there are any", "tr-gpus")}
        made |= {"cpus": _of_one_machine("CPUs", "one for each GPU, at least one", "tr-cpus")}
    elif len(service.settings.device) > 1:
        made["device"] = gr.Dropdown(
            choices=[("Any", ""), *((device, device) for device in service.settings.device)],
            value="",
            label="Device",
            info="Any: the one that is free first.",
            elem_id="tr-device",
        )
    return made


def _of_one_machine(what: str, usual: str, elem_id: str) -> Component:
    info = f"{what} of one machine of the cluster that it has for itself. Empty: {usual}."
    return gr.Number(None, label=what, info=info, precision=0, elem_id=elem_id)


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _unseen(kind: str, companions: Sequence[str]) -> set[str]:
    """Settings that concern nothing of what is trained."""
    trained = {kind, *(text.partition(":")[0].strip() for text in companions)}
    return set.intersection(*(set(find_kind(each).not_for_it) for each in trained & set(kind_names())))


def _base_rate(preset: Preset | None, kind: str, model: str) -> str:
    """The rate with AdamW."""
    usual = find_kind(kind).learning_rate
    return usual if preset is None else str(preset.settings(kind, model).get("learning_rate") or usual)


def _untouched_rates(kind: str) -> set[str]:
    """All that a rate's input may show that nobody typed."""
    bases = {_base_rate(preset, kind, model) for preset in (None, *PRESETS) for model in (SMALL_MODEL, "")}
    return {"", *(rate for base in bases for rate in usual_rates(base))}


def _kinds_and_models() -> list[tuple[str, str]]:
    """For what presets differ: each kind, with the embedded model and with any other."""
    return [(kind, model) for kind in kind_names() for model in (SMALL_MODEL, "")]


def _of_presets() -> set[str]:
    """All settings that a built-in preset says something of, but for the rate, which has an input for each kind."""
    named = {name for preset in PRESETS for each in _kinds_and_models() for name in preset.settings(*each)}
    return named - {"learning_rate"}


def _lines(text: str | None) -> list[str]:
    return [line.strip() for line in (text or "").splitlines() if line.strip()]
