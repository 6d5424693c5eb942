"""Draws the pictures of the page in docs/images: python tools/screenshots.py [FOLDER]

FOLDER is a workspace that tools/demo_web.py made; it is made in a temporary folder when it is not given. What it takes:
Playwright, Chromium among the programs, and some minutes for a training on picto.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from tincture.formats.pictures import open_picture

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # when run as a program
from tools.demo_web import EMBEDDING, prepare

IMAGES = Path(__file__).parent.parent / "docs" / "images"
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
COLOURS, MOST_BYTES = 128, 150_000
STEPS = 250
PATIENCE_MS = 900_000


@contextmanager
def served(root: Path) -> Iterator[str]:
    """The address of a server on the workspace."""
    command = [sys.executable, "-m", "tincture", "serve", "--root", str(root), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        told = "".join(iter(server.stdout.readline, "}\n")) + "}"
        yield json.loads(told)["url"]
        server.terminate()


def keep(page: Any, name: str, height: int = 860) -> None:
    """What is seen of the page, in few colours, once nothing fades in any more."""
    page.set_viewport_size({**page.viewport_size, "height": height})
    page.evaluate("window.scrollTo(0, 0)")
    page.wait_for_timeout(2000)
    picture = open_picture(io.BytesIO(page.screenshot())).convert("RGB")
    target = IMAGES / f"page-{name}.png"
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(target, optimize=True)
    size = target.stat().st_size
    assert size < MOST_BYTES, f"{target} has {size} bytes; take fewer colours"
    print(f"{target.name}: {picture.width} × {picture.height}, {size / 1000:.0f} kB")


def choose(page: Any, elem_id: str, option: str) -> None:
    page.locator(f"#{elem_id} input").click()
    page.get_by_role("option").filter(has_text=option).first.click()


def open_tab(page: Any, tabs: str, name: str) -> None:
    page.locator(f"#{tabs}").get_by_role("tab", name=name, exact=True).first.click()


def train(page: Any) -> None:
    """Shows the plan, trains, and keeps both."""
    open_tab(page, "train-tabs", "Train")
    choose(page, "tr-embedding", EMBEDDING)
    choose(page, "tr-data", "moon")
    page.locator("#tr-steps input").fill(str(STEPS))
    page.locator("#tr-plan").click()
    page.locator(".plan h3").wait_for()
    keep(page, "train")
    page.locator("#tr-start-embedding").click()
    page.locator("#tr-message p").wait_for()
    open_tab(page, "tabs", "Runs")
    page.locator("#run-head .chip").get_by_text("done", exact=True).wait_for()
    keep(page, "runs", 1140)  # the log below names folders of the machine


def look(page: Any) -> None:
    """The data set, and what the embedding draws."""
    open_tab(page, "tabs", "Train")
    open_tab(page, "train-tabs", "Data sets")
    choose(page, "ds-folder", "moon")
    page.locator("#ds-gallery button").first.click()
    page.locator("#ds-picture img").wait_for()
    keep(page, "data-set")
    open_tab(page, "tabs", "Try it")
    page.locator("#try-prompt textarea").fill(EMBEDDING)
    page.get_by_label("Before and after").check()
    page.locator("#try-draw").click()
    page.locator("#try-pictures img").first.wait_for()
    keep(page, "try")


def main(root: Path) -> None:
    for line in prepare(root):
        print(line)
    path = next(found for name in NAMES if (found := shutil.which(name)))
    with served(root) as url, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 860}, color_scheme="light")
        page.set_default_timeout(PATIENCE_MS)
        page.goto(url)
        page.locator("#train-tabs").wait_for()
        train(page)
        look(page)
        phone = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
        phone.goto(url)
        open_tab(phone, "tabs", "Runs")
        phone.locator("#run-head .chip").wait_for()
        keep(phone, "phone", 844)
        browser.close()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]).resolve())
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(folder) / "demo-web")
