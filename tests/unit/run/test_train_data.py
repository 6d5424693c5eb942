"""What the settings of the data do to a run: folders, repeats, mirroring, sizes, masks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from tests.runs import CAPTIONS, RANDOM, Bench, equal, trained, write_pictures
from tincture import recipe
from tincture.data.latents import LatentCache
from tincture.errors import DataError, UsageError
from tincture.models.stable_diffusion import StableDiffusion

# Some runs here train the outer of two folders alone.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Pictures in inner folders are left out:UserWarning",
    "ignore:Of a picture:UserWarning",  # many are far from the shape that they are trained in
)
ALL: dict[str, Any] = {
    **RANDOM,
    "buckets": True,
    "flip": True,
    "use_weight": True,
    "unmasked_weight": 0.2,
    "keep_tags": 1,
}


def add_wide(bench: Bench) -> None:
    """Two wide pictures in an inner folder, each to come twice, and masks for all."""
    wide = write_pictures(bench.data / "2_wide", ["wide, one", "wide, two"])
    for path in wide.glob("*.png"):
        Image.open(path).resize((64, 16)).save(path)
    (bench.data / "mask").mkdir()
    (wide / "mask").mkdir()
    mask = Image.fromarray(np.linspace(0, 255, 256).astype(np.uint8).reshape(16, 16))
    for number in range(5):
        mask.rotate(90 * number).save(bench.data / "mask" / f"{number}.png")
    for number in range(2):
        mask.resize((32, 8)).save(wide / "mask" / f"{number}.png")


def folders(bench: Bench) -> list[str]:
    return [f"{bench.data}:2", str(bench.data / "2_wide")]


def test_a_run_with_all_of_it_resumes_exactly(new_bench: Callable[[str], Bench]) -> None:
    results = []
    for name, stop_after in [("whole", 0), ("stopped", 3)]:
        bench = new_bench(name)
        add_wide(bench)
        settings = {**ALL, "data": folders(bench), "folder_repeats": True, "steps": 6}
        result = bench.train("embedding", stop_after=stop_after, **settings)
        results.append(trained((bench.resume(result.run_dir) if stop_after else result).adapter_path))
    assert equal(*results)


def test_the_plan_tells_buckets_and_samples(bench: Bench) -> None:
    add_wide(bench)
    (bench.data / "broken.png").touch()
    (bench.data / "mask" / "0.png").unlink()
    settings = bench.settings("embedding", **ALL, data=folders(bench), folder_repeats=True, steps=9)
    plan = recipe.plan(settings, bench.workspace)
    assert (plan["pictures"], plan["samples_per_epoch"]) == (7, 2 * (5 * 2 + 2 * 2))
    assert plan["buckets"] == [
        {"size": "16x16", "pictures": 5, "cropped": 0.0},
        {"size": "32x8", "pictures": 2, "cropped": 0.0},
    ]
    assert list(plan["skipped"]) == [str(bench.data / "broken.png")]
    assert plan["remarks"] == ["Without a mask picture, unlike others: 0.png."]
    assert plan["micro_batches_per_epoch"] == 10 + 4
    assert json.loads(json.dumps(plan)) == plan


def test_what_is_odd_is_warned_of_and_trained(bench: Bench) -> None:
    (bench.data / "broken.png").touch()
    with pytest.warns(UserWarning) as warned:
        result = bench.train("embedding", width=32, height=32, steps=1)
    assert result.global_step == 1
    told = [str(warning.message) for warning in warned]
    assert any("broken.png is skipped: is empty (0 bytes)" in text for text in told)
    assert any("enlarged: 0.png, 1.png" in text for text in told)


def test_weights_without_a_mask_anywhere_are_warned_of_once_and_planned_so(bench: Bench) -> None:
    with pytest.warns(UserWarning) as warned:
        bench.train("embedding", use_weight=True, steps=1)
    told = [str(warning.message) for warning in warned if "no picture has a mask" in str(warning.message)]
    assert len(told) == 1
    plan = recipe.plan(bench.settings("embedding", use_weight=True, steps=2), bench.workspace)
    assert told[0] in plan["remarks"]
    (bench.data / "mask").mkdir()
    (bench.data / "0.png").rename(bench.data / "mask" / "1.png")
    plan = recipe.plan(bench.settings("embedding", use_weight=True, steps=2), bench.workspace)
    assert told[0] not in plan["remarks"]


def test_previews_by_the_data_show_each_picture_once(bench: Bench) -> None:
    result = bench.train("embedding", flip=True, steps=1, preview_every=1, preview_steps=1)
    texts = [path.read_bytes().decode("latin-1") for path in (result.run_dir / "images").glob("cat-1-?.png")]
    assert len(texts) == 4
    assert all(sum(caption in text for text in texts) == 1 for caption in CAPTIONS[:4])


def test_mirrored_pictures_have_latents_of_their_own(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[Tensor] = []
    encode = StableDiffusion.encode_pictures

    def watched(model: StableDiffusion, pixels: Tensor) -> tuple[Tensor, Tensor]:
        encoded.extend(pixels)
        return encode(model, pixels)

    monkeypatch.setattr(StableDiffusion, "encode_pictures", watched)
    bench.train("embedding", flip=True, data=f"{bench.data}:3", steps=1)
    assert len(encoded) == 10
    assert all(equal(encoded[index].flip(2), encoded[index + 1]) for index in range(0, 10, 2))


@pytest.mark.parametrize(
    "changes",
    [
        {"use_weight": True},
        {"use_weight": True, "unmasked_weight": 0.5},
        {"flip": True},
        {"resize": "crop", "height": 8},
    ],
    ids=str,
)
def test_each_of_the_settings_changes_the_result(new_bench: Callable[[str], Bench], changes: dict[str, Any]) -> None:
    results = []
    for name, settings in [("plain", {}), ("floor", {"use_weight": True}), ("changed", changes)]:
        if settings != changes or name == "changed":
            bench = new_bench(name)
            add_wide(bench)
            results.append(trained(bench.train("embedding", steps=3, batch_size=2, **settings).adapter_path))
    assert not any(equal(result, results[-1]) for result in results[:-1])


def test_masks_elsewhere_and_a_run_that_is_resumed_from_another_place(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    add_wide(bench)
    (bench.data / "mask").rename(bench.data.parent / "masks")
    (bench.data / "2_wide" / "mask").rename(bench.data.parent / "masks" / "2_wide")
    monkeypatch.chdir(bench.data.parent)
    settings: dict[str, Any] = {
        "data": [f"{bench.data.name}:2", f"{bench.data.name}/2_wide"],
        "use_weight": True,
        "steps": 4,
    }
    result = bench.train("embedding", stop_after=2, masks="masks", **settings)
    recorded = json.loads((result.run_dir / "run.json").read_text())["settings"]
    assert recorded["data"] == [f"{bench.data}:2", str(bench.data / "2_wide")]
    assert recorded["masks"] == str(bench.data.parent / "masks")
    monkeypatch.chdir(tmp_path)
    assert bench.resume(result.run_dir).global_step == 4


def test_changed_masks_or_repeats_are_refused_at_resume_but_only_where_they_count(
    new_bench: Callable[[str], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(name: str, **settings: Any) -> tuple[Bench, Path]:
        bench = new_bench(name)
        add_wide(bench)
        return bench, bench.train("embedding", stop_after=2, batch_size=2, **settings).run_dir

    masked, masked_run = stopped("masked", use_weight=True)
    plain, plain_run = stopped("plain")
    repeated, repeated_run = stopped("repeated", recursive=True, folder_repeats=True)
    for bench in (masked, plain):
        Image.new("L", (16, 16), "white").save(bench.data / "mask" / "0.png")
    (repeated.data / "2_wide").rename(repeated.data / "3_wide")
    assert plain.resume(plain_run).global_step == 4

    def never(*_: object, **__: object) -> None:
        raise AssertionError("pictures were encoded")

    monkeypatch.setattr(LatentCache, "encode", never)
    for bench, run_dir in ((masked, masked_run), (repeated, repeated_run)):
        with pytest.raises(DataError, match=r"masks in .* have changed since the run began"):
            bench.resume(run_dir)


def test_repeats_allow_larger_batches_and_too_large_ones_are_refused(bench: Bench) -> None:
    assert bench.train("embedding", data=f"{bench.data}:2", batch_size=10, steps=1).global_step == 1
    with pytest.raises(UsageError, match=r"`batch_size` is 11, but .*:2 has 10 usable pictures"):
        bench.train("embedding", data=f"{bench.data}:2", batch_size=11, steps=2)


def test_buckets_that_no_size_fits_are_refused(bench: Bench) -> None:
    with pytest.raises(UsageError, match="No bucket has at most 256 pixels"):
        bench.train("embedding", buckets=True, bucket_min=64, bucket_max=128)
