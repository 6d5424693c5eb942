"""What a step draws from: samples, their latents, loss weights and prompts, of the pictures to learn and of others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from torch import Tensor

from tincture.data.batches import BatchPlan, Piece
from tincture.data.latents import LatentCache
from tincture.processes.ranks import ALONE, Processes
from tincture.settings.schedule import Schedule


class PromptDraw(Protocol):
    """``(sample index, global_step, slot) -> prompt``: the text of one sample in one step."""

    def __call__(self, index: int, global_step: int, slot: int) -> str: ...


@dataclass(frozen=True)
class TrainingData:
    """What a step draws from: which samples, their latents, loss weights and prompts.

    ``weights`` holds per sample (1, h, w) loss weights, or None where every cell counts alike; ``time_ids`` holds per
    sample (1, 6) what families that know sizes are told, see ``DiffusionModel.time_ids``.
    """

    plan: BatchPlan
    latents: LatentCache
    prompt: PromptDraw
    latent_sampling_method: Literal["once", "deterministic", "random"] = "once"
    weights: Sequence[Tensor] | None = None
    time_ids: Sequence[Tensor] | None = None


@dataclass(frozen=True)
class Prior:
    """Pictures of what the model knows already and shall not forget, trained in every step beside those to be learned.

    Each micro-batch of a step has one of these behind it, whose loss counts ``weight`` times (prior preservation: Ruiz
    et al. 2023, arXiv:2208.12242).
    """

    data: TrainingData
    weight: Schedule


class Share(NamedTuple):
    """A micro-batch of a step, or a process's part of one, and how much its loss counts in that of the step.

    Random draws for the sample at position `p` of `indices` are keyed by the step and the slot `first_slot + p`.
    ``part_of`` is the micro-batch of which other processes compute the rest; None where there is no rest.
    """

    data: TrainingData
    indices: list[int]
    first_slot: int
    weight: float
    part_of: Piece | None = None


def shares_of_step(
    data: TrainingData, prior: Prior | None, global_step: int, accumulation: int, processes: Processes = ALONE
) -> Iterator[Share]:
    """What a process computes of the step from ``global_step`` on, first of ``data``, whose weights add up to 1.

    The last micro-batch of an epoch may be smaller: weighed by size, every sample of a step counts alike. The shares of
    all ``processes`` make up the step, and their losses its loss.
    """
    yield from _shares(data, 1.0, 0, global_step, accumulation, processes)
    if prior is not None and (weight := prior.weight.at(global_step)):
        behind = sum(len(indices) for indices, _ in data.plan.step(global_step, accumulation))
        yield from _shares(prior.data, weight, behind, global_step, accumulation, processes)


def _shares(
    data: TrainingData, weight: float, behind: int, global_step: int, accumulation: int, processes: Processes
) -> Iterator[Share]:
    pieces = [Piece(indices, behind + first_slot) for indices, first_slot in data.plan.step(global_step, accumulation)]
    total = sum(len(indices) for indices, _ in pieces)
    own = data.plan.step(global_step, accumulation, rank=processes.rank, world_size=processes.world_size)
    for indices, slot in own:
        whole = next(piece for piece in reversed(pieces) if piece.first_slot <= behind + slot)
        rest = None if len(indices) == len(whole.indices) else whole
        yield Share(data, indices, behind + slot, weight * (len(indices) / total), rest)
