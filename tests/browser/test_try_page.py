"""The Try it tab in Chromium: adapters and strengths in the prompt, pictures, before and after, grids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from tests.browser.conftest import PHONE, Served, choose, fits, opened, tab
from tests.served import write
from tincture.errors import UsageError


@pytest.fixture
def trying(page: Any, served: Served) -> Any:
    write(served.service.workspace.adapter_path("embedding", "teal fox"))
    write(served.service.workspace.adapter_path("hypernetwork", "outline"))
    write(served.root / "textual_inversion/2026-11-21/outline/hypernetworks/outline-500.pt")
    tab(page, "Try it")
    page.locator(".adapter").first.wait_for()
    return page


def prompt_of(page: Any) -> Any:
    return page.locator("#try-prompt textarea")


def wait_for_prompt(page: Any, text: str) -> None:
    page.wait_for_function("text => document.querySelector('#try-prompt textarea')?.value === text", arg=text)


def asked(served: Served) -> dict[str, Any]:
    calls: Any = served.service.model_work.drawing_process
    return next(dict(arguments["request"]) for name, arguments in reversed(calls.asked) if name == "draw")


def put_in(page: Any, name: str) -> None:
    page.locator(".adapter").get_by_text(name, exact=True).click()


def test_buttons_and_sliders_write_into_the_prompt(trying: Any) -> None:
    prompt_of(trying).fill("a photo of")
    put_in(trying, "teal fox")
    wait_for_prompt(trying, "a photo of teal fox")
    put_in(trying, "outline")
    wait_for_prompt(trying, "a photo of teal fox <hypernet:outline:1.0>")
    strengths = trying.locator(".strength:visible input[type=number]")
    strengths.nth(1).wait_for()
    for place, strength, text in (
        (1, "0.6", "a photo of teal fox <hypernet:outline:0.6>"),
        (0, "0.8", "a photo of (teal fox:0.8) <hypernet:outline:0.6>"),
    ):
        strengths.nth(place).fill(strength)
        trying.keyboard.press("Tab")
        wait_for_prompt(trying, text)
    bar = trying.locator(".strength:visible input[type=range]").nth(1)
    bar.press("ArrowRight")
    wait_for_prompt(trying, "a photo of (teal fox:0.8) <hypernet:outline:0.65>")
    bar.press("ArrowLeft")
    bar.press("ArrowLeft")
    wait_for_prompt(trying, "a photo of (teal fox:0.8) <hypernet:outline:0.55>")
    strengths.nth(1).press("Control+a")
    strengths.nth(1).press_sequentially("0.7", delay=150)
    wait_for_prompt(trying, "a photo of (teal fox:0.8) <hypernet:outline:0.7>")
    put_in(trying, "teal fox")
    wait_for_prompt(trying, "a photo of <hypernet:outline:0.7>")
    trying.wait_for_function("document.querySelectorAll('.adapter[aria-pressed=true]').length === 1")


def test_pictures_are_drawn_with_what_was_asked_for(trying: Any, served: Served) -> None:
    prompt_of(trying).fill("a cat")
    trying.locator("#try-negative-prompt textarea").fill("blurry")
    trying.locator("#try-seed input").fill("7")
    trying.locator("#try-draw").click()
    trying.locator("#try-pictures img").first.wait_for()
    request = asked(served)
    assert (request["prompts"], request["seeds"], request["model"]) == (["a cat"], [7], "picto")
    assert (request["negative_prompt"], request["steps"], request["sampler"]) == ("blurry", 20, "Euler a")
    assert (request["guidance_scale"], request["width"], request["height"]) == (None, None, None)
    assert (request["prediction_type"], request["zero_terminal_snr"], request["clip_skip"]) == ("auto", None, 1)
    trying.wait_for_function("document.querySelector('#try-pictures img').naturalWidth === 8")


def test_a_model_is_drawn_as_it_was_trained(trying: Any, served: Served) -> None:
    prompt_of(trying).fill("a cat")
    trying.get_by_role("button", name="Model and precision").click()
    trying.locator("#try-prediction_type").get_by_label("v_prediction").check()
    trying.locator("#try-family").get_by_label("sd2").check()
    trying.locator("#try-zero_terminal_snr").get_by_label("Yes").check()
    trying.locator("#try-clip_skip input").fill("2")
    trying.locator("#try-draw").click()
    trying.locator("#try-pictures img").first.wait_for()
    request = asked(served)
    assert (request["family"], request["prediction_type"]) == ("sd2", "v_prediction")
    assert (request["zero_terminal_snr"], request["clip_skip"], request["precision"]) == (True, 2, "fp32")


def test_before_and_after_have_the_same_seed(trying: Any, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served.service.model_work.drawing_process, "_draw", _drawn_once_per_prompt, raising=False)
    prompt_of(trying).fill("a cat on grass")
    trying.get_by_label("Before and after").check()
    trying.locator("#try-instead").locator("textarea, input").fill("dog")
    trying.locator(".strength:visible").first.wait_for()
    trying.locator("#try-draw").click()
    trying.locator(".pair img").nth(1).wait_for()
    assert asked(served)["prompts"] == ["a dog on grass", "a cat on grass"]


def _drawn_once_per_prompt(request: dict[str, Any], out: Any, **_: Any) -> list[Any]:
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"pair-{number}.png" for number, _ in enumerate(request["prompts"])]
    for path in paths:
        Image.new("RGB", (8, 8)).save(path)
    return paths


def test_a_grid_takes_copies_of_a_run(trying: Any, served: Served) -> None:
    prompt_of(trying).fill("a house")
    trying.get_by_label("Grid").check()
    choose(trying, "try-run", "2026-11-21/outline")
    wait_for_prompt(trying, "a house <hypernet:outline:1.0>")
    trying.locator("#try-strengths").locator("textarea, input").fill("0, 0.5")
    trying.locator("#try-draw").click()
    trying.locator(".sheet img").wait_for()
    request = asked(served)
    assert request["strengths"] == [0, 0.5]
    assert [path.rsplit("/", 1)[-1] for path in map(str, request["checkpoints"])] == ["outline-500.pt"]


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda page: prompt_of(page).fill(""), "The prompt is empty"),
        (lambda page: page.locator("#try-seed input").fill("-7"), "It cannot be drawn"),
    ],
)
def test_what_went_wrong_is_a_sentence(
    trying: Any, served: Served, monkeypatch: pytest.MonkeyPatch, prepare: Callable[[Any], None], words: str
) -> None:
    monkeypatch.setattr(served.service.model_work.drawing_process, "error", UsageError("It cannot be drawn."))
    prompt_of(trying).fill("a cat")
    prepare(trying)
    trying.locator("#try-draw").click()
    trying.locator("#try-progress").get_by_text(words).wait_for()


def test_stop_asks_for_an_end(trying: Any, served: Served) -> None:
    calls: Any = served.service.model_work.drawing_process
    before = calls.interrupted
    trying.locator("#try-stop").click()
    trying.wait_for_timeout(1000)
    assert calls.interrupted == before + 1


def test_it_fits_a_phone_in_the_dark(chromium: Any, served: Served) -> None:
    with opened(chromium, served.url, PHONE, has_touch=True, is_mobile=True, color_scheme="dark") as phone:
        tab(phone, "Try it")
        phone.locator("#try-draw").wait_for()
        fits(phone, PHONE[0])
