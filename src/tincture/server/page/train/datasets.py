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
from tincture.server.library.caption_tags import TagChange, change_tags
from tincture.server.page.parts import choices
from tincture.server.page.parts.answers import done, failed
from tincture.server.page.parts.choices import PRIVATE
from tincture.server.page.parts.components import panel
from tincture.server.page.parts.markup import escape

if TYPE_CHECKING:
    from tincture.server.library.datasets import PictureInfo
    from tincture.server.service import Service

A_PAGE = 24
THUMBNAIL, LARGE = 192, 512
KINDS_OF_FILES = ["image", ".txt", ".caption", ".jsonl", ".csv", ".zip"]
TAG_BUTTONS = {"front": "Add in front", "behind": "Add behind", "remove": "Remove", "replace": "Replace"}


@dataclass(frozen=True)
class Shown:
    """A picture as the page remembers it."""

    file: str
    caption: str
    size: str


@dataclass(frozen=True)
class View:
    """What a visitor looks at: a folder, a page of its pictures, and the picture that is edited.

    ``current`` is a file's name, empty for none; ``missing``: only pictures without a caption are shown.
    """

    folder: str = ""
    pictures: tuple[Shown, ...] = ()
    page: int = 0
    current: str = ""
    missing: bool = False
    kept: frozenset[str] = field(default_factory=frozenset)

    @property
    def listed(self) -> list[Shown]:
        """The pictures that are shown; one whose caption was written just now stays among those without."""
        return [shown for shown in self.pictures if not self.missing or not shown.caption or shown.file in self.kept]

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
        return replace(self, pictures=pictures, kept=self.kept | captions.keys())


