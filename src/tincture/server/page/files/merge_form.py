"""The part of the Files tab that makes one adapter of several, or one weaker, stronger or smaller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from tincture.errors import TinctureError
from tincture.server.library.storage import served_folders
from tincture.server.page.files import view
from tincture.server.page.parts.components import panel
from tincture.server.page.parts.fields import labels_of
from tincture.server.page.parts.markup import served_url
from tincture.server.page.parts.messages import failed
from tincture.server.page.parts.requests import COMMAND
from tincture.settings.merging import MERGE_FIELDS
from tincture.settings.number_lists import number_list, whole_number_list

if TYPE_CHECKING:
    from tincture.server.service import Service

LISTS = {"layer_structure": number_list, "sizes": whole_number_list}
"""Typed as texts with commas."""


class Inputs:
    """What is asked, by field of ``MergeRequest``."""

    def __init__(self) -> None:
        method, precision = MERGE_FIELDS["method"], MERGE_FIELDS["precision"]
        self.fields: dict[str, Any] = {
            "sources": _text("sources", "Adapters and weights", lines=3, placeholder="ink:0.6\nwash:0.4"),
            "method": gr.Dropdown(
                list(method.choices), value=None, label="Method", info=method.help, elem_id="merge-method"
            ),
            "out": _text("out", "New name"),
        }
        with gr.Row():
            self.fields["layer_structure"] = _text("layer_structure", "Layer structure", placeholder="all units")
            self.fields["sizes"] = _text("sizes", "Context widths", placeholder="all")
        with gr.Row():
            self.fields["precision"] = gr.Dropdown(
                list(precision.choices), value=precision.default, label="Precision", info=precision.help, min_width=140
            )
            self.fields["overwrite"] = gr.Checkbox(
                False, label="Overwrite", info=MERGE_FIELDS["overwrite"].help, elem_id="merge-overwrite"
            )
        self.make = gr.Button("Merge", variant="primary", elem_id="merge-do")
        self.written = panel(elem_id="merge-written")


def connect(service: Service, inputs: Inputs) -> None:
    """Lets the button ask the service."""
    served = served_folders(service.workspace, service.state_dir)

    def merge(*values: Any) -> str:
        try:
            written = service.model_work.merge(**asked(dict(zip(inputs.fields, values, strict=True))))
        except TinctureError as error:
            return failed(error, labels_of(inputs.fields))
        return view.merged(written, served_url(written["path"], served))

    inputs.make.click(merge, list(inputs.fields.values()), inputs.written, **COMMAND)


def asked(values: dict[str, Any]) -> dict[str, Any]:
    """Fields of ``MergeRequest`` of what stands in the inputs; UsageError for a list with something else in it."""
    given = {name: value for name, value in values.items() if value not in ("", None)}
    sources = [line.strip() for line in given.pop("sources", "").splitlines()]
    lists = {name: parse(name, given[name]) for name, parse in LISTS.items() if name in given}
    return {"out": "", **given, **lists, "sources": [source for source in sources if source]}


def _text(name: str, label: str, **options: Any) -> gr.Textbox:
    spec = MERGE_FIELDS[name]
    info = "One in each line, with its weight behind a colon." if name == "sources" else spec.help
    return gr.Textbox(label=label, info=info, elem_id=f"merge-{name.replace('_', '-')}", min_width=140, **options)
