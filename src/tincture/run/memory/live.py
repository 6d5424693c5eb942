"""How much memory tensors take up while something runs, counted as they come and go."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the memory of all tensors that operations make inside the context, until they are freed.

    Works with tensors that hold nothing (torch's FakeTensorMode) as with real ones. What an operation takes for itself
    and frees before it ends is not seen; for convolutions, where that is much, it is worked out.

    Whoever asks a tensor that holds nothing for its number gets one half, or 1 of whole numbers: neither a count of
    steps nor a rate of decay nor what is left of 1 is then zero.

    Args:
        known: tensors that were there before: they don't count.
        block: bytes that a tensor's memory is a multiple of; 512 on CUDA.

    Attributes:
        now: bytes, at present.
        peak: the most bytes at a time.
    """

    def __init__(self, known: Iterable[Tensor] = (), block: int = 1) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.block = block
        self.now = self.peak = 0
        self._sizes: dict[int, int] = {}
        for tensor in known:
            self._meet(tensor.untyped_storage(), 0)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and _holds_nothing(args[0]):
            return 0.5 if args[0].is_floating_point() else 1
        outputs = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(outputs):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                self._meet(storage, -(-storage.nbytes() // self.block) * self.block)
        self.peak = max(self.peak, self.now + _within(func, args))
        return outputs

    def _meet(self, storage: torch.UntypedStorage, size: int) -> None:
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = size
            self.now += size
            weakref.finalize(storage, self._part, key)

    def _part(self, key: int) -> None:
        self.now -= self._sizes.pop(key)


def _within(func: Any, args: tuple[Any, ...]) -> int:
    """Bytes that an operation takes for itself: a convolution brings weight and input into a layout of its own.

    So does oneDNN on a CPU, as torch's profiler shows, unless the kernel covers one cell only. cuDNN's needs depend on
    the algorithm that it chooses, and are taken to be the same.
    """
    if func is torch.ops.aten.convolution.default:
        input, weight = args[:2]
    elif func is torch.ops.aten.convolution_backward.default:
        input, weight = args[1:3]
    else:
        return 0
    if max(weight.shape[2:]) == 1:
        return 0
    # What has its channels last stays as it is. Of a single picture, tensors that hold nothing say so wrongly.
    stays = len(input) > 1 and input.is_contiguous(memory_format=torch.channels_last) and not input.is_contiguous()
    return int(weight.nbytes) + (0 if stays else int(input.nbytes))


def _holds_nothing(tensor: Tensor) -> bool:
    return tensor.untyped_storage().device.type == "meta"
