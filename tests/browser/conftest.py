"""A real Chromium before a real server. What the page does wrong without anybody asking fails every test here."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.served import quick_service
from tests.unit.server.live import live
from tincture.server.app import build_app
from tincture.server.service import Service

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
# as root there is no sandbox; the rest keeps Chromium from talking to its makers
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
PATIENCE_MS = 60_000
playwright.expect.set_options(timeout=PATIENCE_MS)
# what Gradio's own upload says whenever it is used
KNOWN = ("Method not implemented.",)
# Gradio ends what it still asks for when the page goes, and complains of that.
GRADIO_ENDS_NOTHING = "addEventListener('beforeunload', (event) => event.stopImmediatePropagation(), true)"
DESKTOP, PHONE = (1280, 900), (390, 844)


# Not for the session: as long as it is there, Playwright's event loop counts as running in this thread.
@pytest.fixture(scope="package")
def chromium() -> Iterator[Any]:
    """The browser, or a skip that says what is missing."""
    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"there is no Chromium among the programs ({', '.join(NAMES)})")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@dataclass
class Served:
    """A server in this process, whose models and workers are stand-ins that answer at once."""

    url: str
    service: Service
    root: Path


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("workspace")
    make_dataset(root / "datasets" / "moons", 30)
    service = quick_service(root, pace_s=0.02)
    with live(build_app(service)) as port:
        yield Served(f"http://127.0.0.1:{port}/", service, root)


@dataclass
class Watched:
    """What a page complained about, and whom it asked."""

    url: str
    complaints: list[str] = field(default_factory=list)

    def watch(self, page: Any) -> None:
        page.on("console", lambda told: self._console(told))
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("request", lambda request: self._request(request.url))

    def _console(self, told: Any) -> None:
        if told.type in ("error", "warning") and told.text not in KNOWN:
            self.complaints.append(f"{told.type}: {told.text}")

    def _request(self, url: str) -> None:
        if not url.startswith((self.url, "data:", "blob:")):
            self.complaints.append(f"asked another machine: {url}")


@contextmanager
def opened(browser: Any, url: str, size: tuple[int, int] = DESKTOP, **options: Any) -> Iterator[Any]:
    """The page, ready to be used; at the end it must have complained about nothing and asked nobody else."""
    width, height = size
    context = browser.new_context(viewport={"width": width, "height": height}, **options)
    context.set_default_timeout(PATIENCE_MS)
    context.add_init_script(GRADIO_ENDS_NOTHING)
    page, watched = context.new_page(), Watched(url)
    watched.watch(page)
    page.goto(url)
    page.locator("#train-tabs").wait_for()
    yield page
    context.close()
    assert watched.complaints == []


@pytest.fixture
def page(chromium: Any, served: Served) -> Iterator[Any]:
    with opened(chromium, served.url) as found:
        yield found


@pytest.fixture
def phone(chromium: Any, served: Served) -> Iterator[Any]:
    with opened(chromium, served.url, PHONE, has_touch=True, is_mobile=True) as found:
        yield found


@pytest.fixture(scope="module")
def real_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of ``tincture serve`` on a workspace with pictures for picto."""
    root = tmp_path_factory.mktemp("real")
    make_dataset(root / "datasets" / "moons", 6)
    command = [sys.executable, "-m", "tincture", "--root", str(root), "--json", "serve", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        told = "".join(iter(lambda: process.stdout.readline(), "}\n")) + "}"  # an object over several lines
        yield json.loads(told)["url"].rstrip("/") + "/"
    finally:
        process.terminate()
        process.communicate(timeout=120)


def make_dataset(folder: Path, count: int) -> Path:
    """Pictures of 80 × 64 pixels; every third has no caption."""
    folder.mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", (80, 64), (8 * number, 120, 200)).save(folder / f"{number:02}.png")
        if number % 3:
            (folder / f"{number:02}.txt").write_text(f"a moon, view {number}")
    return folder


def reload(page: Any, *, at_once: bool = False) -> None:
    """Loads the page again, by default once it waits for no answer."""
    if not at_once:
        page.wait_for_function("!window.answersFor()")
        page.wait_for_timeout(500)
    page.reload()
    page.locator("#tabs").wait_for()


def sub_tab(page: Any, name: str) -> None:
    """Opens a tab within Train."""
    page.locator("#train-tabs").get_by_role("tab", name=name, exact=True).click()


def tab(page: Any, name: str) -> None:
    """Opens one of the page's tabs."""
    page.locator("#tabs").get_by_role("tab", name=name, exact=True).first.click()


def choose(page: Any, elem_id: str, option: str) -> None:
    """Chooses from a list whose entries begin with ``option``."""
    page.locator(f"#{elem_id} input").click()
    page.get_by_role("option").filter(has_text=option).first.click()


def choose_files(page: Any, elem_id: str, files: Sequence[Path]) -> None:
    """Chooses files, and once more as a person would if they do not show: an upload has been lost in Gradio's own
    component on a machine that was very busy, before the server heard of it."""
    field = page.locator(f"#{elem_id} input[type=file]")
    shown = page.locator(f"#{elem_id}").get_by_text(files[0].name)
    field.set_input_files(files)
    try:
        shown.wait_for(timeout=PATIENCE_MS / 4)
    except playwright.TimeoutError:
        field.set_input_files(files)
        shown.wait_for()


def fits(page: Any, width: int) -> None:
    """Wait until nothing is wider than the window of ``width`` pixels."""
    page.wait_for_function("width => document.documentElement.scrollWidth <= width", arg=width)
