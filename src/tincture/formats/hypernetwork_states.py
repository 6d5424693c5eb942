"""The tensors in a hypernetwork file: two states, for K and for V, by context width."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TypeGuard

import torch
from torch import Tensor

from tincture.errors import FileFormatError, UsageError
from tincture.formats.files import require_own_values
from tincture.kinds.layer_structure import check_layer_structure, layer_widths

State = dict[str, Tensor]

_OLD_NAMES = {"linear1": "linear.0", "linear2": "linear.1"}
# What both the webui's safe loader and safetensors hold.
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def context_width_of(key: object) -> int | None:
    """The context width that a key of the file stands for, if any."""
    if isinstance(key, str) and key.isdecimal() and len(key) < 10:
        return int(key)
    return key if isinstance(key, int) and not isinstance(key, bool) else None


def read_pair(path: str | os.PathLike[str], width: int, pair: object) -> tuple[State, State]:
    """The states (K, V) of one width, checked and in the order of their layers; names of 2022 become today's.

    Raises:
        FileFormatError: something else than two dicts of finite float tensors by name.
    """
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise FileFormatError(f"{os.fspath(path)}: width {width} needs a pair of layers (K, V); the file is damaged.")
    k, v = (_read_state(path, width, state) for state in pair)
    return k, v


def _read_state(path: str | os.PathLike[str], width: int, state: object) -> State:
    if not isinstance(state, dict) or not state:
        raise FileFormatError(f"{os.fspath(path)}: the pair (K, V) of width {width} holds no named tensors.")
    tensors: State = {}
    for key, value in state.items():
        if not isinstance(key, str) or not _is_plain(value):
            raise FileFormatError(
                f"{os.fspath(path)}: {reprlib.repr(key)} of width {width} is no tensor of 16-, 32- or 64-bit floats."
            )
        require_own_values(path, f"{key} of width {width}", value)
        if not value.isfinite().all():
            raise FileFormatError(
                f"{os.fspath(path)}: {reprlib.repr(key)} of width {width} holds NaN or infinite numbers, as a "
                f"diverged run leaves them; take an earlier copy."
            )
        first, _, rest = key.partition(".")
        tensors[f"{_OLD_NAMES[first]}.{rest}" if first in _OLD_NAMES else key] = value.detach().contiguous()
    return dict(sorted(tensors.items(), key=lambda item: _place(item[0])))


def _is_plain(value: object) -> TypeGuard[Tensor]:
    # Sparse tensors, and those of the "meta" device, hold no numbers at their place.
    if not isinstance(value, Tensor) or value.layout is not torch.strided or value.device.type != "cpu":
        return False
    return value.dtype in _DTYPES


def _place(key: str) -> tuple[int, bool, str]:
    """Where torch puts ``linear.N.weight`` in a state dict: by layer, the weight first."""
    number = key.split(".")[1:2]
    return int(number[0]) if number and context_width_of(number[0]) is not None else 0, not key.endswith("weight"), key


def check_shapes(
    path: str | os.PathLike[str], pairs: Mapping[int, tuple[State, State]], structure: Sequence[float]
) -> None:
    """Compares the matrices with what the layer structure asks for, before layers of that size are made.

    Raises:
        FileFormatError: they differ, or the structure is not allowed.
    """
    for width, pair in pairs.items():
        for state in pair:
            shapes = [tuple(tensor.shape) for tensor in state.values() if tensor.ndim == 2]
            if len(shapes) != len(structure) - 1:
                raise FileFormatError(
                    f"{os.fspath(path)} cannot be used: its layers of width {width} have {len(shapes)} matrices, but a "
                    f"layer structure of {len(structure)} entries."
                )
            expected = _expected_shapes(path, width, structure)
            if shapes != expected:
                raise FileFormatError(
                    f"{os.fspath(path)} cannot be used: its layers of width {width} have the shapes {shapes}, but the "
                    f"layer structure {list(structure)} asks for {expected}."
                )
            _check_biases(path, width, state)


def _check_biases(path: str | os.PathLike[str], width: int, state: State) -> None:
    for key, tensor in state.items():
        bias = state.get(f"{key.removesuffix('weight')}bias")
        if tensor.ndim == 2 and (bias is None or bias.shape != tensor.shape[:1]):
            raise FileFormatError(
                f"{os.fspath(path)} cannot be used: {key} of width {width} has {len(tensor)} rows, and no bias with as "
                f"many numbers."
            )


def _expected_shapes(path: str | os.PathLike[str], width: int, structure: Sequence[float]) -> list[tuple[int, int]]:
    try:
        check_layer_structure(structure)
        return [(width_out, width_in) for width_in, width_out in pairwise(layer_widths(width, structure))]
    except UsageError as error:
        raise FileFormatError(f"{os.fspath(path)} cannot be used: {error}") from error
