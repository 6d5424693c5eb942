from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tincture.data.dataset import PictureDataset
from tincture.data.folders import load_dataset
from tincture.data.latent_files import LatentFiles
from tincture.data.latents import LatentCache
from tincture.errors import UsageError
from tincture.formats.checked_file import read_checked, write_checked
from tincture.models.stable_diffusion import StableDiffusion


class Model:
    """An encoder that counts: means are averages of blocks of pixels, with a channel of zeros; all spreads are 0.5."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.encoded = 0

    def encode_pictures(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        self.encoded += len(pixels)
        means = torch.nn.functional.avg_pool2d(pixels, 8)
        means = torch.cat([means, torch.zeros_like(means[:, :1])], dim=1)
        return means, torch.full_like(means, 0.5)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Five pictures of noise, two of them 24×16 and three 16×16, one of which a camera held sideways says to be."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(5):
        image = Image.fromarray(rng.integers(0, 256, (16, 24 if i < 2 else 16, 3), dtype=np.uint8))
        exif = Image.Exif()
        exif[0x0112] = 6 if i == 1 else 1
        image.save(folder / f"{i}.png", exif=exif)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def load(pictures: Path, files: LatentFiles, **how: Any) -> PictureDataset:
    return load_dataset(pictures, **{"width": 16, "height": 16, "varsize": True, **how}, check=files.check)


def encode(pictures: Path, folder: Path, model: Any, encoder: str = "vae", **how: Any) -> tuple[LatentCache, list[str]]:
    """The latents of a run, and its remarks."""
    files = LatentFiles(folder, encoder)
    latents = LatentCache.encode(model, load(pictures, files, **how), files=files)
    return latents, files.remarks()


def count(pictures: Path, folder: Path, encoder: str = "vae", **how: Any) -> int:
    """How many pictures a run encodes."""
    model = Model()
    encode(pictures, folder, model, encoder, **how)
    return model.encoded


def same(one: LatentCache, other: LatentCache) -> bool:
    pairs = [*zip(one.means, other.means, strict=True), *zip(one.stds, other.stds, strict=True)]
    return all(torch.equal(left.view(torch.uint8), right.view(torch.uint8)) for left, right in pairs)


def entries(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.latents"))


def test_a_second_run_neither_encodes_nor_opens_pictures(
    pictures: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, remarks = encode(pictures, folder, Model())
    before = load(pictures, LatentFiles(folder, "vae")).samples
    monkeypatch.delattr("PIL.Image.open")
    model, progress = Model(), []
    files = LatentFiles(folder, "vae")
    dataset = load(pictures, files)
    second = LatentCache.encode(model, dataset, files=files, on_progress=lambda *at: progress.append(at))
    assert model.encoded == 0
    assert progress == [(5, 5)]
    assert same(first, second)
    assert dataset.samples == before
    assert [sample.original_size for sample in dataset] == [(24, 16), (16, 24), (16, 16), (16, 16), (16, 16)]
    assert remarks == files.remarks() == []


def test_latents_from_the_cache_are_those_of_a_run_without_one(
    pictures: Path, folder: Path, tmp_path: Path, shared_model: StableDiffusion
) -> None:
    fresh = LatentCache.encode(shared_model, load_dataset(pictures, width=64, height=64))
    some = tmp_path / "some"
    some.mkdir()
    for name in ("1.png", "3.png", "4.png"):  # whose latents are then kept from a run beside other pictures
        shutil.copy(pictures / name, some)
    encode(some, folder, shared_model, width=64, height=64, varsize=False)
    for _ in range(2):
        assert same(encode(pictures, folder, shared_model, width=64, height=64, varsize=False)[0], fresh)


def test_what_is_kept_goes_by_content_and_not_by_name(pictures: Path, folder: Path) -> None:
    assert count(pictures, folder) == 5
    (pictures / "0.png").rename(pictures / "9.png")
    shutil.copy(pictures / "2.png", pictures / "2 again.png")
    assert count(pictures, folder) == 0
    content = (pictures / "2.png").read_bytes()
    (pictures / "2.png").write_bytes((pictures / "3.png").read_bytes())
    assert count(pictures, folder) == 0
    Image.new("RGB", (16, 16)).save(pictures / "2.png")
    assert count(pictures, folder) == 1
    (pictures / "2.png").write_bytes(content)
    assert count(pictures, folder) == 0


@pytest.mark.parametrize(
    ("how", "encoded"),
    [
        ({"encoder": "another"}, 5),
        ({"flip": True}, 5),  # beside the five that are kept
        ({"varsize": False}, 2),  # 16×16 is what three of them have anyway
        ({"varsize": False, "width": 8}, 5),
        ({"varsize": False, "resize": "crop"}, 2),
    ],
)
def test_all_that_decides_the_latents_counts(pictures: Path, folder: Path, how: Any, encoded: int) -> None:
    count(pictures, folder)
    assert count(pictures, folder, **how) == encoded
    assert count(pictures, folder, **how) == 0
    assert count(pictures, folder) == 0


def test_stretched_and_cropped_latents_of_one_size_are_kept_apart(pictures: Path, folder: Path) -> None:
    count(pictures, folder, varsize=False)
    assert count(pictures, folder, varsize=False, resize="crop") == 2


def rewrite(path: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Changes the tensors of a file, whose checksum is then right."""
    tensors, metadata = read_checked(path)
    change(tensors)
    write_checked(path, tensors, metadata)


