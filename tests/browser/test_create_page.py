"""Create embedding and Create hypernetwork in Chromium: only what fits the chosen model is offered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Served, choose, sub_tab
from tincture.errors import ModelError

MODELS = [{"name": name, "title": name, "path": ""} for name in ("picto", "wide")]


@pytest.fixture
def two_models(served: Served, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The stand-in for models, asked about picto and one of other widths."""
    monkeypatch.setattr(served.service, "models", lambda: MODELS)
    monkeypatch.setattr(served.service.places, "model", lambda name, *_: name)
    process = cast(Any, served.service.model_work.file_process)
    yield process
    process.error = None


def widths(page: Any) -> list[str]:
    return cast("list[str]", page.locator("#ch-modules label:has(input)").all_inner_texts())


def until_widths(page: Any, expected: list[str]) -> None:
    page.locator("#ch-modules label:has(input)").get_by_text(expected[0], exact=True).wait_for()
    assert [each.strip() for each in widths(page)] == expected


def choose_model(page: Any, name: str) -> None:
    page.locator("#refresh-lists").click()
    choose(page, "base-model", name)


def test_widths_are_those_of_the_chosen_model(two_models: Any, page: Any, served: Served) -> None:
    sub_tab(page, "Create hypernetwork")
    until_widths(page, ["96", "112 (text)"])
    page.get_by_label("96", exact=True).check()
    page.get_by_label("112 (text)").check()
    choose_model(page, "wide")
    page.locator("#ch-fit").get_by_text("no attention of width 96, so that is not ticked any more").wait_for()
    until_widths(page, ["112", "320", "768 (text)"])
    expect(page.get_by_label("112", exact=True)).to_be_checked()
    expect(page.get_by_label("320", exact=True)).not_to_be_checked()
    page.get_by_label("768 (text)").check()
    page.locator("#ch-name").locator("input, textarea").fill("ink")
    page.locator("#ch-create").click()
    page.locator("#ch-message .done").get_by_text("Made the hypernetwork ink").wait_for()
    name, asked = next(call for call in reversed(two_models.asked) if call[0] == "create")
    assert (name, asked["model"], asked["sizes"]) == ("create", "wide", [112, 768])


def test_a_model_that_cannot_be_read_offers_nothing_and_says_why(two_models: Any, page: Any) -> None:
    two_models.error = ModelError("The model is broken.")
    sub_tab(page, "Create hypernetwork")
    page.locator("#ch-fit .fault").get_by_text("The model is broken.").wait_for()
    assert widths(page) == []
    two_models.error = None
    choose_model(page, "wide")
    until_widths(page, ["112", "320", "768 (text)"])


def test_the_tokens_that_vectors_start_from_are_shown(two_models: Any, page: Any) -> None:
    text = page.locator("#ce-text").locator("input, textarea")
    text.focus()
    page.locator("#ce-tokens").get_by_text("The vectors start from a a thing thing.").wait_for()
    text.fill("red dotted moon")
    page.locator("#ce-tokens").get_by_text("The vectors start from red red dotted moon.").wait_for()  # 4 of themselves
    page.locator("#ce-vectors input[type=number]").fill("1")
    page.locator("#ce-vectors input[type=number]").press("Tab")
    page.locator("#ce-tokens").get_by_text("None starts from dotted moon; take 3 vectors for all.").wait_for()
    page.locator("#ce-vectors input[type=number]").fill("4")
    page.locator("#ce-vectors input[type=number]").press("Tab")
    page.locator("#ce-tokens").get_by_text("The vectors start from red red dotted moon.").wait_for()
    refused = page.get_by_text("is greater than maximum value")  # Gradio's own words, which name no label
    for typed in ("7500", ""):
        page.locator("#ce-vectors input[type=number]").fill(typed)
        page.wait_for_timeout(500)
        assert not refused.count() and not page.locator(".toast-body.error").count()
    text.fill("")
    page.locator("#ce-tokens").get_by_text("No tokens: all vectors start from zeros.").wait_for()


def test_what_is_wrong_is_called_as_its_label(two_models: Any, page: Any) -> None:
    sub_tab(page, "Create hypernetwork")
    until_widths(page, ["96", "112 (text)"])
    page.locator("#ch-name").locator("input, textarea").fill("odd")
    page.locator("#ch-structure").locator("input, textarea").fill("1, two, 1")
    page.locator("#ch-create").click()
    page.locator("#ch-message .fault").wait_for()
    expect(page.locator("#ch-message")).not_to_contain_text("layer_structure")
    expect(page.locator("#ch-message")).to_contain_text("layer structure")
