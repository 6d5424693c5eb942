"""No caption is lost, whatever a person does after typing it, and none is written to another picture."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Served, choose, make_dataset, reload, sub_tab, tab
from tests.served import until
from tincture.server.library.datasets import Datasets

LATE_S = 0.4
WAYS: dict[str, Callable[[Any], object]] = {
    "Tab": lambda page: page.keyboard.press("Tab"),
    "a click elsewhere": lambda page: page.locator("#ds-counts").click(),
    "a tab of the page": lambda page: tab(page, "Runs"),
    "a tab within Train": lambda page: sub_tab(page, "Preprocess images"),
    "another picture": lambda page: page.locator("#ds-gallery button").nth(5).click(),
    "Next": lambda page: page.locator("#ds-next").click(),
    "a reload": lambda page: reload(page, at_once=True),
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
    expect(caption).to_have_value("a moon, view 1")
    assert read(captions / "01.txt") == "a moon, view 1"
    page.locator("#ds-undo").click()
    page.get_by_text("There is nothing to take back.").wait_for()


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The server takes long to write a caption, and to delete a picture."""

    def slowly(act: Callable[..., Any]) -> Callable[..., Any]:
        def wait_and_act(*given: Any, **named: Any) -> Any:
            time.sleep(LATE_S)
            return act(*given, **named)

        return wait_and_act

    for name in ("set_captions", "remove_picture"):
        monkeypatch.setattr(Datasets, name, slowly(getattr(Datasets, name)))
    yield


def test_a_slow_server_writes_no_caption_to_another_picture(page: Any, captions: Path, late: None) -> None:
    caption = open_first(page, captions)
    for number in range(4):
        page.get_by_text(f"{number:02}.png").wait_for()
        caption.press("Control+End")
        caption.press_sequentially(f", words of {number}", delay=10)
        if number % 2:
            page.locator("#ds-gallery button").nth(number + 1).click()
        else:
            page.locator("#ds-next").click()
    page.get_by_text("04.png").wait_for()  # nobody waits for the server
    ends = [f"words of {number}" for number in range(4)]
    until(lambda: all(read(captions / f"{number:02}.txt").endswith(ends[number]) for number in range(4)))
    assert (read(captions / "01.txt"), read(captions / "04.txt")) == ("a moon, view 1, words of 1", "a moon, view 4")


def test_what_is_typed_for_a_picture_that_is_being_deleted_goes_with_it(page: Any, captions: Path, late: None) -> None:
    caption = open_first(page, captions)
    page.locator("#ds-next").click()
    page.locator("#ds-delete").click()
    page.locator("#ds-really").dblclick()
    caption.press_sequentially("goes with it", delay=10)
    page.get_by_text("01.png is deleted.").wait_for()
    page.locator("#ds-about", has_text="02.png").wait_for()
    page.keyboard.type("for nobody")
    page.locator("#ds-save").click()
    page.locator("#ds-state", has_text="Saved.").wait_for()
    assert sorted(path.name for path in captions.glob("*.png")) == [f"{n:02}.png" for n in (0, 2, 3, 4, 5)]
    assert {path.name: read(path) for path in captions.glob("*.txt")} == {
        f"{number:02}.txt": f"a moon, view {number}" for number in (2, 4, 5)
    }
