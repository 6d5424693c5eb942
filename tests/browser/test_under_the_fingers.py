"""No answer changes a text or a number while a person types it, however late the page gets round to writing it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.conftest import Served, sub_tab, tab
from tests.browser.test_try_page import prompt_of, put_in, trying, wait_for_prompt  # noqa: F401 - a fixture
from tests.browser.test_typing_fast import late, settled  # noqa: F401 - a fixture

# where an input is, and what is typed into it; an answer that has another value was let through before the last letter
NUMBERS = {
    "New run": "tr-steps",
    "Preprocess images": "pp-width",
    "Try it": "try-seed",
}
TEXTS = {"New run": "tr-embedding-rate", "Preprocess images": "pp-destination", "Try it": "try-prompt"}
FIELD = "textarea, input:not([type=range])"
DECIDED = "([id, value]) => window.typing.mayWrite(document.getElementById(id), value)"
WRITTEN = "([id, value, field]) => { document.querySelector(`#${id} :is(${field})`).value = value; }"
HEARD = """([id, field]) => {
  window.heard = 0;
  const count = (event) => { if (!event.isTrusted) window.heard++; };
  document.querySelector(`#${id} :is(${field})`).addEventListener("input", count);
}"""


def open_place(page: Any, place: str) -> None:
    tab(page, place) if place == "Try it" else sub_tab(page, place)


def field_of(page: Any, elem_id: str) -> Any:
    return page.locator(f"#{elem_id}").locator(FIELD).first


@pytest.mark.parametrize(("place", "elem_id"), [*NUMBERS.items(), *TEXTS.items()])
def test_an_answer_that_is_written_late_changes_nothing(page: Any, place: str, elem_id: str) -> None:
    open_place(page, place)
    field = field_of(page, elem_id)
    field.press("Control+a")
    field.press_sequentially("12")
    page.evaluate(HEARD, [elem_id, FIELD])
    assert page.evaluate(DECIDED, [elem_id, "5"])
    field.press_sequentially("3")
    page.evaluate(WRITTEN, [elem_id, "5", FIELD])
    field.press("ArrowLeft")
    field.press_sequentially("4")  # where the cursor is
    assert field.input_value() == "1243"
    page.wait_for_function("heard === 1")  # so that the page takes what stands there for its value
    assert page.evaluate(DECIDED, [elem_id, "5"])
    page.evaluate(WRITTEN, [elem_id, "5", FIELD])
    assert field.input_value() == "5"  # nothing was typed since


def test_a_slider_that_is_moved_on_is_not_moved_back(trying: Any) -> None:  # noqa: F811
    prompt_of(trying).fill("")
    put_in(trying, "outline")
    bar = trying.locator(".strength:visible input[type=range]").first
    bar.press("ArrowLeft")
    wait_for_prompt(trying, "<hypernet:outline:0.95>")
    settled(trying)
    assert trying.evaluate(DECIDED, ["strength-0", "0.95"])
    bar.press("ArrowLeft")
    trying.evaluate(WRITTEN, ["strength-0", "0.95", "input[type=range]"])
    bar.press("ArrowLeft")
    wait_for_prompt(trying, "<hypernet:outline:0.85>")
    settled(trying)
    assert bar.input_value() == "0.85"
    trying.evaluate(WRITTEN, ["strength-0", "0.5", "input[type=range]"])
    assert bar.input_value() == "0.5"  # what was let through by nobody before it was moved


@pytest.mark.parametrize("typed", ["", "-", "0.", "1e"])
def test_a_number_that_is_not_finished_stays_until_it_is_left(page: Any, typed: str) -> None:
    open_place(page, "Try it")
    field = field_of(page, "try-guidance-scale")
    page.wait_for_function("document.querySelector('#try-guidance-scale input')?.value === ''")  # as the page begins
    field.press_sequentially("7")
    field.press("Backspace")
    field.press_sequentially(typed)
    assert not page.evaluate(DECIDED, ["try-guidance-scale", 6.5])
    field.press_sequentially("0.5" if typed == "" else "5")
    finished = {"": "0.5", "-": "-5", "0.": "0.5", "1e": "1e5"}[typed]
    assert field.input_value() == finished
    page.keyboard.press("Tab")
    assert field.input_value() == finished
    field.press("Control+a")
    field.press("Backspace")
    field.press_sequentially(typed)
    assert not page.evaluate(DECIDED, ["try-guidance-scale", 6.5])
    page.keyboard.press("Tab")
    page.wait_for_function("document.querySelector('#try-guidance-scale input')?.value === '6.5'")


def test_a_strength_is_emptied_and_typed_anew(trying: Any, served: Served, late: None) -> None:  # noqa: F811
    prompt_of(trying).fill("a photo of <hypernet:outline:0.6>")
    strength = trying.locator(".strength:visible input[type=number]").first
    trying.wait_for_function("document.querySelector('.strength input[type=number]')?.value === '0.6'")
    for typed in ("", "-", "0."):
        strength.press("Control+a")
        strength.press("Backspace")
        strength.press_sequentially(typed)
        settled(trying)
        strength.press_sequentially("0.8" if typed == "" else "8")
        shown = {"": "0.8", "-": "-8", "0.": "0.8"}[typed]
        assert strength.input_value() == shown
    wait_for_prompt(trying, "a photo of <hypernet:outline:0.8>")
    strength.press("Control+a")
    strength.press("Backspace")
    settled(trying)
    trying.keyboard.press("Tab")  # left empty: as strong as the prompt says
    trying.wait_for_function("document.querySelector('.strength input[type=number]')?.value === '0.8'")
    settled(trying)
    assert prompt_of(trying).input_value() == "a photo of <hypernet:outline:0.8>"


@pytest.mark.parametrize(("typed", "strength"), [("7", "2"), ("-1", "0"), ("1.5", "1.5")])
def test_a_strength_out_of_reach_is_the_nearest(trying: Any, typed: str, strength: str) -> None:  # noqa: F811
    prompt_of(trying).fill("")
    put_in(trying, "outline")
    box = trying.locator(".strength:visible input[type=number]").first
    box.press("Control+a")
    box.press_sequentially(typed)
    wait_for_prompt(trying, f"<hypernet:outline:{strength}>")
    trying.wait_for_timeout(500)
    assert box.input_value() == typed
    trying.keyboard.press("Tab")
    trying.wait_for_function(
        "text => document.activeElement.blur() || document.querySelector('.strength input')?.value === text",
        arg=strength,
    )
