"""The Train tab in Chromium: create, preprocess, look at a data set, plan, train, watch, try."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Served, choose, choose_files, opened, sub_tab, tab
from tests.served import until
from tincture.server.queue.jobs import JobState

SUB_TABS = ("Create embedding", "Create hypernetwork", "Preprocess images", "Data sets", "New run")
TABS = ("Train", "Runs", "Try it", "Files", "Settings")
TYPED = "textarea, input"


def text_of(page: Any, elem_id: str) -> str:
    found = page.locator(f"#{elem_id} p:not(.quiet)").first  # not what says that something is under way
    found.wait_for(state="attached")  # the run may have been opened meanwhile
    return str(found.inner_text())


def caption_in(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""


def test_create_plan_train_and_watch(page: Any, served: Served) -> None:
    page.locator("#ce-name").locator(TYPED).fill("moon")
    page.locator("#ce-create").click()
    assert "Made the embedding moon, embeddings/moon.pt" in text_of(page, "ce-message")
    sub_tab(page, "New run")
    page.wait_for_function("document.querySelector('#tr-embedding input')?.value === 'moon'")  # it was chosen by itself
    choose(page, "tr-data", "moons")
    page.locator("#tr-steps input").fill("12")
    page.locator("#tr-plan").click()
    page.locator(".plan h3").get_by_text("Embedding moon: 12 steps to go").wait_for()  # another plan came before it
    page.locator("#tr-queue").get_by_text("Queue").click()
    page.locator("#tr-priority input").fill("7")
    page.locator("#tr-hours input").fill("0.5")
    page.locator("#tr-start-embedding").click()
    page.locator("#tr-message .done").get_by_text("moon is in the queue as job").wait_for(state="attached")
    job = served.service.queue.jobs()[0]
    assert (job.priority, job.timeout_s) == (7, 1800)
    assert (job.name, job.source, job.settings["steps"]) == ("moon", "page", 12)
    assert job.settings["data"].endswith("/datasets/moons")
    tab(page, "Runs")
    page.locator("#tab-runs").get_by_text("done").first.wait_for()
    until(lambda: served.service.queue.job(job.id).state is JobState.DONE)


def test_preprocessing_is_a_job_too(page: Any, served: Served) -> None:
    sub_tab(page, "Preprocess images")
    choose(page, "pp-source", "moons")
    page.wait_for_function("document.querySelector('#pp-destination textarea, #pp-destination input')?.value")
    expect(page.locator("#pp-destination").locator(TYPED)).to_have_value("datasets/moons-crops")
    page.get_by_label("Auto-sized crop").check()
    page.locator("#pp-multicrop_max_dim input").fill("512")
    page.locator("#pp-overwrite input").check()
    page.locator("#pp-start").click()
    assert "moons-crops is in the queue" in text_of(page, "pp-message")
    job = served.service.queue.jobs()[0]
    assert (job.kind, job.settings["multicrop"], job.settings["multicrop_max_dim"]) == ("preprocess", True, 512)
    assert job.settings["overwrite"] is True
    until(lambda: served.service.queue.job(job.id).state is JobState.DONE)


def test_what_is_wrong_is_a_sentence_and_nothing_typed_is_lost(page: Any, served: Served) -> None:
    sub_tab(page, "New run")
    page.locator("#tr-kind").get_by_text("Hypernetwork").click()
    page.locator("#tr-start-hypernetwork").click()
    page.locator("#tr-message .fault").wait_for()
    assert "No hypernetwork is chosen" in text_of(page, "tr-message")
    page.locator("#tr-kind").get_by_text("Embedding").click()
    choose(page, "tr-embedding", "cat")
    page.locator("#tr-start-embedding").click()
    page.locator("#tr-message").get_by_text("No dataset directory is given").wait_for()
    page.locator("#tr-data input").fill("../elsewhere")
    page.locator("#tr-pictures-and-captions button").first.click()
    page.locator("#tr-width input").fill("63")
    page.locator("#tr-start-embedding").click()
    page.locator("#tr-message").get_by_text("“Width” is 63").wait_for()
    page.locator("#tr-width input").fill("64")
    page.locator("#tr-start-embedding").click()
    page.locator("#tr-message").get_by_text("leads out of the workspace").wait_for()
    expect(page.locator("#tr-data input")).to_have_value("../elsewhere")
    expect(page.locator("#tr-embedding input")).to_have_value("cat")


def test_a_schedule_is_drawn_while_it_is_typed(page: Any) -> None:
    sub_tab(page, "New run")
    page.locator("#tr-steps input").fill("1000")
    page.locator("#tr-embedding-rate").locator(TYPED).fill("0.005:100, 1e-3")
    page.locator('#tr-embedding-schedule [aria-label="0.005 until step 100; then 0.001 until step 1000"]').wait_for()
    page.locator("#tr-embedding-rate").locator(TYPED).press_sequentially(":x")
    assert "whole number of steps" in text_of(page, "tr-embedding-schedule")


def test_a_data_set_is_looked_through_and_captioned(page: Any, served: Served) -> None:
    folder = served.root / "datasets" / "moons"
    sub_tab(page, "Data sets")
    choose(page, "ds-folder", "moons")
    page.get_by_text("30 pictures; 10 without a caption").wait_for()
    page.locator("#ds-gallery button").nth(0).click()
    caption = page.locator("#ds-caption textarea")
    caption.fill("a moon at night")
    page.locator("#ds-next").click()
    page.wait_for_function("document.querySelector('#ds-caption textarea')?.value === 'a moon, view 1'")
    until(lambda: caption_in(folder / "00.txt") == "a moon at night")
    page.get_by_text("30 pictures; 9 without a caption").wait_for()

    page.get_by_text("Edit a tag of all pictures").click()
    page.locator("#ds-tag").locator(TYPED).fill("night")
    page.locator("#ds-tag-behind").click()
    page.get_by_text("30 captions changed").wait_for()
    until(lambda: caption_in(folder / "01.txt") == "a moon, view 1, night")

    page.locator("#ds-gallery button").nth(2).click()
    page.get_by_text("02.png").wait_for()
    caption.fill("a moon by day")
    page.locator("#ds-forth").click()
    page.get_by_text("Page 2 of 2").wait_for()
    until(lambda: caption_in(folder / "02.txt") == "a moon by day")
    caption.fill("a moon at noon")
    page.locator("#ds-reload").click()
    page.get_by_text("Page 1 of 2").wait_for()
    until(lambda: caption_in(folder / "02.txt") == "a moon at noon")
    page.locator("#ds-forth").click()
    page.get_by_text("Page 2 of 2").wait_for()
    page.locator("#ds-gallery button").nth(5).click()
    page.get_by_text("29.png").wait_for()
    page.locator("#ds-delete").click()
    page.locator("#ds-really").click()
    page.get_by_text("29 pictures; all with captions").wait_for()
    assert not (folder / "29.png").exists() and not (folder / "29.txt").exists()


def test_pictures_are_uploaded_as_a_data_set(page: Any, served: Served) -> None:
    pictures = sorted((served.root / "pictures").iterdir())
    sub_tab(page, "Data sets")
    page.get_by_text("Upload pictures").click()
    choose_files(page, "ds-files", pictures)
    page.locator("#ds-name").locator(TYPED).fill("squares")
    page.locator("#ds-send").click()
    page.get_by_text("3 pictures; 2 without a caption").wait_for()
    assert (served.root / "datasets" / "squares" / "0.txt").read_text() == "a red square"
    sub_tab(page, "New run")
    choose(page, "tr-data", "squares")


def test_the_keyboard_is_enough(page: Any, served: Served) -> None:
    """Tab, arrows, Enter: from the page's start to an embedding, and on to the queue."""

    def tab_to(elem_id: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("id => document.activeElement.closest('#' + id) !== null", elem_id):
                return
        raise AssertionError(f"{elem_id} is out of reach")

    tab_to("ce-name")
    page.keyboard.type("typed")
    page.keyboard.press("Enter")
    assert "Made the embedding typed" in text_of(page, "ce-message")
    while page.evaluate("document.activeElement.textContent.trim()") != "New run" or page.evaluate(
        "document.activeElement.closest('#train-tabs') === null"
    ):
        page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    tab_to("tr-data")
    page.keyboard.type("pictures")
    page.keyboard.press("Enter")
    tab_to("tr-start-embedding")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    page.keyboard.press("Enter")
    page.locator("#tr-message").get_by_text("typed is in the queue").wait_for(state="attached")
    assert outline == "solid"
    until(lambda: served.service.queue.jobs()[0].state is JobState.DONE)


def scrolls_sideways(page: Any) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth > window.innerWidth"))


def test_nothing_sticks_out_on_a_phone(phone: Any) -> None:
    wide = []
    for name in TABS:
        tab(phone, name)
        phone.wait_for_timeout(300)
        wide += [name] if scrolls_sideways(phone) else []
    tab(phone, "Train")
    for name in SUB_TABS:
        sub_tab(phone, name)
        phone.wait_for_timeout(300)
        wide += [name] if scrolls_sideways(phone) else []
    phone.locator("#tr-validation button").first.tap()
    phone.wait_for_timeout(300)
    assert not wide and not scrolls_sideways(phone)


NAMELESS = """() => [...document.querySelectorAll("input, textarea, button, select")]
  .filter(e => e.offsetParent !== null)
  .filter(e => !(e.getAttribute("aria-label") || e.labels?.length || e.textContent.trim() || e.title
    || e.getAttribute("aria-labelledby")))
  .map(e => e.outerHTML.slice(0, 120))"""


def test_every_input_has_a_name(page: Any) -> None:
    nameless = {}
    for name in SUB_TABS:
        sub_tab(page, name)
        page.wait_for_timeout(200)
        nameless[name] = page.evaluate(NAMELESS)
    assert not any(nameless.values()), nameless


# WCAG's contrast of every visible text with the first ground behind it that is not see-through
CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return canvas.getImageData(0, 0, 1, 1).data;
  };
  const light = (c) => [0.2126, 0.7152, 0.0722].reduce((sum, weight, i) => {
    const v = c[i] / 255;
    return sum + weight * (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  }, 0);
  const ground = (e) => {
    for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c[3] > 250) return c; }
    return rgb(getComputedStyle(document.body).backgroundColor);
  };
  const texts = document.evaluate("//*[text()[normalize-space()]]", document.body, null, 7, null);
  const faint = {};
  for (let i = 0; i < texts.snapshotLength; i++) {
    const e = texts.snapshotItem(i);
    if (!e.checkVisibility({ visibilityProperty: true }) || ["SCRIPT", "STYLE"].includes(e.tagName)) continue;
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(ground(e))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) faint[e.textContent.trim().slice(0, 40)] = contrast.toFixed(2);
  }
  return faint;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(chromium: Any, served: Served, scheme: str) -> None:
    with opened(chromium, served.url, color_scheme=scheme) as page:
        assert page.evaluate("document.body.classList.contains('dark')") is (scheme == "dark")
        for name in SUB_TABS:
            sub_tab(page, name)
            page.wait_for_timeout(200)
            assert page.evaluate(CONTRAST) == {}, name


