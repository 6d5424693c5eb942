"""How much memory of its device a run will take, phase by phase, told before it begins.

A phase's peak is what lies on the device then (weights, trained numbers, latents) and what the phase takes on top. The
latter is rehearsed (``training/rehearsal.py``).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from tincture.adapters.adapter import Adapter
from tincture.data import captions
from tincture.data.dataset import PictureDataset
from tincture.data.latents import pictures_at_once
from tincture.models.devices import PRECISIONS
from tincture.models.diffusion_model import DiffusionModel
from tincture.models.placement import DENOISER, TEXT_ENCODERS, VAE
from tincture.models.sampling import pictures_decoded_at_once
from tincture.run.data import possible_prompts, preview_prompts, prompt_draw
from tincture.run.duration import ENCODING, PROMPTS
from tincture.run.grids import at_once, measured, validation_prompts
from tincture.run.losses import negative_prompts
from tincture.run.memory.rehearsal import Rehearsal, StepMemory
from tincture.run.prior_pictures import PriorPictures
from tincture.run.trainer import known_prompts, make_sample_trainer, prompts_in_memory
from tincture.settings.optimizers import averages_by_itself
from tincture.settings.train import TrainSettings
from tincture.training.trainer import Trainer

T = TypeVar("T")

TRAINING, VALIDATION, PREVIEWS = "training", "validation", "previews"
_ALWAYS_USED = frozenset({DENOISER, TEXT_ENCODERS})
_REHEARSED = ("precision", "gradient_checkpointing", "weight_storage", "slicing")
_NOT_OF_A_STEP = ("offload", "slicing", "vram", "steps", "save_", "preview_")
"""How settings begin that change nothing in what a step takes."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on the device.

    Attributes:
        weights: of each part of the model.
        trained: trained numbers, and what the optimizer keeps of them.
        data: latents, encoded prompts, masks.
        phases: the peak of each phase, with all of the above that lies on the device then.
        retained: what layers of the model keep from the first step on.
    """

    weights: Mapping[str, int]
    trained: int
    data: int
    phases: Mapping[str, int]
    retained: int = 0

    @property
    def peak(self) -> int:
        """The most at a time."""
        return max(self.phases.values())

    @property
    def fullest(self) -> str:
        """The phase that takes the most."""
        return max(self.phases, key=lambda phase: self.phases[phase])


class MemoryEstimator:
    """Tells what runs of one model, adapter and data set take with any settings; rehearses each phase once.

    Args:
        model: what is trained on; its weights are not touched, and may lie on any device.
        adapter: what is trained.
        dataset: the pictures.
        lines: of the prompt template.
        device_type: of the device that the run is meant for.
        validation: the pictures for validation.
        prior: the regularisation pictures.
    """

    def __init__(
        self,
        model: DiffusionModel,
        adapter: Adapter,
        dataset: PictureDataset,
        lines: list[str],
        device_type: str,
        validation: PictureDataset | None = None,
        prior: PriorPictures | None = None,
    ) -> None:
        self.validation, self.prior = validation, prior
        self.model, self.adapter, self.dataset, self.lines = model, adapter, dataset, lines
        self.device_type = device_type
        self._known: dict[tuple[Any, ...], Any] = {}

    def estimate(self, settings: TrainSettings) -> MemoryEstimate:
        """What a run with ``settings`` takes; its memory settings must all be given, see ``TrainSettings.resolved``."""
        rehearsal = self._rehearsal(settings)
        weights, step, data = rehearsal.weights(), self._step(settings), self._data(settings)
        has_averages = bool(settings.ema) or averages_by_itself(settings.optimizer)
        averages = sum(tensor.nbytes for tensor in self.adapter.state_dict().values()) if has_averages else 0
        fixed = sum(tensor.nbytes for one in self.adapter.fixed for tensor in one.parameters())
        offload = settings.offload and self.device_type != "cpu"
        resident = self._resident(settings) if offload else frozenset(weights)

        def there(part: str) -> int:
            alone = offload and (part == VAE or part not in resident)
            return sum(weights[name] for name in ({part} if alone else {part, *resident}))

        # The optimizer keeps nothing before the first step.
        trained = sum(parameter.nbytes for parameter in self.adapter.parameters()) + averages + fixed
        phases = {ENCODING: there(VAE) + trained + data + self._encoding(settings)}
        lasting = step.lasting + averages + fixed + data
        prompts = there(TEXT_ENCODERS) + lasting + self._prompts(settings)
        if not self.adapter.trains_text:
            phases[PROMPTS] = prompts
        phases[TRAINING] = there(DENOISER) + lasting + step.passing
        if self.validation is not None:
            phases[VALIDATION] = there(DENOISER) + lasting + self._validating(settings, self.validation)
        if settings.preview_every:
            drawing, decoding = self._preview(settings)
            resting = max(prompts, there(VAE) + lasting + decoding) + step.retained
            phases[PREVIEWS] = max(resting, there(DENOISER) + lasting + drawing)
        return MemoryEstimate(weights, step.lasting + averages, data, phases, step.retained)

    # --- phases ------------------------------------------------------------------------------------------------------

    def _once(self, find: Callable[[], T], *key: Any) -> T:
        if key not in self._known:
            self._known[key] = find()
        found: T = self._known[key]
        return found

    def _rehearsal(self, settings: TrainSettings) -> Rehearsal:
        def begin() -> Rehearsal:
            return Rehearsal(
                self.model,
                self.adapter,
                dtype=PRECISIONS[settings.precision],
                gradient_checkpointing=bool(settings.gradient_checkpointing),
                float8=settings.weight_storage == "float8",
                slicing=bool(settings.slicing),
                device_type=self.device_type,
            )

        return self._once(begin, "rehearsal", *(getattr(settings, name) for name in _REHEARSED))

    def _resident(self, settings: TrainSettings) -> frozenset[str]:
        """Parts that stay on the device between their uses, where others come and go."""
        further = validation_prompts(settings, self.adapter.word, self.validation, self.lines)
        further += self._prior_prompts()
        known = known_prompts(settings, self.model, self.adapter, self.dataset, self.lines, further)
        return frozenset({DENOISER}) if known else _ALWAYS_USED

    def _encoding(self, settings: TrainSettings) -> int:
        rehearsal = self._rehearsal(settings)
        largest = self._largest(lambda width, height: pictures_at_once(width, height, self.device_type))
        return self._once(lambda: rehearsal.encoding_pictures(*largest), ENCODING, settings.slicing, *largest)

    def _prompts(self, settings: TrainSettings) -> int:
        rehearsal, prompts = self._rehearsal(settings), self._longest_prompts(1)
        return self._once(
            lambda: rehearsal.encoding_prompts(prompts, settings.clip_skip),
            PROMPTS,
            settings.precision,
            settings.clip_skip,
        )

    def _preview(self, settings: TrainSettings) -> tuple[int, int]:
        """Bytes of drawing and of decoding previews, beside the weights."""
        rehearsal = self._rehearsal(settings)
        width = settings.preview_width or settings.width or self.model.default_size
        height = settings.preview_height or settings.height or self.model.default_size
        draw = prompt_draw(settings, self.adapter.word, self.dataset, self.lines)
        drawn = 1 if settings.slicing else len(preview_prompts(settings, self.dataset, draw))
        guidance = settings.preview_guidance_scale
        guided = (self.model.guidance_scale if guidance is None else guidance) != 1
        predicted = (drawn * 2 if guided else drawn, width, height)
        decoded = (min(drawn, pictures_decoded_at_once(width, height)), width, height)
        kind = (settings.precision, settings.weight_storage)
        return (
            self._once(lambda: rehearsal.predicting(*predicted), "drawing", *kind, *predicted),
            self._once(lambda: rehearsal.decoding_pictures(*decoded), "decoding", settings.slicing, *decoded),
        )

    def _validating(self, settings: TrainSettings, validation: PictureDataset) -> int:
        sizes = [*self.dataset.sizes(), *(validation[index].fit.size for index in measured(settings, validation))]
        predicted = (at_once(settings), *max(sizes, key=math.prod))
        rehearsal, kind = self._rehearsal(settings), (settings.precision, settings.weight_storage)
        return self._once(lambda: rehearsal.predicting(*predicted), "drawing", *kind, *predicted)

    def _step(self, settings: TrainSettings) -> StepMemory:
        rehearsal = self._rehearsal(settings)
        # A scaler of gradients looks at numbers. In memory both half precisions are alike.
        alike = settings.replace(precision="bf16") if settings.precision == "fp16" else settings
        # So does a guard, and there are none here.
        alike = alike.replace(on_divergence="stop", spike_threshold=0)
        largest = self._largest(lambda width, height: settings.batch_size)
        step = alike.replace(gradient_accumulation_steps=min(2, settings.gradient_accumulation_steps))
        key = {name: value for name, value in step.to_dict().items() if not name.startswith(_NOT_OF_A_STEP)}
        return self._once(lambda: rehearsal.step(self._trainer_maker(step, rehearsal, *largest)), TRAINING, str(key))

    def _trainer_maker(
        self, settings: TrainSettings, rehearsal: Rehearsal, count: int, width: int, height: int
    ) -> Callable[[DiffusionModel, Adapter], Trainer]:
        prompts = self._longest_prompts(count)

        def make(model: DiffusionModel, adapter: Adapter) -> Trainer:
            latents = rehearsal.cached_latents(count, width, height)
            return make_sample_trainer(settings, model, adapter, latents, prompts, (width, height))

        return make

    # --- data --------------------------------------------------------------------------------------------------------

    def _largest(self, at_once: Callable[[int, int], int]) -> tuple[int, int, int]:
        """Count, width and height of the pictures that make up the largest batch."""
        batches = []
        for dataset in (self.dataset, self.prior.dataset) if self.prior else (self.dataset,):
            there: Counter[tuple[int, int]] = Counter()
            for size, repeats in zip(dataset.sizes(), dataset.repeats(), strict=True):
                there[size] += repeats
            batches += [(min(at_once(*size), count), *size) for size, count in there.items()]
        return max(batches, key=math.prod)

    def _longest_prompts(self, count: int) -> list[str]:
        """The longest line of the template with each of the longest captions."""
        line = max(self.lines, key=len)
        longest = sorted((sample.caption for sample in self.dataset), key=len, reverse=True)
        prompts = [captions.possible_prompts(caption, [line], self.adapter.word)[0] for caption in longest]
        prompts = sorted([*prompts, *self._prior_prompts()], key=len, reverse=True)
        return [prompts[index % len(prompts)] for index in range(count)]

    def _data(self, settings: TrainSettings) -> int:
        """Bytes of what the steps draw from: latents, loss weights and masks of every picture, and encoded prompts."""
        tensors = 3 if settings.latent_sampling_method == "once" else 2
        planes = tensors * self.model.latent_channels + bool(settings.use_weight) + bool(settings.attention_mask_weight)
        sizes = [*self.dataset.sizes(), *([] if self.validation is None else self.validation.sizes())]
        sizes += self.prior.dataset.sizes() if self.prior else []
        cells = sum(width * height for width, height in sizes) // self.model.vae_scale_factor**2
        return cells * planes * 4 + self._text(settings)

    def _prior_prompts(self) -> list[str]:
        return self.prior.prompts(self.adapter.word) if self.prior else []

    def _text(self, settings: TrainSettings) -> int:
        if self.adapter.trains_text:
            return 0
        prompts = possible_prompts(settings, self.adapter.word, self.dataset, self.lines)
        further = validation_prompts(settings, self.adapter.word, self.validation, self.lines) + self._prior_prompts()
        most = prompts_in_memory(self.model)
        each = max(self.model.bytes_of_prompt(prompt) for prompt in self._longest_prompts(1))
        further += negative_prompts(settings, self.adapter.word)
        return min(most, most if prompts is None else len({*prompts, *further}) + 1) * each
