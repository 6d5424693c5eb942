"""The frame of the page: light and dark by the button in the header, and the names of its tabs."""

from __future__ import annotations

from typing import Any

from tests.browser.conftest import Served, opened, reload

DARK = "document.body.classList.contains('dark')"


def press(page: Any, shown: str) -> None:
    page.locator("#theme").click()
    page.locator("#theme").get_by_text(shown, exact=True).wait_for()


def test_the_theme_is_chosen_by_a_button_and_remembered(chromium: Any, served: Served) -> None:
    with opened(chromium, served.url, color_scheme="dark") as page:
        page.locator("#theme").get_by_text("Theme: system", exact=True).wait_for()
        assert page.evaluate(DARK) is True
        press(page, "Theme: light")
        assert page.evaluate(DARK) is False
        reload(page)
        page.locator("#theme").get_by_text("Theme: light", exact=True).wait_for()
        page.locator("#train-tabs").wait_for()
        assert page.evaluate(DARK) is False  # whatever Gradio set meanwhile
        press(page, "Theme: dark")
        page.emulate_media(color_scheme="light")
        assert page.evaluate(DARK) is True
        press(page, "Theme: system")
        assert page.evaluate(DARK) is False
        page.emulate_media(color_scheme="dark")
        page.wait_for_function(DARK)


def test_no_tab_stands_within_one_of_the_same_name(page: Any) -> None:
    pairs = page.evaluate(
        """() => [...document.querySelectorAll("[role=tabpanel] [role=tab]")].map((inner) => {
            const within = inner.closest("[role=tabpanel]").id.replace(/^tab-/, "");
            const outer = document.querySelector(`[role=tab][data-tab-id="${within}"]`);
            return [outer.textContent.trim(), inner.textContent.trim()];
        })"""
    )
    assert len(pairs) >= 5 and all(outer != inner for outer, inner in pairs), pairs
