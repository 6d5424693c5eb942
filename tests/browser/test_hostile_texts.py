"""Texts that would run as scripts, wherever words or files of others are shown: the page only shows them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from PIL import Image, PngImagePlugin

from tests.browser.conftest import Served, choose, opened, sub_tab, tab
from tests.served import quick_service, training, until, write
from tests.unit.server.live import live
from tincture.errors import UsageError
from tincture.server.app import build_app
from tincture.server.queue.jobs import JobState

EVIL = (
    "<img src=x onerror=window.__xss=1>\"><script>window.__xss=2</script>'><svg onload=window.__xss=3>"
    '[link](javascript:window.__xss=4) ![p](x"onerror=window.__xss=5) <a href=javascript:window.__xss=6>a</a>'
    "${window.__xss=7}{{window.__xss=8}}`${window.__xss=9}` </textarea></pre></title><script>window.__xss=10</script>"
    " <iframe srcdoc='<script>parent.__xss=11</script>'></iframe> \" onfocus=window.__xss=12 autofocus x=\""
)
FILE = "<img src=x onerror=window.__xss=13>${window.__xss=14}'\"{{constructor}}"
"""What a name of a file can hold: no slash, and not too long."""
SEEN = "window.__xss=1"  # a part of what is shown, where it is
TYPED = "textarea, input"


class Hostile:
    """Plants the texts in the answers of the processes that read files and draw."""

    def __init__(self, real: Any) -> None:
        self.real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def call(self, name: str, /, **arguments: Any) -> Any:
        return self._planted(name, self.real.call(name, **arguments))

    def call_while_latest(self, key: str, name: str, /, **arguments: Any) -> Any:
        return self.call(name, **arguments)

    def call_with_remarks(self, name: str, /, **arguments: Any) -> tuple[Any, list[str]]:
        return self.call(name, **arguments), [EVIL]

    def _planted(self, name: str, answer: Any) -> Any:
        if name == "inspect":
            values = {"author": EVIL, "license": EVIL, EVIL: EVIL, "settings": {EVIL: EVIL, "prompt": [EVIL]}}
            return {**answer, "notes": [EVIL], "lost": [EVIL], "name": EVIL, EVIL: EVIL, "provenance": values}
        if name == "convert":
            return {**answer, "name": EVIL, "lost": [EVIL]}
        if name == "plan":
            bucket = {"size": EVIL, "pictures": 4, "cropped": 0.1}
            model = {**answer["model"], "name": EVIL, "family": EVIL}
            skipped = {FILE + ".png": EVIL}
            return {**answer, "remarks": [EVIL], "skipped": skipped, "buckets": [bucket], "model": model}
        if name == "examine":
            return {**answer, "problems": [EVIL], "system": EVIL, "libraries": {EVIL: EVIL}}
        if name == "draw":
            for path in answer:
                Image.new("RGB", (8, 8)).save(path, pnginfo=chunks())
        return answer


def chunks() -> PngImagePlugin.PngInfo:
    told = PngImagePlugin.PngInfo()
    told.add_text("parameters", EVIL)
    return told


def plant_files(root: Path) -> None:
    for folder in (root / "datasets" / FILE, root / "datasets" / "plain"):
        folder.mkdir(parents=True)
        Image.new("RGB", (64, 64)).save(folder / f"{FILE}.png", pnginfo=chunks())
        (folder / f"{FILE}.txt").write_text(EVIL)
        (folder / f"broken {FILE}.png").write_text(EVIL)
    for kind in ("embeddings", "hypernetworks"):
        write(root / kind / f"{FILE}.pt")
        Image.new("RGB", (8, 8)).save(root / kind / f"{FILE}.png", pnginfo=chunks())
    models = root / "models" / "Stable-diffusion"
    write(models / f"{FILE}.safetensors")
    write(models / "a<" / "script><script>window.__xss=15<" / "script>.safetensors")  # its path ends a script
    write(root / "models" / "VAE" / f"{FILE}.vae.pt")
    (root / "textual_inversion_templates").mkdir(exist_ok=True)
    (root / "textual_inversion_templates" / f"{FILE}.txt").write_text(EVIL)
    write(root / "textual_inversion" / FILE / FILE / "embeddings" / f"{FILE}-500.pt")


def plant_jobs(served: Served) -> list[str]:
    """One that is done with previews, and one that failed; what was told of both is the text."""
    queue, shown = served.service.queue, []
    for author in (EVIL[:200], "fails"):
        own = {"author": author, "preview_every": 1, "preview_prompts": [EVIL, EVIL], "model": "picto"}
        job = queue.submit("train", {**training()["settings"], **own}, source="page")
        until(lambda job_id=job.id: queue.job(job_id).state in (JobState.DONE, JobState.FAILED))  # type: ignore[misc]
        folder = queue.supervisor.folder(job.id)
        folder.log_file.write_text(EVIL)
        told = {"name": EVIL, "stage": EVIL, "error": EVIL, "result": {**job.result, "ending": EVIL, EVIL: EVIL}}
        queue.store.update(job.id, **told)
        shown.append(job.id)
    return shown


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[Served]:
    plant_files(tmp_path)
    service = quick_service(tmp_path)
    work = service.model_work
    work.file_process, work.drawing_process = cast(Any, [Hostile(work.file_process), Hostile(work.drawing_process)])
    with live(build_app(service)) as port:
        yield Served(f"http://127.0.0.1:{port}/", service, tmp_path)


def assert_nothing_ran(page: Any) -> None:
    """No script of the texts ran, and none of them became a part of the page that could run one."""
    assert page.evaluate("window.__xss") is None
    found = page.evaluate(
        """() => {
            const shows = ["value", "aria-label", "alt", "title", "data-name"]
            const script = one => one.tagName === "SCRIPT" && !one.text.startsWith("window.gradio_config")
            const runs = ({ name, value }) => value.includes("__xss") && !shows.includes(name)
                && (name.startsWith("on") || name === "srcdoc" || /^\\s*javascript:/i.test(value))
            return [...document.querySelectorAll("*")]
                .filter(one => (script(one) && one.text.includes("__xss")) || [...one.attributes].some(runs))
                .map(one => one.outerHTML.slice(0, 300))
        }"""
    )
    assert found == []


def shown(page: Any, elem_id: str) -> None:
    """The text stands there, as text."""
    page.locator(f"#{elem_id}").get_by_text(SEEN).first.wait_for()
    assert_nothing_ran(page)


def fill(page: Any, elem_id: str, text: str = EVIL) -> None:
    page.locator(f"#{elem_id}").locator(TYPED).first.fill(text)


def walk_train(page: Any) -> None:
    fill(page, "ce-name")
    page.locator("#ce-create").click()
    shown(page, "ce-message")
    for name in ("Create hypernetwork", "Preprocess images"):
        sub_tab(page, name)
        assert_nothing_ran(page)
    sub_tab(page, "Data sets")
    for name in (FILE, "plain"):
        choose(page, "ds-folder", name)
        page.locator("#ds-gallery button").first.click()
        shown(page, "ds-picture")
        page.locator("#ds-next").click()
        page.locator("#ds-picture").get_by_text("2 of 2").wait_for()
        assert_nothing_ran(page)
    page.get_by_text("Upload pictures").click()
    fill(page, "ds-name")
    page.locator("#ds-send").click()
    page.locator("#ds-upload-message p").first.wait_for()
    assert_nothing_ran(page)
    sub_tab(page, "New run")
    choose(page, "tr-embedding", "cat")
    choose(page, "tr-data", "plain")
    page.locator("#tr-plan").click()
    shown(page, "tr-planned")
    fill(page, "tr-embedding-rate")
    page.locator("#tr-embedding-schedule p").first.wait_for()
    page.locator("#tr-start-embedding").click()
    page.locator("#tr-message .fault").first.wait_for()
    assert_nothing_ran(page)


def walk_runs(page: Any, jobs: list[str]) -> None:
    tab(page, "Runs")
    for job in jobs:
        page.locator(f'[data-job="{job}"]').click()
        page.locator(f'[data-job="{job}"][aria-pressed="true"]').wait_for()
        shown(page, "run-head")
        shown(page, "run-log")
        page.locator("#previews .shot").nth(1).wait_for()
        assert_nothing_ran(page)


def walk_try_and_files(page: Any, served: Served) -> None:
    tab(page, "Try it")
    page.locator(".adapter").get_by_text(SEEN).first.click()
    fill(page, "try-prompt")
    page.locator("#try-draw").click()
    page.locator("#try-pictures img").first.wait_for()
    page.locator("#try-pictures summary").first.click()
    assert_nothing_ran(page)
    drawing: Any = served.service.model_work.drawing_process
    drawing.real.error = UsageError(EVIL)
    page.locator("#try-draw").click()
    shown(page, "try-answer")
    tab(page, "Files")
    for button in page.locator("[data-file]").filter(has_text=SEEN).all()[:2]:
        button.click()
        shown(page, "file-card")
        shown(page, "file-report")
    fill(page, "file-path")
    page.locator("#file-inspect").click()
    page.locator("#file-card .fault").wait_for()
    tab(page, "Settings")
    page.locator("#settings-examine").click()
    shown(page, "doctor")


def test_no_text_of_others_runs_as_a_script(chromium: Any, hostile: Served) -> None:
    jobs = plant_jobs(hostile)
    with opened(chromium, hostile.url) as page:
        page.set_default_timeout(15_000)
        walk_runs(page, jobs)
        walk_try_and_files(page, hostile)
        tab(page, "Train")
        walk_train(page)
        assert_nothing_ran(page)
