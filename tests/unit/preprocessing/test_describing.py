from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from tests.unit.preprocessing.pictures import texture
from tincture.preprocessing import describing
from tincture.preprocessing.describing import Describer, load_models
from tincture.settings.preprocess import PreprocessSettings


class Sizes:
    """Says how large pictures are, and notes how many came at a time."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, pictures: Sequence[Image.Image]) -> list[str]:
        self.batches.append(len(pictures))
        assert all(picture.mode == "RGB" for picture in pictures)
        return [f"{picture.width} wide" for picture in pictures]


def crops(folder: Path, *widths: int) -> list[Path]:
    paths = [folder / f"{width}.png" for width in widths]
    for width, path in zip(widths, paths, strict=True):
        texture(width, 8).convert("RGBA").save(path)
    return paths


def test_crops_are_described_in_batches_and_given_back_by_source(tmp_path: Path) -> None:
    one, other = Sizes(), Sizes()
    describer: Describer[str] = Describer(lambda: [one, other], batch_size=4)
    assert list(describer.add("a", crops(tmp_path, 10, 11))) == []
    described = dict(describer.add("b", crops(tmp_path, 20, 21, 22)))
    assert described == {
        "a": [["10 wide"] * 2, ["11 wide"] * 2],
        "b": [["20 wide"] * 2, ["21 wide"] * 2, ["22 wide"] * 2],
    }
    assert one.batches == other.batches == [4, 1]
    list(describer.add("c", crops(tmp_path, 30)))
    assert dict(describer.flush()) == {"c": [["30 wide"] * 2]}
    assert list(describer.flush()) == []


def test_models_are_loaded_once_and_only_when_needed(tmp_path: Path) -> None:
    loaded: list[int] = []

    def load() -> list[Sizes]:
        loaded.append(1)
        return [Sizes()]

    describer: Describer[str] = Describer(load, batch_size=1)
    assert list(describer.flush()) == [] and not loaded
    for name in "ab":
        list(describer.add(name, crops(tmp_path, 5)))
    assert loaded == [1]


def test_settings_become_models(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, str, dict[str, object]]] = []

    def loader(kind: str) -> object:
        def load(model: str, **given: object) -> Sizes:
            calls.append((kind, model, given))
            return Sizes()

        return load

    monkeypatch.setattr(describing, "load_captioner", loader("captioner"))
    monkeypatch.setattr(describing, "load_tagger", loader("tagger"))
    places = {"source": "in", "destination": "out"}
    assert load_models(PreprocessSettings(**places)) == [] and not calls
    settings = PreprocessSettings(
        **places,
        captioner="blip",
        captioner_prompt="a picture of",
        captioner_beams=1,
        captioner_min_tokens=3,
        captioner_max_tokens=9,
        captioner_precision="bf16",
        tagger="wd",
        tag_threshold=0.5,
        tag_character_threshold=0.6,
        tag_order="alphabet",
        tag_underscores=True,
        tag_escapes=False,
        excluded_tags=("solo",),
        device="cpu",
        caption_batch_size=3,
    )
    assert len(load_models(settings)) == 2
    (one, blip, of_captioner), (other, wd, of_tagger) = calls
    assert (one, blip, other, wd) == ("captioner", "blip", "tagger", "wd")
    assert of_captioner == {
        "prompt": "a picture of",
        "num_beams": 1,
        "min_new_tokens": 3,
        "max_new_tokens": 9,
        "precision": "bf16",
        "device": "cpu",
        "batch_size": 3,
    }
    assert of_tagger == {
        "threshold": 0.5,
        "character_threshold": 0.6,
        "order": "alphabet",
        "replace_underscores": False,
        "escape_brackets": False,
        "exclude": ("solo",),
        "device": "cpu",
        "batch_size": 3,
    }
