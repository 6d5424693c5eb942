"""A form that is half filled in is there again after a reload, on every tab, and not when it was submitted."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import expect

from tests.browser.conftest import Served, choose, make_dataset, reload, sub_tab, tab
from tests.browser.test_typing_fast import TYPED, value_of
from tests.browser.test_way_on import value_becomes
from tests.served import write


def typed_in(page: Any, elem_id: str) -> Any:
    return page.locator(f"#{elem_id}").locator(TYPED).first


def begun(page: Any) -> None:
    """Wait until the page knows what it begins with: from then on what is typed is stored as it is typed."""
    page.wait_for_function("window.drafts?.isReady()")


def line(page: Any) -> Any:
    return page.locator("#restored")


def fill_everything(page: Any) -> None:
    begun(page)
    typed_in(page, "ce-name").fill("fox")
    page.locator("#ce-overwrite input").check()
    sub_tab(page, "Create hypernetwork")
    choose(page, "ch-activation", "mish")
    sub_tab(page, "Preprocess images")
    choose(page, "pp-source", "moons")
    value_becomes(page, "pp-destination", "datasets/moons-crops")
    page.get_by_label("Auto-sized crop").check()
    page.locator("#pp-multicrop_max_dim input").fill("640")
    sub_tab(page, "New run")
    page.locator("#tr-kind").get_by_label("Hypernetwork").check()
    choose(page, "tr-hypernetwork", "ink")
    choose(page, "tr-data", "moons")
    typed_in(page, "tr-hypernetwork-rate").fill("0.0001:50, 2e-5")
    page.locator("#tr-steps input").fill("77")
    tab(page, "Try it")
    typed_in(page, "try-prompt").fill("a photo of <hypernet:ink:0.7>\nby night")
    page.locator("#try-mode").get_by_label("Grid").check()
    tab(page, "Files")
    page.get_by_text("Another file").click()
    typed_in(page, "file-path").fill("embeddings/cat.pt")
    tab(page, "Try it")
    page.locator("#try-seed input").press("Control+a")
    page.locator("#try-seed input").press_sequentially("12345")
    page.wait_for_function("location.hash === '#try-it'")  # the tab that a reload opens


def test_what_was_typed_on_every_tab_is_there_again(page: Any, served: Served) -> None:
    write(served.service.workspace.adapter_path("hypernetwork", "ink"))
    fill_everything(page)
    reload(page, at_once=True)  # the last letter was stored as it was typed
    line(page).get_by_text("Restored what was typed.").wait_for()
    value_becomes(page, "try-seed", "12345")
    value_becomes(page, "try-prompt", "a photo of <hypernet:ink:0.7>\nby night")
    page.locator("#try-strengths").wait_for()  # the grid is chosen again, and shows its inputs
    page.wait_for_function("document.querySelector('.strength input[type=number]')?.value === '0.7'")
    tab(page, "Train")
    value_becomes(page, "ce-name", "fox")
    expect(page.locator("#ce-overwrite input")).to_be_checked()
    sub_tab(page, "Create hypernetwork")
    value_becomes(page, "ch-activation", "mish")
    sub_tab(page, "Preprocess images")
    value_becomes(page, "pp-destination", "datasets/moons-crops")
    page.locator("#pp-multicrop_max_dim input").wait_for()  # seen, since its box is ticked
    value_becomes(page, "pp-multicrop_max_dim", "640")
    sub_tab(page, "New run")
    page.locator("#tr-start-hypernetwork").wait_for()
    value_becomes(page, "tr-hypernetwork", "ink")
    value_becomes(page, "tr-steps", "77")
    value_becomes(page, "tr-data", "moons (30 pictures)")
    page.locator('#tr-hypernetwork-schedule [aria-label="0.0001 until step 50; then 2e-05 until step 77"]').wait_for()
    tab(page, "Files")
    page.get_by_text("Another file").click()
    value_becomes(page, "file-path", "embeddings/cat.pt")


def test_it_can_be_begun_afresh_and_brought_back(page: Any) -> None:
    begun(page)
    sub_tab(page, "New run")
    usual = value_of(page, "tr-steps")
    page.locator("#tr-steps input").fill("77")
    reload(page)
    page.get_by_role("button", name="Start afresh").click()
    sub_tab(page, "New run")
    value_becomes(page, "tr-steps", usual)
    page.get_by_role("button", name="Bring back what was typed").click()
    value_becomes(page, "tr-steps", "77")
    page.get_by_role("button", name="Start afresh").click()
    value_becomes(page, "tr-steps", usual)
    page.wait_for_function("window.drafts.stored() === '{}'")
    reload(page)
    begun(page)
    expect(line(page)).to_be_hidden()
    sub_tab(page, "New run")
    value_becomes(page, "tr-steps", usual)


def test_the_last_press_counts_in_the_moment_an_input_is_drawn(page: Any) -> None:
    begun(page)
    sub_tab(page, "New run")
    page.locator("#tr-steps input").fill("77")
    reload(page)
    page.get_by_role("button", name="Start afresh").click()
    script = """async () => {
        [...document.querySelectorAll("[role=tab]")].find((one) => one.textContent.trim() === "New run").click();
        while (!document.querySelector("#tr-steps input")) await new Promise((resolve) => setTimeout(resolve, 5));
        await new Promise((resolve) => setTimeout(resolve, 110));
        const buttons = [...document.querySelectorAll("#restored button")];
        buttons.find((one) => one.textContent.startsWith("Bring back")).click();
    }"""
    page.evaluate(script)
    value_becomes(page, "tr-steps", "77")
    page.wait_for_timeout(700)
    assert value_of(page, "tr-steps") == "77"


def test_what_was_submitted_does_not_come_back_but_what_was_typed_since(page: Any, served: Served) -> None:
    begun(page)
    typed_in(page, "ce-name").fill("done")
    typed_in(page, "ce-text").fill("a word")
    page.locator("#ce-create").click()
    page.locator("#ce-message .done").wait_for()
    page.wait_for_function("!('ce-name' in JSON.parse(window.drafts.stored()))")
    typed_in(page, "ce-text").fill("another")
    typed_in(page, "ce-name").fill("done")
    page.locator("#ce-create").click()
    page.locator("#ce-message .fault").wait_for()  # there is one: nothing was made
    reload(page)
    value_becomes(page, "ce-text", "another")
    value_becomes(page, "ce-name", "")  # as it was submitted


def test_what_is_not_there_any_more_is_left_out_with_a_word(page: Any, served: Served) -> None:
    path = served.service.workspace.adapter_path("embedding", "gone")
    write(path)
    begun(page)
    page.locator("#refresh-lists").click()
    sub_tab(page, "New run")
    usual = value_of(page, "tr-batch_size")
    choose(page, "tr-embedding", "gone")
    page.locator("#tr-steps input").fill("77")
    page.wait_for_function("Object.keys(JSON.parse(window.drafts.stored())).length >= 2")
    page.evaluate(
        """() => {
            const key = Object.keys(sessionStorage).find((name) => name.startsWith("tincture-form-"));
            const typed = { ...JSON.parse(sessionStorage.getItem(key)), "tr-of-tomorrow": 5, "tr-batch_size": "many" };
            addEventListener("pagehide", () => sessionStorage.setItem(key, JSON.stringify(typed)));
        }"""
    )
    path.unlink()
    reload(page)
    line(page).get_by_text("Left out, since it is not there any more: Embedding 'gone'.").wait_for()
    sub_tab(page, "New run")
    value_becomes(page, "tr-steps", "77")
    value_becomes(page, "tr-embedding", "")
    value_becomes(page, "tr-batch_size", usual)


def test_two_tabs_and_what_a_way_brings(page: Any, served: Served, chromium: Any) -> None:
    begun(page)
    sub_tab(page, "New run")
    page.locator("#tr-steps input").fill("77")
    other = page.context.new_page()
    other.goto(served.url)
    begun(other)
    expect(line(other)).to_be_hidden()
    sub_tab(other, "New run")
    other.locator("#tr-steps input").fill("88")
    other.close()
    make_dataset(served.root / "datasets" / "suns", 3)
    folder = str(served.root / "datasets" / "suns")
    follow = "(carried) => document.dispatchEvent(new CustomEvent('way', { detail: { way: 'data', carried } }))"
    page.evaluate(follow, folder)
    value_becomes(page, "tr-data", "suns (3 pictures)")
    page.wait_for_function("JSON.parse(window.drafts.stored())['tr-data'] === 'datasets/suns'")
    reload(page)
    sub_tab(page, "New run")
    value_becomes(page, "tr-steps", "77")
    value_becomes(page, "tr-data", "suns (3 pictures)")


def test_what_is_typed_before_it_comes_back_stays(page: Any) -> None:
    begun(page)
    typed_in(page, "ce-name").fill("before")
    reload(page)
    typed_in(page, "ce-name").fill("after")
    begun(page)
    value_becomes(page, "ce-name", "after")
    reload(page)
    value_becomes(page, "ce-name", "after")
