"""Where the form of a training begins: a preset, an earlier run, a run file; and how it is saved for another time."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.components import Component

from tincture.errors import TinctureError, UsageError
from tincture.kinds.registry import kind_names
from tincture.server.page.parts import choices
from tincture.server.page.parts.components import panel, script, updates
from tincture.server.page.parts.messages import SENT, done, failed
from tincture.server.page.parts.requests import COMMAND, PRIVATE, SILENT, STEP, hidden
from tincture.server.page.train.form import BEGIN, TrainInputs
from tincture.server.page.train.live_plan import FILLED
from tincture.settings.presets import NAMED, SUFFIX
from tincture.settings.run_file import checked_part
from tincture.settings.toml import read_toml

if TYPE_CHECKING:
    from tincture.server.queue.jobs import Job
    from tincture.server.service import Service

SAVE_FILE = script(__file__, "save_file.js")
PLACED = "its settings stand in the form."
Given = Mapping[Component, Any]


class Beginning:
    """The inputs above the form; none of them is a setting.

    Attributes:
        preset, run: what the form was filled with last; empty where it was something else.
        message: what came of it.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        with gr.Group(), gr.Row():
            self.preset = gr.Dropdown(
                choices=choices.presets(service),
                value=BEGIN,
                label="Start from",
                info="Fills the form; what you change then wins.",
                elem_id="tr-preset",
                min_width=200,
            )
            self.run = gr.Dropdown(
                choices=choices.trainings(service),
                value=None,
                label="As in run",
                info="All of a run that was begun here, its pictures too.",
                elem_id="tr-as-in-run",
                min_width=200,
            )
        with gr.Accordion("Save, export, import", open=False, elem_id="tr-presets"):
            self._files()
        self.message = panel(elem_id="tr-begin-message")
        self._exported = hidden()

    def _files(self) -> None:
        with gr.Row(elem_classes="base-model"):
            self.name = gr.Textbox(
                label="Name of the preset",
                info="All that stands in the form, but for what is trained, its pictures and the base model.",
                elem_id="tr-preset-name",
                min_width=200,
            )
            self.save = gr.Button("Save as preset", size="sm", min_width=130, scale=0, elem_id="tr-preset-save")
        with gr.Row():
            self.export = gr.Button("Export run file", size="sm", min_width=120, elem_id="tr-export")
            self.take_file = gr.UploadButton(
                "Import run file", size="sm", min_width=120, file_types=[SUFFIX], elem_id="tr-import"
            )
            self.delete = gr.Button("Delete preset", size="sm", min_width=120, elem_id="tr-preset-delete")
        with gr.Row(visible=False) as self.sure:
            self.really = gr.Button("Delete for good", variant="stop", size="sm", elem_id="tr-preset-really")
            self.keep = gr.Button("Keep it", size="sm", elem_id="tr-preset-keep")

    def connect(
        self,
        inputs: TrainInputs,
        model: Component,
        read: set[Component],
        typed: Callable[[Given], dict[str, Any]],
        labels: Callable[[str], Mapping[str, str]],
    ) -> None:
        """Fills ``inputs`` and ``model``, and saves what stands in them.

        Args:
            read: all that ``typed`` reads.
            typed: the settings that stand in the form, of which some may be missing.
            labels: what the inputs are called, by the kind that is trained.
        """
        self._inputs, self._model_input, self._typed, self._labels = inputs, model, typed, labels
        filled = [*inputs.components, model, self.preset, self.run, self.message]
        for event in (
            self.preset.input(self._take_preset, {self.preset, inputs.kind, model}, filled, **SILENT, **COMMAND),
            self.run.input(self._take_run, {self.run}, filled, **SILENT, **COMMAND),
            self.take_file.upload(self._take_file, {self.take_file, inputs.kind}, filled, **SILENT, **COMMAND),
        ):
            event.then(None, None, None, js=FILLED, **PRIVATE)
        own: list[Component] = [*inputs.form.inputs.values(), *inputs.rates.values()]
        read_too = {*own, inputs.kind, model, self.preset}
        followed = gr.on([inputs.kind.change, model.change], self._follow, read_too, own, **STEP)
        followed.then(None, None, None, js=FILLED, **PRIVATE)
        # whenever a person chooses one; what fills the form brings a rate of its own
        optimizer, rates = inputs.form.inputs["optimizer"], list(inputs.rates.values())
        optimizer.input(self._follow_optimizer, {optimizer, model, self.preset, *rates}, rates, **STEP)
        pressed = [self.save.click, self.name.submit, self.export.click, self.delete.click, self.really.click]
        gr.on(pressed, None, None, self.message, js=SENT, **PRIVATE)
        saved = [self.preset, self.name, self.message]
        gr.on([self.save.click, self.name.submit], self._save, {*read, self.name, self.preset}, saved, **COMMAND)
        exported = self.export.click(self._export, read, [self._exported, self.message], **COMMAND)
        exported.then(None, self._exported, None, js=SAVE_FILE, **PRIVATE)
        self.delete.click(self._ask, self.preset, [self.sure, self.message], **STEP)
        gr.on([self.really.click, self.keep.click], lambda: gr.Row(visible=False), None, self.sure, **STEP)
        self.keep.click(None, None, self.message, js="() => ''", **PRIVATE)
        self.really.click(self._delete, self.preset, [self.preset, self.message], **SILENT, **COMMAND)

    # --- what fills the form -----------------------------------------------------------------------------------------

    def filled_by_job(self, job_id: str, *, further: bool) -> tuple[dict[Any, Any], str]:
        """The form with the settings of a job, and what is to be said of it.

        Args:
            further: for as many steps more as it made.

        Raises:
            UsageError: there is no such job, or nothing is known of its settings.
        """
        job = self.service.queue.job(job_id)
        if "kind" not in job.settings:
            raise UsageError(job.error or f"The job {job_id} has no settings that can be used again.")
        settings, sentence = dict(job.settings), f"These are the settings of {job.name}, job {job.id}."
        if further:
            settings["steps"] = job.global_step + self._steps_made(job)
            sentence += f" It made {job.global_step:,} steps, and goes on from there to {settings['steps']:,}."
        return self._filled(settings, str(job.settings["kind"]), sentence)

    def filled_by_file(self, path: str) -> tuple[dict[Any, Any], str]:
        """The form with the settings that an adapter's file was trained with, or for it, if it was not trained yet.

        Raises:
            FileFormatError: it cannot be read.
            UsageError: it says of its settings what is not allowed.
        """
        found = self.service.model_work.inspect(path)
        kind, name = str(found["kind"]), Path(found["path"]).stem
        if "settings" not in (found.get("provenance") or {}) and kind in kind_names():
            return self._with_adapter(kind, name), f"{name} is chosen."
        settings, absent = self.service.settings_again(found)
        settings["model"] = self._model_named(str(settings.get("model") or ""))
        filled, sentence = self._filled(settings, settings["kind"], f"These are the settings of {Path(path).name}.")
        if absent:
            labels = self._inputs.form.labels
            listed = ", ".join(f"“{labels.get(each, each)}”" for each in absent)
            sentence += f" Not in this workspace is what these name: {listed}; choose again."
        if since := self.service.changes_since(found, settings):
            sentence += f" Since it was trained: {' '.join(since)}"
        step = found.get("step")
        if settings["name"] == name and isinstance(step, int) and step >= settings.get("steps", step + 1):
            sentence += f" {name} has these {step:,} steps: train another adapter, or raise the steps to go on."
        return filled, sentence

    def pictures_changed(self, path: str) -> str:
        """What changed of the pictures since an adapter's file was trained, in sentences; all of them are read."""
        try:
            found = self.service.model_work.inspect(path)
            settings, absent = self.service.settings_again(found)
        except TinctureError:
            return ""
        settings["model"] = self._model_named(str(settings.get("model") or ""))
        return "" if absent else " ".join(self.service.pictures_changed(found, settings))

    def _with_adapter(self, kind: str, name: str) -> dict[Any, Any]:
        """An adapter is chosen; all else stays as it is."""
        listed = gr.Dropdown(choices=list(choices.adapters(self.service, kind)), value=name)
        return {self._inputs.kind: kind, self._inputs.names[kind]: listed}

    def _model_named(self, name: str) -> str:
        """The name of the model that a file calls so, by its title; the same where there is none."""
        return next((model["name"] for model in self.service.models() if name in (model["name"], model["title"])), name)

    def _take_run(self, given: Given) -> dict[Any, Any]:
        if not given[self.run]:
            return {self.message: gr.skip()}
        try:
            filled, sentence = self.filled_by_job(given[self.run], further=False)
        except TinctureError as error:
            return {self.message: failed(error)}
        return {**filled, self.preset: None, self.message: done(sentence)}

    def _take_preset(self, given: Given) -> dict[Any, Any]:
        """What is chosen to start from stands in the form; all that the preset does not know stays as it is."""
        inputs = self._inputs
        try:
            preset = self.service.presets.find(given[self.preset])
            kind = preset.kind or given[inputs.kind]
            shown = (
                inputs.shown(preset.settings(kind, ""), kind, self.service.places)
                if preset.kind
                else inputs.of_preset(preset, kind, given[self._model_input])
            )
        except TinctureError as error:
            return {self.message: failed(error, self._labels(given[inputs.kind]))}
        return {**shown, self.run: None, self.message: done(f"{preset.title}: {PLACED}")}

    def _follow(self, given: Given) -> dict[Any, Any]:
        """What is as in the preset is so for another kind or model too; what was changed stays."""
        if given[self.preset] not in NAMED:
            return updates({}, self._inputs.form.inputs.values())
        kind, model = given[self._inputs.kind], given[self._model_input]
        inputs = self._inputs
        return updates(inputs.of_another(NAMED[given[self.preset]], given, kind, model), inputs.form.inputs.values())

    def _follow_optimizer(self, given: Given) -> dict[Any, Any]:
        """A rate that nobody changed is the usual one of the optimizer that was chosen."""
        inputs, preset = self._inputs, NAMED.get(given[self.preset])
        changed = inputs.of_optimizer(preset, given, given[self._model_input])
        return updates(changed, inputs.rates.values())

    def _take_file(self, given: Given) -> dict[Any, Any]:
        path, kind = Path(given[self.take_file]), given[self._inputs.kind]
        try:
            values = checked_part(read_toml(path, path.name), path.name, kind)
        except TinctureError as error:
            return {self.message: failed(error, self._labels(kind))}
        filled, sentence = self._filled(values, values.get("kind") or kind, f"{path.name}: {PLACED}")
        return {**filled, self.preset: None, self.run: None, self.message: done(sentence)}

    def _filled(self, settings: Mapping[str, Any], kind: str, sentence: str) -> tuple[dict[Any, Any], str]:
        """The form with settings; what they do not say of adapter, pictures and model stays as it is."""
        inputs = self._inputs
        shown = inputs.shown(settings, kind, self.service.places)
        if name := settings.get("name"):
            adapters: list[Any] = list(choices.adapters(self.service, kind))
            known = name in adapters
            shown[inputs.names[kind]] = gr.Dropdown(choices=adapters, value=name if known else None)
            sentence += "" if known else f" There is no {kind} {name!r} any more; create it first."
        if wanted := settings.get("model"):
            named = {key: model["name"] for model in self.service.models() for key in (model["path"], model["name"])}
            shown[self._model_input] = named.get(wanted) or gr.skip()
            sentence += "" if wanted in named else f" The base model {wanted!r} is not in the workspace."
        return shown, sentence

    def _steps_made(self, job: Job) -> int:
        """How many steps a job made, whatever the adapter had before."""
        steps = self.service.queue.folder(job.id).trace().global_step
        return job.global_step - int(steps[0]) + 1 if len(steps) else job.global_step

    # --- what the form fills -----------------------------------------------------------------------------------------

    def _save(self, given: Given) -> dict[Any, Any]:
        name = str(given[self.name] or "")
        try:
            again = name.strip() == given[self.preset]  # who began with it saves over it
            name = self.service.presets.save(name, self._typed(given), overwrite=again)
        except TinctureError as error:
            return {self.message: failed(error, self._labels(given[self._inputs.kind]))}
        listed = gr.Dropdown(choices=choices.presets(self.service), value=name)
        sentence = f"Saved as {name}; it stands under “Start from”, and tincture train --preset knows it."
        return {self.preset: listed, self.name: "", self.message: done(sentence)}

    def _export(self, given: Given) -> tuple[str, str]:
        try:
            settings = self._typed(given)
            text = self.service.presets.run_file(settings)
        except TinctureError as error:
            return "", failed(error, self._labels(given[self._inputs.kind]))
        name = f"{settings['name'] or settings['kind']}{SUFFIX}"
        how = f"tincture train {name}" if settings["name"] and settings["data"] else ""
        how = how or f"tincture train {settings['kind']} NAME --data FOLDER --config {name}"
        return json.dumps({"name": name, "text": text}), done(f"{name} is exported. {how} takes it.")

    def _ask(self, name: str | None) -> tuple[Any, str]:
        if not name or name in NAMED:
            return gr.Row(visible=False), done("Only a preset that you saved can be deleted; choose it first.")
        return gr.Row(visible=True), done(f"Delete the preset {name}?")

    def _delete(self, name: str) -> tuple[Any, str]:
        try:
            self.service.presets.delete(name)
        except TinctureError as error:
            return gr.skip(), failed(error)
        return gr.Dropdown(choices=choices.presets(self.service), value=None), done(f"The preset {name} is deleted.")
