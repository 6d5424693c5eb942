"""How long a run will take: its parts measured on this machine with the real model, and remembered for later plans.

A part is measured by doing it a few times with numbers drawn for the purpose: nothing is written but the times, and no
adapter changes. A part that takes long is done once. Runs leave their times too, which are better than those.
"""

from __future__ import annotations

import copy
import dataclasses
import datetime
import functools
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from tincture.adapters.adapter import Adapter
from tincture.data.dataset import PictureDataset
from tincture.data.latents import LatentCache, pictures_at_once
from tincture.formats.timings import Facts, remember_seconds, remembered_seconds
from tincture.models.arithmetic import Arithmetic
from tincture.models.conditions import Conditions
from tincture.models.diffusion_model import DiffusionModel
from tincture.models.placement import VAE
from tincture.models.sampling import complete, pictures_decoded_at_once
from tincture.run.averages import averaged
from tincture.run.data import preview_prompts, prompt_draw
from tincture.run.duration import DRAWING, ENCODING, VALIDATING, Agenda, TimeLeft, Timing, about, in_words, usual
from tincture.run.grids import at_once
from tincture.run.memory.fit import is_shortage
from tincture.run.previews import MAX_AT_ONCE
from tincture.run.records import preview_drawing
from tincture.run.trainer import make_sample_trainer
from tincture.settings.train import TrainSettings
from tincture.training.validation import Example, Grid

STEP, PREVIEW, PICTURE, VALIDATION = "step", "preview", "picture", "validation"
SLOW_S = 10.0
"""What takes longer is done once."""
ENOUGH_S, MOST_TIMES = 0.5, 10
"""A part is done so often that it takes so many seconds together, but not oftener."""
_TOLERANCE = 0.1
_PARTS = ("step_s", "preview_s", "validation_s", "encoding_s")
_OF_A_STEP = (
    *("batch_size", "gradient_accumulation_steps", "optimizer", "optimizer_args", "clip_grad_mode", "clip_skip"),
    *("use_weight", "attention_mask_weight", "latent_sampling_method", "gradient_checkpointing"),
)
_TWICE = {"prior": "prior_data", "negative": "negative_prompt"}
"""By what a part's facts call it, the settings by which more is predicted in a step."""
_OF_THE_MODEL = ("precision", "weight_storage", "offload", "slicing")


@dataclass(frozen=True)
class Workload:
    """What is to be timed: a run, of which nothing is open any more.

    Attributes:
        lines: of the prompt template.
        device: where it is to run.
        predictions: that a validation makes; 0 for a run without.
        processes: that compute it together.
    """

    settings: TrainSettings
    model: DiffusionModel
    adapter: Adapter
    dataset: PictureDataset
    lines: list[str]
    device: torch.device
    predictions: int = 0
    processes: int = 1

    @functools.cached_property
    def size(self) -> tuple[int, int]:
        """Width and height of most of the samples."""
        sizes: Counter[tuple[int, int]] = Counter()
        for size, repeats in zip(self.dataset.sizes(), self.dataset.repeats(), strict=True):
            sizes[size] += repeats
        return max(sizes, key=lambda size: (sizes[size], size))

    @property
    def relative_size(self) -> float:
        """Pixels of the samples on average, as a share of those of ``size``."""
        sizes, repeats = self.dataset.sizes(), self.dataset.repeats()
        pixels = sum(width * height * times for (width, height), times in zip(sizes, repeats, strict=True))
        return pixels / sum(repeats) / math.prod(self.size)

    @property
    def agenda(self) -> Agenda:
        return Agenda(self.settings.to_dict(), self.settings.last_step, len(self.dataset))

    @functools.cached_property
    def preview_prompts(self) -> Sequence[str]:
        draw = prompt_draw(self.settings, self.adapter.word, self.dataset, self.lines)
        return preview_prompts(self.settings, self.dataset, draw)

    @property
    def prompts(self) -> list[str]:
        """Prompts of a micro-batch of pictures that have ``size``."""
        sizes = self.dataset.sizes()
        alike = [index for index in range(len(sizes)) if sizes[index] == self.size]
        draw = prompt_draw(self.settings, self.adapter.word, self.dataset, self.lines)
        return [draw(index, 0, slot) for slot, index in enumerate(alike[: self.settings.batch_size])]

    def facts(self, what: str) -> Facts:
        """On what the time of a part depends."""
        settings, model = self.settings.to_dict(), self.model
        shared = {
            "what": what,
            "where": {**Arithmetic.current(self.device.type).to_dict(), "name": _device_name(self.device)},
            "model": {"family": model.family.name, **{part: _numbers(part, model) for part in model.placement.parts}},
            **{name: settings[name] for name in _OF_THE_MODEL},
            **({"processes": self.processes} if self.processes > 1 else {}),
        }
        if what == PICTURE:
            return {**shared, "size": list(self.size)}
        parameters = self.adapter.parameters()
        kind = [self.adapter.kind, len(parameters), sum(parameter.numel() for parameter in parameters)]
        if what in (STEP, VALIDATION):
            tokens = max(model.text.lengths(self.prompts))
            own = {**{name: settings[name] for name in _OF_A_STEP}, "averages": bool(settings["ema"])}
            own |= {"predictions": self.predictions} if what == VALIDATION else {}
            own |= {name: True for name, given in _TWICE.items() if settings[given]}
            return {**shared, **own, "size": list(self.size), "adapter": kind, "tokens": tokens}
        drawing = dataclasses.asdict(complete(preview_drawing(self.settings), model))
        drawn = {name: drawing[name] for name in ("sampler", "steps", "width", "height", "guidance_scale")}
        return {**shared, **drawn, "adapter": kind, "pictures": len(self.preview_prompts)}


