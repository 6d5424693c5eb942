from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from tincture.errors import ModelError, UsageError
from tincture.preprocessing.batching import Batches


class Worker:
    """Doubles numbers, with memory for `most` of them."""

    def __init__(self, most: int, error: Exception) -> None:
        self.most, self.error, self.sizes = most, error, list[int]()

    def __call__(self, batch: Sequence[int]) -> list[int]:
        self.sizes.append(len(batch))
        if len(batch) > self.most:
            raise self.error
        return [2 * number for number in batch]


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to"),
    Exception("Failed to allocate memory for requested buffer of size 1048576"),
    MemoryError(),
]


@pytest.mark.parametrize("error", ERRORS, ids=["cuda", "cpu", "onnxruntime", "python"])
def test_batches_become_smaller_when_memory_runs_out(error: Exception) -> None:
    worker, batches = Worker(3, error), Batches(8)
    assert batches.map(worker, range(11)) == [2 * number for number in range(11)]
    assert worker.sizes == [8, 4, 2, 2, 2, 2, 2, 1]
    assert batches.size == 2
    assert batches.map(worker, range(2)) == [0, 2], "the size that was found is kept"
    assert worker.sizes[-1] == 2


def test_not_even_one_fits() -> None:
    with pytest.raises(ModelError, match="too small for even one picture"):
        Batches(4).map(Worker(0, ERRORS[0]), range(3))


def test_other_errors_are_passed_on_at_once() -> None:
    worker = Worker(0, ValueError("shapes do not match"))
    with pytest.raises(ValueError, match="shapes do not match"):
        Batches(4).map(worker, range(8))
    assert worker.sizes == [4]


def test_nothing_to_do() -> None:
    worker = Worker(0, ERRORS[0])
    assert Batches(4).map(worker, []) == []
    assert not worker.sizes


def test_a_batch_holds_one_at_least() -> None:
    with pytest.raises(UsageError, match="batch size is 0"):
        Batches(0)
