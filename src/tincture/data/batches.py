"""Which samples make up a micro-batch: a pure function of the seed and the micro-batch's number."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from tincture import randomness
from tincture.errors import UsageError


class BatchPlan:
    """Orders samples into epochs of micro-batches.

    In every epoch each sample comes exactly once, in an order of its own. A micro-batch holds samples of one size only
    and up to `batch_size` of them: the last one of each size may be smaller.

    Args:
        sizes: (width, height) of each sample.
        batch_size: samples per micro-batch, 1 .. number of samples.

    Raises:
        UsageError: `batch_size` is not allowed.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]], batch_size: int, seed: int) -> None:
        if not 1 <= batch_size <= len(sizes):
            raise UsageError(
                f"The batch size is {batch_size}, but must be from 1 to the number of pictures, which is {len(sizes)}."
            )
        groups = defaultdict(list)
        for index, size in enumerate(sizes):
            groups[size].append(index)
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

    def _epoch(self, epoch: int) -> list[list[int]]:
        rng = randomness.generator(self.seed, "order of samples", epoch)
        batches = []
        for group in self._groups:
            shuffled = [group[i] for i in rng.permutation(len(group))]
            batches += [shuffled[start : start + self.batch_size] for start in range(0, len(group), self.batch_size)]
        return [batches[i] for i in rng.permutation(len(batches))]