# --- plans -----------------------------------------------------------------------------------------------------------


@dataclass
class RunTimes:
    """The seconds of a run's parts: from what is remembered, else measured if that is wanted.

    Args:
        prepare: brings the model to its device, as the run will have it; called before the first measurement.
        watch: called before each part that is timed; what it raises ends the measurement.
        clock: seconds since anything, which never go back.

    Attributes:
        measured: whether anything was measured now.
    """

    work: Workload
    timing: Timing
    prepare: Callable[[], DiffusionModel]
    watch: Callable[[], object] = lambda: None
    clock: Callable[[], float] = time.perf_counter
    measured: bool = False
    _model: DiffusionModel | None = field(default=None, repr=False)

    def of(self, what: str) -> float | None:
        """Seconds of a step, a preview with all pictures, encoding a picture, or a validation; None when not known."""
        facts = self.work.facts(what)
        known = remembered_seconds(facts)
        # What this process alone would measure says nothing of several.
        if known is not None or self.timing != "measure" or self.work.processes > 1:
            return known
        measure = {STEP: self._step, PREVIEW: self._preview, PICTURE: self._picture, VALIDATION: self._validation}[what]
        if self._model is None:
            self._model = self.prepare()
        devices = [self._model.device] if self._model.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            seconds = measure(self._model)
        self.measured = True
        remember_seconds(facts, seconds)
        return seconds

    def _step(self, model: DiffusionModel) -> float:
        settings, size, prompts = self.work.settings, self.work.size, self.work.prompts
        adapter = averaged(settings, _copied(self.work.adapter, model))
        latents = _drawn_latents(model, len(prompts), size)
        trainer = make_sample_trainer(settings, model, adapter, latents, prompts, size)
        rates = trainer.rates()
        with adapter.attach(model):
            adapter.train()
            return self._measure(lambda: trainer.make_step(*rates))

    def _preview(self, model: DiffusionModel) -> float:
        """One pass through the denoiser and one picture decoded, times what a preview has of them."""
        settings, drawing = self.work.settings, complete(preview_drawing(self.work.settings), model)
        count = len(self.work.preview_prompts)
        together = 1 if settings.slicing else min(count, MAX_AT_ONCE)
        scheduler = model.noise_process.make_scheduler(drawing.sampler)
        scheduler.set_timesteps(drawing.steps)
        passes = len(scheduler.timesteps) * math.ceil(count / together)
        guided = 1 if drawing.guidance_scale == 1 else 2
        step_s = remembered_seconds(self.work.facts(STEP)) or 0.0
        if self.work.agenda.guessed_preview(step_s) > SLOW_S * passes:
            return self.work.agenda.guessed_preview(step_s)  # a single pass would take too long
        decoded = min(together, pictures_decoded_at_once(drawing.width, drawing.height))
        latents = _drawn_latents(model, together, (drawing.width, drawing.height)).means
        adapter = _copied(self.work.adapter, model)
        with adapter.train(False).attach(model), torch.no_grad():
            conditions = model.encode_prompts([self.work.preview_prompts[0]], settings.clip_skip)
            both = Conditions.cat([conditions.expand(together)] * guided)
            noisy = torch.stack(list(latents) * guided)
            timestep = scheduler.timesteps[0].to(model.device)
            one_pass = self._measure(lambda: model.predict_noise(noisy, timestep, both))
            decoding = self._measure(lambda: model.decode_latents(torch.stack(list(latents[:decoded]))))
        return passes * one_pass + count / decoded * decoding

    def _validation(self, model: DiffusionModel) -> float:
        """As many predictions as are made together, times how often a validation makes so many."""
        work, settings = self.work, self.work.settings
        together = min(at_once(settings), work.predictions)
        step_s = remembered_seconds(work.facts(STEP)) or 0.0
        if work.agenda.guessed_predictions(step_s, together) > SLOW_S:
            return work.agenda.guessed_predictions(step_s, work.predictions)
        prompt, latents = work.prompts[0], _drawn_latents(model, 1, work.size)
        adapter = _copied(work.adapter, model)
        trainer = make_sample_trainer(settings, model, adapter, latents, [prompt], work.size)
        weights, time_ids = trainer.data.weights, trainer.data.time_ids
        weight, time_id = weights[0] if weights else None, time_ids[0] if time_ids else None
        grid = Grid([Example(latents.means[0], prompt, "0", weight, time_id)], together, together)
        with adapter.train(False).attach(model):
            return self._measure(lambda: grid.loss(trainer)) * work.predictions / together

    def _picture(self, model: DiffusionModel) -> float:
        width, height = self.work.size
        count = pictures_at_once(width, height, model.device.type)
        pixels = torch.zeros(count, 3, height, width, device=model.device)
        with model.placement.acting(VAE, alone=True), torch.no_grad():
            return self._measure(lambda: model.encode_pictures(pixels)) / count

    def _measure(self, act: Callable[[], object]) -> float:
        """Seconds of ``act``; the first time warms up, and counts only if that took long."""
        first = self._once(act)
        if first > SLOW_S:
            return first
        times: list[float] = []
        while len(times) < MOST_TIMES and sum(times) < ENOUGH_S:
            times.append(self._once(act))
        return usual(times)

    def _once(self, act: Callable[[], object]) -> float:
        assert self._model is not None
        self.watch()
        _wait(self._model.device)
        began = self.clock()
        act()
        _wait(self._model.device)
        return self.clock() - began