@pytest.mark.slow
def test_the_whole_way_on_picto(chromium: Any, real_server: str) -> None:
    """Create, preprocess, train, watch and try, with models and workers of their own."""
    with opened(chromium, real_server) as page:
        page.set_default_timeout(240_000)
        page.locator("#ce-name").locator(TYPED).fill("moon")
        page.locator("#ce-create").click()
        assert "Made the embedding moon" in text_of(page, "ce-message")
        sub_tab(page, "Preprocess images")
        choose(page, "pp-source", "moons")
        page.locator("#pp-start").click()
        assert "is in the queue" in text_of(page, "pp-message")
        tab(page, "Runs")
        page.locator("#tab-runs").get_by_text("done").first.wait_for()

        tab(page, "Train")
        page.locator("#refresh-lists").click()
        sub_tab(page, "New run")
        choose(page, "tr-data", "moons-crops")
        page.locator("#tr-steps input").fill("10")
        page.locator("#tr-preview_every input").fill("5")
        page.locator("#tr-plan").click()
        page.locator(".plan h3").wait_for()
        expect(page.locator("#tr-planned")).to_contain_text("64 × 64")
        page.locator("#tr-start-embedding").click()
        page.locator("#tr-message").get_by_text("moon is in the queue").wait_for(state="attached")
        tab(page, "Runs")
        page.locator("#run-head").get_by_text("done").first.wait_for()
        page.locator("#previews .frames img").first.wait_for()

        tab(page, "Try it")
        page.locator("#try-prompt textarea").fill("moon")
        page.locator("#try-draw").click()
        page.locator("#try-pictures img").first.wait_for()
