"""Every event of the page takes part in the order of requests: see ``parts/requests.py``."""

from __future__ import annotations

import asyncio

import gradio as gr
import pytest
from gradio.components import FormComponent

from tests.served import quick_service
from tincture.server.page.parts.requests import READER
from tincture.server.page.shell import build as build_page


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> gr.Blocks:
    service = quick_service(tmp_path_factory.mktemp("workspace"))

    async def build() -> gr.Blocks:  # Gradio takes the event loop that runs, else it leaves one behind
        return build_page(service)

    return asyncio.run(build())


def test_every_request_goes_through_the_queue(page: gr.Blocks) -> None:
    """What goes around it (``queue=False``) has no order."""
    assert all(event.queue for event in page.fns.values() if event.fn is not None)


def test_the_browser_reads_every_input_that_an_answer_may_write_into(page: gr.Blocks) -> None:
    buttons = [block for block in page.blocks.values() if str(block.elem_id).startswith(READER)]
    read = [
        block._id
        for event in page.fns.values()
        for button in buttons
        if event.targets == [(button._id, "click")]
        for block in event.inputs
    ]
    written = {
        block._id
        for event in page.fns.values()
        if event.fn is not None
        for block in event.outputs
        if isinstance(block, FormComponent | gr.File | gr.Image)
    }
    assert written <= set(read) and len(written) > 40
    assert len(read) == len(set(read))  # each in one form, and each form is small
    assert len(buttons) > 5


def test_what_may_be_asked_again_holds_no_upload_and_deletes_nothing(page: gr.Blocks) -> None:
    """A step or typing may be made twice; commands are made once."""
    once = {"_receive", "_remove", "start", "make", "draw", "convert", "delete", "add", "choose_model"}
    again = {event.name for event in page.fns.values() if event.trigger_mode in ("multiple", "always_last")}
    assert not once & again


def test_what_shows_no_progress_writes_it_nowhere(page: gr.Blocks) -> None:
    """Gradio would write it into all outputs of all that was asked before, with each event."""
    silent = [event for event in page.fns.values() if event.fn is not None and event.show_progress == "hidden"]
    assert len(silent) > 40 and all(event.show_progress_on == [] for event in silent)
