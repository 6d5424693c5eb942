"""Runs beside each other: curves, what differs, previews of a step; as data, as one HTML file, as one picture."""

from __future__ import annotations

import io
import json
import math
import re
from pathlib import Path

import pytest
from PIL import Image

from tests.past_runs import past_run
from tincture.errors import UsageError
from tincture.run.past.comparing import MOST_STEPS, compare
from tincture.run.past.past_run import PastRun, read_run


def runs(*folders: Path) -> list[PastRun]:
    found = [read_run(folder, folder.parent.parent) for folder in folders]
    return [run for run in found if run is not None]


def two(tmp_path: Path) -> list[PastRun]:
    one = past_run(tmp_path, "2026-01-01/rex", validation=[(0, 0.5), (4, 0.25)], previews=(0, 2, 4))
    prompts = ("a max at sea", "a dog")
    return runs(
        one, past_run(tmp_path, "2026-01-02/max", prompts=prompts, learning_rate="0.1", losses=(0.5, math.nan, 0.3))
    )


def test_what_differs_and_what_is_the_same(tmp_path: Path) -> None:
    found = compare(two(tmp_path), smoothing=0)
    assert dict(found.differing) == {"name": ["rex", "max"], "learning_rate": ["0.005", "0.1"]}
    assert list(found.names) == ["rex", "max"]
    loss, validation, rate = (found.curves[title] for title in ("Loss", "Validation loss", "Learning rate"))
    assert [x.tolist() for x, _ in loss] == [[1, 2, 3, 4], [1, 3]]
    assert [y.tolist() for _, y in loss] == [pytest.approx([0.4, 0.3, 0.2, 0.1]), pytest.approx([0.5, 0.3])]
    assert [x.tolist() for x, _ in validation] == [[0, 4], []]
    assert rate[0][1].tolist() == pytest.approx([0.01, 0.005, 0.01 / 3, 0.0025])


def test_an_adapter_s_own_name_in_prompts_makes_no_difference(tmp_path: Path) -> None:
    def differing(*prompts: str) -> dict[str, object]:
        names = zip(("rex", "max"), prompts, strict=True)
        folders = [
            past_run(tmp_path / prompts[1], f"d/{name}", preview_prompts=[prompt], negative_prompt=f"no {name}")
            for name, prompt in names
        ]
        return dict(compare(runs(*folders)).differing)

    assert differing("a rex at sea", "a max at sea") == {"name": ["rex", "max"]}
    assert differing("a rex at sea", "a maximum")["preview_prompts"] == [["a [name] at sea"], ["a maximum"]]


def test_previews_are_of_steps_in_common_and_by_prompt_without_the_name(tmp_path: Path) -> None:
    found = compare(two(tmp_path))
    assert list(found.previews) == [0, 4]
    assert {prompt: [path and path.name for path in paths] for prompt, paths in found.previews[4].items()} == {
        "a [name] at sea": ["rex-4-0.png", "max-4-0.png"],
        "a cat": ["rex-4-1.png", None],
        "a dog": [None, "max-4-1.png"],
    }
    assert list(compare(two(tmp_path / "again"), step=2).previews) == [2]


def test_of_many_steps_some_are_shown(tmp_path: Path) -> None:
    folders = [past_run(tmp_path, f"d/{name}", previews=range(0, 100, 2)) for name in ("a", "b")]
    steps = list(compare(runs(*folders)).previews)
    assert len(steps) == MOST_STEPS and (steps[0], steps[-1]) == (0, 98)


@pytest.mark.parametrize(
    ("chosen", "step", "said"),
    [
        ([0, 0], None, "is given twice; give each once"),
        ([0], None, "1 run cannot be compared; give 2 to 12"),
        ([0, 1], 3, "--step is 3, of which no run has previews; there are: 0, 4"),
    ],
    ids=["twice", "one", "step"],
)
def test_what_cannot_be_compared_is_a_sentence(tmp_path: Path, chosen: list[int], step: int | None, said: str) -> None:
    found = two(tmp_path)
    with pytest.raises(UsageError) as error:
        compare([found[place] for place in chosen], step=step)
    assert said in error.value.sentence


def test_the_page_stands_alone_and_shows_texts_as_they_are(tmp_path: Path) -> None:
    evil = past_run(tmp_path, "d/<script>alert(1)<", prompts=('"><script>x()', "b"), model="<img src=x>")
    page = compare(runs(evil, past_run(tmp_path, "d/max"))).to_html()
    assert "<script" not in page and "<img src=x>" not in page
    assert (
        not re.search(r"(src|href)=\"(?!data:image/jpeg;base64,)", page)
        and "url(" not in page
        and "@import" not in page
    )
    assert page.count("data:image/jpeg;base64,") == 8
    assert "Settings that differ" in page and "Learning rate" in page


@pytest.mark.parametrize("bare", [False, True], ids=("full", "bare"))
def test_the_picture_has_curves_and_previews(tmp_path: Path, bare: bool) -> None:
    more = {"losses": (), "previews": ()} if bare else {}
    found = compare(runs(*(past_run(tmp_path, f"d/{name}", **more) for name in ("a", "b"))))  # type: ignore[arg-type]
    with Image.open(io.BytesIO(found.to_png())) as picture:
        assert picture.format == "PNG" and picture.width == 1400
        colours = {pixel for _, pixel in picture.convert("RGB").getcolors(2**24) or ()}
    assert len(colours) > 2
    assert ("None was written down" in found.to_html()) is bare
    json.dumps(found.to_dict(), allow_nan=False)


def test_twelve_runs_with_long_names_fit(tmp_path: Path) -> None:
    folders = [past_run(tmp_path, f"d/{'long name ' * 9}{number}", model=f"m{number}" * 20) for number in range(12)]
    with Image.open(io.BytesIO(compare(runs(*folders)).to_png())) as picture:
        assert picture.width == 1400


def test_a_preview_that_is_damaged_or_gone_is_left_out(tmp_path: Path) -> None:
    found = two(tmp_path)
    pictures = sorted(found[0].folder.glob("images/rex-4-*.png"))
    pictures[0].write_bytes(b"x")
    compared = compare(found)
    pictures[1].unlink()
    assert compared.to_png() and "data:image" in compared.to_html()
