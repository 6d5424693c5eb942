"""Data sets on the page: looked through, their captions and pictures edited, and uploaded.

What is below the list of data sets is a small page of our own, in plain JavaScript, that asks the HTTP API. Gradio has
no gallery that the keyboard goes through and no way to lay a crop's frame or a brush over a picture, and each of its
steps goes round by the server before the next picture is shown. The list and the upload are Gradio's: all lists of the
tab are read anew together, and it takes files of any number and size.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from tincture.errors import TinctureError, UsageError
from tincture.server.page.parts import choices
from tincture.server.page.parts.components import panel, script
from tincture.server.page.parts.messages import failed
from tincture.server.page.parts.requests import COMMAND, PRIVATE, STEP, hidden
from tincture.server.page.parts.way_on import Ways, carried

if TYPE_CHECKING:
    from tincture.server.service import Service

KINDS_OF_FILES = ["image", ".txt", ".caption", ".jsonl", ".csv", ".zip"]
VIEW = Path(__file__).with_name("view.html").read_text(encoding="utf-8")
PARTS = (
    *("server.js", "captions.js", "gallery.js", "main.js", "picture.js"),
    *("crop.js", "mask.js", "retouch.js", "tags.js", "describe.js", "overview.js"),
)
"""One script, in the scope of one function: later ones use what earlier ones define."""
SCRIPT = "\n".join(script(__file__, name) for name in PARTS)
OPEN = """(folder) => {
  document.dispatchEvent(new CustomEvent("data-set", { detail: String(folder ?? "").trim() }));
  return [];
}"""
OPEN_NEW = OPEN.replace("{", "{ if (!folder) return [];", 1)
"""The same after an answer that may bring none."""


class DataSets:
    """The sub-tab; ``folder`` is the list of data sets, which others read anew."""

    def __init__(self, service: Service, leading: Ways) -> None:
        """``leading``: what leads here from elsewhere."""
        self.service = service
        self.opened = hidden()
        with gr.Row(elem_classes="base-model"):
            self.folder = gr.Dropdown(
                choices=choices.datasets(service),
                value=None,
                label="Data set",
                info="A data set of this server, or the path of a folder.",
                allow_custom_value=True,
                elem_id="ds-folder",
            )
            self.refresh = gr.Button("Reload", size="sm", min_width=120, scale=0, elem_id="ds-reload")
        self.view = panel(VIEW, script=SCRIPT, elem_id="ds-view")
        self._upload()
        self._connect(leading["dataset"])

    def _upload(self) -> None:
        with gr.Accordion("Upload pictures", open=False, elem_id="ds-upload") as self.upload:
            self.name = gr.Textbox(label="Name", info="Of the new data set; also its folder's name.", elem_id="ds-name")
            self.files = gr.File(
                file_count="multiple",
                file_types=KINDS_OF_FILES,
                label="Pictures, with captions as .txt files of the same names, or a .zip of all",
                elem_id="ds-files",
            )
            self.add = gr.Checkbox(
                label="Add to a data set that is there", info="Otherwise the name must be new.", elem_id="ds-add"
            )
            self.send = gr.Button("Upload", variant="primary", elem_id="ds-send")
            self.upload_message = panel(elem_id="ds-upload-message")

    def _connect(self, leading: gr.HTML) -> None:
        gr.on([self.folder.input, self.refresh.click], None, self.folder, None, js=OPEN, **PRIVATE)
        self.view.click(self._chosen, None, [self.folder, self.upload], **STEP)
        led = leading.click(self._lead_here, None, [self.folder, self.opened], **STEP)
        received = gr.on(
            [self.send.click, self.name.submit],
            self._receive,
            [self.name, self.files, self.add],
            [self.opened, self.upload_message, self.folder, self.files, self.upload],
            **COMMAND,
        )
        for event in (led, received):
            event.then(None, self.opened, None, js=OPEN_NEW, **PRIVATE)

    def _chosen(self, event: gr.EventData) -> tuple[Any, Any]:
        """A data set was chosen in the view, or one is open, or none is there, that has nothing in it: upload some."""
        folder, empty = str(event._data.get("folder") or ""), bool(event._data.get("empty"))
        return (
            gr.Dropdown(value=folder) if folder else gr.skip(),
            gr.Accordion(open=True) if empty else gr.skip(),
        )

    def _lead_here(self, event: gr.EventData) -> tuple[Any, str]:
        folder = self.service.places.shown(Path(carried(event)))
        return gr.Dropdown(choices=choices.datasets(self.service), value=folder), folder

    def _receive(self, name: str, files: list[str] | None, add: bool) -> tuple[Any, ...]:
        try:
            if not files:
                raise UsageError("No files are chosen; choose pictures, or a zip of them.")
            with _Opened([Path(file) for file in files]) as streams:
                info = self.service.datasets.upload(name, streams, add=add)
        except TinctureError as error:
            return "", failed(error), gr.skip(), gr.skip(), gr.skip()  # what was typed and chosen stays as it is
        folder = self.service.places.shown(info.path)
        listed = gr.Dropdown(choices=choices.datasets(self.service), value=folder)
        return folder, "", listed, None, gr.Accordion(open=False)


class _Opened:
    """Files opened for reading, by their names; closed at the end."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __enter__(self) -> list[tuple[str, Any]]:
        self.streams = [(path.name, path.open("rb")) for path in self.paths]
        return self.streams

    def __exit__(self, *raised: object) -> None:
        for _, stream in self.streams:
            stream.close()