class Gallery:
    """The sub-tab; ``folder`` is the list of data sets, which is to be kept fresh."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.view = gr.State(View())
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
        self._connect()

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
            info="Shift+Enter saves; going on to another picture does, too.",
            lines=3,
            elem_id="ds-caption",
        )
        with gr.Row():
            self.previous = gr.Button("Previous", size="sm", min_width=80, elem_id="ds-previous")
            self.next = gr.Button("Next", size="sm", min_width=80, elem_id="ds-next")
            self.save = gr.Button("Save", variant="primary", size="sm", min_width=80, elem_id="ds-save")
            self.delete = gr.Button("Delete picture", size="sm", min_width=80, elem_id="ds-delete")
        with gr.Row(visible=False) as self.sure:
            self.really = gr.Button("Delete for good", variant="stop", size="sm", min_width=80, elem_id="ds-really")
            self.keep = gr.Button("Keep it", size="sm", min_width=80, elem_id="ds-keep")
        self.said = panel(elem_id="ds-said")

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
            self.tags_said = panel(elem_id="ds-tags-said")

    def _connect(self) -> None:
        quiet: dict[str, Any] = {"show_progress": "hidden", **PRIVATE}
        edited = [self.view, self.caption]
        everything = [self.view, self.counts, self.all, self.gallery, self.pager, self.place, *self._editor_outputs()]
        editor = [self.view, self.counts, *self._editor_outputs()]
        opened = [*edited, self.folder, self.missing]
        gr.on([self.folder.input, self.refresh.click], self._open, opened, everything, **PRIVATE)
        gr.on(
            [self.send.click, self.name.submit],
            self._receive,
            [*edited, self.name, self.files, self.add],
            [*everything, self.folder, self.files],
            **PRIVATE,
        )
        self.missing.input(self._filter, [*edited, self.missing], everything, **quiet)
        self.back.click(lambda view, text: self._turn(view, text, -1), edited, everything, **quiet)
        self.forth.click(lambda view, text: self._turn(view, text, 1), edited, everything, **quiet)
        self.gallery.select(self._pick, edited, editor, **quiet)
        self.previous.click(lambda view, text: self._go(view, text, -1), edited, everything, **quiet)
        self.next.click(lambda view, text: self._go(view, text, 1), edited, everything, **quiet)
        gr.on([self.save.click, self.caption.submit], self._save, edited, editor, **quiet)
        self.delete.click(lambda: gr.Row(visible=True), None, self.sure, **quiet)
        self.keep.click(lambda: gr.Row(visible=False), None, self.sure, **quiet)
        self.really.click(self._remove, self.view, everything, **quiet)
        for change, button in self.changes.items():
            button.click(
                lambda view, text, tag, other, change=change: self._change_tags(view, text, change, tag, other),
                [*edited, self.tag, self.other],
                [*everything, self.tags_said],
                **quiet,
            )

    def _editor_outputs(self) -> list[Any]:
        return [self.editor, self.picture, self.caption, self.sure, self.said]

    # --- what happens ------------------------------------------------------------------------------------------------

    def _open(self, view: View, text: str, folder: str | None, missing: bool) -> list[Any]:
        view, said = self._kept(view, text)
        if said:
            return self._all(view, said)
        if not (folder or "").strip():
            return self._all(View(), quiet_counts="Choose a data set, or upload one.")
        try:
            return self._all(self._read(str(folder).strip(), missing))
        except TinctureError as error:
            return self._all(View(), quiet_counts=failed(error))

    def _receive(self, view: View, text: str, name: str, files: list[str] | None, add: bool) -> list[Any]:
        view, said = self._kept(view, text)
        if said:
            return [*self._all(view, said), gr.skip(), gr.skip()]
        try:
            if not files:
                raise UsageError("No files are chosen; choose pictures, or a zip of them.")
            with _opened([Path(file) for file in files]) as streams:
                info = self.service.datasets.upload(name, streams, add=add)
            view = self._read(self.service.places.shown(info.path), False)
        except TinctureError as error:
            # what was typed and chosen stays as it is
            return [*self._all(View(), quiet_counts=failed(error)), gr.skip(), gr.skip()]
        folder = gr.Dropdown(choices=choices.datasets(self.service), value=view.folder)
        return [*self._all(view), folder, None]

    def _filter(self, view: View, text: str, missing: bool) -> list[Any]:
        view, said = self._kept(view, text)
        return self._all(replace(view, missing=missing, page=0, kept=frozenset()), said)

    def _turn(self, view: View, text: str, by: int) -> list[Any]:
        view, said = self._kept(view, text)
        return self._all(replace(view, page=min(max(view.page + by, 0), view.pages - 1)), said)

    def _pick(self, view: View, text: str, event: gr.SelectData) -> list[Any]:
        picked = view.on_page[int(event.index)].file
        view, said = self._kept(view, text)
        return self._edited(view.at(picked) if not said else view, said)

    def _go(self, view: View, text: str, by: int) -> list[Any]:
        view, said = self._kept(view, text)
        before = view.page
        moved = view.at(view.beside(by)) if not said else view
        return self._all(moved, said, pictures_too=moved.page != before)

    def _save(self, view: View, text: str) -> list[Any]:
        view, said = self._kept(view, text)
        return self._edited(view, said or done("Saved."))

    def _remove(self, view: View) -> list[Any]:
        after = view.beside(1) if view.beside(1) != view.current else view.beside(-1)
        try:
            self.service.datasets.remove_picture(view.folder, view.current)
        except TinctureError as error:
            return self._all(view, failed(error))
        left = tuple(shown for shown in view.pictures if shown.file != view.current)
        return self._all(replace(view, pictures=left).at(after if after != view.current else ""))

    def _change_tags(self, view: View, text: str, change: TagChange, tag: str, other: str) -> list[Any]:
        view, said = self._kept(view, text)
        try:
            captions = change_tags(self.service.datasets, view.folder, view.listed, change, tag, other)
        except TinctureError as error:
            return [*self._all(view, said), failed(error)]
        count = len(captions)
        told = done(f"{count} caption{'' if count == 1 else 's'} changed.")
        return [*self._all(view.captioned(captions), said), told]

    def _read(self, folder: str, missing: bool) -> View:
        found = self.service.datasets.pictures(folder)
        pictures = tuple(Shown(info.file, info.caption if info.captioned else "", _size(info)) for info in found)
        return View(folder, pictures, missing=missing)

    def _kept(self, view: View, text: str) -> tuple[View, str]:
        """The view with what stands in the editor saved, and what is to be said when that failed."""
        shown = view.picture()
        if shown is None or text == shown.caption:
            return view, ""
        try:
            self.service.datasets.set_caption(view.folder, shown.file, text)
        except TinctureError as error:
            return view, failed(error)
        return view.captioned({shown.file: text}), ""

    # --- what is shown -----------------------------------------------------------------------------------------------

    def _all(self, view: View, said: str = "", *, quiet_counts: str = "", pictures_too: bool = True) -> list[Any]:
        """Every output that belongs to ``view``."""
        gallery: Any = gr.skip()
        if pictures_too:
            gallery = gr.Gallery(value=self._thumbnails(view), selected_index=None)
        return [
            view,
            quiet_counts or _counts(view),
            gr.Column(visible=bool(view.pictures)),
            gallery,
            gr.Row(visible=view.pages > 1),
            f"Page {view.page + 1} of {view.pages}",
            *self._edited(view, said)[2:],
        ]

    def _edited(self, view: View, said: str) -> list[Any]:
        """The outputs that change while one picture after the other is edited."""
        shown = view.picture()
        if shown is None:
            return [view, _counts(view), gr.Column(visible=False), "", "", gr.Row(visible=False), said]
        return [
            view,
            _counts(view),
            gr.Column(visible=True),
            self._large(view, shown),
            shown.caption if not said.startswith('<p class="fault"') else gr.skip(),
            gr.Row(visible=False),
            said,
        ]

    def _thumbnails(self, view: View) -> list[tuple[Image.Image, str]]:
        made = []
        for shown in view.on_page:
            try:
                small: Image.Image = Image.open(
                    io.BytesIO(self.service.datasets.thumbnail(view.folder, shown.file, THUMBNAIL))
                )
            except TinctureError:
                small = Image.new("RGB", (THUMBNAIL, THUMBNAIL), "#a09b8f")
            made.append((small, shown.caption or "no caption"))
        return made

    def _large(self, view: View, shown: Shown) -> str:
        place = f"{[one.file for one in view.listed].index(shown.file) + 1} of {len(view.listed)}"
        told = f'<p class="quiet">{escape(shown.file)}, {escape(shown.size)}, {place}</p>'
        try:
            small = self.service.datasets.thumbnail(view.folder, shown.file, LARGE)
        except TinctureError as error:
            return failed(error) + told
        source = "data:image/jpeg;base64," + base64.b64encode(small).decode()
        return f'<img class="large" src="{source}" alt="{escape(shown.caption or shown.file)}">{told}'


def _size(info: PictureInfo) -> str:
    return info.fault or f"{info.width} × {info.height}" + (", with a mask" if info.mask else "")


def _counts(view: View) -> str:
    if not view.folder:
        return ""
    missing = sum(not shown.caption for shown in view.pictures)
    told = f"{len(view.pictures)} pictures; " + (f"{missing} without a caption" if missing else "all with captions")
    return f'<p class="{"warning" if missing else "done"}" role="status">{told}.</p>'


class _opened:
    """Files opened for reading, by their names; closed at the end."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __enter__(self) -> list[tuple[str, Any]]:
        self.streams = [(path.name, path.open("rb")) for path in self.paths]
        return self.streams

    def __exit__(self, *raised: object) -> None:
        for _, stream in self.streams:
            stream.close()
