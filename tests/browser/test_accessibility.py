"""WCAG 2.1 AA as far as axe-core can tell: every tab with something in it, at a desk and on a phone, light and dark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import PHONE, Served, choose, opened, sub_tab, tab
from tests.browser.test_files_page import open_file
from tests.browser.test_runs_page import submit
from tests.served import until
from tincture.server.queue.jobs import JobState

axe = pytest.importorskip("axe_playwright_python", reason="axe-core is not installed")

TAGS = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa")
STILL = "*, *::before, *::after { transition: none !important; animation: none !important; }"
OPEN_ALL = """() => document.querySelectorAll("button.label-wrap:not(.open)").forEach((one) => {
  if (one.checkVisibility()) one.click();
})"""
RUN = """async (only) => {
  const found = await axe.run(document, { runOnly: only, resultTypes: ["violations"], preload: false });
  return found.violations.flatMap(({ id, nodes }) => nodes.map((node) => {
    const why = [...node.any, ...node.all, ...node.none].map((check) => check.message).join("; ");
    return `${id}: ${node.html.slice(0, 200)}: ${why}`;
  }));
}"""


def nothing(page: Any, served: Served) -> None:
    """The tab is there at once."""


def open_data_set(page: Any, served: Served) -> None:
    choose(page, "ds-folder", "moons")
    page.locator("#ds-gallery button").first.click()
    page.locator("#ds-caption textarea").wait_for()


def fill_new_run(page: Any, served: Served) -> None:
    page.evaluate(OPEN_ALL)
    page.locator("#tr-start-embedding").click()  # without a data set
    page.locator("#tr-message .fault").wait_for()
    choose(page, "tr-embedding", "cat")
    page.locator("#tr-data input").fill("pictures")
    page.locator("#tr-plan").click()
    page.locator("#tr-planned .plan").wait_for()


def open_runs(page: Any, served: Served) -> None:
    first, second = (
        submit(served, steps=4, preview_every=2, preview_prompts=["a cat", "two cats"], learning_rate=rate)
        for rate in ("0.01", "0.002")
    )
    until(lambda: served.service.queue.job(second.id).state is JobState.DONE)
    page.locator(f'[data-compare="{second.id}"]').click()
    page.locator(f'[data-compare="{second.id}"][aria-pressed="true"]').wait_for()
    page.locator(f'[data-job="{first.id}"]').click()
    page.locator("#previews .shot").nth(1).wait_for()
    page.locator("#charts path").first.wait_for()
    run = {"kind": "embedding", "name": "cat", "data": "pictures", "steps": 2, "model": "picto"}
    served.service.sweeps.create({"name": "rates", "run": run, "grid": {"learning_rate": ["0.3", "0.1"]}})
    until(lambda: served.service.sweeps.shown("rates")["state"] == "done")
    page.evaluate(OPEN_ALL)
    page.locator("#sweep-table tr.best").wait_for()


def draw_a_picture(page: Any, served: Served) -> None:
    page.locator("#try-prompt").locator("textarea, input").first.fill("a cat")
    page.evaluate(OPEN_ALL)
    page.locator("#try-draw").click()
    page.locator("#try-pictures figure img").first.wait_for()


def look_into_a_file(page: Any, served: Served) -> None:
    open_file(page, "cat.pt")
    page.evaluate(OPEN_ALL)


def examine_machine(page: Any, served: Served) -> None:
    page.locator("#settings-examine").click()
    page.locator("#doctor .fault").wait_for()


PLACES: tuple[tuple[Callable[[Any, str], None], str, Callable[[Any, Served], None]], ...] = (
    (sub_tab, "Create embedding", nothing),
    (sub_tab, "Create hypernetwork", nothing),
    (sub_tab, "Preprocess images", nothing),
    (sub_tab, "Data sets", open_data_set),
    (sub_tab, "New run", fill_new_run),
    (tab, "Runs", open_runs),
    (tab, "Try it", draw_a_picture),
    (tab, "Files", look_into_a_file),
    (tab, "Settings", examine_machine),
)


def faults(page: Any, *, colours: bool) -> list[str]:
    """What axe-core finds on the page as it is now; of the second theme only what depends on ``colours``."""
    only = {"type": "rule", "values": ["color-contrast"]} if colours else {"type": "tag", "values": TAGS}
    found: list[str] = page.evaluate(RUN, only)
    return found


def test_every_tab_has_contrast_and_names(chromium: Any, served: Served) -> None:
    wide, found = (1400, 900), []
    with opened(chromium, served.url, wide, color_scheme="light") as page:
        page.add_style_tag(content=STILL)
        page.evaluate(Path(axe.__file__).with_name("axe.min.js").read_text(encoding="utf-8"))
        names = page.locator("[role=tab][data-tab-id]").evaluate_all("all => all.map(one => one.textContent.trim())")
        assert {*names} == {"Train", *(name for _, name, _ in PLACES)}  # a new tab stands here too
        for show, name, fill in PLACES:
            show(page, name)
            fill(page, served)
            for width, height in (wide, PHONE):
                page.set_viewport_size({"width": width, "height": height})
                for scheme in ("light", "dark"):
                    page.emulate_media(color_scheme=scheme)
                    told = faults(page, colours=scheme == "dark")
                    found += [f"{name}, {width} pixels, {scheme}: {fault}" for fault in told]
            page.set_viewport_size({"width": wide[0], "height": wide[1]})
            page.emulate_media(color_scheme="light")
    assert not found, "\n".join(found)


def test_a_fault_is_found(page: Any) -> None:
    """Else the test above could not fail."""
    page.evaluate(Path(axe.__file__).with_name("axe.min.js").read_text(encoding="utf-8"))
    page.evaluate(
        """() => document.querySelector("#header").insertAdjacentHTML(
            "beforeend", '<input><button></button><p style="color: #aaa; background: white">faint</p>')"""
    )
    assert {fault.split(":")[0] for fault in faults(page, colours=False)} == {"label", "button-name", "color-contrast"}
    assert len(faults(page, colours=True)) == 1
