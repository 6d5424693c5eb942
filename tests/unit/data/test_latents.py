from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from tincture.data.dataset import PictureDataset
from tincture.data.folders import load_dataset
from tincture.data.latents import LatentCache
from tincture.errors import UsageError
from tincture.models.stable_diffusion import StableDiffusion


class CountingModel:
    """Latents are the picture's mean colour (first three channels) and 0; the standard deviation is 0.5."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.batches: list[Tensor] = []

    def encode_pictures(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        self.batches.append(pixels)
        means = torch.nn.functional.avg_pool2d(pixels, 8)
        means = torch.cat([means, torch.zeros_like(means[:, :1])], dim=1).double().requires_grad_()
        return means * 1, torch.full_like(means, 0.5)


@pytest.fixture
def dataset(tmp_path: Path) -> PictureDataset:
    """Seven pictures, told apart by their red; the first, fourth and seventh are 16×8, the others 8×8."""
    for i in range(7):
        Image.new("RGB", (8 + 8 * (i % 3 == 0), 8), (i * 30, 0, 0)).save(tmp_path / f"{i}.png")
    return load_dataset(tmp_path, width=8, height=8, varsize=True)


def no_noise(_: int) -> Tensor:
    raise AssertionError("noise was asked for")


def constant(value: float) -> Callable[[int], Tensor]:
    return lambda position: torch.full((4, 1, 1), value * (position + 1))


def red(latents: Tensor) -> list[int]:
    return torch.round((latents[:, 0, 0, 0] + 1) * 127.5 / 30).int().tolist()


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_each_picture_is_encoded_exactly_once(dataset: PictureDataset, batch_size: int) -> None:
    model, progress = CountingModel(), []
    cache = LatentCache.encode(model, dataset, batch_size=batch_size, on_progress=lambda *at: progress.append(at))
    seen = [round(float(picture[0, 0, 0] + 1) * 127.5 / 30) for batch in model.batches for picture in batch]
    assert sorted(seen) == list(range(7))
    assert max(map(len, model.batches)) <= batch_size
    assert progress[-1] == (7, 7)
    assert [done for done, _ in progress] == sorted(done for done, _ in progress)
    for method in ["once", "deterministic", "random"]:
        cache.sample([1, 2], method, constant(0.0))
    assert sum(map(len, model.batches)) == 7


def test_latents_stand_under_their_pictures_index(dataset: PictureDataset) -> None:
    cache = LatentCache.encode(CountingModel(), dataset, batch_size=2)
    assert len(cache) == 7
    assert [cache.shape(index) for index in range(3)] == [(4, 1, 2), (4, 1, 1), (4, 1, 1)]
    assert red(cache.sample([5, 1, 4], "deterministic", no_noise)) == [5, 1, 4]
    assert red(cache.sample([6, 0], "deterministic", no_noise)) == [6, 0]


def test_a_real_models_latents(dataset: PictureDataset, shared_model: StableDiffusion) -> None:
    cache = LatentCache.encode(shared_model, dataset)
    mean, std = shared_model.encode_pictures(dataset.pixels(3)[None])
    noise = torch.ones_like(mean[0])
    assert torch.allclose(cache.sample([3], "random", lambda _: noise), mean + std, atol=1e-5)


def test_latents_are_float32_without_gradients(dataset: PictureDataset) -> None:
    cache = LatentCache.encode(CountingModel(), dataset)
    for method in ["once", "deterministic", "random"]:
        latents = cache.sample([1, 2], method, constant(1.0))
        assert (latents.shape, latents.dtype, latents.requires_grad) == ((2, 4, 1, 1), torch.float32, False)


def test_random_adds_the_noise_of_each_position(dataset: PictureDataset) -> None:
    cache = LatentCache.encode(CountingModel(), dataset)
    mean = cache.sample([4, 2], "deterministic", no_noise)
    expected = mean + 0.5 * torch.tensor([3.0, 6.0])[:, None, None, None]
    assert torch.equal(cache.sample([4, 2], "random", constant(3.0)), expected)


def test_once_draws_one_sample_per_picture_whatever_the_order(dataset: PictureDataset) -> None:
    one = LatentCache.encode(CountingModel(), dataset, batch_size=1, seed=3)
    other = LatentCache.encode(CountingModel(), dataset, batch_size=8, seed=3)
    first = one.sample([1, 2, 4], "once", no_noise)
    assert torch.equal(one.sample([1, 2, 4], "once", no_noise), first)
    assert torch.equal(other.sample([4, 2], "once", no_noise), first[[2, 1]])
    assert not torch.equal(
        LatentCache.encode(CountingModel(), dataset, seed=4).sample([1, 2, 4], "once", no_noise), first
    )


def test_once_follows_the_distribution(tmp_path: Path) -> None:
    for i in range(4):
        Image.new("RGB", (256, 256)).save(tmp_path / f"{i}.png")
    cache = LatentCache.encode(CountingModel(), load_dataset(tmp_path, width=256, height=256))
    noise = cache.sample([0, 1, 2, 3], "once", no_noise) - cache.sample([0, 1, 2, 3], "deterministic", no_noise)
    assert abs(noise.mean().item()) < 0.02
    assert abs(noise.std().item() - 0.5) < 0.02
    flat = noise.flatten(1)
    assert torch.corrcoef(flat).fill_diagonal_(0).abs().max() < 0.1


def test_an_unknown_sampling_method_is_refused(dataset: PictureDataset) -> None:
    cache = LatentCache.encode(CountingModel(), dataset)
    with pytest.raises(UsageError, match=r"'often'.*once, deterministic, random"):
        cache.sample([0], "often", no_noise)
