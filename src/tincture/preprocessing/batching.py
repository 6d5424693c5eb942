"""Work in batches that become smaller when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from tincture.errors import ModelError, UsageError

Item = TypeVar("Item")
Result = TypeVar("Result")

# In the words of torch on accelerators, torch on the CPU, and onnxruntime.
_SIGNS = ("out of memory", "can't allocate memory", "failed to allocate memory", "bad_alloc")


class Batches:
    """Splits work into batches of ``size``; where memory runs out, ``size`` is halved, and stays so."""

    def __init__(self, size: int) -> None:
        if size < 1:
            raise UsageError(f"The batch size is {size}; give 1 or more pictures.")
        self.size = size

    def map(self, compute: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item]) -> list[Result]:
        """What ``compute`` gives for each of ``items``, in their order, called with ``size`` of them at most.

        Raises:
            ModelError: there is too little memory for a single one.
        """
        results: list[Result] = []
        while len(results) < len(items):
            batch = items[len(results) : len(results) + self.size]
            done = _attempt(compute, batch)
            if done is not None:
                results.extend(done)
            elif len(batch) == 1:
                raise ModelError(
                    "The memory is too small for even one picture at a time; use another device or a smaller model."
                )
            else:
                self.size = len(batch) // 2
        return results


def _attempt(compute: Callable[[Sequence[Item]], Sequence[Result]], batch: Sequence[Item]) -> Sequence[Result] | None:
    """None where memory ran out. Once this returns, nothing holds on to what the failed attempt had allocated."""
    try:
        return compute(batch)
    except Exception as error:  # onnxruntime's errors have no base but this
        if isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in _SIGNS):
            return None
        raise
