"""The Files tab: what adapters there are, what is in them, and the same in other formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.context import Context

from tincture.errors import TinctureError, UsageError, shortened
from tincture.kinds.registry import FileFormat, kinds
from tincture.server.library.storage import CONVERTED, FILE_SUFFIXES, served_folders
from tincture.server.library.uploads import parts_of
from tincture.server.page.files import merge_form, view
from tincture.server.page.parts import choices
from tincture.server.page.parts.components import SEND_CLICKS, panel
from tincture.server.page.parts.fields import range_of
from tincture.server.page.parts.markup import muted, served_url
from tincture.server.page.parts.messages import done, failed
from tincture.server.page.parts.requests import COMMAND, SILENT, STEP, TYPED
from tincture.settings.conversion import CONVERSION_FIELDS

if TYPE_CHECKING:
    from tincture.server.service import Service

CARDS = ("png", "webp")


def formats(kind: str) -> Sequence[FileFormat]:
    """That an inspected file can be converted to; none where it is of no kind of adapters."""
    return next((each.formats for each in kinds() if each.name == kind), ())


def build(service: Service) -> None:
    """Fills the Files tab."""
    tab = _Tab(service)
    _list_files(service, tab)
    _inspect(service, tab)
    _convert(service, tab)
    merge_form.connect(service, tab.merging)


class _Tab:
    """The tab's components; ``found`` is the report of the file that is shown, empty without one."""

    def __init__(self, service: Service) -> None:
        self.steps, self.shown, self.found = gr.State({}), gr.State(""), gr.State({})
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=320):
                self._list()
            with gr.Column(scale=4, min_width=320, elem_id="file"):
                self.report = panel(muted("Choose a file to see what is in it."), elem_id="file-report")
                with gr.Accordion("Convert", open=False, visible=False, elem_id="file-convert") as self.conversion:
                    self._conversion(service)

    def _list(self) -> None:
        with gr.Row():
            self.words = gr.Textbox(
                show_label=False, container=False, placeholder="Search", scale=4, min_width=120, elem_id="file-search"
            )
            self.refresh = gr.Button("Refresh", size="sm", scale=1, min_width=90, elem_id="file-refresh")
            self.add = gr.UploadButton(
                "Add file", size="sm", scale=1, min_width=90, file_types=sorted(FILE_SUFFIXES), elem_id="file-add"
            )
        self.message = panel(elem_id="file-message")
        self.table = panel(script=SEND_CLICKS, elem_id="file-table")
        with gr.Accordion("Another file", open=False):
            self.path = gr.Textbox(
                label="Path",
                info="Of any file in the workspace: a copy of a run, a checkpoint, a LoRA, a picture.",
                elem_id="file-path",
            )
            self.inspect = gr.Button("Inspect", size="sm", elem_id="file-inspect")
        with gr.Accordion("Merge", open=False, elem_id="file-merge"):
            self.merging = merge_form.Inputs()

    def _conversion(self, service: Service) -> None:
        self.format = gr.Dropdown(
            [], label="Format", info="Inspect says which programs read which.", elem_id="file-format"
        )
        self.name = gr.Textbox(label="Name", info="Of the adapter and of the new file.", elem_id="file-name")
        with gr.Row():
            self.author = gr.Textbox(label="Author", info="Told by the file; may stay empty.", min_width=140)
            self.license = gr.Textbox(label="Licence", info="Such as CC-BY-4.0.", min_width=140)
        # with a mode, Gradio would decode the picture here, in the server's own process, whatever it is
        self.picture = gr.Image(
            label="Picture of the card; without one, a pattern",
            type="filepath",
            image_mode=None,
            visible=False,
            height=220,
        )
        with gr.Group(visible=False) as self.lora:
            self.model = gr.Dropdown(
                choices.models(service), value=None, label="Base model", info="The LoRA acts with this model only."
            )
            with gr.Row():
                rank = range_of(CONVERSION_FIELDS["rank"])
                self.rank = gr.Number(
                    64, label="Rank", info="64 is usual.", precision=0, min_width=110, elem_id="file-rank", **rank
                )
                self.strength = gr.Slider(0, 2, 1, step=0.05, label="Strength", info="Worked in.", min_width=140)
        self.convert = gr.Button("Convert", variant="primary", elem_id="file-do-convert")
        self.written = panel(elem_id="file-written")


# --- list -------------------------------------------------------------------------------------------------------------


