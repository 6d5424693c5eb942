"""A way on after every step, in Chromium: from what was made to what comes next, by mouse, finger and keyboard."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import PHONE, Served, choose, choose_files, fits, opened, sub_tab, tab
from tests.served import training, until
from tincture.server.queue.jobs import Job, JobState

TYPED = "textarea, input"


def finished(served: Served, **settings: Any) -> Job:
    """A training of ``cat`` that is done."""
    queue = served.service.queue
    job = queue.submit("train", {**training()["settings"], **settings}, source="page")
    until(lambda: queue.job(job.id).state is JobState.DONE)
    return queue.job(job.id)


def open_run(page: Any, job: Job) -> None:
    tab(page, "Runs")
    page.locator(f'[data-job="{job.id}"]').click()
    page.locator(f'#run-ways [data-way="try"][data-carried="{job.id}"]').wait_for()


def value_becomes(page: Any, elem_id: str, value: str) -> None:
    script = "([id, value]) => document.querySelector(`#${id} textarea, #${id} input`)?.value === value"
    page.wait_for_function(script, arg=[elem_id, value])


def test_what_was_created_is_trained_by_a_button(page: Any) -> None:
    page.locator("#ce-name").locator(TYPED).fill("fox")
    page.locator("#ce-create").click()
    page.locator("#ce-message").get_by_role("button", name="Train it").press("Enter")
    page.locator("#tr-start-embedding").wait_for()
    value_becomes(page, "tr-embedding", "fox")


def test_what_was_uploaded_is_used_by_a_button(page: Any, served: Served) -> None:
    sub_tab(page, "Data sets")
    page.get_by_text("Upload pictures").click()
    choose_files(page, "ds-files", sorted((served.root / "pictures").iterdir()))
    page.locator("#ds-name").locator(TYPED).fill("own")
    page.locator("#ds-send").click()
    page.get_by_role("button", name="Use this data set").click()
    page.locator("#tr-message").get_by_text("The data set is datasets/own.").wait_for()
    value_becomes(page, "tr-data", "own (3 pictures)")


def test_what_is_submitted_opens_and_crops_are_used_when_they_are_there(page: Any) -> None:
    sub_tab(page, "Preprocess images")
    choose(page, "pp-source", "moons")
    value_becomes(page, "pp-destination", "datasets/moons-crops")
    page.locator("#pp-start").click()
    page.locator("#run-head h2").get_by_text("moons-crops").wait_for()
    page.locator("#run-ways").get_by_role("button", name="Open data set").click()
    page.get_by_text("1 pictures; 1 without a caption").wait_for()
    tab(page, "Runs")
    page.locator("#run-ways").get_by_role("button", name="Use this data set").press("Enter")
    value_becomes(page, "tr-data", "moons-crops (1 picture)")


def test_who_goes_on_to_type_stays(page: Any, served: Served) -> None:
    sub_tab(page, "New run")
    choose(page, "tr-embedding", "cat")
    page.locator("#tr-data input").fill("pictures")
    page.locator("#tr-steps input").fill("4")
    page.evaluate(
        """() => document.querySelector("#tr-start-embedding").addEventListener("click",
            () => setTimeout(() => document.querySelector("#tr-steps input").focus()))"""
    )
    page.locator("#tr-start-embedding").click()
    page.locator("#tr-message").get_by_text("cat is in the queue").wait_for()
    job = served.service.queue.jobs(limit=1)[0]
    page.locator("#tr-message").get_by_role("button", name="Open the run").click()
    page.locator(f'[data-job="{job.id}"][aria-pressed="true"]').wait_for()
    until(lambda: served.service.queue.job(job.id).state is JobState.DONE)


@pytest.mark.parametrize("by", ["mouse", "finger", "keyboard"])
def test_what_a_run_made_is_tried_trained_further_and_fetched(chromium: Any, served: Served, by: str) -> None:
    prompts = ["a small cat on a mat", "two of cat"]
    job = finished(served, steps=6, preview_every=3, preview_prompts=prompts, preview_steps=11)
    options: dict[str, Any] = {"has_touch": True, "is_mobile": True} if by == "finger" else {}
    size = PHONE if by == "finger" else (1280, 900)
    with opened(chromium, served.url, size, permissions=["clipboard-read", "clipboard-write"], **options) as page:

        def press(name: str) -> None:
            button = page.locator("#run-ways").get_by_text(name, exact=True)
            {"mouse": button.click, "finger": button.tap, "keyboard": lambda: button.press("Enter")}[by]()

        open_run(page, job)
        press("Copy path")
        page.locator("#run-ways").get_by_text("Copied").wait_for()
        assert page.evaluate("navigator.clipboard.readText()") == job.run_dir
        with page.expect_download() as download:
            press("Download cat.pt")
        assert Path(download.value.path()).read_text() == "trained 6 steps"
        press("Try it")
        value_becomes(page, "try-prompt", prompts[0])
        value_becomes(page, "try-steps", "11")
        tab(page, "Runs")
        press("Train further")
        page.locator("#tr-message").get_by_text("It made 6 steps, and goes on from there to 12.").wait_for()
        value_becomes(page, "tr-steps", "12")
        fits(page, size[0])


def test_a_button_is_what_it_was_when_it_was_pressed(served: Served, page: Any) -> None:
    """An answer that came just before turns it into another one; Gradio keeps the element."""
    job = finished(served, steps=6)
    open_run(page, job)
    page.locator("#run-ways").get_by_role("button", name="Try it").wait_for()
    page.wait_for_function("!window.answersFor()")  # what comes may move it from under the mouse
    button = page.locator("#run-ways").get_by_role("button", name="Use settings")
    button.hover()
    page.mouse.down()
    button.evaluate("(button) => Object.assign(button.dataset, { way: 'try', tab: 'try-it', carried: 'another' })")
    page.mouse.up()
    page.locator("#tr-message").get_by_text(f"These are the settings of cat, job {job.id}").wait_for()
    page.wait_for_function("location.hash === '#train'")
    page.wait_for_function("document.querySelector('#run-ways button[data-carried=another]')?.dataset.way === 'try'")


def test_the_prompt_to_try_names_all_that_was_trained_together(served: Served, page: Any) -> None:
    folder = served.root / "models" / "hypernetworks"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ink.pt").write_bytes(b"adapter ink")
    job = finished(served, preview_every=3, preview_prompts=["at night"], companions=["hypernetwork:ink"])
    open_run(page, job)
    page.locator("#run-ways").get_by_role("button", name="Try it").click()
    value_becomes(page, "try-prompt", "at night cat <hypernet:ink:1.0>")


def test_the_untrained_file_is_never_offered(served: Served, page: Any) -> None:
    queue = served.service.queue
    job = queue.submit("train", {**training()["settings"], "steps": 100_000}, source="page")
    until(lambda: queue.job(job.id).global_step > 2)
    tab(page, "Runs")
    page.locator(f'[data-job="{job.id}"]').click()
    page.locator("#run-ways").get_by_role("button", name="Use settings").wait_for()
    expect(page.locator("#run-ways a")).to_have_count(0)  # embeddings/cat.pt is there, as it was before
    queue.cancel(job.id)
    page.locator("#run-ways").get_by_text(re.compile("^Download cat.pt")).wait_for()
