"""Dropout in a process's part of a micro-batch: it drops there what it would drop in the whole one.

What torch draws for a tensor depends on the whole of it. So where a process has some rows of a micro-batch, a mask for
all of them is drawn, as a process that computes alone would, and its own rows are taken. Whatever module or function an
adapter drops out with is served, as long as rows are the first dimension.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from tincture.training.step_data import Share


def dropout_of_part(share: Share) -> contextlib.AbstractContextManager[Any]:
    """Inside, dropout is that of the whole micro-batch of ``share``, in the forward pass and in the backward one."""
    whole = share.part_of
    if whole is None:
        return contextlib.nullcontext()
    return _RowsOfDropout(share.first_slot - whole.first_slot, len(share.indices), len(whole.indices))


class _RowsOfDropout(TorchFunctionMode):
    """Draws dropout for ``whole`` rows, of which those here are ``rows`` from ``first`` on."""

    def __init__(self, first: int, rows: int, whole: int) -> None:
        super().__init__()
        self._first, self._rows, self._whole = first, rows, whole

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if function is functional.dropout:
            return self._dropout(function, *args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))

    def _dropout(
        self,
        function: Callable[..., Tensor],
        input: Tensor,
        p: float = 0.5,
        training: bool = True,
        inplace: bool = False,
    ) -> Tensor:
        if not training or p == 0 or input.shape[:1] != (self._rows,):
            return function(input, p, training, inplace)
        ones = torch.ones((self._whole, *input.shape[1:]), dtype=input.dtype, device=input.device)
        # The mode does not act on what it calls itself.
        mask = function(ones, p, True, False)[self._first : self._first + self._rows]
        return input.mul_(mask) if inplace else input * mask
