"""How and which pictures are drawn: one description for flags, TOML, HTTP and the page, for previews and PNG texts."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from tincture.randomness import LARGEST_REQUESTED_SEED, LARGEST_SEED
from tincture.settings.checks import Bounds, Each, at_least, cpu_threads, device_name, filled, multiple_of_8
from tincture.settings.fields import FieldSpec, setting, specs_of
from tincture.settings.model_overrides import ModelChoice
from tincture.settings.request import CheckedRequest

PICTURE, SHEET, MACHINE = "Pictures", "Sheet", "Precision and device"
BY_CHANCE = -1
SEEDS_BY_CHANCE = 2**32
COLUMNS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Strengths of a sheet's columns where none are given."""
_SEED = Bounds("a whole number, at least 0, or -1", BY_CHANCE, LARGEST_SEED)


@dataclass(frozen=True)
class Drawing:
    """The settings of a picture apart from its prompt and its seed; `models.sampling` checks them against the model.

    Attributes:
        negative_prompt: what to steer away from.
        steps: of the sampler, at least 1.
        sampler: a name in ``tincture.models.samplers.SAMPLERS``.
        guidance_scale: how strictly the prompt is followed; 1 leaves guidance, and half of the work, out. None takes
            the model's own.
        width: pixels, a multiple of the model's ``vae_scale_factor``; None and 0 take the model's own size.
        height: likewise.
        clip_skip: the text encoder's layer, counted from the end, from 1.
    """

    negative_prompt: str = setting("", PICTURE, "What the pictures must not show.")
    steps: int = setting(20, PICTURE, "Sampling steps.", at_least(1), largest=1000)
    sampler: str = setting("Euler a", PICTURE, "Sampler: Euler a, Euler, DDIM, DPM++ 2M, UniPC, ...", filled)
    guidance_scale: float | None = setting(
        None,
        PICTURE,
        "How strictly the prompt is followed; not given: the model's own (7; picto: 2).",
        at_least(0),
        largest=1000,
    )
    width: int | None = setting(
        None, PICTURE, "Width in pixels; 0: the model's own size.", multiple_of_8, largest=2**16
    )
    height: int | None = setting(
        None, PICTURE, "Height in pixels; 0: the model's own size.", multiple_of_8, largest=2**16
    )
    clip_skip: int = setting(
        1, PICTURE, "Layer of the text encoder to use, counted from the end.", at_least(1), largest=100
    )


@dataclass(frozen=True)
class CompleteDrawing(Drawing):
    """A drawing that leaves nothing to the model; the defaults are Stable Diffusion 1's."""

    guidance_scale: float = 7.0
    width: int = 512
    height: int = 512


@dataclass(frozen=True, kw_only=True)
class DrawingRequest(ModelChoice, Drawing, CheckedRequest):
    """Pictures that are asked for, each prompt with each seed, or one sheet; immutable, checked when made.

    Raises:
        UsageError: naming every value that is not allowed, all in one message.
    """

    UNKNOWN: ClassVar[str] = "A drawing has no {name}; it may have {known}"

    prompts: tuple[str, ...] = setting((), PICTURE, "Prompts; embeddings by name, <hypernet:NAME:0.8>.")
    seed: int = setting(
        0,
        PICTURE,
        "Seed of the first picture of each prompt; -1: each by chance.",
        _SEED,
        largest=LARGEST_REQUESTED_SEED,
    )
    count: int = setting(1, PICTURE, "Pictures of each prompt, seeds counting up.", at_least(1))
    seeds: tuple[int, ...] = setting(
        (),
        PICTURE,
        "Seeds of each prompt's pictures, instead of seed and count; -1: one by chance.",
        Each(_SEED),
        largest=LARGEST_REQUESTED_SEED,
    )
    batch_size: int | None = setting(
        None, PICTURE, "Pictures drawn at a time; not given: as many as usually fit.", at_least(1), largest=64
    )
    grid: bool = setting(
        False, SHEET, "One sheet: a column per strength, a row per checkpoint, of one prompt and one seed."
    )
    strengths: tuple[float, ...] = setting(
        (),
        SHEET,
        "Columns of the sheet: strengths of the prompt's hypernetworks; with grid alone: 0,0.25,0.5,0.75,1.",
        most_items=100,
    )
    checkpoints: tuple[str, ...] = setting(
        (), SHEET, "File of a row of the sheet, a copy of an adapter; repeat for more.", most_items=100, path=True
    )
    precision: Literal["fp32", "bf16", "fp16"] = setting("fp32", MACHINE, "Precision of the model.")

    @classmethod
    def faults_between(cls, values: Mapping[str, Any], faulty: Collection[str]) -> list[str]:
        prompts = values.get("prompts", ())
        if "prompts" not in faulty and not prompts:
            return ["prompts is empty; give at least one prompt"]
        return []

    @property
    def is_sheet(self) -> bool:
        """Whether one sheet is asked for rather than pictures."""
        return self.grid or bool(self.strengths or self.checkpoints)

    @property
    def columns(self) -> tuple[float, ...]:
        """Strengths of the sheet's columns."""
        return self.strengths or (COLUMNS if self.grid else (1.0,))

    @property
    def seed_count(self) -> int:
        """How many seeds each prompt has."""
        return len(self.seeds) or self.count

    @property
    def picture_count(self) -> int:
        """How many pictures are drawn; on a sheet, too."""
        if self.is_sheet:
            return len(self.columns) * max(1, len(self.checkpoints))
        return len(self.prompts) * self.seed_count

    def drawn_seeds(self) -> list[int]:
        """The seeds of each prompt's pictures, those by chance drawn."""
        first = self.seed
        counted = (BY_CHANCE if first == BY_CHANCE else first + number for number in range(self.count))
        wanted = self.seeds or tuple(counted)
        return [secrets.randbelow(SEEDS_BY_CHANCE) if seed == BY_CHANCE else seed for seed in wanted]

    def drawing(self) -> Drawing:
        """How each picture is drawn."""
        return Drawing(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Drawing)})


@dataclass(frozen=True, kw_only=True)
class DrawingSettings(DrawingRequest):
    """The same where the caller chooses the device too: of `tincture generate` and its TOML files."""

    device: str = setting("auto", MACHINE, "auto, cpu, cuda, cuda:N, mps, xpu.", device_name)
    threads: int = setting(
        0,
        MACHINE,
        "CPU threads to compute with; 0: as many as there are cores to use, or what OMP_NUM_THREADS says.",
        cpu_threads,
    )


REQUEST_FIELDS: Mapping[str, FieldSpec] = specs_of(DrawingRequest)
DRAWING_FIELDS: Mapping[str, FieldSpec] = specs_of(DrawingSettings)
