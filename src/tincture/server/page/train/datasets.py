"""Data sets on the page: upload, look through the pictures, edit their captions."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import gradio as gr
from PIL import Image

from tincture.errors import TinctureError, UsageError
from tincture.formats.pictures import open_picture
from tincture.server.library.caption_tags import TagChange, change_tags
from tincture.server.page.parts import choices
from tincture.server.page.parts.components import panel, script
from tincture.server.page.parts.markup import escape
from tincture.server.page.parts.messages import done, failed
from tincture.server.page.parts.requests import COMMAND, SILENT, STEP, hidden
from tincture.server.page.parts.way_on import Ways, carried, way, ways

if TYPE_CHECKING:
    from tincture.server.library.pictures import PictureInfo
    from tincture.server.service import Service

A_PAGE = 24
THUMBNAIL, LARGE = 192, 512
KINDS_OF_FILES = ["image", ".txt", ".caption", ".jsonl", ".csv", ".zip"]
STATE = '<p id="ds-state" class="quiet" role="status"></p>'
TAG_BUTTONS = {"front": "Add in front", "behind": "Add behind", "remove": "Remove", "replace": "Replace"}


@dataclass(frozen=True)
class Shown:
    """A picture as the page remembers it."""

    file: str
    caption: str
    size: str


@dataclass(frozen=True)
class View:
    """A folder as a visitor sees it, a page of its pictures, and the picture that is edited.

    Attributes:
        current: a file's name, empty for none.
        missing: only pictures without a caption are shown.
        written: files whose caption was written since; they stay among those without.
        changes: captions that were written, latest last: file, and what it was before.
    """

    folder: str = ""
    pictures: tuple[Shown, ...] = ()
    page: int = 0
    current: str = ""
    missing: bool = False
    written: frozenset[str] = field(default_factory=frozenset)
    changes: tuple[tuple[str, str], ...] = ()

    @property
    def listed(self) -> list[Shown]:
        """The pictures that are shown; one whose caption was written just now stays among those without."""
        return [one for one in self.pictures if not self.missing or not one.caption or one.file in self.written]

    @property
    def pages(self) -> int:
        return max(1, -(-len(self.listed) // A_PAGE))

    @property
    def on_page(self) -> list[Shown]:
        return self.listed[self.page * A_PAGE : (self.page + 1) * A_PAGE]

    def picture(self) -> Shown | None:
        """The one that is edited."""
        return next((shown for shown in self.pictures if shown.file == self.current), None)

    def beside(self, by: int) -> str:
        """The file ``by`` places further on; stays at the ends."""
        files = [shown.file for shown in self.listed]
        if self.current not in files:
            return files[0] if files else ""
        return files[min(max(files.index(self.current) + by, 0), len(files) - 1)]

    def at(self, file: str) -> View:
        """The same with ``file`` edited, and the page that it stands on."""
        files = [shown.file for shown in self.listed]
        page = files.index(file) // A_PAGE if file in files else min(self.page, self.pages - 1)
        return replace(self, current=file, page=page)

    def captioned(self, captions: dict[str, str]) -> View:
        """The same with new captions, by file."""
        pictures = tuple(replace(shown, caption=captions.get(shown.file, shown.caption)) for shown in self.pictures)
        return replace(self, pictures=pictures, written=self.written | captions.keys())


class Gallery:
    """The sub-tab; ``folder`` is the list of data sets, which others read anew.

    The server knows the folder that is seen, the browser the page and the picture whose caption is in the editor:
    what is typed there belongs to that one, whatever the server has gone on to.
    """

    def __init__(self, service: Service, leading: Ways) -> None:
        """``leading``: what leads here from elsewhere."""
        self.service = service
        self.view, self.uploaded = gr.State(View()), gr.State("")
        self.page, self.file, self.doomed = hidden("0"), hidden(), hidden()
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
        self._upload()
        self.counts = panel(elem_id="ds-counts")
        with gr.Column(visible=False, elem_id="ds-all") as self.all:
            with gr.Row():
                with gr.Column(scale=3, min_width=300):
                    self._pictures()
                with gr.Column(scale=2, min_width=300, visible=False, elem_classes="beside") as self.editor:
                    self._editor()
            self._tags()
        self._connect(leading["dataset"])

    # --- what it is made of ------------------------------------------------------------------------------------------

    def _upload(self) -> None:
        with gr.Accordion("Upload pictures", open=False, elem_id="ds-upload"):
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

    def _pictures(self) -> None:
        self.missing = gr.Checkbox(
            label="Only pictures without a caption",
            info="For writing what is still to be written.",
            elem_id="ds-missing",
        )
        self.gallery = gr.Gallery(
            label="Pictures",
            show_label=False,
            columns=6,
            height="auto",
            object_fit="contain",
            allow_preview=False,
            interactive=False,
            buttons=[],
            elem_id="ds-gallery",
        )
        with gr.Row(visible=False, elem_classes="pager") as self.pager:
            self.back = gr.Button("Previous page", size="sm", elem_id="ds-back")
            self.place = panel(elem_id="ds-place")
            self.forth = gr.Button("Next page", size="sm", elem_id="ds-forth")

    def _editor(self) -> None:
        self.picture = panel(elem_id="ds-picture")
        self.caption = gr.Textbox(
            label="Caption",
            info="Saved as soon as you go on to anything else, or press Shift+Enter.",
            lines=3,
            elem_id="ds-caption",
        )
        panel(STATE, script=script(__file__, "captions.js"))
        with gr.Row():
            self.previous = gr.Button("Previous", size="sm", min_width=80, elem_id="ds-previous")
            self.next = gr.Button("Next", size="sm", min_width=80, elem_id="ds-next")
            self.save = gr.Button("Save", variant="primary", size="sm", min_width=80, elem_id="ds-save")
            self.undo = gr.Button("Undo", size="sm", min_width=80, elem_id="ds-undo")
            self.delete = gr.Button("Delete picture", size="sm", min_width=80, elem_id="ds-delete")
        with gr.Row(visible=False) as self.sure:
            self.really = gr.Button("Delete for good", variant="stop", size="sm", min_width=80, elem_id="ds-really")
            self.keep = gr.Button("Keep it", size="sm", min_width=80, elem_id="ds-keep")
        self.message = panel(elem_id="ds-message")

    def _tags(self) -> None:
        with gr.Accordion("Edit a tag of all pictures that are listed", open=False, elem_id="ds-tags"):
            with gr.Row():
                self.tag = gr.Textbox(label="Tag", info="Tags stand between commas.", elem_id="ds-tag")
                self.other = gr.Textbox(label="Replace by", info="Only for Replace.", elem_id="ds-other")
            with gr.Row():
                self.changes: dict[TagChange, gr.Button] = {
                    change: gr.Button(TAG_BUTTONS[change], size="sm", min_width=100, elem_id=f"ds-tag-{change}")
                    for change in get_args(TagChange)
                }
            self.tags_message = panel(elem_id="ds-tags-message")

    def _connect(self, leading: gr.HTML) -> None:
        edited = [self.view, self.page, self.file, self.caption]
        everything = [self.view, self.page, self.counts, self.all, self.gallery, self.pager, self.place]
        everything = [*everything, *self._editor_outputs()]
        opened = [*edited, self.folder, self.missing]
        gr.on(
            [self.folder.input, self.refresh.click], self._open, opened, everything, **{**STEP, "show_progress": "full"}
        )
        leading.click(self._lead_here, edited, [self.folder, *everything], **STEP)
        received = gr.on(
            [self.send.click, self.name.submit],
            self._receive,
            [self.name, self.files, self.add],
            [self.uploaded, self.upload_message, self.folder, self.files],
            **COMMAND,
        )
        received.then(self._show_upload, [*edited, self.uploaded], everything, **STEP)
        self.missing.input(self._filter, [*edited, self.missing], everything, **STEP)
        self.back.click(lambda *given: self._turn(*given, by=-1), edited, everything, **STEP)
        self.forth.click(lambda *given: self._turn(*given, by=1), edited, everything, **STEP)
        self.gallery.select(self._pick, edited, everything, **STEP)
        self.previous.click(lambda *given: self._go(*given, by=-1), edited, everything, **STEP)
        self.next.click(lambda *given: self._go(*given, by=1), edited, everything, **STEP)
        gr.on([self.save.click, self.caption.submit], self._save, edited, everything, **STEP)
        # Wherever a person goes on to: whatever else follows comes after this, in the order of requests.
        self.caption.blur(self._save_what_is_left, edited, everything, **STEP)
        self.undo.click(self._undo, edited, everything, **SILENT, **COMMAND)
        self.delete.click(lambda file: (gr.Row(visible=True), file), self.file, [self.sure, self.doomed], **STEP)
        self.keep.click(lambda: gr.Row(visible=False), None, self.sure, **STEP)
        removed = self.really.click(
            self._remove, [self.view, self.doomed], [self.view, self.sure, self.message], **SILENT, **COMMAND
        )
        removed.success(self._go_on, edited, everything, **STEP)
        for change, button in self.changes.items():
            button.click(
                lambda *given, change=change: self._change_tags(*given, change=change),
                [*edited, self.tag, self.other],
                [*everything, self.tags_message],
                **STEP,
            )

    def _editor_outputs(self) -> list[Any]:
        return [self.file, self.editor, self.picture, self.caption, self.sure, self.message]

    # --- what happens ------------------------------------------------------------------------------------------------

    def _open(self, view: View, page: str, file: str, text: str, folder: str | None, missing: bool) -> list[Any]:
        view, fault = self._saved(_at(view, page, file), text)
        if fault:
            return self._all(view, fault)
        if not (folder or "").strip():
            return self._all(View(), counts="Choose a data set, or upload one.")
        return self._opened(str(folder).strip(), missing)

    def _lead_here(self, view: View, page: str, file: str, text: str, event: gr.EventData) -> list[Any]:
        folder = self.service.places.shown(Path(carried(event)))
        listed = gr.Dropdown(choices=choices.datasets(self.service), value=folder)
        return [listed, *self._open(view, page, file, text, folder, missing=False)]

    def _opened(self, folder: str, missing: bool = False) -> list[Any]:
        try:
            return self._all(self._read(folder, missing))
        except TinctureError as error:
            return self._all(View(), counts=failed(error))

    def _receive(self, name: str, files: list[str] | None, add: bool) -> tuple[Any, ...]:
        try:
            if not files:
                raise UsageError("No files are chosen; choose pictures, or a zip of them.")
            with _Opened([Path(file) for file in files]) as streams:
                info = self.service.datasets.upload(name, streams, add=add)
        except TinctureError as error:
            return "", failed(error), gr.skip(), gr.skip()  # what was typed and chosen stays as it is
        folder = self.service.places.shown(info.path)
        return folder, "", gr.Dropdown(choices=choices.datasets(self.service), value=folder), None

    def _show_upload(self, view: View, page: str, file: str, text: str, folder: str) -> list[Any]:
        if not folder:
            return [gr.skip()] * (7 + len(self._editor_outputs()))
        view, fault = self._saved(_at(view, page, file), text)
        return self._all(view, fault) if fault else self._opened(folder)

    def _filter(self, view: View, page: str, file: str, text: str, missing: bool) -> list[Any]:
        view, fault = self._saved(_at(view, page, file), text)
        return self._all(replace(view, missing=missing, page=0, written=frozenset()), fault)

    def _turn(self, view: View, page: str, file: str, text: str, *, by: int) -> list[Any]:
        view, fault = self._saved(_at(view, page, file), text)
        return self._all(replace(view, page=min(max(view.page + by, 0), view.pages - 1)), fault)

    def _pick(self, view: View, page: str, file: str, text: str, event: gr.SelectData) -> list[Any]:
        view = _at(view, page, file)
        picked = view.on_page[int(event.index)].file
        view, fault = self._saved(view, text)
        return self._all(view.at(picked) if not fault else view, fault, pictures_too=False)

    def _go(self, view: View, page: str, file: str, text: str, *, by: int) -> list[Any]:
        view, fault = self._saved(_at(view, page, file), text)
        moved = view.at(view.beside(by)) if not fault else view
        return self._all(moved, fault, pictures_too=moved.page != view.page)

    def _save(self, view: View, page: str, file: str, text: str) -> list[Any]:
        view, fault = self._saved(_at(view, page, file), text)
        return self._all(view, fault or done("Saved."), pictures_too=False)

    def _save_what_is_left(self, view: View, page: str, file: str, text: str) -> list[Any]:
        """As ``_save``; where the caption is as it was, nothing is said and nothing drawn anew."""
        shown = _at(view, page, file).picture()
        if shown is None or text == shown.caption:
            return [gr.skip()] * (7 + len(self._editor_outputs()))
        return self._save(view, page, file, text)

    def _undo(self, view: View, page: str, file: str, text: str) -> list[Any]:
        """Takes back the caption that was written last, and goes to its picture."""
        view, fault = self._saved(_at(view, page, file), text)
        if fault or not view.changes:
            return self._all(view, fault or done("There is nothing to take back."), pictures_too=False)
        changed, before = view.changes[-1]
        try:
            self.service.datasets.set_caption(view.folder, changed, before)
        except TinctureError as error:
            return self._all(view, failed(error), pictures_too=False)
        view = replace(view.captioned({changed: before}), changes=view.changes[:-1]).at(changed)
        return self._all(view, done(f"The caption of {changed} is as it was before."))

    def _remove(self, view: View, file: str) -> tuple[View, Any, str]:
        """Deletes ``file``; the picture beside it stands in the view then, for ``_go_on``."""
        view = replace(view, current=file)
        after = view.beside(1) if view.beside(1) != file else view.beside(-1)
        try:
            self.service.datasets.remove_picture(view.folder, file)
        except TinctureError as error:
            return view, gr.Row(visible=False), failed(error)
        left = tuple(shown for shown in view.pictures if shown.file != file)
        return replace(view, pictures=left, current=after if after != file else ""), gr.Row(visible=False), ""

    def _go_on(self, view: View, page: str, file: str, text: str) -> list[Any]:
        """From a picture that was deleted to the one beside it; what was typed for it goes with it."""
        if any(shown.file == file for shown in view.pictures):
            return [gr.skip()] * (7 + len(self._editor_outputs()))  # it could not be deleted, or is not edited any more
        return self._all(_at(view, page, view.current).at(view.current))

    def _change_tags(
        self, view: View, page: str, file: str, text: str, tag: str, other: str, *, change: TagChange
    ) -> list[Any]:
        view, fault = self._saved(_at(view, page, file), text)
        try:
            captions = change_tags(self.service.datasets, view.folder, view.listed, change, tag, other)
        except TinctureError as error:
            return [*self._all(view, fault), failed(error)]
        count = len(captions)
        return [
            *self._all(view.captioned(captions), fault),
            done(f"{count} caption{'' if count == 1 else 's'} changed."),
        ]

    def _read(self, folder: str, missing: bool) -> View:
        found = self.service.datasets.pictures(folder)
        pictures = tuple(Shown(info.file, info.caption if info.captioned else "", _size(info)) for info in found)
        return View(folder, pictures, missing=missing)

    def _saved(self, view: View, text: str) -> tuple[View, str]:
        """The view with what stands in the editor saved, and what is to be shown when that failed."""
        shown = view.picture()
        if shown is None or text == shown.caption:
            return view, ""
        try:
            self.service.datasets.set_caption(view.folder, shown.file, text)
        except TinctureError as error:
            return view, failed(error)
        written = view.captioned({shown.file: text})
        return replace(written, changes=(*view.changes, (shown.file, shown.caption))), ""

    # --- what is shown -----------------------------------------------------------------------------------------------

    def _all(self, view: View, message: str = "", *, counts: str = "", pictures_too: bool = True) -> list[Any]:
        """Every output that belongs to ``view``."""
        gallery: Any = gr.skip()
        if pictures_too:
            gallery = gr.Gallery(value=self._thumbnails(view), selected_index=None)
        return [
            view,
            str(view.page),
            counts or _counts(view),
            gr.Column(visible=bool(view.pictures)),
            gallery,
            gr.Row(visible=view.pages > 1),
            f"Page {view.page + 1} of {view.pages}",
            *self._edited(view, message),
        ]

    def _edited(self, view: View, message: str) -> list[Any]:
        """The outputs of the picture that is edited: see ``_editor_outputs``."""
        shown = view.picture()
        if shown is None:
            return ["", gr.Column(visible=False), "", "", gr.Row(visible=False), message]
        return [
            shown.file,
            gr.Column(visible=True),
            self._large(view, shown),
            shown.caption if not message.startswith('<p class="fault"') else gr.skip(),
            gr.Row(visible=False),
            message,
        ]

    def _thumbnails(self, view: View) -> list[tuple[Image.Image, str]]:
        made = []
        for shown in view.on_page:
            try:
                small: Image.Image = open_picture(
                    io.BytesIO(self.service.datasets.thumbnail(view.folder, shown.file, THUMBNAIL))
                )
            except TinctureError:
                small = Image.new("RGB", (THUMBNAIL, THUMBNAIL), "#a09b8f")
            made.append((small, shown.caption or "no caption"))
        return made

    def _large(self, view: View, shown: Shown) -> str:
        place = f"{[one.file for one in view.listed].index(shown.file) + 1} of {len(view.listed)}"
        named = (
            f'data-folder="{escape(view.folder)}" data-file="{escape(shown.file)}" data-saved="{escape(shown.caption)}"'
        )
        about = f'<p class="quiet" {named}>{escape(shown.file)}, {escape(shown.size)}, {place}</p>'
        try:
            small = self.service.datasets.thumbnail(view.folder, shown.file, LARGE)
        except TinctureError as error:
            return failed(error) + about
        source = "data:image/jpeg;base64," + base64.b64encode(small).decode()
        return f'<img class="large" src="{source}" alt="{escape(shown.caption or shown.file)}">{about}'


def _at(view: View, page: str, file: str) -> View:
    """The view with the page and the picture that the browser shows."""
    return replace(view, page=min(int(page), view.pages - 1), current=file)


def _size(info: PictureInfo) -> str:
    return info.fault or f"{info.width} × {info.height}" + (", with a mask" if info.mask else "")


def _counts(view: View) -> str:
    if not view.folder:
        return ""
    missing = sum(not shown.caption for shown in view.pictures)
    counts = f"{len(view.pictures)} pictures; " + (f"{missing} without a caption" if missing else "all with captions")
    sentence = f'<p class="{"warning" if missing else "done"}" role="status">{counts}.</p>'
    return sentence + ways(way("Use this data set", "data", view.folder, strong=True)) if view.pictures else sentence


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