def _list_files(service: Service, tab: _Tab) -> None:
    def read(words: str | None, steps: Mapping[str, int | None], shown: str) -> str:
        return view.table(list(view.matching(service.files(), words or "")), steps, shown)

    def read_steps() -> Any:
        try:
            return service.model_work.file_steps([file["path"] for file in service.files()])
        except TinctureError:
            return gr.skip()  # the list says the rest

    def add(uploaded: str) -> str:
        try:
            added = service.model_work.add_adapter(Path(uploaded), Path(uploaded).name)
        except TinctureError as error:
            return failed(error)
        return done(f"{added.name} is in {service.places.shown(added.parent)} now.")

    inside, page = Context.block, Context.root_block
    assert page is not None
    shown = [tab.words, tab.steps, tab.shown]
    opened = [tab.refresh.click, *([inside.select] if isinstance(inside, gr.Tab) else [page.load])]
    # the list at once, then the steps, for which files are read
    gr.on(opened, read, shown, tab.table, **STEP)
    tab.words.change(read, shown, tab.table, **TYPED)
    added = tab.add.upload(add, tab.add, tab.message, **COMMAND)
    counted = gr.on([*opened, tab.written.change, tab.merging.written.change], read_steps, None, tab.steps, **STEP)
    for event in (counted, added.then(read_steps, None, tab.steps, **STEP)):
        event.then(read, shown, tab.table, **STEP)


# --- one file ---------------------------------------------------------------------------------------------------------


def _inspect(service: Service, tab: _Tab) -> None:
    served = served_folders(service.workspace, service.state_dir)

    def inspect(path: str) -> tuple[Any, ...]:
        try:
            found = service.model_work.inspect(path.strip())
        except TinctureError as error:
            return failed(error), {}, *[gr.skip()] * 3
        choices = [(label, name) for label, name, _ in formats(found["kind"])]
        url = served_url(found["path"], served) if choices else ""
        format_box = gr.Dropdown(choices=choices, value=None)
        name = found.get("name") or Path(found["path"]).stem
        return view.report(found, url), found, gr.Accordion(visible=bool(choices)), format_box, name

    def choose(event: gr.EventData, words: str | None, steps: Mapping[str, int | None]) -> tuple[str, str, str]:
        path = str(event._data["file"])
        files = list(view.matching(service.files(), words or ""))
        return path, view.table(files, steps, path), muted("Reading …")

    outputs = [tab.report, tab.found, tab.conversion, tab.format, tab.name]
    chosen = tab.table.click(choose, [tab.words, tab.steps], [tab.shown, tab.table, tab.report], **STEP)
    chosen.then(inspect, tab.shown, outputs, **STEP)
    gr.on([tab.inspect.click, tab.path.submit], inspect, tab.path, outputs, **SILENT, **COMMAND)


# --- conversion -------------------------------------------------------------------------------------------------------


def _convert(service: Service, tab: _Tab) -> None:
    served = served_folders(service.workspace, service.state_dir)

    def fit(chosen: str | None) -> tuple[Any, Any]:
        return gr.Image(visible=chosen in CARDS), gr.Group(visible=chosen == "lora")

    def convert(found: Mapping[str, Any], chosen: str | None, name: str, *values: Any) -> str:
        try:
            options = _options(chosen, name, *values)
            target = _target(found["kind"], str(chosen), name or Path(found["path"]).stem)
            written = service.model_work.convert(found["path"], target, **options)
        except TinctureError as error:
            return failed(error)
        return view.converted(written, served_url(written["path"], served))

    tab.format.change(fit, tab.format, [tab.picture, tab.lora], **STEP)
    options = [tab.author, tab.license, tab.picture, tab.model, tab.rank, tab.strength]
    tab.convert.click(convert, [tab.found, tab.format, tab.name, *options], tab.written, **COMMAND)


def _target(kind: str, chosen: str, name: str) -> str:
    """The new file, relative to the workspace; formats that share a suffix are told apart by the name.

    UsageError for a name that leads to another folder, or that files cannot have.
    """
    if len(parts_of(name)) > 1:
        raise UsageError(f"The name {shortened(name)} has folders in it; give one without / and \\.")
    suffix = next(suffix for _, format, suffix in formats(kind) if format == chosen)
    marked = name if chosen not in ("kohya", "sdxl", "onetrainer", "lora") else f"{name}-{chosen}"
    return f"{CONVERTED}/{marked}{suffix}"


def _options(
    chosen: str | None,
    name: str,
    author: str,
    license: str,
    picture: str | None,
    model: str | None,
    rank: float | None,
    strength: float,
) -> dict[str, Any]:
    if not chosen:
        raise UsageError("No format is chosen; choose one.")
    given: dict[str, Any] = {"to": chosen, "name": name, "author": author, "license": license}
    if chosen in CARDS and picture:
        given["picture"] = Path(picture)  # a copy that the page made of an upload
    if chosen == "lora":
        given |= {"model": model, "rank": int(rank) if rank else None, "strength": strength}
    return {key: value for key, value in given.items() if value or key == "strength"}
