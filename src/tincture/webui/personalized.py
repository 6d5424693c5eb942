"""The pictures of a training as the webui's own data set gives them: each encoded once, with a prompt for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tincture import randomness
from tincture.data.batches import BatchPlan
from tincture.data.captions import prompt_for
from tincture.models.diffusion_model import DiffusionModel
from tincture.run.data import encode, load_template, training_data
from tincture.run.split import load_sides
from tincture.settings.train import TrainSettings
from tincture.webui.networks import loaded_model
from tincture.workspace import Workspace


@dataclass(frozen=True)
class DatasetEntry:
    """A picture.

    Attributes:
        filename: its file.
        filename_text: its caption.
        latent_sample: (channels, height / 8, width / 8), float32.
        cond_text: its prompt.
        cond: the prompt encoded, (tokens, width); None unless that was asked for.
        weight: of the loss, (1, height / 8, width / 8); None without masks.
    """

    filename: str
    filename_text: str
    latent_sample: Tensor
    cond_text: str
    cond: Tensor | None = None
    weight: Tensor | None = None


class PersonalizedBase(Dataset[DatasetEntry]):
    """A folder of pictures for one training, in the webui's order of arguments.

    Each is read and encoded when this is made. Prompts are drawn anew at each look where tags are shuffled or dropped,
    latents where the sampling method is ``random``; otherwise an entry stays as it is.

    Args:
        data_root: the folder.
        width, height: pixels; 0: the model's own size.
        repeats: how often each picture counts in an epoch.
        flip_p: has no effect, as in the webui.
        placeholder_token: what takes the place of ``[name]``.
        model: the frozen model or its name; None: the last used or the first of the workspace, or picto.
        cond_model, device: taken for the webui's sake; the model has its own.
        template_file: a template's name, or its path; None: ``style_filewords``.
        include_cond: prompts are encoded too.
        batch_size, gradient_step: as the training has them; smaller where there are fewer pictures.
        shuffle_tags, tag_drop_out, latent_sampling_method, varsize, use_weight: as in the settings of a training.
        workspace: where names are looked up; None: TINCTURE_ROOT, or the current folder.
        seed: of all draws.

    Raises:
        DataError: no picture can be used.
        UsageError: a value is not allowed.
    """

    def __init__(
        self,
        data_root: str | Path,
        width: int = 0,
        height: int = 0,
        repeats: int = 1,
        flip_p: float = 0.5,
        placeholder_token: str = "*",
        model: DiffusionModel | str | None = None,
        cond_model: Any = None,
        device: Any = None,
        template_file: str | Path | None = None,
        include_cond: bool = False,
        batch_size: int = 1,
        gradient_step: int = 1,
        shuffle_tags: bool = False,
        tag_drop_out: float = 0,
        latent_sampling_method: str = "once",
        varsize: bool = False,
        use_weight: bool = False,
        *,
        workspace: Workspace | None = None,
        seed: int = 0,
    ) -> None:
        place = workspace or Workspace.open(None)
        self.placeholder_token, self.seed = placeholder_token, seed
        self.shuffle_tags, self.tag_drop_out = shuffle_tags, tag_drop_out
        self.latent_sampling_method = latent_sampling_method
        settings = TrainSettings.from_dict(
            {
                "kind": "embedding",
                "name": "subject",
                "data": f"{data_root}:{repeats}" if repeats > 1 else str(data_root),
                "width": width,
                "height": height,
                "varsize": varsize,
                "use_weight": use_weight,
                "shuffle_tags": shuffle_tags,
                "tag_drop_out": tag_drop_out,
                "latent_sampling_method": latent_sampling_method,
                "template": str(template_file or "style_filewords"),
                "seed": seed,
            },
            source="PersonalizedBase",
        )
        base = loaded_model(model or "", place)
        self._model = base if include_cond else None
        self.lines = load_template(settings, place)
        self._samples = load_sides(settings, base).training
        encoded = encode(settings, base, self._samples, lambda event: None)
        self._data = training_data(settings, placeholder_token, self._samples, encoded, self.lines)
        repeated = self._samples.repeats()
        self._order = [index for index, times in enumerate(repeated) for _ in range(times)]
        self.dataset_length = len(self._order)
        self.batch_size = max(1, min(batch_size, self.dataset_length))
        self.gradient_step = max(1, min(gradient_step, self.dataset_length // self.batch_size))
        self._looks = 0
        self._fixed = {} if shuffle_tags or tag_drop_out else dict.fromkeys(self._order, "")
        for index in self._fixed:
            self._fixed[index] = self.create_text(self._samples[index].caption)

    def __len__(self) -> int:
        return self.dataset_length

    def __getitem__(self, number: int) -> DatasetEntry:
        if not -len(self) <= number < len(self):
            raise IndexError(f"There is no picture {number}; there are {len(self)}.")
        index = self._order[number]
        sample, weights = self._samples[index], self._data.weights
        text = self._fixed.get(index) or self.create_text(sample.caption)
        entry = DatasetEntry(
            filename=str(sample.path),
            filename_text=sample.caption,
            latent_sample=self._latents(index),
            cond_text=text,
            weight=weights[index] if weights else None,
        )
        if self._model is None:
            return entry
        with torch.no_grad():
            return replace(entry, cond=self._model.encode_prompts([text]).hidden_states[0])

    def __iter__(self) -> Iterator[DatasetEntry]:
        return (self[number] for number in range(len(self)))

    def create_text(self, filename_text: str) -> str:
        """A prompt for a caption: a line of the template by chance, tags shuffled and dropped as asked for."""
        self._looks += 1
        draws = randomness.generator(self.seed, "prompt", self._looks, 0)
        options: dict[str, Any] = {"shuffle_tags": self.shuffle_tags, "tag_drop_out": self.tag_drop_out}
        return prompt_for(filename_text, self.lines, self.placeholder_token, draws, **options)

    def batches(self) -> BatchPlan:
        """Which pictures a training puts together."""
        return self._data.plan

    def _latents(self, index: int) -> Tensor:
        self._looks += 1

        def noise(position: int) -> Tensor:
            return randomness.normal(self._data.latents.shape(index), self.seed, "latents", self._looks, position)

        return self._data.latents.sample([index], self.latent_sampling_method, noise)[0]


@dataclass(frozen=True)
class Batch:
    """Entries of one size put together; ``latent_sample`` (B, channels, h, w), ``weight`` (B, 1, h, w) or None."""

    filename: list[str]
    cond_text: list[str]
    cond: list[Tensor | None]
    latent_sample: Tensor
    weight: Tensor | None


class PersonalizedDataLoader(DataLoader[DatasetEntry]):
    """Batches of a ``PersonalizedBase`` in any order, each of pictures of one size.

    Args:
        latent_sampling_method: taken for the webui's sake; the data set has its own.
        batch_size: pictures in a batch.
        pin_memory: see torch's ``DataLoader``.
    """

    def __init__(
        self,
        dataset: PersonalizedBase,
        latent_sampling_method: str = "once",
        batch_size: int = 1,
        pin_memory: bool = False,
    ) -> None:
        super().__init__(
            dataset, batch_sampler=_OfOneSize(dataset, batch_size), collate_fn=_together, pin_memory=pin_memory
        )


class _OfOneSize:
    """Every picture once in an epoch, in an order by chance; what is left over of a size makes a smaller batch."""

    def __init__(self, dataset: PersonalizedBase, batch_size: int) -> None:
        self._sizes, self._batch_size = [tuple(entry.latent_sample.shape) for entry in dataset], batch_size

    def __iter__(self) -> Iterator[list[int]]:
        waiting: dict[tuple[int, ...], list[int]] = {}
        for number in torch.randperm(len(self._sizes)).tolist():
            group = waiting.setdefault(self._sizes[number], [])
            group.append(number)
            if len(group) == self._batch_size:
                yield waiting.pop(self._sizes[number])
        yield from waiting.values()

    def __len__(self) -> int:
        counts = [self._sizes.count(size) for size in set(self._sizes)]
        return sum(-(-count // self._batch_size) for count in counts)


def _together(entries: Sequence[DatasetEntry]) -> Batch:
    weights = [entry.weight for entry in entries if entry.weight is not None]
    return Batch(
        filename=[entry.filename for entry in entries],
        cond_text=[entry.cond_text for entry in entries],
        cond=[entry.cond for entry in entries],
        latent_sample=torch.stack([entry.latent_sample for entry in entries]),
        weight=torch.stack(weights) if weights else None,
    )
