"""The Runs tab in Chromium: the queue, a run as it goes, and what can be done with it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import PHONE, Served, fits, opened, tab
from tests.served import training, until
from tincture.server.queue.jobs import Job, JobState


def submit(served: Served, name: str = "cat", **settings: Any) -> Job:
    settings = {**training()["settings"], "name": name, **settings}
    return served.service.queue.submit("train", settings, source="page")


def shown_step(page: Any, after: int = 0) -> int:
    """The first step later than ``after`` that the page shows; what it shows first may be from before step 1."""
    script = r"""after => {
        const found = /Step\s+([\d,]+) of/.exec(document.querySelector("#run-head .numbers").innerText)
        const step = found ? Number(found[1].replaceAll(",", "")) : 0
        return step > after ? step : null
    }"""
    return int(page.wait_for_function(script, arg=after).json_value())


def wait_for_state(page: Any, state: str) -> None:
    page.locator("#run-head .chip").get_by_text(state, exact=True).wait_for()


def press(page: Any, label: str) -> None:
    page.locator("#run").get_by_role("button", name=label, exact=True).click()


@pytest.fixture
def running(served: Served) -> Any:
    """A run that goes on until it is told to stop; nothing else is in the queue.

    Asked for before ``page``, which then opens on this run and not on the last one.
    """
    job = submit(served, steps=100_000, preview_every=5, preview_prompts=["a cat", "a <b>cat</b>"])
    until(lambda: served.service.queue.job(job.id).global_step > 12)
    yield job
    for each in served.service.queue.jobs([JobState.QUEUED, JobState.PAUSED, JobState.RUNNING], limit=1000):
        served.service.queue.cancel(each.id)
    until(lambda: not served.service.queue.jobs([JobState.RUNNING]))


def test_a_run_is_watched_as_it_goes(running: Job, page: Any) -> None:
    tab(page, "Runs")
    wait_for_state(page, "running")
    shown_step(page, after=shown_step(page))
    page.wait_for_function("document.querySelectorAll('.frames button').length > 2")
    expect(page.locator("#charts path").nth(1)).to_be_attached()
    shots = page.locator("#previews .shot figcaption")
    assert shots.all_inner_texts() == ["a cat", "a <b>cat</b>"]  # shown, not obeyed
    page.locator(".compare img").first.wait_for()
    page.wait_for_function("[...document.querySelectorAll('.compare img')].every(picture => picture.naturalWidth > 0)")
    expect(page.locator("#run-log")).to_contain_text("nothing is trained here")


def test_all_prompts_stand_in_one_grid_at_the_step_of_the_slider(served: Served, page: Any) -> None:
    prompts = ["a cat", "two cats", "a cat at night"]
    job = submit(served, steps=6, preview_every=2, preview_prompts=prompts)
    until(lambda: served.service.queue.job(job.id).state is JobState.DONE)
    tab(page, "Runs")
    page.locator(f'[data-job="{job.id}"]').click()
    shots = page.locator("#previews .shot")
    shots.nth(2).wait_for()
    assert shots.locator("figcaption").all_inner_texts() == prompts
    words = "#previews .compare a:not([hidden]) span"
    assert page.locator(words).all_inner_texts() == ["step 2", "step 6"] * 3
    page.locator(".reel input").press("ArrowLeft")
    assert page.locator(words).all_inner_texts() == ["step 2", "step 4"] * 3
    page.get_by_label("Beside the first").uncheck()
    assert page.locator(words).all_inner_texts() == ["step 4"] * 3


def test_runs_are_laid_over_one_another_and_side_by_side(chromium: Any, served: Served) -> None:
    same = {"steps": 4, "preview_every": 2, "preview_prompts": ["a cat", "two cats"]}
    jobs = [submit(served, **same, learning_rate=rate) for rate in ("0.01", "0.002")]
    until(lambda: all(served.service.queue.job(job.id).state is JobState.DONE for job in jobs))
    for size, options in (((1400, 900), {}), (PHONE, {"has_touch": True, "is_mobile": True})):
        with opened(chromium, served.url, size, **options) as page:
            tab(page, "Runs")
            page.locator(f'[data-job="{jobs[0].id}"]').click()
            page.locator(f'#run-ways [data-way="compare"][data-carried="{jobs[0].id}"]').press("Enter")
            page.get_by_text("One run is chosen to be compared").wait_for()
            page.locator(f'[data-compare="{jobs[0].id}"][aria-pressed="true"]').wait_for()
            page.locator(f'[data-compare="{jobs[1].id}"]').press("Enter")
            page.locator("#run-head").get_by_text("2 runs").wait_for()
            page.wait_for_function("id => document.activeElement.dataset.compare === id", arg=jobs[1].id)
            rows = page.locator(".differences tbody tr").all_inner_texts()
            assert [row.split() for row in rows] == [["Learning", "rate", "0.01", "0.002"]]
            for chart in ("Loss", "Learning rate"):
                paths = page.locator(".chart").filter(has=page.get_by_text(chart, exact=True)).locator("path.line")
                colours = paths.evaluate_all("paths => paths.map(path => getComputedStyle(path).stroke)")
                assert len(set(colours)) == 2
            words = page.locator("#previews figcaption").all_inner_texts()
            assert words == ["A: cat – a cat", "B: cat – a cat", "A: cat – two cats", "B: cat – two cats"]
            places = page.locator("#previews .shot").evaluate_all("all => all.map(e => e.getBoundingClientRect().top)")
            assert places[0] == places[1] < places[2] == places[3]
            fits(page, size[0])
            page.locator(f'[data-job="{jobs[1].id}"]').click()
            wait_for_state(page, "done")
            expect(page.locator(".differences")).to_have_count(0)


def test_the_list_has_pictures_and_is_searched(served: Served, page: Any) -> None:
    job = submit(served, steps=2, preview_every=2, preview_prompts=["a cat"], author="found by nobody")
    other = submit(served, steps=2, data="datasets/moons", varsize=True)
    until(lambda: served.service.queue.job(other.id).state is JobState.DONE)
    tab(page, "Runs")
    page.wait_for_function("id => document.querySelector(`[data-job='${id}'] .thumb`)?.naturalWidth > 0", arg=job.id)
    page.locator("#runs-search").locator("textarea, input").fill("CAT moons")
    page.locator(f'[data-job="{job.id}"]').wait_for(state="detached")
    page.locator(f'[data-job="{other.id}"]').wait_for()
    page.locator("#runs-search").locator("textarea, input").fill("no such run")
    page.get_by_text("No run has all these words.").wait_for()


def test_what_one_looks_at_stays_while_the_run_goes_on(running: Job, page: Any) -> None:
    tab(page, "Runs")
    page.locator(".frames button").nth(3).wait_for()
    first = page.locator(".frames button").first
    step = first.inner_text().strip()
    first.click()
    count = page.locator(".frames button").count()
    page.evaluate("document.querySelector('.frames button').marked = true")
    page.wait_for_function("count => document.querySelectorAll('.frames button').length > count", arg=count)
    assert page.evaluate("document.querySelector('.frames button').marked && document.activeElement.marked")
    expect(page.locator(".reel output")).to_have_text(f"step {step}")
    page.locator(".reel input").press("ArrowRight")
    assert page.locator(".reel output").inner_text() != f"step {step}"


def test_smoothing_draws_a_line_before_the_noise(running: Job, page: Any) -> None:
    tab(page, "Runs")
    page.locator("#charts path.strong").first.wait_for()
    page.locator("#smoothing input[type=number]").fill("0")
    page.locator("#charts").get_by_text("every step").wait_for()
    expect(page.locator("#charts path.faint")).to_have_count(0)
    page.locator("#smoothing input[type=number]").fill("100")
    page.locator("#charts").get_by_text(re.compile("mean over [0-9]+ steps")).wait_for()
    expect(page.locator("#charts path.faint")).to_have_count(1)
    page.locator("#charts .plot").first.hover()
    page.locator("#charts").get_by_text(re.compile(r"step \d+: ")).first.wait_for()


def test_pause_resume_cancel_retry_and_delete(served: Served, running: Job, page: Any) -> None:
    tab(page, "Runs")
    press(page, "Pause")
    wait_for_state(page, "paused")
    kept = served.service.queue.job(running.id).global_step
    press(page, "Resume")
    wait_for_state(page, "running")
    until(lambda: served.service.queue.job(running.id).global_step > kept)
    press(page, "Cancel")
    wait_for_state(page, "cancelled")
    press(page, "Retry")
    wait_for_state(page, "running")
    press(page, "Cancel")
    wait_for_state(page, "cancelled")
    press(page, "Delete")
    page.locator(f'[data-job="{running.id}"]').wait_for(state="detached")
    assert running.id not in [job.id for job in served.service.queue.jobs(limit=1000)]


def test_what_a_run_does_now_and_the_time_left_are_in_sight(served: Served, page: Any) -> None:
    job = submit(served, steps=100, author="draws")
    until(lambda: served.service.queue.job(job.id).stage.startswith("drawing"))
    tab(page, "Runs")
    page.locator(f'[data-job="{job.id}"]').click()
    page.locator("#run-head .now").get_by_text("drawing previews 1 of 4, step 3 of 20").wait_for()
    page.locator("#run-head").get_by_text("1 min 15 s").wait_for()
    card = page.locator(f'[data-job="{job.id}"]').inner_text()
    assert "drawing previews 1 of 4" in card and "1 min 15 s left" in card
    served.service.queue.cancel(job.id)
    wait_for_state(page, "cancelled")
    expect(page.locator("#run-head .now")).to_have_count(0)


def test_previews_are_drawn_when_they_are_wanted(served: Served, page: Any) -> None:
    job = submit(served, steps=100_000, preview_every=0)
    until(lambda: served.service.queue.job(job.id).global_step > 2)
    tab(page, "Runs")
    page.locator(f'[data-job="{job.id}"]').click()
    assert not served.service.queue.folder(job.id).previews()
    press(page, "Preview now")
    page.get_by_text("Previews are drawn after the present step").wait_for()
    page.locator("#previews .frames button").first.wait_for()
    expect(page.locator("#previews")).to_contain_text("a photo of cat")
    served.service.queue.cancel(job.id)
    wait_for_state(page, "cancelled")
    expect(page.locator("#run").get_by_role("button", name="Preview now")).to_be_hidden()


def test_the_order_of_what_waits_can_be_changed(served: Served, running: Job, page: Any) -> None:
    waiting = [submit(served).id for _ in range(3)]
    tab(page, "Runs")
    page.locator(f'[data-job="{waiting[2]}"]').click()
    wait_for_state(page, "waiting")
    press(page, "Move first")
    until(lambda: order(served) == [waiting[2], waiting[0], waiting[1]])
    listed = "id => document.querySelector('#jobs-others .job').dataset.job === id"
    page.wait_for_function(listed, arg=waiting[2])  # cards change places
    page.locator(f'[data-job="{waiting[1]}"]').press("Enter")
    page.locator(f'[data-job="{waiting[1]}"][aria-pressed="true"]').wait_for()
    press(page, "Move up")
    until(lambda: order(served) == [waiting[2], waiting[1], waiting[0]])


def order(served: Served) -> list[str]:
    return [job.id for job in served.service.queue.jobs([JobState.QUEUED], limit=1000)]


def test_a_run_that_failed_says_why(page: Any, served: Served) -> None:
    job = submit(served, author="fails")
    until(lambda: served.service.queue.job(job.id).state is JobState.FAILED)
    tab(page, "Runs")
    page.locator(f'[data-job="{job.id}"]').click()
    page.locator("#run-head").get_by_text("The data is odd.").wait_for()


def test_the_tab_that_is_open_stands_in_the_address(page: Any) -> None:
    tab(page, "Runs")
    page.wait_for_function("location.hash === '#runs'")
    again = page.context.new_page()
    again.goto(page.url)
    again.locator("#jobs-others").wait_for()


def test_the_settings_of_a_run_can_be_used_again(served: Served, page: Any) -> None:
    folders = ["datasets/moons:2", str(served.root / "datasets" / "moons")]
    job = submit(served, data=folders, steps=7, batch_size=3, learning_rate="0.01:5, 0.002", varsize=True)
    until(lambda: served.service.queue.job(job.id).state is JobState.DONE)
    tab(page, "Runs")
    page.locator(f'[data-job="{job.id}"]').click()
    page.locator("#run").get_by_role("button", name="Train further", exact=True).wait_for()
    press(page, "Use settings")
    page.locator("#tr-message").get_by_text(f"These are the settings of cat, job {job.id}").wait_for()
    page.locator("#tr-steps input").wait_for()  # its tab was opened
    page.locator("#tr-start-embedding").click()
    page.locator("#tr-message").get_by_text("cat is in the queue").wait_for(state="attached")
    again = served.service.queue.jobs(limit=1)[0]
    assert again.id != job.id
    assert again.settings == job.settings
    until(lambda: served.service.queue.job(again.id).state is JobState.DONE)


def test_200_jobs_are_listed_by_pages_and_only_changes_are_sent(chromium: Any, served: Served, running: Job) -> None:
    for _ in range(200):
        submit(served)
    with opened(chromium, served.url, PHONE, has_touch=True, is_mobile=True) as phone:
        tab(phone, "Runs")
        expect(phone.locator("#run-head h2")).to_have_text("cat")  # who comes later finds what runs
        phone.locator("#jobs-others .job").first.wait_for()
        assert phone.locator("#jobs-others .job").count() < 50
        phone.evaluate("document.querySelector('#jobs-others .job').marked = true")
        scrolled = "document.querySelector('#jobs-others .jobs').scrollTop"
        phone.evaluate(f"{scrolled} = 200")
        phone.wait_for_timeout(2500)
        assert phone.evaluate(scrolled) == 200
        assert phone.evaluate("document.querySelector('#jobs-others .job').marked")
        phone.get_by_role("button", name="Show more").click()
        phone.wait_for_function("document.querySelectorAll('#jobs-others .job').length > 50")
        fits(phone, PHONE[0])
