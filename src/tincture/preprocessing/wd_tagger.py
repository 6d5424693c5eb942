"""Taggers of the WD14 family (SmilingWolf's wd-*-tagger), which are ONNX files, by onnxruntime.

A model takes float32 pictures (batch, size, size, 3) of 0..255, blue first, centred on a white square, and gives a
probability for each row of its table of tags. The table is a CSV file with the columns tag_id, name, category and
count, where category 4 stands for characters, 9 for ratings and 0 for all else. The facts are those of the program that
its author published with the models: https://huggingface.co/spaces/SmilingWolf/wd-tagger
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tincture.errors import ModelError, UsageError
from tincture.models.threads import thread_count
from tincture.preprocessing.batching import Batches
from tincture.preprocessing.booru_labels import Kind, Label

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_KINDS: dict[str, Kind] = {"4": "character", "9": "rating"}
_CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
# What an installation of onnxruntime may bring for GPUs. The one for Apple's chips is left out: it may crash on models
# that take any number of pictures (https://github.com/microsoft/onnxruntime/issues/21227).
_GPUS = (_CUDA, "MIGraphXExecutionProvider", "ROCMExecutionProvider", "DmlExecutionProvider")
_ROUNDING = 1e-3


class WdTagger:
    """One model of the family.

    Attributes:
        labels: what its probabilities stand for, in their order.
    """

    def __init__(self, model: Path, labels: Path, *, device: str, batch_size: int) -> None:
        """
        Args:
            model: the ONNX file.
            labels: the table of tags.
            device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
            batch_size: pictures at a time; a model that was made for a fixed number takes that.

        Raises:
            ModelError: a file that is missing or broken, or none of this family; or onnxruntime is not installed.
            UsageError: a device that cannot be used, or a batch size below 1.
        """
        self._batches = Batches(batch_size)
        self._session = _open(model, device)
        self.labels = read_labels(labels)
        self._fixed_batch, self._size = _input_shape(self._session, model)
        if self._fixed_batch:  # as the second generation of the family has it
            self._batches = Batches(self._fixed_batch)
        known = self._session.get_outputs()[0].shape[-1]
        if isinstance(known, int) and known != len(self.labels):
            raise ModelError(
                f"{model} knows {known} tags and {labels} lists {len(self.labels)}; they belong to different models."
            )

    def probabilities(self, pictures: Sequence[Image.Image]) -> list[NDArray[np.float32]]:
        """For each of ``pictures`` (RGB, any size) the probabilities (tags,) of the labels.

        Raises:
            ModelError: the memory is too small for one picture, or what the model gives are no probabilities.
        """
        return self._batches.map(self._compute, pictures)

    def _compute(self, pictures: Sequence[Image.Image]) -> list[NDArray[np.float32]]:
        pixels = np.stack([_pixels(picture, self._size) for picture in pictures])
        missing = max(0, self._fixed_batch - len(pictures))
        pixels = np.pad(pixels, ((0, missing), (0, 0), (0, 0), (0, 0)))
        name = self._session.get_inputs()[0].name
        values: NDArray[np.float32] = self._session.run([self._session.get_outputs()[0].name], {name: pixels})[0]
        found = values[: len(pictures)]
        if found.shape[1:] != (len(self.labels),) or not np.all((found > -_ROUNDING) & (found < 1 + _ROUNDING)):
            raise ModelError(
                f"The tagger gives values of shape {found.shape} where a probability of 0 to 1 for each of "
                f"{len(self.labels)} tags was expected; it is not of the WD14 family."
            )
        return list(found)


def read_labels(path: Path) -> list[Label]:
    """The tags that a table lists, one for each output of the model.

    Raises:
        ModelError: the table is missing or broken.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            labels = [Label(row["name"], _KINDS.get(row["category"], "general")) for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError) as error:
        raise ModelError(
            f"The table of tags {path} cannot be read: it must be a CSV file with the columns name and category. "
            "Copy the tagger again."
        ) from error
    if not labels or not all(label.name for label in labels):
        raise ModelError(f"The table of tags {path} has rows without a tag, or none at all; copy the tagger again.")
    return labels


def _open(model: Path, device: str) -> InferenceSession:
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelError(
            "Tags by this model need onnxruntime, which is not installed: pip install 'tincture[tag]'."
        ) from error
    providers = _providers(device, onnxruntime.get_available_providers())
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its errors reach us as exceptions
    options.intra_op_num_threads = thread_count()
    try:
        session = onnxruntime.InferenceSession(str(model), options, providers=providers)
    except Exception as error:  # its errors have no base but this
        raise ModelError(f"The tagger {model} cannot be loaded as an ONNX model; copy it again.") from error
    if device.startswith("cuda") and _CUDA not in session.get_providers():
        raise UsageError(_cannot_use(device, "its CUDA libraries could not be loaded"))
    return session


def _providers(device: str, available: Sequence[str]) -> list[Any]:
    kind, _, index = device.partition(":")
    if device == "auto":
        return [*[provider for provider in _GPUS if provider in available][:1], _CPU]
    if device == "cpu":
        return [_CPU]
    if kind != "cuda" or not (index or "0").isdigit():
        raise UsageError(f"Device {device!r} cannot run ONNX taggers; give auto, cpu, cuda or cuda:N.")
    if _CUDA not in available:
        raise UsageError(_cannot_use(device, "this onnxruntime is made for the CPU"))
    return [(_CUDA, {"device_id": index or "0"})]


def _cannot_use(device: str, reason: str) -> str:
    return (
        f"Device {device!r} cannot be used by onnxruntime here: {reason}. Put onnxruntime-gpu in the place of "
        "onnxruntime by pip, or use --device cpu."
    )


def _input_shape(session: InferenceSession, model: Path) -> tuple[int, int]:
    """The number of pictures the model was made for (0 for any) and the length of their sides in pixels."""
    shape = session.get_inputs()[0].shape
    if len(shape) != 4 or shape[3] != 3 or not isinstance(shape[1], int) or shape[1] != shape[2]:
        raise ModelError(
            f"{model} takes input of shape {shape}; taggers of the WD14 family take (batch, size, size, 3)."
        )
    return shape[0] if isinstance(shape[0], int) and shape[0] > 0 else 0, shape[1]


def _pixels(picture: Image.Image, size: int) -> NDArray[np.float32]:
    """(size, size, 3), float32 0..255, blue first: the picture in the middle of a white square."""
    side = max(picture.size)
    square = Image.new("RGB", (side, side), "white")
    square.paste(picture.convert("RGB"), ((side - picture.width) // 2, (side - picture.height) // 2))
    resized = square.resize((size, size), Image.Resampling.BICUBIC) if side != size else square
    return np.asarray(resized, dtype=np.float32)[:, :, ::-1]