def planned_duration(times: RunTimes, to_encode: int, now: datetime.datetime | None = None) -> dict[str, Any]:
    """How long a run will take that has not begun.

    Args:
        to_encode: samples whose latents are not kept from earlier runs.
        now: when it begins; None: at this moment.

    Returns:
        ``seconds`` in all, ``step_s`` of a step, ``preview_s`` of a preview and ``validation_s`` of a validation, with
        the numbers of ``previews`` and ``validations``, ``encoding_s`` of encoding all pictures, each None where it is
        not known; ``measured``: now, earlier or no; and a ``description`` for people.
    """
    work = times.work
    start, agenda = work.adapter.step, work.agenda
    steps = max(0, agenda.steps - start)
    found: dict[str, Any] = {**dict.fromkeys(("seconds", *_PARTS)), "measured": "no"}
    # A new run draws and validates before its first step too.
    ahead = agenda.ahead(start)
    found["previews"] = ahead[DRAWING] + 1 if work.settings.preview_every and steps else 0
    found["validations"] = ahead[VALIDATING] + 1 if work.predictions and steps else 0
    if times.timing == "none" or not steps:
        return {**found, "description": "not measured" if steps else "no step is left"}
    try:
        step_s, picture_s = times.of(STEP), times.of(PICTURE) if to_encode else 0.0
        preview_s = times.of(PREVIEW) if found["previews"] else 0.0
        validation_s = times.of(VALIDATION) if found["validations"] else 0.0
    except Exception as error:
        if not is_shortage(error):
            raise
        return {**found, "description": "not measured, since the device has too little memory free at the moment"}
    if step_s is None or picture_s is None or preview_s is None or validation_s is None:
        return {**found, "description": "not measured on this machine before"}
    found["step_s"], found["preview_s"] = step_s * work.relative_size, preview_s if found["previews"] else None
    found["validation_s"] = validation_s if found["validations"] else None
    found["encoding_s"] = picture_s * work.relative_size * to_encode
    between = found["previews"] * preview_s + found["validations"] * validation_s
    found["seconds"] = steps * found["step_s"] + between + found["encoding_s"]
    found["measured"] = "now" if times.measured else "earlier"
    return {**found, "description": _described(found, steps, now or datetime.datetime.now())}


