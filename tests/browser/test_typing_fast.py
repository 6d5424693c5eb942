"""What is done while an answer is under way is neither lost nor taken back, on any tab: here answers come late."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import gradio as gr
import pytest

from tests.browser.conftest import Served, choose, sub_tab, tab
from tests.browser.test_runs_page import order, running, submit  # noqa: F401 - a fixture
from tests.browser.test_try_page import asked, prompt_of, put_in, trying, wait_for_prompt  # noqa: F401 - a fixture
from tests.served import until, write
from tincture.server.queue.jobs import Job, JobState

TYPED = "textarea, input"
LATE_S = 0.4


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every answer of the page's own requests comes late."""
    process = gr.Blocks.process_api

    async def wait_and_process(self: gr.Blocks, *given: Any, **named: Any) -> Any:
        await asyncio.sleep(LATE_S)
        return await process(self, *given, **named)

    monkeypatch.setattr(gr.Blocks, "process_api", wait_and_process)
    yield


def value_of(page: Any, elem_id: str) -> str:
    return str(page.locator(f"#{elem_id}").locator(TYPED).first.input_value())


def settled(page: Any) -> None:
    """Long enough for what is under way, and for what it may bring about."""
    page.wait_for_timeout(6 * LATE_S * 1000)


def test_try_it_strengths_buttons_and_text(trying: Any, served: Served, late: None) -> None:  # noqa: F811
    prompt_of(trying).fill("a photo of")
    put_in(trying, "teal fox")
    put_in(trying, "outline")
    strengths = trying.locator(".strength:visible input[type=number]")
    strengths.nth(1).wait_for()
    strengths.nth(1).fill("0.6")
    strengths.nth(0).fill("0.8")
    prompt_of(trying).press("Control+End")
    prompt_of(trying).press_sequentially(", at night", delay=30)
    wait_for_prompt(trying, "a photo of (teal fox:0.8) <hypernet:outline:0.6>, at night")
    settled(trying)
    assert [box.input_value() for box in strengths.all()] == ["0.8", "0.6"]
    bar = trying.locator(".strength:visible input[type=range]").nth(1)
    for _ in range(5):
        bar.press("ArrowRight")
    put_in(trying, "teal fox")
    trying.locator("#try-negative-prompt").locator(TYPED).fill("blurry")
    trying.locator("#try-draw").click()  # with all that was done before, though no answer is there yet
    until(lambda: any(name == "draw" for name, _ in served.service.model_work.drawing_process.asked))  # type: ignore
    assert asked(served)["prompts"] == ["a photo of <hypernet:outline:0.85>, at night"]
    settled(trying)
    assert prompt_of(trying).input_value() == "a photo of <hypernet:outline:0.85>, at night"


def test_names_of_adapters_that_are_created_one_after_the_other(page: Any, served: Served, late: None) -> None:
    name = page.locator("#ce-name").locator(TYPED)
    for text in ("first", "second"):
        name.fill(text)
        page.locator("#ce-create").click()
    name.fill("third")
    until(lambda: {"first", "second"} <= {adapter["name"] for adapter in served.service.adapters()})
    settled(page)
    assert name.input_value() == "third"
    sub_tab(page, "New run")
    assert value_of(page, "tr-embedding") == "second"


def press_and_go_on(page: Any, presses: int = 1) -> None:
    """Begins a training, and is back among the steps before any answer comes: else the page goes on to the run."""
    page.evaluate(
        """(presses) => {
            for (let press = 0; press < presses; press++) document.querySelector("#tr-start-embedding").click();
            document.querySelector("#tr-steps input").focus();
        }""",
        presses,
    )


def test_trainings_begun_one_after_the_other(page: Any, served: Served, late: None) -> None:
    count = len(served.service.jobs(limit=1000))
    sub_tab(page, "New run")
    choose(page, "tr-embedding", "cat")
    page.locator("#tr-data input").fill("pictures")
    page.locator("#tr-steps input").fill("5")
    press_and_go_on(page, presses=2)  # counts once
    page.locator("#tr-steps input").fill("7")
    page.locator("#tr-embedding-rate").locator(TYPED).fill("0.001:3, 0.002")
    press_and_go_on(page)
    page.locator("#tr-steps input").fill("9")
    page.locator('#tr-embedding-schedule [aria-label="0.001 until step 3; then 0.002 until step 9"]').wait_for()
    until(lambda: len(served.service.jobs(limit=1000)) >= count + 2)
    settled(page)
    jobs = served.service.jobs(limit=1000)
    assert len(jobs) == count + 2
    begun = {(job.settings["steps"], job.settings["learning_rate"]) for job in jobs}
    assert {(5, "0.005:200, 0.002"), (7, "0.001:3, 0.002")} <= begun
    assert (value_of(page, "tr-steps"), value_of(page, "tr-data")) == ("9", "pictures")


