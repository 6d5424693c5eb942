"""The part of the Files tab that writes the file that is shown in another format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from tincture.errors import TinctureError, UsageError, shortened
from tincture.kinds.registry import FileFormat, kinds
from tincture.server.library.storage import CONVERTED, served_folders
from tincture.server.library.uploads import parts_of
from tincture.server.page.files import view
from tincture.server.page.parts import choices
from tincture.server.page.parts.components import panel
from tincture.server.page.parts.drafts import forget_when_done
from tincture.server.page.parts.fields import range_of
from tincture.server.page.parts.markup import muted, served_url
from tincture.server.page.parts.messages import at_once, failed
from tincture.server.page.parts.requests import COMMAND, STEP
from tincture.settings.conversion import CONVERSION_FIELDS

if TYPE_CHECKING:
    from gradio.events import Dependency

    from tincture.server.service import Service

CARDS = ("png", "webp")
NONE_SHOWN = "Choose a file to convert."


def formats(kind: str) -> Sequence[FileFormat]:
    """That an inspected file can be converted to; none where it is of no kind of adapters."""
    return next((each.formats for each in kinds() if each.name == kind), ())


class ConvertForm:
    """The inputs; ``written`` says what came of it."""

    def __init__(self, service: Service) -> None:
        self.hint = panel(muted(NONE_SHOWN), elem_id="file-convert-hint")
        with gr.Column(visible=False, elem_id="file-convert") as self.inputs:
            self.format = gr.Dropdown(
                [], label="Format", info="Inspect says which programs read which.", elem_id="file-format"
            )
            self.name = gr.Textbox(label="Name", info="Of the adapter and of the new file.", elem_id="file-name")
            # with a mode, Gradio would decode the picture here, in the server's own process, whatever it is
            self.picture = gr.Image(
                label="Picture of the card; without one, a pattern",
                type="filepath",
                image_mode=None,
                visible=False,
                height=220,
            )
            with gr.Group(visible=False) as self.lora:
                self._lora(service)
            self.convert = gr.Button("Convert", variant="primary", elem_id="file-do-convert")
            self.written = panel(elem_id="file-written")
            with gr.Accordion("Author and licence", open=False), gr.Row():
                self.author = gr.Textbox(
                    label="Author", info="The file says so; may stay empty.", min_width=140, elem_id="file-author"
                )
                self.license = gr.Textbox(
                    label="Licence", info="Such as CC-BY-4.0.", min_width=140, elem_id="file-license"
                )

    def _lora(self, service: Service) -> None:
        self.model = gr.Dropdown(
            choices.models(service), value=None, label="Base model", info="The LoRA acts with this model only."
        )
        with gr.Row():
            rank = range_of(CONVERSION_FIELDS["rank"])
            self.rank = gr.Number(
                64, label="Rank", info="64 is usual.", precision=0, min_width=110, elem_id="file-rank", **rank
            )
            self.strength = gr.Slider(
                0, 2, 1, step=0.05, label="Strength", info="Worked in.", min_width=140, elem_id="file-strength"
            )

    @property
    def shown(self) -> list[Any]:
        """What is written when a file is chosen, see ``for_file``."""
        return [self.hint, self.inputs, self.format, self.name, self.written]

    def connect(self, service: Service, found: gr.State) -> Dependency:
        """Lets the button convert the file that ``found`` is the report of; returns its event."""
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

        self.format.change(fit, self.format, [self.picture, self.lora], **STEP)
        options = [self.author, self.license, self.picture, self.model, self.rank, self.strength]
        at_once(self.convert.click, self.written, "Converting …")
        converted = self.convert.click(convert, [found, self.format, self.name, *options], self.written, **COMMAND)
        forget_when_done(converted, self.written, "file")
        return converted


def for_file(found: Mapping[str, Any]) -> list[Any]:
    """What ``ConvertForm.shown`` becomes for the file that was chosen; for none, where ``found`` is empty."""
    listed = [(label, name) for label, name, _ in formats(found.get("kind", ""))]
    name = found.get("name") or Path(found.get("path", "")).stem
    hint = "" if listed else f"{name} is no adapter, so that it cannot be converted." if found else NONE_SHOWN
    return [muted(hint) if hint else "", gr.Column(visible=bool(listed)), gr.Dropdown(listed, value=None), name, ""]


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
