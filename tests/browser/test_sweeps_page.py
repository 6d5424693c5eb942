"""Sweeps in Chromium: made from the form and from values, watched until they are done."""

from __future__ import annotations

import re
from typing import Any

from playwright.sync_api import expect

from tests.browser.conftest import Served, tab
from tincture.server.page.sweeps.text import with_table
from tincture.settings.toml import toml_lines


def open_sweeps(page: Any) -> None:
    tab(page, "Runs")
    page.locator("#sweeps").get_by_text("Sweeps", exact=True).click()
    page.locator("#sweep-text textarea").wait_for()


def test_a_sweep_is_put_together_begun_and_watched(served: Served, page: Any) -> None:
    open_sweeps(page)
    page.get_by_role("button", name="Take the form of New run").click()
    page.locator("#sweep-message").get_by_text("The form stands under [run].").wait_for()
    text = page.locator("#sweep-text textarea")
    expect(text).to_have_value(re.compile('kind = "embedding"'))
    page.locator("#sweep-values textarea").fill("0.3\n0.1")
    page.get_by_role("button", name="Add to the sweep").click()
    page.locator("#sweep-message").get_by_text("“Learning rate” varies: 2 values.").wait_for()
    expect(text).to_have_value(re.compile(re.escape('learning_rate = ["0.3", "0.1"]')))

    page.get_by_role("button", name="Begin the sweep").click()
    page.locator("#sweep-message .fault").wait_for()  # no pictures are chosen
    run = {"kind": "embedding", "name": "cat", "data": "pictures", "model": "picto", "steps": 4}
    text.fill(with_table(text.input_value(), "run", toml_lines(run)))
    page.locator("#sweep-name input, #sweep-name textarea").first.fill("rates")
    page.get_by_role("button", name="Begin the sweep").click()
    page.locator("#sweep-message").get_by_text("The sweep rates has begun, with 2 runs.").wait_for()
    page.locator("#sweep-table").get_by_text("is done: 2 done.").wait_for()
    best = page.locator("#sweep-table tr.best th").inner_text()
    assert best == "rates-p02"
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Report").click()
    assert opened.value.title() == "Sweep rates"
    expect(opened.value.locator("tbody tr")).to_have_count(2)


def test_a_button_without_a_sweep_says_that_there_is_none(served: Served, page: Any) -> None:
    open_sweeps(page)
    page.locator("#sweep-values textarea").fill(" ")
    page.get_by_role("button", name="Add to the sweep").click()
    page.locator("#sweep-message").get_by_text("No values of “Learning rate” are given").wait_for()