DAMAGES: dict[str, Callable[[Path, Path], object]] = {
    "empty": lambda path, other: path.write_bytes(b""),
    "cut off": lambda path, other: path.write_bytes(path.read_bytes()[:-1]),
    "longer": lambda path, other: path.write_bytes(path.read_bytes() + b"\0"),
    "one bit": lambda path, other: path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1])),
    "text": lambda path, other: path.write_text("hello"),
    "another picture's": lambda path, other: path.write_bytes(other.read_bytes()),
    "NaN": lambda path, other: rewrite(path, lambda tensors: tensors["std"].fill_(float("nan"))),
    "infinite": lambda path, other: rewrite(path, lambda tensors: tensors["mean"].view(-1)[3:4].fill_(float("inf"))),
    "shape": lambda path, other: rewrite(path, lambda tensors: tensors.update(mean=tensors["mean"][:3])),
    "precision": lambda path, other: rewrite(path, lambda tensors: tensors.update(mean=tensors["mean"].double())),
    "half of it": lambda path, other: rewrite(path, lambda tensors: tensors.pop("std")),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_is_damaged_is_encoded_again_and_replaced(
    pictures: Path, folder: Path, damage: Callable[[Path, Path], object]
) -> None:
    whole, _ = encode(pictures, folder, Model())
    first, second = entries(folder)[:2]
    _, metadata = read_checked(first)
    damage(first, second)
    model = Model()
    again, remarks = encode(pictures, folder, model)
    assert model.encoded == 1
    assert same(again, whole)
    (remark,) = remarks
    assert str(folder) in remark
    assert "damaged latents of 1 picture" in remark
    assert read_checked(first)[1] == metadata
    assert count(pictures, folder) == 0


def test_a_folder_that_cannot_be_written_does_not_stop_a_run(pictures: Path, folder: Path) -> None:
    whole, _ = encode(pictures, folder, Model())
    for shard in folder.iterdir():
        shutil.rmtree(shard)
        shard.write_text("a file where a folder is needed")
    latents, remarks = encode(pictures, folder, Model())
    assert same(latents, whole)
    (remark,) = remarks
    assert "No more latents are kept" in remark
    assert "a file stands where a folder is needed" in remark


def test_a_file_for_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"file is a file; give a folder by `cache_dir`"):
        LatentFiles(tmp_path / "file", "vae")


def test_the_folder_may_be_deleted_at_any_time(pictures: Path, folder: Path) -> None:
    count(pictures, folder)
    files = LatentFiles(folder, "vae")
    dataset = load(pictures, files)
    shutil.rmtree(folder)
    model = Model()
    LatentCache.encode(model, dataset, files=files)
    assert model.encoded == 5
    assert files.remarks() == []
    assert count(pictures, folder) == 0


