"""The part of the Files tab that makes one adapter of several, or one weaker, stronger or smaller."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from tincture.errors import TinctureError
from tincture.kinds.registry import kind_names
from tincture.server.library.storage import served_folders
from tincture.server.page.files import view
from tincture.server.page.parts.components import panel
from tincture.server.page.parts.drafts import forget_when_done
from tincture.server.page.parts.fields import labels_of
from tincture.server.page.parts.markup import served_url
from tincture.server.page.parts.messages import at_once, failed
from tincture.server.page.parts.requests import COMMAND, STEP, hidden
from tincture.settings.merging import MERGE_FIELDS, is_name
from tincture.settings.number_lists import number_list, whole_number_list
from tincture.workspace import TRAINABLE_SUFFIXES

if TYPE_CHECKING:
    from gradio.events import Dependency

    from tincture.server.service import Service
    from tincture.settings.fields import FieldSpec

LISTS = {"layer_structure": number_list, "sizes": whole_number_list}
"""Typed as texts with commas."""
_BRIEF = {"sources": "One a line, its weight behind a colon.", "out": "Of the new adapter, or a file's path."}
"""In place of the settings' own help, which is long for a narrow column."""


class MergeForm:
    """What is asked, by field of ``MergeRequest``; ``written`` says what came of it."""

    def __init__(self) -> None:
        method, precision = MERGE_FIELDS["method"], MERGE_FIELDS["precision"]
        with gr.Row():
            self.fields: dict[str, Any] = {
                "sources": _text("sources", "Adapters and weights", lines=3, placeholder="ink:0.6\nwash:0.4", scale=3)
            }
            self.more = gr.Dropdown(
                [], value=None, label="Add", info="One of the same kind.", elem_id="merge-more", min_width=140, scale=2
            )
        with gr.Row():
            self.fields["method"] = gr.Dropdown(
                [("Usual", ""), *((each, each) for each in method.choices)],
                value="",
                label="Method",
                info="interpolate: the mean of weights; sum: of effects; stack: one behind another.",
                elem_id="merge-method",
                min_width=140,
            )
            self.fields["out"] = _text("out", "New name")
        self.make = gr.Button("Merge", variant="primary", elem_id="merge-do")
        self.written = panel(elem_id="merge-written")
        with gr.Accordion("Smaller file, precision, overwriting", open=False, elem_id="merge-details"):
            self._details(precision)
        self.filled = hidden()
        """What stood in the sources when a file was chosen: who typed there since keeps it."""

    def _details(self, precision: FieldSpec) -> None:
        with gr.Row():
            self.fields["layer_structure"] = _text("layer_structure", "Layer structure", placeholder="all units")
            self.fields["sizes"] = _text("sizes", "Context widths", placeholder="all")
        with gr.Row():
            self.fields["precision"] = gr.Dropdown(
                list(precision.choices),
                value=precision.default,
                label="Precision",
                info=precision.help,
                min_width=140,
                elem_id="merge-precision",
            )
            self.fields["overwrite"] = gr.Checkbox(
                False, label="Overwrite", info=MERGE_FIELDS["overwrite"].help, elem_id="merge-overwrite"
            )

    @property
    def shown(self) -> list[Any]:
        """What is written when a file is chosen, see ``for_file``."""
        return [self.fields["sources"], self.filled, self.more, self.written]

    def connect(self, service: Service) -> Dependency:
        """Lets the button ask the service; returns its event."""
        served = served_folders(service.workspace, service.state_dir)
        sources = self.fields["sources"]

        def merge(*values: Any) -> str:
            try:
                written = service.model_work.merge(**asked(dict(zip(self.fields, values, strict=True))))
            except TinctureError as error:
                return failed(error, labels_of(self.fields))
            return view.merged(written, served_url(written["path"], served))

        def add_source(text: str | None, more: str | None) -> tuple[Any, Any]:
            lines = [line for line in (text or "").splitlines() if line.strip()]
            return ("\n".join([*lines, more]), None) if more else (gr.skip(), None)

        self.more.input(add_source, [sources, self.more], [sources, self.more], **STEP)
        at_once(self.make.click, self.written, "Merging …")
        merged = self.make.click(merge, list(self.fields.values()), self.written, **COMMAND)
        forget_when_done(merged, self.written, "merge")
        return merged


def for_file(service: Service, found: Mapping[str, Any], sources: str | None, filled: str | None) -> list[Any]:
    """What ``MergeForm.shown`` becomes for the file that was chosen; sources that were typed stay.

    Args:
        found: the report of the file, empty for none.
        sources, filled: what stands in those inputs; None before their tab was opened.
    """
    kind = found.get("kind", "")
    named = _named(service) if kind in kind_names() else {}
    others = sorted(name for name, (_, of) in named.items() if of == kind)
    listed = gr.Dropdown(others, value=None)
    if (sources or "").strip() != (filled or "").strip() or not named:
        return [gr.skip(), gr.skip(), listed, ""]
    path = Path(found["path"])
    first = next((name for name, (each, _) in named.items() if each == path), service.places.shown(path))
    return [first, first, listed, ""]


def _named(service: Service) -> dict[str, tuple[Path, str]]:
    """Files of adapters, and of which kind, by what sources call them: a name, or a path where a name is not enough."""
    files = [(Path(file["path"]), str(file["kind"])) for file in service.files() if file["kind"] in kind_names()]
    count = Counter(path.stem for path, _ in files)
    simple = {path for path, _ in files if count[path.stem] == 1 and path.suffix.lower() in TRAINABLE_SUFFIXES}
    return {
        path.stem if path in simple and is_name(path.stem) else service.places.shown(path): (path, kind)
        for path, kind in files
    }


def asked(values: dict[str, Any]) -> dict[str, Any]:
    """Fields of ``MergeRequest`` of what stands in the inputs; UsageError for a list with something else in it."""
    given = {name: value for name, value in values.items() if value not in ("", None)}
    sources = [line.strip() for line in given.pop("sources", "").splitlines()]
    lists = {name: parse(name, given[name]) for name, parse in LISTS.items() if name in given}
    return {"out": "", **given, **lists, "sources": [source for source in sources if source]}


def _text(name: str, label: str, **options: Any) -> gr.Textbox:
    info = _BRIEF.get(name, MERGE_FIELDS[name].help)
    return gr.Textbox(label=label, info=info, elem_id=f"merge-{name.replace('_', '-')}", min_width=140, **options)
