from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from tests.runs import RANDOM, Bench, OnStep, Recorder, csv_text, equal, last_state, trained
from tincture import recipe
from tincture.adapters.hypernetwork import create_hypernetwork
from tincture.drawing.sheets import LABEL_HEIGHT, LABEL_WIDTH, contact_sheet
from tincture.errors import FileFormatError, UsageError
from tincture.events import PreviewReady
from tincture.formats.picture_text import PictureParameters, parse_parameters
from tincture.run import previews

KINDS = ("embedding", "hypernetwork")
PREVIEWS: dict[str, Any] = {
    "preview_every": 2,
    "preview_steps": 2,
    "preview_sampler": "Euler a",
    "preview_prompts": ["a cat", 'red, cat: "moon"'],
    "preview_negative_prompt": "blue",
    "preview_seed": 7,
}


def steps_of(run_dir: Path) -> list[int]:
    return sorted(int(path.stem.split("-")[-2]) for path in (run_dir / "images").glob("*-0.png"))


def picture(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.array(image)


def parameters(path: Path) -> PictureParameters:
    with Image.open(path) as image:
        return parse_parameters(image.info["parameters"])


def sheet_rows(run_dir: Path) -> int:
    height: int = picture(run_dir / "images" / "contact-sheet.png").shape[0]
    return height // (16 + 2)


@pytest.mark.parametrize("kind", KINDS)
def test_previews_do_not_disturb_training(new_bench: Callable[[str], Bench], kind: str) -> None:
    """Network dropout, and a sampler that draws noise at every step, would both show."""
    settings = {**RANDOM, "steps": 4}
    without = new_bench("without").train(kind, **settings)
    previewed = new_bench("with").train(kind, **settings, **{**PREVIEWS, "preview_every": 1})
    assert steps_of(previewed.run_dir) == [0, 1, 2, 3, 4]
    assert equal(trained(previewed.adapter_path), trained(without.adapter_path))
    assert equal(last_state(previewed.run_dir), last_state(without.run_dir))
    assert csv_text(previewed.run_dir) == csv_text(without.run_dir)


@pytest.mark.parametrize("kind", KINDS)
def test_previews_that_are_asked_for_do_not_disturb_training(new_bench: Callable[[str], Bench], kind: str) -> None:
    settings = {**RANDOM, "steps": 5, "save_every": 2}
    without = new_bench("without").train(kind, **settings)
    bench, recorder = new_bench("with"), Recorder()

    def ask() -> None:
        (folder,) = bench.workspace.logs.glob("*/*")
        for _ in range(2):  # counts once
            recipe.preview(folder)

    asking = [OnStep(2, ask), recorder]
    asked = bench.train(kind, **settings, **{**PREVIEWS, "preview_every": 0}, callbacks=asking)
    assert [event.global_step for event in recorder.of(PreviewReady)] == steps_of(asked.run_dir) == [3]
    assert recorder.of(PreviewReady)[0].prompts == tuple(PREVIEWS["preview_prompts"])
    assert equal(trained(asked.adapter_path), trained(without.adapter_path))
    assert equal(last_state(asked.run_dir), last_state(without.run_dir))
    assert csv_text(asked.run_dir) == csv_text(without.run_dir)
    with pytest.raises(UsageError, match="is not going on; tincture resume"):
        recipe.preview(asked.run_dir)
    with pytest.raises(FileFormatError, match=r"it has no run\.json"):
        recipe.preview(asked.run_dir.parent)


def test_a_run_goes_on_without_previews_that_were_asked_for_where_memory_runs_out(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_much(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(previews, "generate", too_much)
    asking = [OnStep(1, lambda: recipe.preview(next(bench.workspace.logs.glob("*/*"))))]
    with pytest.warns(UserWarning, match="not enough memory for previews at step 2; the training goes on"):
        result = bench.train("embedding", steps=3, callbacks=asking, **{**PREVIEWS, "preview_every": 0})
    assert result.global_step == 3 and not result.interrupted


def test_pictures_tell_how_they_were_made(bench: Bench) -> None:
    recorder = Recorder()
    result = bench.train("hypernetwork", steps=2, clip_skip=2, callbacks=[recorder], **PREVIEWS)
    ready = recorder.of(PreviewReady)
    assert [event.global_step for event in ready] == [0, 2]
    assert [path.name for path in ready[1].paths] == ["ink-2-0.png", "ink-2-1.png"]
    assert all(path.parent == result.run_dir / "images" for event in ready for path in event.paths)
    assert picture(ready[1].paths[1]).shape == (16, 16, 3)
    read = parameters(ready[1].paths[1])
    assert (read.prompt, read.negative_prompt) == ('red, cat: "moon"', "blue")
    told = {key: read.settings[key] for key in ("Steps", "Sampler", "CFG scale", "Seed", "Size", "Model", "Clip skip")}
    assert told == {
        "Steps": "2",
        "Sampler": "Euler a",
        "CFG scale": "7",
        "Seed": "7",
        "Size": "16x16",
        "Model": "tiny",
        "Clip skip": "2",
    }
    assert read.settings["Hypernet"] == "ink"
    sheet = parameters(result.run_dir / "images" / "contact-sheet.png")
    assert (sheet.prompt, sheet.negative_prompt) == ('a cat\nred, cat: "moon"', "blue")
    told |= {"Hypernet": "ink", "Sheet rows": "step 0, step 2"}
    assert {key: sheet.settings[key] for key in told} == told


def test_seeds_are_fixed_and_the_adapter_acts(new_bench: Callable[[str], Bench]) -> None:
    """Equal weights give equal pictures, whatever the step; other weights give others."""
    rates = {"still": "0", "trained": "1"}
    pictures = {}
    for name, rate in rates.items():
        result = new_bench(name).train("embedding", steps=4, learning_rate=rate, weight_decay=0.0, **PREVIEWS)
        pictures[name] = [picture(result.run_dir / "images" / f"cat-{step}-0.png") for step in (0, 4)]
    assert np.array_equal(pictures["still"][0], pictures["still"][1])
    assert np.array_equal(pictures["still"][0], pictures["trained"][0])
    assert not np.array_equal(pictures["trained"][0], pictures["trained"][1])


def test_network_dropout_is_off_in_previews(bench: Bench) -> None:
    """Else two previews with the same weights would differ: dropout draws from what the step before left."""
    strong = create_hypernetwork("ink", (32, 64), weight_init="KaimingNormal", dropout_structure=(0, 0.5, 0))
    strong.save(bench.path("hypernetwork"))
    result = bench.train("hypernetwork", steps=2, learning_rate="0", **PREVIEWS)
    first, second = (picture(result.run_dir / "images" / f"ink-{step}-0.png") for step in (0, 2))
    assert np.array_equal(first, second)


def test_the_sheet_has_a_row_per_preview_and_grows_over_a_resume(new_bench: Callable[[str], Bench]) -> None:
    settings = {**PREVIEWS, "steps": 7}
    whole = new_bench("whole").train("embedding", **settings)
    assert steps_of(whole.run_dir) == [0, 2, 4, 6, 7]
    assert sheet_rows(whole.run_dir) == 5
    bench = new_bench("stopped")
    stopped = bench.train("embedding", stop_after=3, **settings)
    assert sheet_rows(stopped.run_dir) == 2
    resumed = bench.resume(stopped.run_dir)
    for path in (whole.run_dir / "images").glob("*.png"):
        same = resumed.run_dir / "images" / path.name
        assert np.array_equal(picture(path), picture(same)), path.name
    assert len(list((resumed.run_dir / "images").iterdir())) == len(list((whole.run_dir / "images").iterdir()))


def opened_previews(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each preview is opened from now on, by its name."""
    times: Counter[str] = Counter()
    real = Image.open

    def count(file: Any, *args: Any, **options: Any) -> Any:
        if Path(file).parent.name == "images":
            times[Path(file).name] += 1
        return real(file, *args, **options)

    monkeypatch.setattr(Image, "open", count)
    return times


def test_sheet_and_cards_are_made_without_opening_a_preview(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = opened_previews(monkeypatch)
    result = bench.train("embedding", **{**PREVIEWS, "steps": 7}, preview_with_embedding=True)
    assert not opened
    assert sheet_rows(result.run_dir) == 5
    assert len(list((result.run_dir / "image_embeddings").iterdir())) == 5


@pytest.mark.parametrize("lost", ["nothing", "the sheet", "the sheet's newest rows", "half of the next preview"])
def test_a_resume_opens_each_earlier_preview_once_and_makes_the_same_sheet(
    new_bench: Callable[[str], Bench], monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    settings = {**PREVIEWS, "steps": 7, "save_every": 1}
    whole = new_bench("whole").train("embedding", **settings)
    bench = new_bench("stopped")
    early = bench.train("embedding", stop_after=1, **settings)
    sheet = early.run_dir / "images" / "contact-sheet.png"
    first_row = sheet.read_bytes()
    bench.resume(early.run_dir, stop_after=5)
    if lost == "the sheet":
        sheet.unlink()
    elif lost == "the sheet's newest rows":
        sheet.write_bytes(first_row)
    elif lost == "half of the next preview":
        shutil.copy(sheet.with_name("cat-4-0.png"), sheet.with_name("cat-6-0.png"))
    opened = opened_previews(monkeypatch)
    bench.resume(early.run_dir)
    assert opened == dict.fromkeys([f"cat-{step}-{n}.png" for step in (0, 2, 4) for n in (0, 1)], 1)
    assert steps_of(early.run_dir) == [0, 2, 4, 6, 7]
    assert sheet.read_bytes() == (whole.run_dir / "images" / "contact-sheet.png").read_bytes()


class Killed(BaseException):
    pass


def kill(*_: object, **__: object) -> None:
    raise Killed


@pytest.mark.parametrize("step", [0, 2, 5])
def test_a_sheet_that_a_kill_prevented_is_made_by_the_resume(
    new_bench: Callable[[str], Bench], monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    settings = {**PREVIEWS, "steps": 5, "save_every": 1, "preview_with_embedding": True}
    whole = new_bench("whole").train("embedding", **settings)
    bench = new_bench("killed")

    def fail_next() -> None:
        monkeypatch.setattr("tincture.run.previews.save_sheet", kill)

    if step == 0:
        fail_next()
    with pytest.raises(Killed):
        bench.train("embedding", callbacks=[OnStep(step - 1, fail_next)], **settings)
    monkeypatch.undo()
    (run_dir,) = bench.workspace.logs.glob("*/*")
    bench.resume(run_dir)
    assert steps_of(run_dir) == [0, 2, 4, 5]
    for folder in ("images", "image_embeddings"):
        made = {path.name: path.read_bytes() for path in (whole.run_dir / folder).iterdir()}
        assert {path.name: path.read_bytes() for path in (run_dir / folder).iterdir()} == made


def test_a_preview_that_a_kill_prevented_is_drawn_by_the_resume(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    # The state of step 2 is saved before the preview of step 2 is drawn.
    patch = OnStep(1, lambda: monkeypatch.setattr("tincture.run.previews.generate", kill))
    with pytest.raises(Killed):
        bench.train("embedding", steps=4, save_every=2, callbacks=[patch], **PREVIEWS)
    monkeypatch.undo()
    (run_dir,) = bench.workspace.logs.glob("*/*")
    assert steps_of(bench.resume(run_dir).run_dir) == [0, 2, 4]


def test_prompts_come_from_the_data_when_none_are_given(bench: Bench) -> None:
    recorder = Recorder()
    bench.train("embedding", steps=1, preview_every=1, preview_steps=1, callbacks=[recorder])
    paths = recorder.of(PreviewReady)[0].paths
    assert 1 <= len(paths) <= 4
    prompts = [parameters(path).prompt for path in paths]
    assert all("cat" in prompt for prompt in prompts)
    assert len(set(prompts)) == len(prompts)


def test_contact_sheet_places_pictures_in_rows_under_labels() -> None:
    red, blue = (np.full((8, 8, 3), colour, dtype=np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    sheet = np.asarray(contact_sheet({"one": [red, blue], "two": [blue]}, columns=("a", "b")))
    assert sheet.shape == (LABEL_HEIGHT + 2 * 10, LABEL_WIDTH + 2 * 10, 3)
    top, left = LABEL_HEIGHT + 4, LABEL_WIDTH + 4
    assert [tuple(sheet[top + y, left + x]) for y, x in ((0, 0), (0, 10), (10, 0), (10, 10))] == [
        (255, 0, 0),
        (0, 0, 255),
        (0, 0, 255),
        (255, 255, 255),
    ]
    assert (sheet[top, :LABEL_WIDTH] != 255).any()


def test_a_long_label_keeps_its_end() -> None:
    black = np.zeros((8, 8, 3), dtype=np.uint8)
    end = {
        name: np.asarray(contact_sheet({name: [black]}))[:, -40:-10] for name in ("a-long-name-100", "a-long-name-200")
    }
    assert (end["a-long-name-100"] != end["a-long-name-200"]).any()


def test_a_spoiled_preview_costs_its_row_of_the_sheet_and_no_resume(bench: Bench) -> None:
    stopped = bench.train("embedding", stop_after=5, **{**PREVIEWS, "steps": 7})
    images = stopped.run_dir / "images"
    (images / "cat-0-1.png").write_bytes((images / "cat-0-1.png").read_bytes()[:100])
    (images / "cat-2-0.png").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"cat-.* cannot be read \(.*\); the contact sheet leaves its row out") as told:
        resumed = bench.resume(stopped.run_dir)
    assert sum("cannot be read" in str(one.message) for one in told) == 2
    assert sheet_rows(resumed.run_dir) == 3  # of the steps 4, 6 and 7


def test_a_spoiled_preview_of_the_step_where_a_resume_begins_is_drawn_again(bench: Bench) -> None:
    stopped = bench.train("embedding", stop_after=4, **{**PREVIEWS, "steps": 5})
    path = stopped.run_dir / "images" / "cat-4-0.png"
    drawn = picture(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.warns(UserWarning, match="cannot be read"):
        resumed = bench.resume(stopped.run_dir)
    assert np.array_equal(picture(path), drawn) and sheet_rows(resumed.run_dir) == 4
