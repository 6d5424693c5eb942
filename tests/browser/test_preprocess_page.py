"""Preprocess images in Chromium: what an option needs is said before it is ticked, and no training stands before it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.conftest import Served, choose, sub_tab
from tests.browser.test_typing_fast import TYPED
from tests.served import training, until
from tincture.server.library import describers
from tincture.server.queue.jobs import JobState


def test_what_an_option_needs_is_said_beforehand(page: Any, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(describers, "is_installed", lambda module: False)
    sub_tab(page, "Preprocess images")
    page.locator("#pp-needs-focal_crop").get_by_text("pip install 'tincture[preprocess]'").wait_for()
    page.locator("#pp-needs-captioner").get_by_text("there is no BLIP model: put one").wait_for()
    page.locator("#pp-needs-tagger").get_by_text("there is no tagger: put DeepDanbooru's").wait_for()
    page.get_by_label("Use BLIP for caption").check()
    named = page.locator("#pp-captioner").locator(TYPED)
    named.fill("models/no-blip")
    page.locator("#pp-needs-captioner").get_by_text("no-blip").wait_for()
    monkeypatch.setattr(describers, "fault_of", lambda what, model: "")
    (served.root / "models" / "own-blip").mkdir(parents=True)
    named.fill("models/own-blip")
    page.locator("#pp-needs-captioner .warning").wait_for(state="detached")
    monkeypatch.setattr(describers, "is_installed", lambda module: True)
    sub_tab(page, "New run")
    sub_tab(page, "Preprocess images")
    page.locator("#pp-needs-focal_crop .warning").wait_for(state="detached")


def test_it_goes_on_beside_a_training_and_is_stopped_alone(page: Any, served: Served) -> None:
    queue = served.service.queue
    long = queue.submit("train", {**training()["settings"], "steps": 100_000}, source="page")
    until(lambda: queue.job(long.id).global_step > 2)
    behind = queue.submit("train", {**training()["settings"], "steps": 5}, source="page")
    sub_tab(page, "Preprocess images")
    choose(page, "pp-source", "moons")
    page.wait_for_function("document.querySelector('#pp-destination textarea, #pp-destination input')?.value")
    page.locator("#pp-start").click()
    page.locator("#pp-message").get_by_text("It begins now").wait_for(state="attached")
    made = queue.jobs([JobState.RUNNING, JobState.QUEUED, JobState.DONE], search="moons-crops", limit=1)[0]
    until(lambda: queue.job(made.id).state is JobState.DONE)
    assert queue.job(long.id).state is JobState.RUNNING and queue.job(behind.id).state is JobState.QUEUED
    page.goto(served.url)
    sub_tab(page, "Preprocess images")
    page.locator("#pp-interrupt").click()
    page.locator("#pp-message").get_by_text("Nothing is running.").wait_for()
    assert queue.job(long.id).wanted is None
    page.locator("#tabs").get_by_role("tab", name="Runs", exact=True).click()
    page.locator(f'[data-job="{behind.id}"]').click()
    page.locator("#run-head").get_by_text("cat").first.wait_for()
    for job in (behind, long):
        queue.cancel(job.id)
    until(lambda: queue.job(long.id).state is JobState.CANCELLED)
