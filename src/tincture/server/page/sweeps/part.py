"""Sweeps within the Runs tab: begun from the form of a training and values, or as a text; watched; reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.components import Component
from gradio.context import Context

from tincture.errors import TinctureError
from tincture.server.page.parts.components import panel
from tincture.server.page.parts.fields import label_of
from tincture.server.page.parts.messages import at_once, done, failed
from tincture.server.page.parts.requests import COMMAND, SILENT, STEP, tick_where_seen
from tincture.server.page.sweeps import view
from tincture.server.page.sweeps.text import values_of, with_table, with_values
from tincture.server.page.train.labels import TRAIN_LABELS
from tincture.settings.toml import parse_toml
from tincture.settings.train import FIELDS

if TYPE_CHECKING:
    from tincture.server.service import Service

EVERY_S = 2.0
FIXED = ("kind", "name", "companions", "device")
BEGIN = "# What all runs have goes into [run]; what varies into [grid].\n"
Typed = Callable[[Mapping[Component, Any]], dict[str, Any]]


class SweepPart:
    """The components; ``connect`` gives the buttons their work once the form of a training is there."""

    def __init__(self, service: Service) -> None:
        self._service, self._inside = service, Context.block
        with gr.Accordion("Sweeps", open=False, elem_id="sweeps"), gr.Row():
            with gr.Column(scale=2, min_width=300):
                self._making()
            with gr.Column(scale=3, min_width=300):
                self._watching()
        self.timer = gr.Timer(EVERY_S, active=not isinstance(Context.block, gr.Tab))

    def _making(self) -> None:
        self.name = gr.Textbox(label="Name of the sweep", placeholder="rates", elem_id="sweep-name")
        self.take = gr.Button("Take the form of New run", size="sm", elem_id="sweep-take")
        with gr.Row():
            self.key = gr.Dropdown(
                [(TRAIN_LABELS.get(key) or label_of(key), key) for key in FIELDS if key not in FIXED],
                value="learning_rate",
                label="What varies",
                elem_id="sweep-key",
                min_width=150,
            )
            self.values = gr.Textbox(
                label="Values",
                lines=2,
                placeholder="0.005\n0.001",
                elem_id="sweep-values",
                min_width=150,
                info="One a line.",
            )
        self.add = gr.Button("Add to the sweep", size="sm", elem_id="sweep-add")
        self.text = gr.Textbox(value=BEGIN, label="The sweep (TOML)", lines=10, max_lines=24, elem_id="sweep-text")
        self.begin = gr.Button("Begin the sweep", variant="primary", elem_id="sweep-begin")
        self.message = panel(elem_id="sweep-message")

    def _watching(self) -> None:
        with gr.Row():
            self.chosen = gr.Dropdown([], value=None, label="Sweep", elem_id="sweep-chosen", min_width=150)
            self.stop = gr.Button("Stop", size="sm", min_width=80, scale=0, elem_id="sweep-stop")
            self.resume = gr.Button("Go on", size="sm", min_width=80, scale=0, elem_id="sweep-resume")
        self.done = panel(elem_id="sweep-done")
        self.table = panel(view.none(), elem_id="sweep-table")

    def connect(self, inputs: set[Component], typed: Typed) -> None:
        """Buttons ask the service.

        Args:
            inputs: of the form of a training.
            typed: its settings, by what stands in them.
        """
        service, page = self._service, Context.root_block
        assert page is not None
        tick_where_seen(self.timer, self._inside)
        at_once(self.begin.click, self.message, "Checking all runs …")
        self.begin.click(self._begin, [self.name, self.text], [self.message, self.chosen, self.table], **COMMAND)
        self.take.click(
            lambda given: self._taken(given, typed(given)), inputs | {self.text}, [self.text, self.message], **STEP
        )
        self.add.click(self._added, [self.key, self.values, self.text], [self.text, self.message], **STEP)
        watched = [self.chosen, self.table]
        gr.on([page.load, self.timer.tick], self._watch, self.chosen, watched, **{**COMMAND, **SILENT})
        self.chosen.input(self._shown, self.chosen, self.table, **STEP)
        for button, act in ((self.stop, service.sweeps.stop), (self.resume, service.sweeps.resume)):
            button.click(lambda name, act=act: self._act(name, act), self.chosen, [self.done, self.table], **COMMAND)

    def _begin(self, name: str, text: str) -> tuple[Any, Any, Any]:
        try:
            given = parse_toml(text, "The sweep")
            made = self._service.sweeps.create({**given, **({"name": name.strip()} if name.strip() else {})}, "page")
        except TinctureError as error:
            return failed(error, TRAIN_LABELS), gr.skip(), gr.skip()
        sentence = f"The sweep {made['name']} has begun, with {len(made['runs']) or 'its first'} runs."
        return done(sentence), gr.Dropdown(choices=self._names(), value=made["name"]), view.shown(made)

    def _taken(self, given: Mapping[Component, Any], settings: dict[str, Any]) -> tuple[Any, str]:
        try:
            lines = self._service.presets.run_file(settings)
        except TinctureError as error:
            return gr.skip(), failed(error, TRAIN_LABELS)
        return with_table(str(given[self.text] or ""), "run", lines), done("The form stands under [run].")

    def _added(self, key: str, typed: str, text: str) -> tuple[Any, str]:
        try:
            values = values_of(key, typed or "")
        except TinctureError as error:
            return gr.skip(), failed(error, TRAIN_LABELS)
        label = TRAIN_LABELS.get(key) or label_of(key)
        return with_values(text or "", key, values), done(f"“{label}” varies: {len(values)} values.")

    def _watch(self, chosen: str | None) -> tuple[Any, Any]:
        names = self._names()
        shown = chosen if chosen in names else names[0] if names else None
        listed = gr.Dropdown(choices=names, value=shown)
        return listed, self._shown(shown)

    def _shown(self, name: str | None) -> str:
        if not name:
            return view.none()
        try:
            return view.shown(self._service.sweeps.shown(name))
        except TinctureError as error:
            return failed(error)

    def _act(self, name: str | None, act: Callable[[str], dict[str, Any]]) -> tuple[str, Any]:
        if not name:
            return view.none(), gr.skip()
        try:
            return "", view.shown(act(name))
        except TinctureError as error:
            return failed(error), gr.skip()

    def _names(self) -> list[str]:
        return self._service.sweeps.names()
