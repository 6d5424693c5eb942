"""Every event of the page takes part in the order of requests: see ``parts/requests.py``."""

from __future__ import annotations

import asyncio

import gradio as gr
import pytest
from gradio.components import FormComponent

from tests.served import quick_service
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
    button = next(block for block in page.blocks.values() if block.elem_id == "page-values")
    reading = next(event for event in page.fns.values() if (button._id, "click") in event.targets)
    written = {
        block._id
        for event in page.fns.values()
        if event.fn is not None
        for block in event.outputs
        if isinstance(block, FormComponent | gr.File | gr.Image)
    }
    assert {block._id for block in reading.inputs} == written and len(written) > 40


def test_what_may_be_asked_again_holds_no_upload_and_deletes_nothing(page: gr.Blocks) -> None:
    """A step or typing may be made twice; commands are made once."""
    once = {"_receive", "_remove", "start", "make", "draw", "convert", "delete", "add", "choose_model"}
    again = {event.name for event in page.fns.values() if event.trigger_mode in ("multiple", "always_last")}
    assert not once & again
