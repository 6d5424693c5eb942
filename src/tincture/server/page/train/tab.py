"""The Train tab: create, preprocess, look at a data set, train."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.components import Component

from tincture.errors import TinctureError, UsageError
from tincture.kinds.registry import kind_names, kinds
from tincture.server.page.data_sets.tab import DataSets
from tincture.server.page.parts import choices
from tincture.server.page.parts.components import panel
from tincture.server.page.parts.drafts import forget_when_done
from tincture.server.page.parts.fields import labels_of
from tincture.server.page.parts.markup import escape
from tincture.server.page.parts.messages import SENT, done, failed, interrupted, submitted
from tincture.server.page.parts.requests import COMMAND, PRIVATE, SILENT, STEP, hidden
from tincture.server.page.parts.way_on import Ways, carried, follow_by_itself
from tincture.server.page.train import create, preprocess
from tincture.server.page.train.beginning import Beginning
from tincture.server.page.train.form import TrainInputs
from tincture.server.page.train.form import build as build_form
from tincture.server.page.train.live_plan import FILLED, watch, watcher
from tincture.server.page.train.plan_view import plan_html

if TYPE_CHECKING:
    from tincture.server.service import Service

# settings of previews, by the inputs in Try it that they can be read from
FROM_TRY: Mapping[str, str] = {
    "preview_prompts": "try-prompt",
    "preview_negative_prompt": "try-negative-prompt",
    "preview_steps": "try-steps",
    "preview_sampler": "try-sampler",
    "preview_guidance_scale": "try-guidance-scale",
    "preview_seed": "try-seed",
    "preview_width": "try-width",
    "preview_height": "try-height",
}


SHOW_KIND = """(kind, companions) => {
  const together = [kind, ...String(companions ?? "").split("\\n").map((line) => line.split(":")[0].trim())];
  const seen = (kinds) => (names) => ({ __type__: "update", visible: names.some((name) => kinds.includes(name)) });
  return [...OWN.map(seen([kind])), ...SHARED.map(seen(together))];
}"""


class TrainTab:
    """The tab as it is built; ``connect`` gives its buttons their work once the other tabs are there."""

    def __init__(self, service: Service, extra: Sequence[gr.Blocks], ways: Ways) -> None:
        """``extra``: what extensions add, each with tabs of its own; ``ways``: what leads here from elsewhere."""
        self.service = service
        with gr.Row(elem_classes="base-model"):
            self.model = gr.Dropdown(
                choices=choices.models(service),
                value=service.default_model(),
                label="Base model",
                info="What is created and trained here is for this model; it is never changed.",
                elem_id="base-model",
            )
            refresh = gr.Button("Refresh lists", size="sm", min_width=120, scale=0, elem_id="refresh-lists")
        made = {kind: gr.State("") for kind in kind_names()}
        with gr.Tabs(elem_id="train-tabs", overflow_behavior="wrap") as self.tabs:
            created = {}
            for each in kinds():
                with gr.Tab(f"Create {each.name}", id=f"create-{each.name}"):
                    created[each.name] = create.form(service, each, self.model, made[each.name])
            with gr.Tab("Preprocess images", id="preprocess") as preprocessing:
                self.source = preprocess.build(service)
            with gr.Tab("Data sets", id="datasets") as looking:
                self.data_sets = DataSets(service, ways)
            with gr.Tab("New run", id="train") as training:
                self._train()
            for part in extra:
                part.render()
        self._lead_here(ways)
        self._reread_lists([refresh.click, preprocessing.select, looking.select, training.select])
        for kind, event in created.items():
            event.then(
                lambda name, kind=kind: (
                    gr.Dropdown(choices=choices.adapters(service, kind), **({"value": name} if name else {})),
                    kind if name else gr.skip(),
                ),
                made[kind],
                [self.inputs.names[kind], self.inputs.kind],
                **STEP,
            )

    def _train(self) -> None:
        self.submitted, self.changed = hidden(), watcher()
        with gr.Row():
            with gr.Column(scale=3, min_width=300):
                self.beginning = Beginning(self.service)
                self.inputs: TrainInputs = build_form(self.service)
            with gr.Column(scale=2, min_width=300, elem_classes="beside"):
                with gr.Column(elem_id="tr-bar"):
                    self.message = panel(elem_id="tr-message")
                    self.summary = panel(elem_id="tr-summary")
                    with gr.Row():
                        self.starts = {
                            kind: gr.Button(
                                f"Train {kind.capitalize()}",
                                variant="primary",
                                min_width=140,
                                elem_id=f"tr-start-{kind}",
                                visible=kind == kind_names()[0],
                            )
                            for kind in kind_names()
                        }
                        self.stop = gr.Button("Interrupt", min_width=100, scale=0, elem_id="tr-interrupt")
                self.planned = panel(elem_id="tr-planned")
                self.plan = gr.Button("Show plan", size="sm", elem_id="tr-plan")

    def connect(self, page: Mapping[str, Component]) -> None:
        """Buttons ask the service. ``page``: all inputs of the page by their ids, those of Try it among them."""
        try_it = {name: page[elem_id] for name, elem_id in FROM_TRY.items() if elem_id in page}
        inputs = {*self.inputs.components, self.model, *try_it.values()}

        def complete(values: dict[str, Any], given: Mapping[Component, Any]) -> dict[str, Any]:
            if given[self.inputs.previews_from_try]:
                values |= previews({name: given[component] for name, component in try_it.items()})
            return values

        def typed(given: Mapping[Component, Any]) -> dict[str, Any]:
            return complete(self.typed(given), given)

        def settings(given: Mapping[Component, Any], kind: str = "") -> dict[str, Any]:
            kind = kind or given[self.inputs.kind]
            return complete(self.inputs.settings(given, kind, given[self.model]), given)

        def show_plan(given: dict[Component, Any]) -> str:
            try:
                plan = self.service.model_work.plan("train", settings(given))
            except TinctureError as error:
                return failed(error, self._labels(given[self.inputs.kind]))
            return plan_html(plan, self._labels(given[self.inputs.kind]))

        def start(given: dict[Component, Any], kind: str) -> tuple[str, str]:
            try:
                place = self.inputs.place(given)
                job = self.service.queue.submit("train", settings(given, kind), source="page", **place)
                return submitted(self.service, job), job.id
            except TinctureError as error:
                return failed(error, self._labels(kind)), ""

        # Its messages stay apart: it takes seconds, in which a training may be begun.
        self.plan.click(show_plan, inputs, self.planned, **COMMAND)
        self.stop.click(lambda: interrupted(self.service, "train"), None, self.message, **COMMAND)
        shown = self.planned, self.summary
        watch(self.service, self.changed, self.inputs, inputs, shown, settings, self._labels)
        self._show_kind()
        self.beginning.connect(self.inputs, self.model, inputs, typed, self._labels)
        for kind, button in self.starts.items():
            button.click(None, None, self.message, js=SENT, **PRIVATE)
            started = button.click(
                lambda given, kind=kind: start(given, kind), inputs, [self.message, self.submitted], **COMMAND
            )
            forget_when_done(started, self.message, "tr", "base")
            follow_by_itself(started, "run", self.submitted)

    def typed(self, given: Mapping[Component, Any]) -> dict[str, Any]:
        """Fields of ``TrainSettings``, as they stand in the form; see ``TrainInputs.typed``."""
        return self.inputs.typed(given, given[self.inputs.kind], given[self.model])

    def _labels(self, kind: str) -> dict[str, str]:
        """By setting, what the inputs are called that are seen where this kind is trained."""
        own = {"kind": self.inputs.kind, "name": self.inputs.names[kind], "learning_rate": self.inputs.rates[kind]}
        return {**labels_of({**own, "model": self.model, **self.inputs.turn}), **self.inputs.form.labels}

    def _show_kind(self) -> None:
        """Only what concerns the kind that is chosen is seen, at once, in the browser."""
        own: dict[Any, list[str]] = {}
        shared: dict[Any, list[str]] = {}
        for kind, (blocks, also) in self.inputs.of_kind.items():
            own |= {block: [kind] for block in (*blocks, self.starts[kind])}
            for block in also:
                shared.setdefault(block, []).append(kind)
        script = SHOW_KIND.replace("OWN", json.dumps(list(own.values())))
        script = script.replace("SHARED", json.dumps(list(shared.values())))
        chosen = [self.inputs.kind, self.inputs.form.inputs["companions"]]
        gr.on([one.change for one in chosen], None, chosen, [*own, *shared], js=script, **PRIVATE)

    def _lead_here(self, ways: Ways) -> None:
        """Buttons elsewhere bring a data set, or the settings of a run, into the form."""
        data = self.inputs.form.inputs["data"]
        used = ways["data"].click(self._use_data, None, [data, self.message], **SILENT, **COMMAND)
        form = {*self.inputs.components, self.model, self.beginning.preset, self.beginning.run, self.message}
        filled = ways["settings"].click(self._fill, None, form, **SILENT, **COMMAND)
        self._file = hidden()
        again = ways["file"].click(self._fill_by_file, None, {*form, self._file}, **SILENT, **COMMAND)
        for event in (used, filled, again):
            event.then(None, None, None, js=FILLED, **PRIVATE)
        # Reading all pictures takes its time; the form need not wait for it.
        again.then(self._changes_of_pictures, [self._file, self.message], self.message, **STEP)

    def _use_data(self, event: gr.EventData) -> tuple[Any, str]:
        folder = self.service.places.shown(Path(carried(event)))
        return gr.Dropdown(choices=choices.datasets(self.service), value=folder), done(f"The data set is {folder}.")

    def _fill(self, event: gr.EventData) -> dict[Any, Any]:
        """The form with the settings of a job; with ``more`` behind its id, for as many steps more as it made."""
        job_id, _, more = carried(event).partition(" ")
        try:
            filled, sentence = self.beginning.filled_by_job(job_id, further=bool(more))
        except TinctureError as error:
            gr.Warning(escape(error))
            return {self.message: gr.skip()}
        listed = gr.Dropdown(choices=choices.trainings(self.service, job_id), value=job_id)
        return {**filled, self.beginning.preset: None, self.beginning.run: listed, self.message: done(sentence)}

    def _fill_by_file(self, event: gr.EventData) -> dict[Any, Any]:
        """The form with the settings that a file was trained with."""
        path = carried(event)
        try:
            filled, sentence = self.beginning.filled_by_file(path)
        except TinctureError as error:
            return {self.message: failed(error), self._file: ""}
        begun = {self.beginning.preset: None, self.beginning.run: None, self._file: path}
        return {**filled, **begun, self.message: done(sentence)}

    def _changes_of_pictures(self, path: str, message: str) -> Any:
        """What changed of the pictures is said behind what was said of the file."""
        changed = self.beginning.pictures_changed(path) if path else ""
        return f"{message}{done(changed)}" if changed else gr.skip()

    def _reread_lists(self, events: Sequence[Any]) -> None:
        """Lists are read anew when the page is loaded, and at ``events``: jobs and uploads make new data sets."""
        service, form = self.service, self.inputs.form
        readers: dict[Component, Any] = {
            self.model: choices.models,
            **{
                component: functools.partial(choices.adapters, kind=kind)
                for kind, component in self.inputs.names.items()
            },
            self.source: choices.datasets,
            form.inputs["data"]: choices.datasets,
            form.inputs["template"]: choices.templates,
            self.beginning.preset: choices.presets,
            self.beginning.run: choices.trainings,
            self.data_sets.folder: choices.datasets,
        }

        def read_all() -> list[Any]:
            return [gr.Dropdown(choices=list(read(service))) for read in readers.values()]

        gr.on(
            [gr.context.Context.root_block.load, *events],
            read_all,
            None,
            list(readers),
            **STEP,
        )


def previews(given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of previews from what stands in Try it."""
    prompt = str(given.get("preview_prompts") or "").strip()
    if not prompt:
        raise UsageError("Previews shall be those of Try it, but no prompt stands there; write one, or untick it.")
    seed = max(0, int(given.get("preview_seed") or 0))  # -1 is another seed each time, but previews are to be compared
    return {**given, "preview_prompts": [prompt], "preview_seed": seed}
