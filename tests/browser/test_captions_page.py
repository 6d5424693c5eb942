"""No caption is lost, whatever a person does after typing it, and none is written to another picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import Served, choose, make_dataset, sub_tab, tab
from tests.browser.test_typing_fast import late  # noqa: F401 - a fixture
from tests.served import until

WAYS: dict[str, Callable[[Any], None]] = {
    "Tab": lambda page: page.keyboard.press("Tab"),
    "a click elsewhere": lambda page: page.locator("#ds-counts").click(),
    "a tab of the page": lambda page: tab(page, "Runs"),
    "a tab within Train": lambda page: sub_tab(page, "Preprocess images"),
    "another picture": lambda page: page.locator("#ds-gallery button").nth(5).click(),
    "Next": lambda page: page.locator("#ds-next").click(),
    "a reload": lambda page: page.reload(),
    "another address": lambda page: page.goto("about:blank"),
    "the end of the page": lambda page: page.close(run_before_unload=True),
}


def read(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""


@pytest.fixture
def captions(served: Served, request: pytest.FixtureRequest) -> Path:
    """A data set of its own for each test."""
    name = f"set-{abs(hash(request.node.name))}"
    return make_dataset(served.root / "datasets" / name, 6)


def open_first(page: Any, folder: Path) -> Any:
    sub_tab(page, "Data sets")
    choose(page, "ds-folder", folder.name)
    page.locator("#ds-gallery button").nth(0).click()
    page.get_by_text("00.png").wait_for()
    return page.locator("#ds-caption textarea")


@pytest.mark.parametrize("way", WAYS)
def test_a_caption_is_saved_whatever_follows(page: Any, captions: Path, way: str) -> None:
    others = {path.name: path.read_text() for path in captions.glob("*.txt")}
    caption = open_first(page, captions)
    caption.fill("a moon that nobody saw before")
    page.get_by_text("Not saved yet.").wait_for()
    WAYS[way](page)
    until(lambda: read(captions / "00.txt") == "a moon that nobody saw before")
    assert {path.name: path.read_text() for path in captions.glob("*.txt") if path.name != "00.txt"} == others


def test_it_says_saved_once_it_is_and_can_be_taken_back(page: Any, captions: Path) -> None:
    caption = open_first(page, captions)
    page.locator("#ds-next").click()
    page.get_by_text("01.png").wait_for()
    caption.fill("a moon by mistake")
    page.keyboard.press("Tab")
    page.locator("#ds-state", has_text="Saved.").wait_for()
    assert read(captions / "01.txt") == "a moon by mistake"
    page.locator("#ds-undo").click()
    page.get_by_text("The caption of 01.png is as it was before.").wait_for()
    assert (read(captions / "01.txt"), caption.input_value()) == ("a moon, view 1", "a moon, view 1")
    page.locator("#ds-undo").click()
    page.get_by_text("There is nothing to take back.").wait_for()


def test_a_slow_server_writes_no_caption_to_another_picture(page: Any, captions: Path, late: None) -> None:  # noqa: F811
    caption = open_first(page, captions)
    for number in range(4):
        page.get_by_text(f"{number:02}.png").wait_for()
        caption.fill(f"words of {number}")
        page.locator("#ds-gallery button").nth(number + 1).click()
    until(lambda: [read(captions / f"{number:02}.txt") for number in range(4)] == [f"words of {n}" for n in range(4)])
    assert read(captions / "04.txt") == "a moon, view 4"
