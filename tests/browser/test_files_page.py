"""The Files and Settings tabs in Chromium."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.browser.conftest import PHONE, Served, choose, fits, opened, tab
from tests.served import write, write_pictures

MADE = {
    "data_hash": "a1",
    "settings": {
        "kind": "embedding",
        "name": "cat",
        "data": "moons",
        "model": "picto",
        "steps": 3,
        "learning_rate": "0.005:2, 1e-3",
        "batch_size": 2,
        "seed": 0,
    },
}


IN_VIEW = """(element) => {
  const box = element.getBoundingClientRect();
  return box.height > 0 && box.top >= 0 && box.bottom <= window.innerHeight;
}"""


def open_file(page: Any, name: str) -> None:
    tab(page, "Files")
    page.locator("[data-file]").get_by_text(name, exact=True).click()
    page.locator("#file-card h2").get_by_text(name, exact=True).wait_for()


def action(page: Any, name: str) -> None:
    page.locator("#file-tabs").get_by_role("tab", name=name, exact=True).click()


def train(root: Path) -> Path:
    """The folder of a run that made the embedding ``cat``, with a loss and previews."""
    folder = root / "textual_inversion" / "2026-11-30" / "cat"
    (folder / "images").mkdir(parents=True)
    record = {"settings": {**MADE["settings"], "data": str(root / "datasets" / "moons")}, "data_hash": "a1"}
    (folder / "run.json").write_text(json.dumps(record))
    rows = "".join(f"{step},0,0,{0.1 * step},0.005\n" for step in range(1, 5))
    (folder / "textual_inversion_loss.csv").write_text(f"step,epoch,epoch_step,loss,learn_rate\n{rows}")
    for step in (0, 2, 4):
        Image.new("RGB", (16, 16), (80 * step % 256, 0, 0)).save(folder / "images" / f"cat-{step}-0.png")
    return folder


def test_files_are_listed_with_their_step_and_can_be_searched(page: Any, served: Served) -> None:
    cat = served.service.adapter_file("embedding", "cat")
    write(served.service.workspace.adapter_path("hypernetwork", "poster"))
    tab(page, "Files")
    row = page.locator("tr", has_text="cat.pt")
    row.get_by_role("cell", name=str(cat.stat().st_size), exact=True).wait_for()
    page.locator("#file-search").locator("textarea, input").fill("hypernet POST")
    page.locator("tr", has_text="cat.pt").wait_for(state="detached")
    assert page.locator("[data-file]").all_inner_texts() == ["poster.pt"]


def test_a_file_is_looked_into_and_downloaded(page: Any) -> None:
    open_file(page, "cat.pt")
    expect(page.locator("#file-report")).to_contain_text("It is <odd>.")
    page.locator('[data-file][aria-pressed="true"]').wait_for()
    with page.expect_download() as download:
        page.locator("#file-card").get_by_text("Download").click()
    assert Path(download.value.path()).read_bytes() == b"adapter cat"


def test_a_card_is_made_and_shown(page: Any, served: Served) -> None:
    open_file(page, "cat.pt")
    action(page, "Convert")
    choose(page, "file-format", "Picture card (.png)")
    page.locator("#file-name").locator("textarea, input").fill("tom")
    page.locator("#file-do-convert").click()
    page.locator("#file-written img").wait_for()
    page.wait_for_function("document.querySelector('#file-written img').naturalWidth === 8")
    expect(page.locator("#file-written")).to_contain_text("The <step>.")
    assert (served.root / "converted" / "tom.png").exists()
    page.locator("[data-file]").get_by_text("tom.png").wait_for()
    page.locator("#file-do-convert").click()
    page.locator("#file-written .fault").get_by_text("already").wait_for()


def test_an_upload_that_is_no_adapter_is_refused_with_a_sentence(page: Any, served: Served) -> None:
    picture = next(write_pictures(served.root / "elsewhere").glob("*.png"))
    tab(page, "Files")
    page.locator("#file-add input[type=file], input[type=file]").first.set_input_files(str(picture))
    page.locator("#file-message").get_by_text("holds nothing that can be added").wait_for()


def test_a_path_outside_of_the_workspace_is_refused(page: Any) -> None:
    tab(page, "Files")
    page.locator("#file-path").locator("textarea, input").fill("../../etc/passwd")
    page.locator("#file-inspect").click()
    page.locator("#file-card .fault").wait_for()


def test_settings_say_what_the_server_was_told_and_what_the_machine_can_do(page: Any, served: Served) -> None:
    pictures = write_pictures(served.service.state_dir / "pictures" / "2026-11-21", count=2)
    tab(page, "Settings")
    page.locator("#settings-about").get_by_text(str(served.root), exact=True).wait_for()
    expect(page.locator("#settings-server")).to_contain_text("127.0.0.1")
    page.locator("#settings-examine").click()
    page.locator("#doctor .fault").get_by_text("torch is missing.").wait_for()
    page.locator("#settings-clear").click()
    page.locator("#settings-keep").click()
    page.locator("#settings-really").wait_for(state="hidden")
    assert list(pictures.glob("*.png"))
    page.locator("#settings-clear").click()
    page.locator("#settings-really").click()
    page.locator("#settings-storage-message").get_by_text("deleted").wait_for()
    assert not list(pictures.glob("*.png"))


def test_they_fit_a_phone(chromium: Any, served: Served) -> None:
    with opened(chromium, served.url, PHONE, has_touch=True, is_mobile=True) as phone:
        for name, part in (("Files", "#file-table table"), ("Settings", "#settings-about table")):
            tab(phone, name)
            phone.locator(part).wait_for()
            fits(phone, PHONE[0])


def test_adapters_are_merged(page: Any, served: Served) -> None:
    tab(page, "Files")
    action(page, "Merge")
    page.locator("#merge-sources textarea").fill("cat:0.5\ncat:2")
    choose(page, "merge-method", "sum")
    page.locator("#merge-out").locator("textarea, input").fill("both")
    page.locator("#merge-do").click()
    page.locator("#merge-written").get_by_text("The <state>.").wait_for()
    expect(page.locator("#merge-written")).to_contain_text("weight 2, step 1")
    assert served.service.adapter_file("embedding", "both").is_file()
    page.locator("[data-file]").get_by_text("both.pt").wait_for()
    page.locator("#merge-sources textarea").fill("dog:0.5")
    page.locator("#merge-do").click()
    page.locator("#merge-written .fault").get_by_text("There is no adapter").wait_for()
    page.set_viewport_size({"width": 390, "height": 1400})
    fits(page, 390)


@pytest.fixture
def trained(served: Served) -> Iterator[Path]:
    """The folder of the run that made ``cat``, whose file says so for as long."""
    folder, process = train(served.root), cast(Any, served.service.model_work.file_process)
    process.made = {"step": 3, "model_name": "picto", "provenance": MADE}
    yield folder
    process.made = {}
    shutil.rmtree(folder)


@pytest.mark.parametrize("size", [(1400, 900), PHONE], ids=["screen", "phone"])
def test_a_file_that_is_chosen_is_in_view_with_all_that_can_be_done(
    size: tuple[int, int], trained: Path, chromium: Any, served: Served
) -> None:
    for number in range(40):
        write(served.service.workspace.adapter_path("hypernetwork", f"one-{number:02}"))
    with opened(chromium, served.url, size) as page:
        tab(page, "Files")
        page.locator("[data-file]").get_by_text("cat.pt", exact=True).click()
        card = page.locator("#file-card")
        card.get_by_text("moons").wait_for()
        shown = [" ".join(row.split()) for row in card.locator(".facts tr").all_inner_texts()]
        assert shown[:6] == [
            "Model picto",
            "Data moons",
            "Steps 3",
            "Rate 0.005:2, 1e-3",
            "Batch 2",
            "Loss 0.2000, mean of its last 3 steps",
        ]
        picture = card.locator(".file-previews img")
        assert picture.get_attribute("alt") == "Preview at step 2"
        page.wait_for_function("document.querySelector('.file-previews img').naturalWidth === 16")
        buttons = [card.get_by_role("button", name="Run again"), card.get_by_text("Download")]
        tabs = [page.locator("#file-tabs").get_by_role("tab", name=name) for name in ("Inspect", "Convert", "Merge")]
        for part in (card.locator("h2"), *buttons, *tabs):
            page.wait_for_function(IN_VIEW, arg=part.element_handle())
        tabs[2].click()
        expect(page.locator("#merge-sources textarea")).to_have_value("cat")
        page.wait_for_function(IN_VIEW, arg=page.locator("#merge-do").element_handle())
    for number in range(40):
        served.service.adapter_file("hypernetwork", f"one-{number:02}").unlink()


def test_what_was_typed_for_a_merge_stays_when_another_file_is_chosen(page: Any, served: Served) -> None:
    write(served.service.workspace.adapter_path("embedding", "mouse"))
    open_file(page, "cat.pt")
    action(page, "Merge")
    sources = page.locator("#merge-sources textarea")
    expect(sources).to_have_value("cat")
    open_file(page, "mouse.pt")
    page.wait_for_function("document.querySelector('#merge-sources textarea')?.value === 'mouse'")
    choose(page, "merge-more", "cat")
    page.wait_for_function("document.querySelector('#merge-sources textarea')?.value === 'mouse\\ncat'")
    sources.fill("mouse:0.3\ncat:0.7")
    open_file(page, "cat.pt")
    expect(sources).to_have_value("mouse:0.3\ncat:0.7")


def test_a_press_says_at_once_what_goes_on(page: Any, served: Served) -> None:
    open_file(page, "cat.pt")
    action(page, "Merge")
    page.route("**/queue/join*", lambda route: None)  # no answer comes
    page.locator("#merge-do").click()
    page.locator("#merge-written").get_by_text("Merging …").wait_for()
    page.locator("[data-file][aria-pressed=false]").first.click()
    page.locator("[data-file][aria-pressed=true]").wait_for()
    page.unroute_all()


def test_a_file_leads_to_a_training_with_its_settings(trained: Path, page: Any, served: Served) -> None:
    open_file(page, "cat.pt")
    page.locator("#file-card").get_by_role("button", name="Run again").click()
    page.locator("#tr-message").get_by_text("These are the settings of cat.pt.").wait_for()
    expect(page.locator("#tr-message")).to_contain_text("cat has these 3 steps")
    # what follows once all pictures were read
    page.locator("#tr-message").get_by_text("The pictures, their captions or masks have changed.").wait_for()
    shown = {each: page.locator(f"#{each} input").first.input_value() for each in ("tr-data", "tr-steps")}
    assert shown == {"tr-data": "moons (30 pictures)", "tr-steps": "3"}
    expect(page.locator("#tr-embedding-rate").locator("input, textarea")).to_have_value("0.005:2, 1e-3")
    shutil.rmtree(trained / "images")
    (trained / "run.json").unlink()
    cast(Any, served.service.model_work.file_process).made = {
        "provenance": {"settings": {**MADE["settings"], "name": "dog", "data": "suns", "batch_size": 4}}
    }
    open_file(page, "cat.pt")
    page.locator("#file-card").get_by_role("button", name="Run again").click()
    page.locator("#tr-message").get_by_text("these name: “Dataset directory”").wait_for()
    expect(page.locator("#tr-message")).to_contain_text("There is no embedding 'dog' any more")


def test_a_file_that_was_not_trained_leads_to_its_first_training(page: Any, served: Served) -> None:
    write(served.service.workspace.adapter_path("embedding", "fresh"))
    open_file(page, "fresh.pt")
    page.locator("#file-card").get_by_role("button", name="Train it").click()
    page.locator("#tr-message").get_by_text("fresh is chosen.").wait_for()
    expect(page.locator("#tr-embedding input").first).to_have_value("fresh")
