from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from tests.unit.preprocessing.tiny import deepdanbooru_weights
from tincture.errors import ModelError, UsageError
from tincture.preprocessing.booru_labels import Label
from tincture.preprocessing.deepdanbooru import SIZE, DeepDanbooru, Network, square_pixels

TAGS = ["1girl", "long_hair", "fox_(animal)", "rating:safe", "rating:explicit"]

# How https://github.com/AUTOMATIC1111/TorchDeepDanbooru numbers its convolutions.
STAGES = {1: 3, 11: 8, 36: 20, 97: 20, 158: 3, 168: 3}  # number of a stage's first convolution, and its blocks
SHORTCUTS = {1, 11, 36, 100, 158, 168}
OF_STRIDE_TWO = {0, 11, 13, 36, 38, 98, 100, 158, 160, 168, 170}


def reference(weights: dict[str, torch.Tensor], pictures: torch.Tensor) -> torch.Tensor:
    """The network in the order of the file's numbers, for even sizes, with the paddings written out."""

    def conv(hidden: torch.Tensor, number: int) -> torch.Tensor:
        weight = weights[f"n_Conv_{number}.weight"]
        stride = 2 if number in OF_STRIDE_TWO else 1
        padding = {(7, 2): [2, 3, 2, 3], (3, 1): [1, 1, 1, 1], (3, 2): [0, 1, 0, 1]}.get((weight.shape[-1], stride))
        padded = functional.pad(hidden, padding) if padding else hidden
        return functional.conv2d(padded, weight, weights.get(f"n_Conv_{number}.bias"), stride)

    hidden = functional.relu(conv(pictures.movedim(3, 1), 0))
    hidden = functional.max_pool2d(functional.pad(hidden, [0, 1, 0, 1], value=-torch.inf), 3, 2)
    for first, blocks in STAGES.items():
        number = first
        for block in range(blocks):
            numbers = list(range(number, number + (4 if block == 0 else 3)))
            beside = [numbers.pop(i) for i, n in enumerate(numbers) if n in SHORTCUTS]
            inner = hidden
            for inside in numbers[:2]:
                inner = functional.relu(conv(inner, inside))
            shortcut = conv(hidden, beside[0]) if beside else hidden
            hidden = functional.relu(conv(inner, numbers[2]) + shortcut)
            number += len(numbers) + len(beside)
    return torch.sigmoid(conv(hidden, 178).mean(dim=(2, 3)))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("deepdanbooru") / "model-resnet_custom_v3.pt"
    torch.save(deepdanbooru_weights(TAGS), path)
    return path


def test_the_network_is_that_of_the_file() -> None:
    weights = deepdanbooru_weights(TAGS)
    assert len(weights) == 1 + 2 * 179 - 1
    pictures = torch.rand(2, 256, 256, 3, generator=torch.Generator().manual_seed(1))
    pictures[1] *= torch.tensor([1.0, 0.2, 0.1])
    with torch.inference_mode():
        found, expected = Network(weights)(pictures), reference(weights, pictures)  # type: ignore[arg-type]
    assert found.shape == (2, len(TAGS))
    torch.testing.assert_close(found, expected)
    assert (expected[0] - expected[1]).abs().max() > 1e-2, "the pictures must matter"
    assert 0.01 < expected.min() < expected.max() < 0.99


def test_probabilities_of_pictures(file: Path) -> None:
    pictures = [Image.new("RGB", (300, 200), "red"), Image.new("RGB", (64, 64), "blue"), Image.new("RGB", (9, 90))]
    tagger = DeepDanbooru(file, device="cpu", batch_size=2)
    pixels = torch.from_numpy(np.stack([square_pixels(picture) for picture in pictures]))
    assert pixels.shape == (3, SIZE, SIZE, 3)
    with torch.inference_mode():
        expected = reference(deepdanbooru_weights(TAGS), pixels)  # type: ignore[arg-type]
    np.testing.assert_allclose(np.stack(tagger.probabilities(pictures)), expected.numpy(), atol=1e-5)


def test_ratings_are_told_from_tags(file: Path) -> None:
    labels = DeepDanbooru(file, device="cpu", batch_size=1).labels
    assert labels == [*map(Label, TAGS[:3]), Label("rating:safe", "rating"), Label("rating:explicit", "rating")]


def test_pictures_are_fitted_in_and_their_edges_repeated() -> None:
    values = np.zeros((20, 40, 3), dtype=np.uint8)
    values[:10], values[10:] = (255, 0, 0), (0, 0, 255)
    pixels = square_pixels(Image.fromarray(values), 80)
    assert pixels.dtype == np.float32
    np.testing.assert_array_equal(pixels[:21], np.broadcast_to([1, 0, 0], (21, 80, 3)))
    np.testing.assert_array_equal(pixels[59:], np.broadcast_to([0, 0, 1], (21, 80, 3)))
    tall = square_pixels(Image.fromarray(values.transpose(1, 0, 2)), 80)
    np.testing.assert_array_equal(tall, pixels.transpose(1, 0, 2))
    assert square_pixels(Image.new("RGB", (3000, 1)), 80).shape == (80, 80, 3)


def _wider_layer(weights: dict[str, object]) -> None:
    weights["n_Conv_5.weight"] = torch.zeros(2, 9, 1, 1)


def _other_tags(weights: dict[str, object]) -> None:
    weights["tags"] = TAGS[:2]


def _wider_kernel(weights: dict[str, object]) -> None:
    weights["n_Conv_2.weight"] = torch.zeros(2, 4, 3, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("n_Conv_100.weight"), "no DeepDanbooru model"),
        (lambda weights: weights.pop("tags"), "no DeepDanbooru model"),
        (_wider_kernel, "no DeepDanbooru model"),
        (_wider_layer, "no DeepDanbooru model"),
        (lambda weights: weights.update({"n_Conv_3.weight": 3}), "no DeepDanbooru model"),
        (lambda weights: weights.update({"n_Conv_3.bias": torch.zeros(7)}), "no DeepDanbooru model"),
        (lambda weights: weights.update({"tags": 5}), "no DeepDanbooru model"),
        (_other_tags, "lists 2 tags and knows 5; copy it again"),
    ],
    ids=["no weight", "no tags", "kernel", "width", "number", "bias", "tags", "other tags"],
)
def test_broken_content(tmp_path: Path, change: Callable[[dict[str, object]], object], message: str) -> None:
    weights = deepdanbooru_weights(TAGS)
    change(weights)
    torch.save(weights, tmp_path / "model.pt")
    with pytest.raises(ModelError, match=message):
        DeepDanbooru(tmp_path / "model.pt", device="cpu", batch_size=1)


def test_an_embedding_is_no_tagger(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "model.pt")
    with pytest.raises(ModelError, match="no DeepDanbooru model of the kind the webui uses"):
        DeepDanbooru(tmp_path / "model.pt", device="cpu", batch_size=1)


def test_no_torch_file(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"no model")
    with pytest.raises(ModelError, match=r"model\.pt"):
        DeepDanbooru(tmp_path / "model.pt", device="cpu", batch_size=1)


def test_device_that_is_not_there(file: Path) -> None:
    with pytest.raises(UsageError, match="Device 'cuda:99' cannot be used"):
        DeepDanbooru(file, device="cuda:99", batch_size=1)
