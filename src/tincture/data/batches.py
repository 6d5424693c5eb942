"""Which samples make up a micro-batch, a step, and a process's share of a step: pure functions of seed and number."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from tincture import randomness
from tincture.errors import UsageError


class Piece(NamedTuple):
    """A micro-batch, or a part of one: samples of one size.

    Random draws for the sample at position `p` of `indices` are keyed by the step and the slot `first_slot + p`, its
    place among all samples of the step.
    """

    indices: list[int]
    first_slot: int


class BatchPlan:
    """Orders samples into epochs of micro-batches.

    In every epoch each sample comes exactly once per repeat, in an order of its own. A micro-batch holds samples of one
    size only and up to `batch_size` of them: the last one of each size may be smaller.

    Args:
        sizes: (width, height) of each sample.
        batch_size: samples per micro-batch, 1 .. number of samples, repeats counted.
        repeats: how often each sample comes in an epoch; None: once.

    Raises:
        UsageError: `batch_size` is not allowed.
    """

    def __init__(
        self, sizes: Sequence[tuple[int, int]], batch_size: int, seed: int, repeats: Sequence[int] | None = None
    ) -> None:
        times = [1] * len(sizes) if repeats is None else repeats
        if not 1 <= batch_size <= sum(times):
            raise UsageError(
                f"The batch size is {batch_size}, but must be from 1 to the number of pictures, which is {sum(times)}."
            )
        groups: dict[tuple[int, int], list[int]] = defaultdict(list)
        for index, (size, count) in enumerate(zip(sizes, times, strict=True)):
            groups[size] += [index] * count
        self.batch_size, self.seed = batch_size, seed
        self.micro_batches_per_epoch = sum(-(-len(group) // batch_size) for group in groups.values())
        self._groups = list(groups.values())
        self._latest: tuple[int, list[list[int]]] | None = None

    def micro_batch(self, m: int) -> list[int]:
        """Indices of the samples of micro-batch `m`, which counts from 0 over all epochs."""
        epoch, position = divmod(m, self.micro_batches_per_epoch)
        if self._latest is None or self._latest[0] != epoch:
            self._latest = epoch, self._epoch(epoch)
        return list(self._latest[1][position])

    def step(self, global_step: int, accumulation: int = 1, *, rank: int = 0, world_size: int = 1) -> list[Piece]:
        """What the process `rank` (0 .. `world_size` - 1) computes of a step that has `accumulation` micro-batches.

        The shares of all processes make up the step of one process: every slot comes in exactly one of them. Where
        there are at least as many micro-batches as processes, whole ones are shared out, else the samples are;
        neighbours stay together. A process with nothing to do gets an empty list.
        """
        first, pieces, slot = global_step * accumulation, [], 0
        for m in range(first, first + accumulation):
            pieces.append(Piece(self.micro_batch(m), slot))
            slot += len(pieces[-1].indices)
        if accumulation >= world_size:
            return pieces[_share(accumulation, rank, world_size)]
        mine = _share(slot, rank, world_size)
        parts = (_between(piece, mine.start, mine.stop) for piece in pieces)
        return [part for part in parts if part.indices]

    def _epoch(self, epoch: int) -> list[list[int]]:
        rng = randomness.generator(self.seed, "order of samples", epoch)
        batches = []
        for group in self._groups:
            shuffled = [group[i] for i in rng.permutation(len(group))]
            batches += [shuffled[start : start + self.batch_size] for start in range(0, len(group), self.batch_size)]
        return [batches[i] for i in rng.permutation(len(batches))]


def _share(count: int, rank: int, world_size: int) -> slice:
    """Of `count` things in a row, those of one process: as many for each, give or take one."""
    return slice(count * rank // world_size, count * (rank + 1) // world_size)


def _between(piece: Piece, start: int, stop: int) -> Piece:
    """The part of the piece with slots in start .. stop - 1."""
    first = max(start, piece.first_slot)
    return Piece(piece.indices[first - piece.first_slot : max(0, stop - piece.first_slot)], first)
