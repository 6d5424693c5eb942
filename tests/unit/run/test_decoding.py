"""No picture file is opened twice in a run, whatever the run needs of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.runs import RANDOM, Bench, equal, trained
from tincture import recipe
from tincture.errors import DataError
from tincture.run.train import train

# Some runs here train the outer of two folders alone.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Pictures in inner folders are left out:UserWarning",
    "ignore:Of a picture:UserWarning",  # some are far from the shape that they are trained in
)

MASKED: dict[str, Any] = {"use_weight": True, "attention_mask_weight": 1}
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "weighed": {"use_weight": True},
    "attention": {"attention_mask_weight": 1},
    "both": MASKED,
    "mirrored": {**MASKED, "flip": True},
    "repeated": {**MASKED, "folder_repeats": True, "recursive": True},
    "buckets": {**MASKED, "buckets": True, "bucket_min": 8, "bucket_max": 32},
    "own sizes": {**MASKED, "varsize": True},
}


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each picture file was opened since, by its name, and a mask's with its folder."""
    times: Counter[str] = Counter()
    real = Image.open

    def count(file: Any, *args: Any, **options: Any) -> Any:
        path = Path(file)
        times[f"mask/{path.name}" if path.parent.name == "mask" else path.name] += 1
        return real(file, *args, **options)

    monkeypatch.setattr(Image, "open", count)
    return times


def add_alpha(data: Path) -> None:
    for path in data.glob("*.png"):
        with Image.open(path) as picture:
            transparent = picture.convert("RGBA")
        transparent.putalpha(half(transparent.size))
        transparent.save(path)


def half(size: tuple[int, int]) -> Image.Image:
    """A mask that is white on its left half."""
    mask = Image.new("L", size)
    mask.paste(255, (0, 0, size[0] // 2, size[1]))
    return mask


def add_masks(data: Path, count: int = 5) -> None:
    (data / "mask").mkdir()
    for index in range(count):
        half((16, 16)).save(data / "mask" / f"{index}.png")


def add_sizes(data: Path) -> None:
    """Two more pictures, wide and high, one of which stands in a folder of its own."""
    rng = np.random.default_rng(1)
    (data / "3_more").mkdir()
    for path, size in ((data / "wide.png", (32, 16)), (data / "3_more" / "high.png", (16, 32))):
        image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).convert("RGBA")
        image.putalpha(half(size))
        image.save(path)
        path.with_suffix(".txt").write_text("red moon")


def once(*names: str) -> Counter[str]:
    return Counter(dict.fromkeys(names, 1))


ALL = [f"{index}.png" for index in range(5)]


@pytest.mark.parametrize("way", WAYS)
def test_a_picture_is_opened_once(bench: Bench, opened: Counter[str], way: str) -> None:
    add_sizes(bench.data)
    add_alpha(bench.data)
    opened.clear()
    bench.train("embedding", **WAYS[way], steps=2)
    assert opened == once(*ALL, "wide.png", *(["high.png"] if way == "repeated" else []))


def test_a_mask_picture_is_opened_once_and_spares_alpha(bench: Bench, opened: Counter[str]) -> None:
    add_alpha(bench.data)
    add_masks(bench.data, 3)
    opened.clear()
    with pytest.warns(UserWarning, match="Without a mask picture"):
        bench.train("embedding", **MASKED, flip=True, steps=2)
    assert opened == once(*ALL, "mask/0.png", "mask/1.png", "mask/2.png")


def test_two_pictures_share_a_mask_that_is_opened_once(bench: Bench, opened: Counter[str]) -> None:
    add_masks(bench.data)
    with Image.open(bench.data / "3.png") as picture:
        picture.resize((32, 32)).save(bench.data / "3.bmp")
    opened.clear()
    bench.train("embedding", **MASKED, varsize=True, steps=2)
    assert opened == once(*ALL, "3.bmp", *(f"mask/{name}" for name in ALL))


def test_a_folder_that_is_named_twice_is_decoded_once(bench: Bench, opened: Counter[str]) -> None:
    add_masks(bench.data)
    bench.train("embedding", **MASKED, data=[str(bench.data), f"{bench.data}:2"], steps=2)
    assert opened == once(*ALL, *(f"mask/{name}" for name in ALL))


@pytest.mark.parametrize("masks", [False, True])
def test_pictures_whose_latents_are_kept_are_opened_for_nothing_but_masks(
    bench: Bench, opened: Counter[str], tmp_path: Path, masks: bool
) -> None:
    add_alpha(bench.data)
    opened.clear()
    settings: dict[str, Any] = {**(MASKED if masks else {}), "cache_dir": str(tmp_path / "cache"), "flip": True}
    bench.train("embedding", **settings, steps=2)
    assert opened == once(*ALL)
    opened.clear()
    bench.train("embedding", **settings, steps=4)
    assert opened == (once(*ALL) if masks else Counter())


def test_latents_of_another_size_are_encoded_of_what_was_decoded(
    bench: Bench, opened: Counter[str], tmp_path: Path
) -> None:
    add_alpha(bench.data)
    cache = str(tmp_path / "cache")
    bench.train("embedding", cache_dir=cache, steps=2)
    opened.clear()
    with pytest.warns(UserWarning, match="enlarged"):
        bench.train("embedding", cache_dir=cache, steps=4, width=24, height=24, use_weight=True)
    assert opened == once(*ALL)


def test_a_resume_opens_each_once_too(bench: Bench, opened: Counter[str]) -> None:
    add_alpha(bench.data)
    stopped = bench.train("embedding", **MASKED, steps=4, stop_after=2)
    opened.clear()
    bench.resume(stopped.run_dir)
    assert opened == once(*ALL)


def test_a_plan_opens_each_once_and_keeps_no_pixels(
    bench: Bench, opened: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    add_alpha(bench.data)
    opened.clear()
    monkeypatch.delattr("tincture.data.decoded.DecodedPictures.add_picture")
    assert recipe.plan(bench.settings("embedding", **MASKED), bench.workspace)["pictures"] == 5
    assert opened == once(*ALL)


@pytest.mark.parametrize("room", [1, 3 * 16 * 16 * 2, 3 * 16 * 16 * 5 - 1])
def test_what_has_no_room_is_opened_a_second_time_and_trains_alike(
    new_bench: Callable[[str], Bench], opened: Counter[str], monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    settings: dict[str, Any] = {**RANDOM, **MASKED, "flip": True}
    wide, tight = new_bench("wide"), new_bench("tight")
    for bench in (wide, tight):
        add_alpha(bench.data)
    before = wide.train("embedding", **settings)
    monkeypatch.setattr("tincture.run.components.PIXEL_MEMORY", room)
    opened.clear()
    after = tight.train("embedding", **settings)
    kept = room // (3 * 16 * 16)
    assert opened == Counter({name: 1 if index < kept else 2 for index, name in enumerate(ALL)})
    assert equal(trained(before.adapter_path), trained(after.adapter_path))


def test_pixels_are_released_when_they_are_encoded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """From then on a picture that is asked for is read again, so that the run holds no pixels while it trains."""
    loaded: list[Any] = []
    real = train.__globals__["prepare"]

    def prepared(*args: Any, **options: Any) -> Any:
        loaded.append(real(*args, **options))
        return loaded[-1]

    monkeypatch.setitem(train.__globals__, "prepare", prepared)
    bench.train("embedding", steps=2)
    (bench.data / "0.png").unlink()
    with pytest.raises(DataError, match=r"0\.png cannot be read any more"):
        loaded[0].dataset.pixels(0)
