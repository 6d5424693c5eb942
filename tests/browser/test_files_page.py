"""The Files and Settings tabs in Chromium."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.browser.conftest import PHONE, Served, choose, opened, tab
from tests.served import write, write_pictures


def open_file(page: Any, name: str) -> None:
    tab(page, "Files")
    page.locator("[data-file]").get_by_text(name, exact=True).click()
    page.locator("#file-report h2").get_by_text(name, exact=True).wait_for()


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
    assert "It is <odd>." in page.locator("#file-report").inner_text()
    page.locator('[data-file][aria-pressed="true"]').wait_for()
    with page.expect_download() as download:
        page.locator("#file-report").get_by_text("Download").click()
    assert Path(download.value.path()).read_bytes() == b"adapter cat"


def test_a_card_is_made_and_shown(page: Any, served: Served) -> None:
    open_file(page, "cat.pt")
    page.locator("#file-convert").get_by_text("Convert").first.click()
    choose(page, "file-format", "Picture card (.png)")
    page.locator("#file-name").locator("textarea, input").fill("tom")
    page.locator("#file-do-convert").click()
    page.locator("#file-written img").wait_for()
    page.wait_for_function("document.querySelector('#file-written img').naturalWidth === 8")
    assert "The <step>." in page.locator("#file-written").inner_text()
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
    page.get_by_text("Another file").click()
    page.locator("#file-path").locator("textarea, input").fill("../../etc/passwd")
    page.locator("#file-inspect").click()
    page.locator("#file-report .fault").wait_for()


def test_settings_say_what_the_server_was_told_and_what_the_machine_can_do(page: Any, served: Served) -> None:
    pictures = write_pictures(served.service.state_dir / "pictures" / "2026-11-21", count=2)
    tab(page, "Settings")
    page.locator("#settings-about").get_by_text(str(served.root), exact=True).wait_for()
    assert "127.0.0.1" in page.locator("#settings-server").inner_text()
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
            assert phone.evaluate("document.documentElement.scrollWidth") <= PHONE[0]


def test_adapters_are_merged(page: Any, served: Served) -> None:
    tab(page, "Files")
    page.locator("#file-merge").get_by_text("Merge").first.click()
    page.locator("#merge-sources textarea").fill("cat:0.5\ncat:2")
    choose(page, "merge-method", "sum")
    page.locator("#merge-out").locator("textarea, input").fill("both")
    page.locator("#merge-do").click()
    page.locator("#merge-written").get_by_text("The <state>.").wait_for()
    assert "weight 2, step 1" in page.locator("#merge-written").inner_text()
    assert served.service.adapter_file("embedding", "both").is_file()
    page.locator("[data-file]").get_by_text("both.pt").wait_for()
    page.locator("#merge-sources textarea").fill("dog:0.5")
    page.locator("#merge-do").click()
    page.locator("#merge-written .fault").get_by_text("There is no adapter").wait_for()
    page.set_viewport_size({"width": 390, "height": 1400})
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
