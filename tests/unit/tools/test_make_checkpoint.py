"""The program that writes checkpoints with random weights."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tools import make_checkpoint

from tincture.formats.tensor_file import open_tensors

# Of the published models: U-Net, VAE, and the first text encoder.
PARAMETERS = {
    "sd1": (859_520_964, 83_653_863, 123_060_480),
    "sd2": (865_910_724, 83_653_863, 354_032_641),
    "sdxl": (2_567_463_684, 83_653_863, 123_060_480),
}


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_the_program_writes_the_same_file_each_time(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / f"{name}{suffix}" for name in "abc"]
    for path, seed in zip(paths, "001", strict=True):
        monkeypatch.setattr(sys, "argv", ["make_checkpoint.py", "sd1", str(path), "--seed", seed])
        assert make_checkpoint.main() == 0

    files = [open_tensors(path) for path in paths]
    name = "model.diffusion_model.out.2.weight"
    assert [sorted(path.name for path in tmp_path.iterdir())] == [[path.name for path in paths]]
    assert torch.equal(files[0].tensor(name), files[1].tensor(name))
    assert not torch.equal(files[0].tensor(name), files[2].tensor(name))
    assert all(torch.equal(files[0].tensor(key), files[1].tensor(key)) for key in files[0].shapes)
    assert "MB" in capsys.readouterr().err


def test_files_are_small_and_say_what_they_are(tmp_path: Path) -> None:
    for kind in make_checkpoint.KINDS:
        path = tmp_path / f"{kind}.safetensors"
        make_checkpoint.write_checkpoint(kind, path)
        assert path.stat().st_size < 15_000_000
        assert open_tensors(path).metadata == make_checkpoint.metadata_of(kind)
        assert all(bool(value.isfinite().all()) for value in load_file(path).values())
    assert make_checkpoint.metadata_of("sd2-v")["modelspec.architecture"] == "stable-diffusion-v2-768-v"


@pytest.mark.parametrize("family", PARAMETERS)
def test_the_full_size_is_the_published_one(family: str) -> None:
    shapes = make_checkpoint.shapes_of(family, full=True)

    prefixes = ("model.diffusion_model.", "first_stage_model.", ("cond_stage_model.", "conditioner.embedders.0."))
    for prefix, count in zip(prefixes, PARAMETERS[family], strict=True):
        assert sum(math.prod(shape) for name, shape in shapes.items() if name.startswith(prefix)) == count
    inpainting = make_checkpoint.shapes_of(f"{family}-inpainting", full=True)
    first = "model.diffusion_model.input_blocks.0.0.weight"
    assert (shapes[first], inpainting[first]) == ((320, 4, 3, 3), (320, 9, 3, 3))