def _described(found: dict[str, Any], steps: int, now: datetime.datetime) -> str:
    seconds = found["seconds"]
    parts = [f"{steps:,} steps of {_precisely(found['step_s'])}"]
    if found["previews"]:
        parts.append(f"{found['previews']:,} previews of {_precisely(found['preview_s'])}")
    if found["validations"]:
        parts.append(f"{found['validations']:,} validations of {_precisely(found['validation_s'])}")
    if found["encoding_s"] >= 1:
        parts.append(f"{_precisely(found['encoding_s'])} for encoding the pictures")
    ends = (now + datetime.timedelta(seconds=seconds * share) for share in (1 - _TOLERANCE, 1 + _TOLERANCE))
    first, last = (_clock_time(end, now) for end in ends)
    end = f"at {first}" if first == last else f"between {first} and {last}"
    return f"about {about(seconds)} ({', '.join(parts)}); begun now, it ends {end}"


def _clock_time(end: datetime.datetime, now: datetime.datetime) -> str:
    return end.strftime("%H:%M" if end.date() == now.date() else "%H:%M on %Y-%m-%d")


def _precisely(seconds: float) -> str:
    return in_words(seconds) if seconds >= 60 else f"{seconds:.3g} s"


# --- runs ------------------------------------------------------------------------------------------------------------


def remember_run(work: Workload, time_left: TimeLeft, *, encoded: int) -> None:
    """Keeps what a run measured for later plans.

    Args:
        time_left: watched the run.
        encoded: samples that it encoded; 0 where some of them were known.
    """
    step_s, drawing, encoding = time_left.step_s, time_left.took(DRAWING), time_left.took(ENCODING)
    if step_s is not None and time_left.is_settled:
        remember_seconds(work.facts(STEP), step_s / work.relative_size)
    validating = time_left.took(VALIDATING)
    if validating is not None:
        remember_seconds(work.facts(VALIDATION), validating)
    if drawing is not None:
        remember_seconds(work.facts(PREVIEW), drawing)
    if encoding is not None and encoded:
        remember_seconds(work.facts(PICTURE), encoding / encoded / work.relative_size)


# --- parts -----------------------------------------------------------------------------------------------------------


def _copied(adapter: Adapter, model: DiffusionModel) -> Adapter:
    """A copy on the model's device, which may change."""
    return copy.deepcopy(adapter).to(model.device)


def _drawn_latents(model: DiffusionModel, count: int, size: tuple[int, int]) -> LatentCache:
    width, height = (side // model.vae_scale_factor for side in size)
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(model.latent_channels, height, width, generator=generator) for _ in range(count)]
    latents = [one.to(model.device) for one in drawn]
    return LatentCache(latents, [torch.ones_like(one) for one in latents])


def _numbers(part: str, model: DiffusionModel) -> int:
    return sum(parameter.numel() for module in model.placement.parts[part] for parameter in module.parameters())


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else ""


def _wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    elif device.type == "xpu":
        torch.xpu.synchronize(device)
