"""The form of a new run in Chromium: what matters first, the rest by groups, the plan beside it."""

from __future__ import annotations

import threading
import tomllib
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Served, choose, sub_tab, tab
from tests.served import training, write
from tincture.settings.train import TrainSettings

TYPED = "input, textarea"
FIRST = ("data", "template", "steps", "batch_size", "gradient_accumulation_steps", "preview_every", "preview_prompts")


def fill(page: Any) -> None:
    sub_tab(page, "New run")
    choose(page, "tr-embedding", "cat")
    choose(page, "tr-data", "moons")


def holds(page: Any, elem_id: str, value: str) -> None:
    """Waits until an input is there and holds a text."""
    script = "([id, value]) => document.querySelector(`#${id} :is(input, textarea)`)?.value === value"
    page.wait_for_function(script, arg=[elem_id, value])


def says(page: Any, elem_id: str, text: str) -> None:
    page.locator(f"#{elem_id}").get_by_text(text).wait_for(state="attached")


def test_only_what_concerns_the_kind_is_seen(page: Any) -> None:
    sub_tab(page, "New run")
    for name in ("embedding", "embedding-rate", "start-embedding", *FIRST):
        expect(page.locator(f"#tr-{name}")).to_be_visible()
    expect(page.locator("#tr-hypernetwork-rate")).to_be_hidden()
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
    page.set_viewport_size({"width": 1400, "height": 900})
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
    page.locator("#tr-begin-message").get_by_text("Careful: its settings stand in the form.").wait_for()
    holds(page, "tr-steps", "400")
    page.locator("#tr-averages-and-guards").get_by_text("Averages and guards · 1 changed").wait_for()
    choose(page, "tr-preset", "Quick try")
    holds(page, "tr-steps", "100")
    page.locator("#tr-averages-and-guards").get_by_text("Averages and guards · 1 changed").wait_for(state="detached")
    expect(page.locator("#tr-seed input")).to_have_value("7")
    expect(page.locator("#tr-embedding input")).to_have_value("cat")


def test_what_is_as_in_the_preset_follows_the_kind(page: Any) -> None:
    sub_tab(page, "New run")
    choose(page, "tr-preset", "Style")
    holds(page, "tr-template", "style_filewords")
    page.locator("#tr-steps input").fill("77")
    page.locator("#tr-kind").get_by_text("Hypernetwork").click()
    page.locator("#tr-pictures-and-captions button").first.click()
    holds(page, "tr-caption_drop_out", "0.15")
    holds(page, "tr-template", "")  # the kind's own
    expect(page.locator("#tr-steps input")).to_have_value("77")  # it was typed


def test_a_rate_that_nobody_typed_is_the_usual_one_of_the_optimizer(page: Any) -> None:
    sub_tab(page, "New run")
    usual = page.locator("#tr-embedding-rate textarea").input_value()
    page.locator("#tr-optimization button").first.click()
    choose(page, "tr-optimizer", "Prodigy")
    holds(page, "tr-embedding-rate", "1")
    choose(page, "tr-optimizer", "AdamW")
    holds(page, "tr-embedding-rate", usual)
    page.locator("#tr-embedding-rate textarea").fill("0.0123")
    choose(page, "tr-optimizer", "Prodigy")
    page.wait_for_function("!window.answersFor()")
    holds(page, "tr-embedding-rate", "0.0123")


def test_what_is_trained_together_has_its_fields_too(page: Any, served: Served) -> None:
    write(served.service.workspace.adapter_path("hypernetwork", "ink"))
    sub_tab(page, "New run")
    page.locator("#tr-kind").get_by_text("Hypernetwork").click()
    page.locator("#tr-loss-and-noise button").first.click()
    page.locator("#tr-norm_limit").wait_for(state="detached")
    page.locator("#tr-what-is-trained button").first.click()
    page.locator("#tr-companions textarea").fill("embedding:cat:0.01")
    page.locator("#tr-norm_limit").wait_for()
    page.locator("#tr-hypernetwork-rate").wait_for()
    expect(page.locator("#tr-embedding-rate")).to_be_hidden()  # a companion's rate stands behind its name
    page.locator("#tr-companions textarea").fill("")
    page.locator("#tr-norm_limit").wait_for(state="detached")


def test_a_form_is_saved_taken_again_and_deleted(page: Any, served: Served) -> None:
    sub_tab(page, "New run")
    page.locator("#tr-presets button").first.click()
    page.locator("#tr-steps input").fill("77")
    page.locator("#tr-preset-name").locator(TYPED).fill("quick")
    page.locator("#tr-preset-save").click()
    says(page, "tr-begin-message", "The preset 'quick' is built in")
    page.locator("#tr-preset-name").locator(TYPED).fill("mine")
    page.locator("#tr-preset-save").click()
    says(page, "tr-begin-message", "Saved as mine")
    path = served.root / "training_presets" / "mine.toml"
    assert tomllib.loads(path.read_text())["steps"] == 77
    choose(page, "tr-preset", "Quick try")
    holds(page, "tr-steps", "100")
    page.locator("#tr-kind").get_by_text("Hypernetwork").click()
    choose(page, "tr-preset", "mine")
    holds(page, "tr-steps", "77")
    page.locator("#tr-embedding-rate").wait_for()  # it is for an embedding
    page.locator("#tr-preset-delete").click()
    page.locator("#tr-preset-really").click()
    says(page, "tr-begin-message", "The preset mine is deleted.")
    assert not path.exists()


