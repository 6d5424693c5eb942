"""The Files tab: what adapters there are, what is in them, the same in other formats, and several made one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.context import Context

from tincture.errors import TinctureError
from tincture.kinds.registry import kind_names
from tincture.server.library.storage import FILE_SUFFIXES, served_folders
from tincture.server.page.files import convert_form, merge_form, view
from tincture.server.page.files.convert_form import ConvertForm
from tincture.server.page.files.merge_form import MergeForm
from tincture.server.page.parts.components import panel
from tincture.server.page.parts.markup import muted
from tincture.server.page.parts.messages import at_once, done, failed
from tincture.server.page.parts.requests import COMMAND, PRIVATE, SILENT, STEP, TYPED

if TYPE_CHECKING:
    from gradio.events import Dependency

    from tincture.server.service import Service

NONE_CHOSEN = "Choose a file: then its model, pictures and settings stand here."
SHOW_FILE = """() => {
  if (window.innerWidth < 800) document.querySelector("#file")?.scrollIntoView({ behavior: "smooth" });
  return [];
}"""
"""JavaScript: below the list, on a phone, the file that was chosen comes into view."""
CHOOSE = """element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  for (const each of element.querySelectorAll("[aria-pressed]")) each.setAttribute("aria-pressed", each === button);
  trigger("click", { ...button.dataset });
  if (window.innerWidth < 800) document.querySelector("#file")?.scrollIntoView({ behavior: "smooth" });
});"""


def build(service: Service) -> None:
    """Fills the Files tab."""
    tab = _Tab(service)
    _inspect(service, tab)
    changed = [tab.converting.connect(service, tab.found), tab.merging.connect(service)]
    _list_files(service, tab, changed)


class _Tab:
    """The tab's components; ``found`` is the report of the file that is shown, empty without one."""

    def __init__(self, service: Service) -> None:
        self.steps, self.shown, self.found = gr.State({}), gr.State(""), gr.State({})
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=320):
                self._list()
            with gr.Column(scale=4, min_width=320, elem_id="file"):
                self.card = panel(muted(NONE_CHOSEN), elem_id="file-card")
                with gr.Tabs(elem_id="file-tabs"):
                    with gr.Tab("Inspect", id="inspect"):
                        self._another()
                        self.report = panel(elem_id="file-report")
                    with gr.Tab("Convert", id="convert"):
                        self.converting = ConvertForm(service)
                    with gr.Tab("Merge", id="merge"):
                        self.merging = MergeForm()

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
        self.table = panel(script=CHOOSE, elem_id="file-table")

    def _another(self) -> None:
        with gr.Row(elem_classes="base-model"):
            self.path = gr.Textbox(
                label="Another file",
                placeholder="path of any file",
                elem_id="file-path",
                min_width=180,
            )
            self.inspect = gr.Button("Inspect", size="sm", min_width=90, scale=0, elem_id="file-inspect")

    @property
    def of_file(self) -> list[Any]:
        """All that is written anew when a file is chosen."""
        return [self.card, self.report, self.found, *self.converting.shown, *self.merging.shown]


# --- list -------------------------------------------------------------------------------------------------------------


def _list_files(service: Service, tab: _Tab, changed: list[Dependency]) -> None:
    """``changed``: after these there may be other files."""

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
    counted = gr.on(opened, read_steps, None, tab.steps, **STEP)
    for event in (counted, *(each.then(read_steps, None, tab.steps, **STEP) for each in (added, *changed))):
        event.then(read, shown, tab.table, **STEP)


# --- one file ---------------------------------------------------------------------------------------------------------


def _inspect(service: Service, tab: _Tab) -> None:
    served = served_folders(service.workspace, service.state_dir)

    def inspect(path: str, sources: str | None, filled: str | None) -> list[Any]:
        try:
            found = service.model_work.inspect(path.strip())
        except TinctureError as error:
            shown, report, found = failed(error), "", {}
        else:
            shown = view.card(found, service.run_origin(found), served, again=_again(service, found))
            report = view.report(found)
        forms = convert_form.for_file(found), merge_form.for_file(service, found, sources, filled)
        return [shown, report, found, *forms[0], *forms[1]]

    def choose(event: gr.EventData, words: str | None, steps: Mapping[str, int | None]) -> tuple[str, str, str]:
        path = str(event._data["file"])
        files = list(view.matching(service.files(), words or ""))
        return path, view.table(files, steps, path), muted(f"Reading {Path(path).name} …")

    sources = [tab.merging.fields["sources"], tab.merging.filled]
    chosen = tab.table.click(choose, [tab.words, tab.steps], [tab.shown, tab.table, tab.card], **STEP)
    answered = chosen.then(inspect, [tab.shown, *sources], tab.of_file, **STEP)
    answered.then(None, None, None, js=SHOW_FILE, **PRIVATE)
    asked = [tab.inspect.click, tab.path.submit]
    for event in asked:
        at_once(event, tab.card, "Reading …")
    gr.on(asked, inspect, [tab.path, *sources], tab.of_file, **SILENT, **COMMAND)
    gr.on(asked, None, None, None, js=SHOW_FILE, **PRIVATE)


def _again(service: Service, found: Mapping[str, Any]) -> str:
    """What the button is called that leads from a file to a training: with its settings, or the first one."""
    made = found.get("provenance")
    if isinstance(made, Mapping) and isinstance(made.get("settings"), Mapping):
        return "Run again"
    kind, path = found.get("kind"), Path(found["path"])
    return "Train it" if kind in kind_names() and path in service.workspace.list_adapters(str(kind)) else ""