def test_a_picture_that_changes_meanwhile_is_not_kept(pictures: Path, folder: Path) -> None:
    files = LatentFiles(folder, "vae")
    dataset = load(pictures, files)
    content = (pictures / "3.png").read_bytes()
    Image.new("RGB", (16, 16)).save(pictures / "3.png")
    LatentCache.encode(Model(), dataset, files=files)
    assert len(entries(folder)) == 4
    (pictures / "3.png").write_bytes(content)
    assert count(pictures, folder) == 1


def test_damaged_and_missing_pictures_are_named_as_ever(pictures: Path, folder: Path) -> None:
    (pictures / "3.png").write_bytes((pictures / "3.png").read_bytes()[:200])
    (pictures / "4.png").unlink()
    (pictures / "4.png").symlink_to("nowhere.png")
    skipped = load_dataset(pictures, width=16, height=16).skipped
    assert len(skipped) == 2
    for _ in range(2):
        files = LatentFiles(folder, "vae")
        assert load(pictures, files).skipped == skipped
        count(pictures, folder)


def test_a_picture_without_a_digest_is_neither_read_nor_kept(pictures: Path, folder: Path) -> None:
    files = LatentFiles(folder, "vae")
    LatentCache.encode(Model(), load_dataset(pictures, width=16, height=16), files=files)
    assert not entries(folder)


def test_the_data_sets_digest_is_the_same_with_and_without(pictures: Path, folder: Path) -> None:
    plain = load_dataset(pictures, width=16, height=16, flip=True).digest()
    assert load(pictures, LatentFiles(folder, "vae"), flip=True).digest() == plain


def test_runs_that_share_a_folder_see_whole_files_only(pictures: Path, folder: Path) -> None:
    whole = LatentCache.encode(Model(), load_dataset(pictures, width=16, height=16, varsize=True))
    wrong: list[str] = []

    def run() -> None:
        for _ in range(20):
            latents, remarks = encode(pictures, folder, Model())
            if remarks or not same(latents, whole):
                wrong.extend(remarks or ["other latents"])
            for path in entries(folder)[:2]:
                path.unlink(missing_ok=True)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert not [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".latents"]


def test_a_file_says_what_it_is_for(pictures: Path, folder: Path) -> None:
    encode(pictures, folder, Model(), "the hash of a VAE")
    tensors, metadata = read_checked(entries(folder)[0])
    assert tensors.keys() == {"mean", "std"}
    assert "the hash of a VAE" in metadata["what"]
    assert json.loads(metadata["size"]) in ([24, 16], [16, 24], [16, 16])


def test_a_folder_within_the_pictures_is_not_taken_for_pictures(pictures: Path) -> None:
    for _ in range(2):
        files = LatentFiles(pictures / "cache", "vae")
        dataset = load(pictures, files, recursive=True)
        LatentCache.encode(Model(), dataset, files=files)
        assert (len(dataset), dataset.skipped) == (5, [])
    assert len(entries(pictures)) == 5


@pytest.mark.parametrize("size", ['["16", "16"]', "[16]", "[16, 0]", "[16.0, 16.0]", "[16, true]", "null", "16"])
def test_a_size_that_is_none_is_not_believed(pictures: Path, folder: Path, size: str) -> None:
    encode(pictures, folder, Model())
    for path in folder.rglob("*.latents"):
        tensors, metadata = read_checked(path)
        write_checked(path, tensors, {**metadata, "size": size})
    assert (
        load(pictures, LatentFiles(folder, "vae")).sizes()
        == load_dataset(pictures, width=16, height=16, varsize=True).sizes()
    )


def test_what_a_killed_run_left_half_written_is_swept(pictures: Path, folder: Path) -> None:
    count(pictures, folder)
    left = [shard / ".tincture-0123456789abcdef.tmp" for shard in folder.iterdir()]
    for path in left:
        path.touch()
    count(pictures, folder)
    assert left and not any(path.exists() for path in left)
