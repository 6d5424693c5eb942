from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tincture.errors import FileFormatError, StorageError
from tincture.formats.picture_text import (
    PictureParameters,
    parameters_text,
    parse_parameters,
    picture_texts,
    read_parameters,
    save_png,
)
from tincture.settings.drawing import CompleteDrawing

DRAWING = CompleteDrawing(width=64, height=48)


def test_text_reads_as_the_webui_writes_it() -> None:
    drawing = dataclasses.replace(DRAWING, negative_prompt="blur", clip_skip=2)

    text = parameters_text("a moon", drawing, seed=1, model_name="picto", model_hash="0123456789")

    assert text == (
        "a moon\nNegative prompt: blur\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 64x48, "
        "Model hash: 0123456789, Model: picto, Clip skip: 2"
    )


def test_what_is_not_known_is_left_out() -> None:
    assert parameters_text("a moon", dataclasses.replace(DRAWING, guidance_scale=7.5), seed=1) == (
        "a moon\nSteps: 20, Sampler: Euler a, CFG scale: 7.5, Seed: 1, Size: 64x48"
    )


@pytest.mark.parametrize(
    "value", ['a, "b": c', "two\nlines", "key: value", '"quoted"', "back\\slash, comma", "plain name"]
)
def test_values_with_commas_quotes_and_line_breaks_come_back(value: str) -> None:
    text = parameters_text("a moon", DRAWING, seed=1, extra={"Hypernet": value, "Hypernet strength": 0.8, "Last": "x"})

    settings = parse_parameters(text).settings

    assert len(text.splitlines()) == 2
    assert (settings["Hypernet"], settings["Hypernet strength"], settings["Last"]) == (value, "0.8", "x")


@pytest.mark.parametrize(
    "prompt", ["a moon", "two\nlines, <hypernet:outline:0.8>", "warm: cold, blue", "雨 and 月", ""]
)
@pytest.mark.parametrize("negative", ["", "blur", "blur\nand noise: much"])
def test_prompts_come_back(prompt: str, negative: str) -> None:
    drawing = dataclasses.replace(DRAWING, negative_prompt=negative)

    parsed = parse_parameters(parameters_text(prompt, drawing, seed=1))

    assert (parsed.prompt, parsed.negative_prompt) == (prompt, negative)
    assert parsed.settings == {
        "Steps": "20", "Sampler": "Euler a", "CFG scale": "7", "Seed": "1", "Size": "64x48",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["a moon", "a moon: small, blue", "one\ntwo: three", ""])
def test_text_without_settings_is_all_prompt(text: str) -> None:
    assert parse_parameters(text) == PictureParameters(text)


@pytest.mark.parametrize("text", ["a moon\nSteps: 20", "月\nSteps: 20"])
def test_png_keeps_pixels_and_text(text: str, tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)

    save_png(picture, tmp_path / "a.png", text)

    with Image.open(tmp_path / "a.png") as image:
        assert image.text == {"parameters": text}
        assert np.array_equal(np.asarray(image), picture)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_png_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = np.zeros((8, 8, 3), np.uint8), np.ones((8, 8, 3), np.uint8)
    save_png(old, tmp_path / "a.png")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError):
        save_png(new, tmp_path / "a.png")

    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), old)


def test_parameters_are_read_from_the_picture(tmp_path: Path) -> None:
    save_png(np.zeros((8, 8, 3), np.uint8), tmp_path / "a.png", "a moon\nNegative prompt: blur\nSteps: 20, Seed: 1")
    assert read_parameters(tmp_path / "a.png") == PictureParameters("a moon", "blur", {"Steps": "20", "Seed": "1"})


def test_a_picture_without_parameters_and_a_damaged_one_have_none(tmp_path: Path) -> None:
    save_png(np.zeros((8, 8, 3), np.uint8), tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    assert read_parameters(tmp_path / "a.png") is None
    assert read_parameters(tmp_path / "b.png") is None


def test_a_picture_beyond_64_mebibytes_is_not_read(tmp_path: Path) -> None:
    save_png(np.zeros((8, 8, 3), np.uint8), tmp_path / "a.png")
    os.truncate(tmp_path / "a.png", 65 * 2**20)
    with pytest.raises(FileFormatError, match="64 MiB"):
        read_parameters(tmp_path / "a.png")


def test_all_texts_of_a_picture_are_told(tmp_path: Path) -> None:
    save_png(np.zeros((8, 8, 3), dtype=np.uint8), tmp_path / "a.png", "a moon\nSteps: 3")
    content = (tmp_path / "a.png").read_bytes()
    assert picture_texts(content) == {"parameters": "a moon\nSteps: 3"}
    for broken in (b"", content[:30], b"GIF89a" + content):
        with pytest.raises(FileFormatError, match="no PNG or WebP picture"):
            picture_texts(broken)
