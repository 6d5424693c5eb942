"""Dropout in a process's part of a micro-batch: it drops there what it would drop in the whole one.

What torch draws for a tensor depends on the whole of it. So where a process has some rows of a micro-batch, a mask for
all of them is drawn, as a process that computes alone would, and its own rows are taken. Every ``nn.Dropout`` is
served, whatever adapter it is in, as long as rows are the first dimension.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from tincture.training.step_data import Share


@contextlib.contextmanager
def dropout_of_part(share: Share) -> Iterator[None]:
    """Inside, dropout is that of the whole micro-batch of ``share``, in the forward pass and in the backward one."""
    whole = share.part_of
    if whole is None:
        yield
        return
    usual = functional.dropout
    own = slice(share.first_slot - whole.first_slot, share.first_slot - whole.first_slot + len(share.indices))

    def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or p == 0 or input.shape[:1] != (len(share.indices),):
            return usual(input, p, training, inplace)
        ones = torch.ones((len(whole.indices), *input.shape[1:]), dtype=input.dtype, device=input.device)
        mask = usual(ones, p, True, False)[own]
        return input.mul_(mask) if inplace else input * mask

    # Not by a mode of torch's: gradient checkpointing computes anew within the backward pass, where none acts.
    functional.dropout = dropout
    try:
        yield
    finally:
        functional.dropout = usual
