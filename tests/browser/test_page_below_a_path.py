"""The page in Chromium below a path of a reverse proxy that takes the path off, and of one that leaves it in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Served, make_dataset, opened, tab
from tests.reverse_proxy import below
from tests.served import quick_service
from tests.unit.server.live import live
from tincture.server.app import build_app
from tincture.server.queue.jobs import JobState

PATH = "/deep/er"


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, int]]:
    """A server that believes what this machine's proxies say, and its port."""
    root = tmp_path_factory.mktemp("behind")
    make_dataset(root / "datasets" / "moons", 6)
    service = quick_service(root, pace_s=0.02, proxy=("127.0.0.1",))
    with live(build_app(service), service.settings) as port:
        yield Served(f"http://127.0.0.1:{port}/", service, root), port


@pytest.fixture(params=["taken off", "left in"])
def address(request: pytest.FixtureRequest, behind: tuple[Served, int]) -> Iterator[str]:
    """The page's address behind a proxy."""
    headers = {"X-Forwarded-Prefix": PATH}
    with below(PATH, behind[1], strips=request.param == "taken off", headers=headers) as proxy:
        yield f"http://127.0.0.1:{proxy}{PATH}/"


def test_the_page_works_below_a_path(chromium: Any, behind: tuple[Served, int], address: str) -> None:
    """``opened`` refuses whatever is asked for beside the path, and every complaint of the browser."""
    queue = behind[0].service.queue
    with opened(chromium, address) as page:
        assert page.evaluate("window.gradio_config.root").rstrip("/") + "/" == address
        assert page.evaluate("document.querySelector('link[rel=manifest]').href") == f"{address}manifest.json"
        settings = {"kind": "embedding", "name": "cat", "data": "pictures", "steps": 100_000, "preview_every": 5}
        job = queue.submit("train", {**settings, "preview_prompts": ["a cat"]}, source="page")
        tab(page, "Runs")
        page.wait_for_function("document.querySelectorAll('.frames button').length > 2")
        page.wait_for_function("[...document.querySelectorAll('.compare img')].every(each => each.naturalWidth > 0)")
        queue.cancel(job.id)
        tab(page, "Try it")
        page.locator("#try-prompt textarea").fill("a cat")
        page.locator("#try-draw").click()
        page.wait_for_function("document.querySelector('#try-pictures img')?.naturalWidth === 8")
        tab(page, "Files")
        page.locator("[data-file]").get_by_text("cat.pt", exact=True).click()
        with page.expect_download() as download:
            page.locator("#file-card").get_by_text("Download").click()
        assert Path(download.value.path()).read_bytes()
        page.wait_for_url(f"{address}#files")
        while queue.jobs([JobState.RUNNING]):
            page.wait_for_timeout(50)


def test_the_description_of_the_api_works_below_a_path(chromium: Any, address: str) -> None:
    asked: list[str] = []
    page = chromium.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{address}docs")
    page.get_by_text(re.compile("/api/v1/jobs")).first.wait_for()
    expect(page.locator(".servers select")).to_have_value(PATH)
    page.close()
    assert len(asked) >= 4 and all(url.startswith((address, "data:")) for url in asked)
