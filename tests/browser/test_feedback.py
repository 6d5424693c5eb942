"""Whatever is pressed shows at once that it was, though the server answers nothing yet: on every tab."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import gradio as gr
import pytest

from tests.browser.conftest import Served, playwright, sub_tab
from tests.browser.test_accessibility import PLACES

BY_ITSELF = (
    *(
        "[role=tab]",
        "[tabindex='-1']",
        ".label-wrap",
        "[data-copy]",
        "[data-tab]",
        "[aria-label*=ullscreen]",
        "[aria-label^=Reset]",
        "#ds-pager button",
    ),
    *(":has(input[type=file])", "input[type=file] ~ button", ".frames *", ".thumbnail-item + .thumbnail-item"),
)
"""Buttons that ask no server: the page changes at once by itself, or the browser asks for a file."""
MARK = f"""() => (document.querySelectorAll("[data-place]").forEach((one) => delete one.dataset.place),
[...document.querySelectorAll("#tabs button:not({", ".join(BY_ITSELF)})")].filter(
  (one) => one.checkVisibility({{ visibilityProperty: true }}) && !one.disabled
).map((one, place) => {{
  one.dataset.place = place;
  return one.ariaLabel || one.textContent.trim() || one.id;
}}))"""


class Gate:
    """Requests of the page wait at it while it is shut: Gradio's, and those that its scripts make."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.waiting: list[Any] = []

    def hold(self, route: Any) -> None:
        if self.open.is_set() or route.request.resource_type != "fetch":
            route.continue_()
        else:
            self.waiting.append(route)

    def let_through(self) -> None:
        self.open.set()
        while self.waiting:
            self.waiting.pop().continue_()


@pytest.fixture
def gate(page: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    process, made = gr.Blocks.process_api, Gate()
    page.route("**/api/v1/**", made.hold)

    async def process_when_open(self: gr.Blocks, *given: Any, **named: Any) -> Any:
        while not made.open.is_set():
            await asyncio.sleep(0.02)
        return await process(self, *given, **named)

    monkeypatch.setattr(gr.Blocks, "process_api", process_when_open)
    yield made
    made.let_through()


def silent(page: Any, gate: Gate) -> list[str]:
    """Buttons that show nothing when they are pressed, while the server answers nothing."""
    gate.open.clear()
    page.wait_for_timeout(500)  # an answer that is on its way may redraw a list
    names: list[str] = page.evaluate(MARK)
    found = []
    for place, name in enumerate(names):
        button = page.locator(f'[data-place="{place}"]')
        if not button.is_visible():  # one before it changed the page at once
            continue
        button.press("Enter")  # what Gradio lays over a part that is under way would be in the way of a click
        try:
            page.locator(f'[data-place="{place}"][aria-busy="true"]').wait_for(timeout=5000)
        except playwright.TimeoutError:
            found.append(name)
    assert names
    gate.let_through()
    page.wait_for_function("document.querySelectorAll('button[aria-busy=true]').length === 0")
    return found


@pytest.mark.slow
def test_every_button_shows_that_it_was_pressed(page: Any, served: Served, gate: Gate) -> None:
    """Where the server answers nothing: so nothing that is seen comes from there."""
    nameless = "gradio_config.components.filter((one) => one.type === 'button' && !one.props.elem_id)"
    assert page.evaluate(f"{nameless}.map((one) => one.props.value)") == []  # feedback.js finds them by their ids
    found = {}
    for show, name, fill in PLACES:
        show(page, name)
        fill(page, served)
        found[name] = silent(page, gate)
    assert not any(found.values()), found


def test_a_button_is_busy_until_all_that_it_asked_for_is_there(page: Any, gate: Gate) -> None:
    sub_tab(page, "Create embedding")
    gate.open.clear()
    create = page.locator("#ce-create")
    style = "one => getComputedStyle(one).animationName"
    assert create.evaluate(style) == "none"
    for name in ("one", "another"):
        page.locator("#ce-name").locator("textarea, input").fill(name)
        create.click()
        create.and_(page.locator("[aria-busy=true]")).wait_for()
    assert "busy" in create.evaluate(style)
    gate.open.set()
    page.locator("#ce-create:not([aria-busy])").wait_for()
    page.get_by_text("another").first.wait_for(state="attached")