def test_a_path_is_typed_while_the_lists_are_read(page: Any, late: None) -> None:
    sub_tab(page, "New run")
    page.locator("#tr-data input").press_sequentially("datasets/not-yet", delay=60)
    settled(page)
    page.locator("#tr-data input").press_sequentially("-there", delay=20)
    page.keyboard.press("Tab")
    settled(page)
    assert value_of(page, "tr-data") == "datasets/not-yet-there"


def test_a_place_for_crops_is_typed_while_one_is_proposed(page: Any, late: None) -> None:
    sub_tab(page, "Preprocess images")
    choose(page, "pp-source", "moons")
    page.locator("#pp-destination").locator(TYPED).press_sequentially("mine", delay=30)
    page.locator("#pp-width input").fill("96")
    page.get_by_label("Auto-sized crop").check()
    settled(page)
    assert (value_of(page, "pp-destination"), value_of(page, "pp-width")) == ("mine", "96")
    assert page.get_by_label("Auto-sized crop").is_checked()


def test_runs_are_chosen_and_moved_fast(served: Served, running: Job, page: Any, late: None) -> None:  # noqa: F811
    waiting = [submit(served).id for _ in range(4)]
    tab(page, "Runs")
    page.locator("#charts path.strong").first.wait_for()
    page.locator(f'[data-job="{waiting[0]}"]').click()
    page.locator(f'[data-job="{waiting[3]}"]').click()
    smoothing = page.locator("#smoothing input[type=number]")
    page.locator(f'[data-job="{waiting[3]}"][aria-pressed="true"]').wait_for()
    for _ in range(2):
        page.locator("#run").get_by_role("button", name="Move up", exact=True).click()
    until(lambda: order(served) == [waiting[0], waiting[3], waiting[1], waiting[2]])
    page.locator(f'[data-job="{running.id}"]').click()
    page.locator("#charts path.strong").first.wait_for()
    smoothing.press("Control+a")
    smoothing.press_sequentially("64", delay=30)
    page.get_by_label("Active").check()
    settled(page)
    assert smoothing.input_value() == "64" and page.get_by_label("Active").is_checked()
    page.locator("#run").get_by_role("button", name="Cancel", exact=True).click()
    page.locator(f'[data-job="{waiting[1]}"]').click()  # not this one
    until(lambda: served.service.queue.job(running.id).state is JobState.CANCELLED)
    assert served.service.queue.job(waiting[1]).state is not JobState.CANCELLED


def test_files_are_looked_at_one_after_the_other(page: Any, served: Served, late: None) -> None:
    for name in ("alpha", "beta"):
        write(served.service.workspace.adapter_path("embedding", name))
    tab(page, "Files")
    for name in ("alpha", "beta"):
        page.locator("#file-table button").get_by_text(f"{name}.pt", exact=True).click()
    page.locator("#file-search").locator(TYPED).press_sequentially("beta", delay=30)
    settled(page)
    assert value_of(page, "file-search") == "beta"
    assert page.locator("#file-card h2").inner_text() == "beta.pt"
    assert page.locator("#file-table tbody tr").count() == 1
    page.locator("#file-tabs").get_by_role("tab", name="Convert").click()
    page.locator("#file-refresh").click()
    page.locator("#file-name").locator(TYPED).fill("gamma")
    settled(page)
    assert value_of(page, "file-name") == "gamma"


def test_a_model_is_chosen_while_the_settings_are_read(
    page: Any, served: Served, monkeypatch: pytest.MonkeyPatch, late: None
) -> None:
    other = {"title": "other", "name": "other", "path": "other"}
    known = served.service.models()
    chosen: list[str] = []
    monkeypatch.setattr(served.service, "models", lambda: [*known, other])
    monkeypatch.setattr(served.service, "choose_model", chosen.append)
    tab(page, "Settings")
    settled(page)  # the list has the other one
    tab(page, "Files")
    tab(page, "Settings")
    choose(page, "settings-model", "other")
    choose(page, "settings-model", "picto")
    choose(page, "settings-model", "other")
    settled(page)
    assert value_of(page, "settings-model") == "other"
    assert chosen == ["other", "picto", "other"]
