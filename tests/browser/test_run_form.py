"""The form of a new run in Chromium: what matters first, the rest by groups, the plan beside it."""

from __future__ import annotations

from typing import Any

from tests.browser.conftest import Served, choose, sub_tab

FIRST = ("data", "template", "steps", "batch_size", "gradient_accumulation_steps", "preview_every", "preview_prompts")


def fill(page: Any) -> None:
    sub_tab(page, "New run")
    choose(page, "tr-embedding", "cat")
    choose(page, "tr-data", "moons")


def test_only_what_concerns_the_kind_is_seen(page: Any) -> None:
    sub_tab(page, "New run")
    for name in ("embedding", "embedding-rate", "start-embedding", *FIRST):
        assert page.locator(f"#tr-{name}").is_visible(), name
    assert not page.locator("#tr-hypernetwork-rate").is_visible()
    page.locator("#tr-previews button").first.click()
    page.locator("#tr-preview_with_embedding").wait_for()
    page.locator("#tr-kind").get_by_text("Hypernetwork").click()
    for name in ("hypernetwork", "hypernetwork-rate", "hypernetwork-schedule", "start-hypernetwork"):
        page.locator(f"#tr-{name}").wait_for()
    for name in ("embedding", "embedding-rate", "start-embedding", "preview_with_embedding", "attention_mask_weight"):
        page.locator(f"#tr-{name}").wait_for(state="hidden")


def test_groups_say_how_many_of_their_values_are_changed(page: Any) -> None:
    sub_tab(page, "New run")
    group = page.locator("#tr-optimization button").first
    assert group.inner_text().splitlines()[0] == "Optimization"
    group.click()
    page.locator("#tr-seed input").fill("7")
    page.locator("#tr-optimization").get_by_text("Optimization · 1 changed").wait_for()
    page.locator("#tr-clip_grad_mode").get_by_text("norm").click()
    page.locator("#tr-optimization").get_by_text("Optimization · 2 changed").wait_for()
    page.locator("#tr-seed input").fill("0")
    page.locator("#tr-optimization").get_by_text("Optimization · 1 changed").wait_for()


def test_the_plan_follows_the_form_by_itself(page: Any, served: Served) -> None:
    sub_tab(page, "New run")
    page.locator("#tr-planned").get_by_text("Choose an embedding to train and a data set").wait_for()
    fill(page)
    page.locator("#tr-planned").get_by_text("asked to measure").wait_for()  # of what was known there was nothing
    page.locator("#tr-steps input").fill("12")
    page.locator(".plan h3").get_by_text("Embedding cat: 12 steps to go").wait_for()
    page.locator("#tr-summary").get_by_text("12 steps · 10 MiB of 16.00 GiB, CPU").wait_for()
    assert page.locator(".plan [role=meter]").get_attribute("aria-valuenow") == "0"
    page.locator("#tr-steps input").fill("0")
    page.locator("#tr-planned .fault").get_by_text("“Max steps” is 0").wait_for()


def in_sight(page: Any) -> bool:
    box, size = page.locator("#tr-start-embedding").bounding_box(), page.viewport_size
    return bool(box["y"] >= 0 and box["y"] + box["height"] <= size["height"])


def test_the_button_is_always_in_sight(page: Any, phone: Any) -> None:
    for shown in (page, phone):
        sub_tab(shown, "New run")
        shown.locator("#tr-start-embedding").wait_for()
        shown.evaluate("window.scrollTo(0, 0)")
        assert in_sight(shown)
        shown.locator("#tr-queue").scroll_into_view_if_needed()
        shown.evaluate("window.scrollTo(0, document.body.scrollHeight)")
        shown.wait_for_function("window.scrollY > 300")
        assert in_sight(shown)


def test_a_click_is_answered_at_once(page: Any) -> None:
    fill(page)
    page.route("**/queue/join*", lambda route: None)  # the server says nothing
    page.locator("#tr-start-embedding").click()
    page.locator("#tr-message").get_by_text("Sent …").wait_for()
    page.unroute("**/queue/join*")


def test_a_preset_fills_the_form_and_leaves_what_it_does_not_know(page: Any) -> None:
    fill(page)
    page.locator("#tr-optimization button").first.click()
    page.locator("#tr-seed input").fill("7")
    choose(page, "tr-preset", "Careful")
    page.locator("#tr-message").get_by_text("Careful: its settings stand in the form.").wait_for()
    page.wait_for_function("document.querySelector('#tr-steps input').value === '400'")
    page.locator("#tr-averages-and-guards").get_by_text("Averages and guards · 1 changed").wait_for()
    choose(page, "tr-preset", "Quick try")
    page.wait_for_function("document.querySelector('#tr-steps input').value === '100'")
    page.locator("#tr-averages-and-guards").get_by_text("Averages and guards · 1 changed").wait_for(state="detached")
    assert page.locator("#tr-seed input").input_value() == "7"
    assert page.locator("#tr-embedding input").input_value() == "cat"
