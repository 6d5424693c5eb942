"""Inputs of the page take what a drawing and a conversion may have, and no more."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import gradio as gr
import pytest

from tests.served import quick_service
from tincture.kinds.registry import kind_names
from tincture.server.page.files import convert_form
from tincture.server.page.files import tab as files_tab
from tincture.server.page.parts.way_on import Ways
from tincture.server.page.try_it import tab as try_tab
from tincture.server.service import Service
from tincture.settings.conversion import CONVERSION_FIELDS
from tincture.settings.drawing import REQUEST_FIELDS


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The inputs of both tabs by their ids."""
    service = quick_service(tmp_path_factory.mktemp("root"))
    blocks = asyncio.run(_built(service))
    yield {str(block.elem_id): block for block in blocks.blocks.values() if getattr(block, "elem_id", None)}
    service.close()


async def _built(service: Service) -> gr.Blocks:
    """The tabs on a page; within a loop, since Gradio makes one else that nobody closes."""
    with gr.Blocks() as blocks:
        try_tab.build(service, Ways())
        files_tab.build(service)
    return blocks


@pytest.mark.parametrize("name", ["steps", "guidance_scale", "width", "height", "count"])
def test_numbers_of_a_drawing_are_bounded_as_the_drawing_is(inputs: dict[str, Any], name: str) -> None:
    spec, component = REQUEST_FIELDS[name], inputs[f"try-{name.replace('_', '-')}"]
    assert spec.bounds is not None
    assert component.minimum == spec.bounds.minimum
    assert component.maximum <= (spec.largest or try_tab.MOST_AT_ONCE)


@pytest.mark.parametrize("name", try_tab.FURTHER)
def test_what_is_said_of_the_model_has_the_drawings_own_words_and_choices(inputs: dict[str, Any], name: str) -> None:
    spec, component = REQUEST_FIELDS[name], inputs[f"try-{name}"]
    assert component.info == spec.help
    if spec.choices:
        assert tuple(value for _, value in component.choices) == spec.choices
    assert component.value == ("" if spec.default is None else spec.default)


def test_a_conversion_is_bounded_and_has_its_formats(inputs: dict[str, Any]) -> None:
    rank = CONVERSION_FIELDS["rank"]
    assert (inputs["file-rank"].minimum, inputs["file-rank"].maximum) == (1, rank.largest)
    shown = {format for formats in map(convert_form.formats, kind_names()) for _, format, _ in formats}
    assert shown == set(CONVERSION_FIELDS["to"].choices)
