"""What the page draws of schedules and plans, and how it keeps track of pictures and sliders."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tincture.reports.curves import HEIGHT, WIDTH
from tincture.server.page.train.plan_view import plan_html
from tincture.server.page.train.schedule_plot import draw_schedule
from tincture.server.page.try_it.prompt_edit import Named
from tincture.server.page.try_it.tab import _sliders


def line_of(drawn: str) -> list[tuple[float, float]]:
    """The corners, as percents of the width and of the height from the top."""
    found = re.search(r'<path class="strong" d="M([^"]+)"', drawn)
    assert found
    points = [tuple(map(float, point.split())) for point in found[1].split("L")]
    return [(100 * x / WIDTH, 100 * y / HEIGHT) for x, y in points]


def test_a_schedule_is_drawn_as_steps() -> None:
    drawn = draw_schedule("0.004:250, 0.001", 1000)
    assert line_of(drawn) == [(0, 0), (25, 0), (25, 75), (100, 75)]
    assert 'aria-label="0.004 until step 250; then 0.001 until step 1000"' in drawn
    assert ">250</span>" in drawn and ">step 1000</span>" in drawn
    assert 'class="rate" style="left:25.00%;top:45px">0.001<' in drawn


def test_rates_that_differ_by_much_are_drawn_by_their_logarithm() -> None:
    heights = [100 - y for _, y in line_of(draw_schedule("1e-2:100, 1e-4:200, 1e-6", 300))][::2]
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.2)
    assert heights[2] == pytest.approx(15, abs=0.1)  # the lowest one is seen too
    assert line_of(draw_schedule("1e-2:100, 1e-6:200, 0", 300))[-1] == (100, 100)


def test_where_nothing_is_typed_the_usual_rate_is_drawn() -> None:
    assert "0.005 until step 10" in draw_schedule(" ", 10, fallback="0.005")


@pytest.mark.parametrize(
    ("text", "steps", "words"),
    [
        ("0.1:2:3", 10, "3 fields"),
        ("<b>", 10, "&lt;b&gt;"),
        ("0.1", None, "whole number of at least 1"),
        ("0.1", 0, "whole number of at least 1"),
    ],
)
def test_a_fault_is_a_sentence(text: str, steps: Any, words: str) -> None:
    drawn = draw_schedule(text, steps)
    assert words in drawn and 'role="alert"' in drawn and "<b>" not in drawn


PLAN: dict[str, Any] = {
    "settings": {
        "kind": "embedding",
        "name": "moon",
        "batch_size": 2,
        "gradient_accumulation_steps": 4,
        "learning_rate": "0.005:100, 1e-3",
        "template": "style",
        "ema": "0.99",
    },
    "model": {"name": "picto", "family": "Stable Diffusion 1", "predicts": "epsilon"},
    "pictures": 12,
    "samples_per_epoch": 24,
    "skipped": {"<x>.png": "cannot be read"},
    "remarks": ["2 pictures are <small>."],
    "buckets": [{"size": "64x48", "pictures": 12, "cropped": 0.025}],
    "steps": 1000,
    "epochs": 83.33,
    "averages": {"embeddings/cat.pt": "average", "embeddings/cat-raw.pt": "raw"},
    "optimizer": "AdamW, <the usual one>; weight decay 0.01",
    "loss": "mse",
    "on_divergence": "where a loss is not finite, the run stops",
    "trained_numbers": 112,
    "memory_mib": {"peak": 2048.0, "training": 2048.0, "weights of unet": 12.5},
    "chosen_for_memory": {"precision": "bf16"},
    "duration": {"description": "about 1 h 40 min <if so>"},
}


def test_a_plan_says_what_will_be_measured() -> None:
    assert "Validation" not in plan_html(PLAN)
    measured = {"pictures": 20, "measured_pictures": 16, "measured_training_pictures": 12, "measurements": 5}
    shown = plan_html({**PLAN, "validation": {**measured, "every": 100, "best_path": "/a/b/<cat>-best.pt"}})
    assert "20 pictures, 16 measured beside 12 that are trained, 5 times" in shown
    assert "&lt;cat&gt;-best.pt" in shown and "/a/b" not in shown


def test_a_plan_tells_everything_and_escapes_it() -> None:
    shown = plan_html(PLAN)
    for told in (
        "Embedding moon: 1,000 steps to go",
        "12, 24 samples an epoch",
        "83.33",
        "2 × 4 pictures",
        "64 × 48",
        "2.5%",
        "at most 2.00 GiB",
        "Precision, chosen",
        "about 1 h 40 min &lt;if so&gt;",
        "Weights in cat.pt",
        "averages, decay 0.99",
        "AdamW, &lt;the usual one&gt;; weight decay 0.01",
        "Weights in cat-raw.pt",
        "where a loss is not finite, the run stops",
        "1 picture left out",
        "2 pictures are &lt;small&gt;.",
        "&lt;x&gt;.png: cannot be read",
    ):
        assert told in shown, told


def test_every_adapter_of_the_prompt_has_a_slider_and_the_rest_are_not_seen() -> None:
    fox, ink = Named("embedding", "fox", 1.0), Named("hypernetwork", "ink", 0.5)
    first, second, third, *_ = _sliders([fox, ink])
    assert (first.label, first.value, first.visible) == ("fox (prompt weight)", 1.0, True)
    assert (second.label, second.value, second.visible) == ("ink (multiplier)", 0.5, True)
    assert third.visible is False
