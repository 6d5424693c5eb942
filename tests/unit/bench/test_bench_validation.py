"""How lessons are judged: by hand, on figures that leave no doubt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from bench import validation


def figures(*rows: tuple[float, float, float], steps: int = 100, pairs: int = 100) -> dict[str, Any]:
    """Rows of a step, its validation loss and the share that shows what was taught."""
    return {
        "taught": "a thing",
        "pictures": 3,
        "steps": steps,
        "pairs": pairs,
        "rows": [[step, loss, loss / 2, share, share / 2] for step, loss, share in rows],
    }


def test_best_is_all_that_is_as_good_within_one_standard_error() -> None:
    found = figures((0, 0.9, 0.0), (30, 0.5, 0.46), (60, 0.4, 0.5), (90, 0.6, 0.449))
    assert validation.best_steps(found["rows"], 3, pairs=100) == [30, 60]  # an error of 0.05
    assert validation.best_steps(found["rows"], 3, pairs=10_000) == [60]
    sure = figures((0, 0.9, 0.99), (30, 0.5, 1.0), (60, 0.4, 1.0))
    assert validation.best_steps(sure["rows"], 3, pairs=10) == [30, 60]


@pytest.mark.parametrize(("lowest", "apart", "near"), [(30, 0, 1), (80, 20, 1), (90, 30, 0)])
def test_a_lesson_holds_up_to_a_fifth_of_its_steps(lowest: int, apart: int, near: int) -> None:
    rows = [(step, 0.1 if step == lowest else 0.5, 1.0 if 30 <= step <= 60 else 0.0) for step in range(0, 101, 10)]
    found = figures(*rows)
    assert validation.verdict(found) == (lowest, [30, 40, 50, 60], apart)
    assert f"Within 20% of the steps: {near} of 1 lessons by what was taught" in validation.report({"one": found})


def test_the_table_is_made_of_the_results_that_are_there(tmp_path: Path) -> None:
    name = next(iter(validation.lessons()))
    (tmp_path / f"{name}.json").write_text(json.dumps(figures((0, 0.5, 0.0), (30, 0.4, 1.0), (60, 0.6, 1.0))))
    page = tmp_path / "quality.md"
    page.write_text(f"before\n{validation.BEGIN}\nold\n{validation.END}\nafter\n")
    validation.main(["--report", "--results", str(tmp_path), "--docs", str(page)])
    text = page.read_text()
    assert text.startswith(f"before\n{validation.BEGIN}\n") and text.endswith(f"{validation.END}\nafter\n")
    assert "old" not in text
    assert "| 0.4000 at 30 (at the end 0.6000) |" in text and "| 30-60 (1.00; at the end 1.00) | 0 of 100 |" in text


def test_an_unknown_lesson_is_named() -> None:
    with pytest.raises(SystemExit, match="no lesson style-99; there are subject-0"):
        validation.main(["style-99"])
