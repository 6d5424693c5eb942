"""Data sets on the page: looked through by keyboard, cropped, masked; captions counted, changed and written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import expect

from tests.browser.conftest import PHONE, Served, fits, opened, reload, sub_tab
from tests.served import quick_service, until
from tests.unit.server.live import live
from tincture.server.app import build_app

DRAWN = "document.querySelector('#ds-stage img').complete && document.querySelector('#ds-stage img').naturalWidth > 0"


def make_striped(folder: Path) -> Path:
    """Six pictures that differ, of 160 × 120, 120 × 160 and 64 × 64 pixels; two of them have captions."""
    folder.mkdir(parents=True)
    for number, size in enumerate([(160, 120), (120, 160), (64, 64)] * 2):
        image = Image.new("RGB", size, (30 * number, 90, 160))
        ImageDraw.Draw(image).rectangle((10 * number, 5, 10 * number + 30, 60), fill=(250, 240, 30 * number))
        image.save(folder / f"{number}.png")
    (folder / "0.txt").write_text("a moon, Night")
    (folder / "1.txt").write_text("a moon, night, sea")
    return folder


@pytest.fixture
def striped(served: Served, request: pytest.FixtureRequest) -> Path:
    return make_striped(served.root / "datasets" / f"striped-{abs(hash(request.node.name))}")


def read(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def open_set(page: Any, folder: Path) -> None:
    """Chooses it among those that are offered where none is open."""
    sub_tab(page, "Data sets")
    page.locator(".ds-card").get_by_text(folder.name, exact=True).click()
    page.locator("#ds-gallery button").first.wait_for()


def focused(page: Any) -> str:
    return str(page.evaluate("document.activeElement.dataset.file ?? document.activeElement.id"))


def section(page: Any, name: str) -> Any:
    page.locator(f"#ds-{name} summary").click()
    return page.locator(f"#ds-{name}")


def shown(page: Any, count: int) -> None:
    page.wait_for_function(f"document.querySelectorAll('#ds-gallery button').length === {count}")


def test_a_picture_is_found_opened_cropped_masked_and_closed_by_keyboard(page: Any, striped: Path) -> None:
    open_set(page, striped)
    upload = page.locator("#ds-upload")
    assert upload.bounding_box()["y"] > page.locator("#ds-gallery").bounding_box()["y"]
    expect(page.locator("#ds-files")).to_be_hidden()  # the gallery first, the upload folded
    page.locator("#ds-gallery button").first.focus()
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    assert focused(page) == "4.png"
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.locator("#ds-text")).to_be_focused()
    expect(page.locator("#ds-text")).to_have_value("a moon, night, sea")
    page.locator("#ds-about", has_text="1.png, 120 × 160, 2 of 6").wait_for()
    page.wait_for_function(DRAWN)

    page.locator("#ds-crop").press("Enter")
    page.locator("#ds-shape").select_option("square")
    page.locator("#ds-box").focus()
    for _ in range(2):
        page.keyboard.press("Shift+ArrowLeft")
    for _ in range(3):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Control+ArrowRight")
    assert page.locator("#ds-box").get_attribute("aria-label") == "Frame of 104 × 104 pixels from 1, 24 on"
    before = read(striped / "1.png")
    page.keyboard.press("Enter")
    page.get_by_text("Cropped to 104 × 104").wait_for()
    assert read(striped / "1.png").tobytes() == before.crop((1, 24, 105, 128)).tobytes()
    page.locator("#ds-original").press("Enter")
    page.get_by_text("The original is back.").wait_for()
    assert read(striped / "1.png").tobytes() == before.tobytes()

    page.locator("#ds-mask").press("Enter")
    page.locator("#ds-canvas").focus()
    page.keyboard.down(" ")
    page.keyboard.press("ArrowDown")
    page.keyboard.up(" ")
    page.keyboard.press("Escape")  # what was painted is saved all the same
    until(lambda: (striped / "mask" / "1.png").exists())
    mask = read(striped / "mask" / "1.png")
    black, white = (0, 0, 0), (255, 255, 255)
    assert (mask.size, mask.getpixel((60, 80)), mask.getpixel((5, 5))) == ((120, 160), black, white)
    assert focused(page) == "ds-mask"
    page.keyboard.press("Escape")
    expect(page.locator("#ds-editor")).to_be_hidden()
    assert focused(page) == "1.png"


def stroke(page: Any, *points: tuple[float, float]) -> None:
    """A drag over the picture, through points in shares of its width and height."""
    box = page.locator("#ds-stage").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=3)
    page.mouse.up()


def test_crops_are_dragged_and_masks_painted_erased_and_cleared(page: Any, striped: Path) -> None:
    open_set(page, striped)
    page.locator("#ds-gallery button").first.click()
    page.wait_for_function(DRAWN)
    page.locator("#ds-crop").click()
    page.locator("#ds-stage").scroll_into_view_if_needed()
    stroke(page, (0.25, 0.25), (0.75, 0.5))
    width, height = (int(page.locator(f"#ds-crop-{side}").input_value()) for side in ("width", "height"))
    assert abs(width - 80) <= 1 and abs(height - 30) <= 1
    stroke(page, (0.5, 0.4), (0.5, 0.9))  # within: it is moved
    expect(page.locator("#ds-crop-width")).to_have_value(str(width))
    expect(page.locator("#ds-crop-height")).to_have_value(str(height))
    page.locator("#ds-crop-do").click()
    page.get_by_text(f"Cropped to {width} × {height}").wait_for()
    page.locator("#ds-original").click()
    page.get_by_text("The original is back.").wait_for()

    page.locator("#ds-mask").click()
    page.locator("#ds-canvas").scroll_into_view_if_needed()
    saved = page.locator("#ds-mask-state", has_text="Saved.")
    mask = striped / "mask" / "0.png"

    def at(x: int, y: int) -> int:
        return int(read(mask).getpixel((x, y))[0])  # type: ignore[index]

    stroke(page, (0.1, 0.5), (0.9, 0.5))
    saved.wait_for()
    assert (at(80, 60), at(80, 5)) == (0, 255)
    page.locator("#ds-erase").check()
    stroke(page, (0.5, 0.4), (0.5, 0.6))
    page.get_by_text("Not saved yet.").wait_for()
    saved.wait_for()
    assert (at(80, 60), at(30, 60)) == (255, 0)
    page.locator("#ds-mask-undo").click()
    page.get_by_text("Not saved yet.").wait_for()
    saved.wait_for()
    assert at(80, 60) == 0
    page.locator("#ds-mask-clear").click()
    until(lambda: not mask.exists())  # white all over is none
    page.locator('#ds-gallery button[aria-label="0.png, a moon, Night"]').wait_for()


def test_tags_are_counted_and_filter_and_are_replaced_after_a_preview(page: Any, striped: Path) -> None:
    open_set(page, striped)
    tags = section(page, "words")
    assert [chip.get_attribute("aria-label") for chip in tags.get_by_role("button").all()] == [
        "a moon, in 2 captions",
        "Night, in 2 captions",
        "sea, in 1 caption",
    ]
    sea = tags.get_by_role("button", name="sea, in 1 caption")
    sea.click()
    shown(page, 1)
    replacing = section(page, "replace")
    page.locator("#ds-find input").fill("NIGHT")
    page.locator("#ds-by input").fill("dusk")
    page.keyboard.press("Enter")
    page.get_by_text("1 caption would change.").wait_for()
    assert page.locator("#ds-changes li").inner_text().splitlines() == [
        "1.png",
        "a moon, night, sea",
        "a moon, dusk, sea",
    ]
    assert (striped / "1.txt").read_text() == "a moon, night, sea"  # nothing is written yet
    sea.click()  # the filter is off again, and what was seen counts no more
    shown(page, 6)
    expect(page.locator("#ds-apply")).to_be_hidden()
    page.locator("#ds-preview").click()
    page.get_by_text("2 captions would change.").wait_for()
    page.get_by_role("button", name="Change 2 captions").click()
    replacing.get_by_text("2 captions changed.").wait_for()
    assert [(striped / f"{n}.txt").read_text().strip() for n in (0, 1)] == ["a moon, dusk", "a moon, dusk, sea"]
    replacing.get_by_role("button", name="Undo").click()
    replacing.get_by_text("2 captions are as they were before.").wait_for()
    assert [(striped / f"{n}.txt").read_text().strip() for n in (0, 1)] == ["a moon, Night", "a moon, night, sea"]
    tags.get_by_role("button", name="Night, in 2 captions").wait_for()


def test_what_has_no_caption_is_described_by_what_is_installed(page: Any, served: Served, striped: Path) -> None:
    open_set(page, striped)
    describing = section(page, "describe")
    describing.get_by_text("there is no BLIP model: put one").wait_for()  # it says what to install
    expect(page.locator("#ds-describe-do")).to_be_disabled()
    model = served.root / "models" / "torch_deepdanbooru"
    model.mkdir(parents=True)
    (model / "model.pt").write_bytes(b"x")
    try:
        section(page, "describe")
        section(page, "describe")
        page.get_by_role("button", name="Describe 4 pictures").click()
        describing.get_by_text("4 pictures described.").wait_for()
    finally:
        shutil.rmtree(model)
    page.get_by_text("6 pictures; all with captions.").wait_for()
    assert (striped / "2.txt").read_text().strip().endswith("bytes") and (
        striped / "0.txt"
    ).read_text() == "a moon, Night"
    describing.get_by_role("button", name="Undo").click()
    page.get_by_text("6 pictures; 4 without a caption.").wait_for()
    assert (striped / "2.txt").read_text() == ""


def test_duplicates_stand_side_by_side_and_sizes_are_drawn(page: Any, striped: Path) -> None:
    shutil.copy(striped / "3.png", striped / "again.png")
    open_set(page, striped)
    twins = section(page, "duplicates")
    page.locator("#ds-twins-find").click()
    page.get_by_text("1 group of pictures").wait_for()
    assert [figure.get_attribute("data-file") for figure in twins.locator("figure").all()] == ["3.png", "again.png"]
    page.get_by_role("button", name="Delete again.png", exact=True).click()
    assert (striped / "again.png").exists()  # only the second press deletes
    page.get_by_role("button", name="Delete again.png for good").click()
    page.get_by_text("again.png is deleted.").wait_for()
    expect(twins.locator("figure")).to_have_count(0)
    assert not (striped / "again.png").exists()

    sizes = section(page, "sizes")
    for side in ("width", "height"):
        page.locator(f"#ds-sizes-{side}").fill("128")
    page.locator("#ds-sizes-buckets").check()
    page.locator("#ds-sizes").dispatch_event("toggle")  # browsers report it late
    page.locator("#ds-sizes-show").click()
    sizes.get_by_text("2 pictures would be enlarged").wait_for()
    assert sum(int(bar.inner_text().split("\n")[-1].split()[0]) for bar in page.locator(".ds-bar").all()) == 6
    page.get_by_role("button", name="Show those that are enlarged").click()
    shown(page, 2)
    page.locator("#ds-filter", has_text="2 pictures: enlarged").wait_for()
    page.locator("#ds-unfilter").click()
    shown(page, 6)


UNNAMED = """() => [...document.querySelectorAll("#ds-view :is(button, input, select, textarea, [tabindex='0'])")]
  .filter((each) => each.checkVisibility())
  .filter((each) => !(each.getAttribute("aria-label") || each.labels?.length || each.textContent.trim()))
  .map((each) => each.outerHTML)"""
SMALL = """() => [...document.querySelectorAll("#ds-view button")]
  .filter((each) => each.checkVisibility() && each.getBoundingClientRect().height < 32)
  .map((each) => each.outerHTML)"""


def test_a_finger_paints_and_every_control_has_a_name(chromium: Any, served: Served, striped: Path) -> None:
    with opened(chromium, served.url, PHONE, has_touch=True, is_mobile=True) as phone:
        open_set(phone, striped)
        phone.locator("#ds-gallery button").first.tap()
        phone.wait_for_function(DRAWN)
        for name in ("words", "tags", "replace", "describe", "duplicates", "sizes"):
            section(phone, name)
        for name in ("crop", "mask"):
            phone.locator(f"#ds-{name}").tap()
            phone.locator(f"#ds-{name}-tools").wait_for()
            assert phone.evaluate(UNNAMED) == [] and phone.evaluate(SMALL) == []
            fits(phone, PHONE[0])
        phone.locator("#ds-canvas").scroll_into_view_if_needed()
        phone.locator("#ds-canvas").tap()
        until(lambda: (striped / "mask" / "0.png").exists())


@pytest.mark.parametrize("way", ["Close", "another picture"])
def test_a_mask_is_saved_for_the_picture_that_it_was_painted_on(page: Any, striped: Path, way: str) -> None:
    ways: dict[str, Callable[[], None]] = {
        "Close": lambda: page.locator("#ds-close").click(),
        "another picture": lambda: page.locator("#ds-gallery button").nth(3).click(),
    }
    open_set(page, striped)
    page.locator("#ds-gallery button").first.click()
    page.wait_for_function(DRAWN)
    page.locator("#ds-mask").click()
    page.locator("#ds-canvas").scroll_into_view_if_needed()
    stroke(page, (0.3, 0.5), (0.6, 0.5))
    ways[way]()
    until(lambda: (striped / "mask" / "0.png").exists())
    assert [path.name for path in (striped / "mask").iterdir()] == ["0.png"]


def test_the_keyboard_keeps_its_place_when_a_mask_is_saved_behind_it(page: Any, striped: Path) -> None:
    open_set(page, striped)
    page.locator("#ds-gallery button").first.press("Enter")
    page.wait_for_function(DRAWN)
    page.locator("#ds-mask").press("Enter")
    page.locator("#ds-canvas").press(" ")
    for _ in range(2):  # the mask, then the picture, before the mask is on the server
        page.keyboard.press("Escape")
    page.locator("#ds-gallery button[aria-label*='mask']").wait_for()
    assert focused(page) == "0.png"


def test_all_works_behind_a_token(chromium: Any, tmp_path: Path) -> None:
    striped = make_striped(tmp_path / "datasets" / "striped")
    service = quick_service(tmp_path, token="a secret of some length")
    login = {"username": "anyone", "password": "a secret of some length"}
    with (
        live(build_app(service), service.settings) as port,
        opened(chromium, f"http://127.0.0.1:{port}/", http_credentials=login) as page,
    ):
        open_set(page, striped)
        page.locator("#ds-gallery button").first.click()
        page.wait_for_function(DRAWN)
        page.locator("#ds-text").fill("behind a token")
        page.locator("#ds-save").click()
        page.locator("#ds-state", has_text="Saved.").wait_for()
        assert (striped / "0.txt").read_text().strip() == "behind a token"


def test_where_there_is_no_data_set_the_upload_is_open(chromium: Any, served: Served) -> None:
    away = served.root / "away"
    (served.root / "datasets").rename(away)
    try:
        with opened(chromium, served.url) as page:
            sub_tab(page, "Data sets")
            page.get_by_text("There is no data set yet; upload one.").wait_for()
            page.locator("#ds-files").wait_for()
    finally:
        shutil.rmtree(served.root / "datasets", ignore_errors=True)
        away.rename(served.root / "datasets")


def test_a_change_that_was_not_made_yet_is_there_again_after_a_reload(page: Any, striped: Path) -> None:
    open_set(page, striped)
    replacing = section(page, "replace")
    page.locator("#ds-find input").fill("night")
    page.locator("#ds-by input").fill("dusk")
    section(page, "tags")
    page.locator("#ds-tag input").fill("sea")
    reload(page)
    open_set(page, striped)
    for elem_id, text in {"ds-find": "night", "ds-by": "dusk", "ds-tag": "sea", "ds-other": ""}.items():
        expect(page.locator(f"#{elem_id} input")).to_have_value(text)
    page.locator("#ds-preview").click()
    page.get_by_role("button", name="Change 2 captions").click()
    replacing.get_by_text("2 captions changed.").wait_for()
    reload(page)
    open_set(page, striped)
    expect(page.locator("#ds-tag input")).to_be_visible()
    expect(page.locator("#ds-tag input")).to_have_value("sea")
    expect(page.locator("#ds-find input")).to_have_value("")
    expect(page.locator("#ds-find input")).to_be_hidden()