def bring(page: Any, path: Path, text: str) -> None:
    path.write_text(text)
    page.locator("#tr-import").locator("xpath=..").locator("input[type=file]").set_input_files(path)


def test_a_run_file_leaves_and_comes_back(page: Any, tmp_path: Path) -> None:
    fill(page)
    page.locator("#tr-presets button").first.click()
    page.locator("#tr-steps input").fill("77")
    with page.expect_download() as download:
        page.locator("#tr-export").click()
    assert download.value.suggested_filename == "cat.toml"
    says(page, "tr-begin-message", "tincture train cat.toml takes it")
    settings = TrainSettings.from_toml(download.value.path())
    assert (settings.name, settings.steps, Path(settings.folders[0]).name) == ("cat", 77, "moons")
    bring(page, tmp_path / "bad.toml", "steps = 0\n")
    says(page, "tr-begin-message", "A setting in bad.toml is not allowed: “Max steps” is 0")
    bring(page, tmp_path / "odd.toml", "steps = 5\nbatch_size\n")
    says(page, "tr-begin-message", "(at line 2, column 11)")
    expect(page.locator("#tr-steps input")).to_have_value("77")
    bring(page, tmp_path / "good.toml", 'kind = "hypernetwork"\nname = "gone"\nsteps = 66\n')
    says(page, "tr-begin-message", "There is no hypernetwork 'gone' any more; create it first.")
    holds(page, "tr-steps", "66")
    page.locator("#tr-start-hypernetwork").wait_for()
    holds(page, "tr-data", "moons (30 pictures)")


def test_the_form_is_filled_as_in_a_run(page: Any, served: Served) -> None:
    job = served.service.queue.submit("train", training(steps=55, ema="0.9")["settings"])
    sub_tab(page, "New run")
    page.locator("#tr-as-in-run input").click()
    page.get_by_role("option").filter(has_text=job.id).click()
    says(page, "tr-begin-message", f"These are the settings of cat, job {job.id}.")
    holds(page, "tr-steps", "55")
    holds(page, "tr-embedding", "cat")
    page.locator("#tr-averages-and-guards").get_by_text("Averages and guards · 1 changed").wait_for()


def test_an_older_plan_never_stands_over_a_newer(page: Any, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    process: Any = served.service.model_work.file_process
    begun, released = threading.Event(), threading.Event()

    def late(key: str, name: str, /, **arguments: Any) -> Any:
        plan = process.call(name, **arguments)
        if arguments["settings"]["steps"] == 12:
            begun.set()
            assert released.wait(60)
        return plan

    fill(page)
    page.locator(".plan h3").wait_for()
    page.evaluate("""() => {
        window.titles = [];
        const note = () => window.titles.push(document.querySelector(".plan h3")?.innerText ?? "");
        new MutationObserver(note).observe(document.querySelector("#tr-planned"),
          { childList: true, characterData: true, subtree: true });
    }""")
    monkeypatch.setattr(process, "call_while_latest", late)
    page.locator("#tr-steps input").fill("12")
    assert begun.wait(60)
    page.locator("#tr-steps input").fill("13")
    released.set()
    page.locator(".plan h3").get_by_text("13 steps to go").wait_for()
    page.locator("#tr-steps input").press("5")  # what is typed while plans come stays
    page.locator(".plan h3").get_by_text("135 steps to go").wait_for()
    counts = [title.split(": ")[-1].split()[0] for title in page.evaluate("window.titles") if ": " in title]
    counts = [count for count in counts if count in ("12", "13", "135")]  # that of 12 need not be shown at all
    assert counts == sorted(counts, key=int) and counts[-1] == "135"
    assert page.locator("#tr-steps input").input_value() == "135"


def test_errors_name_labels_on_other_tabs_too(page: Any) -> None:
    sub_tab(page, "Preprocess images")
    page.locator("#pp-source input").fill("datasets/moons")
    page.locator("#pp-destination").locator(TYPED).fill("datasets/crops")
    page.locator("#pp-width input").fill("0")
    page.locator("#pp-start").click()
    says(page, "pp-message", "“Width” is 0")
    tab(page, "Try it")
    page.locator("#try-prompt textarea").fill("a moon")
    page.locator("#try-width input").fill("63")
    page.locator("#try-draw").click()
    says(page, "try-progress", "“Width” is 63")
    tab(page, "Files")
    page.locator("#file-tabs").get_by_role("tab", name="Merge", exact=True).click()
    page.locator("#merge-out").locator(TYPED).fill("both")
    page.locator("#merge-do").click()
    says(page, "merge-written", "“Adapters and weights” has no file")
