"""Numbers and the like in the description of an adapter, as whatever program wrote them: taken where they are plain.

A count of steps may be a tensor of one number, a number of numpy (which ``pickled_numpy`` makes one of Python's) or
500.0. What means nothing is refused: a 0 in its place would begin the training anew.
"""

from __future__ import annotations

import os
import reprlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from tincture.errors import FileFormatError

_LARGEST = 2**53  # up to which floats hold every whole number


def whole_number(path: str | os.PathLike[str], fields: Mapping[Any, Any], key: str) -> int:
    """The number of 0 or more under ``key``; 0 where there is none.

    Raises:
        FileFormatError: something else stands there.
    """
    given = fields.get(key)
    if given is None:
        return 0
    value = _plain(given)
    if isinstance(value, float) and 0 <= value <= _LARGEST and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise FileFormatError(f"{os.fspath(path)}: {key} is {_shown(given)}; a whole number of 0 or more is needed.")
    return value


def numbers(path: str | os.PathLike[str], fields: Mapping[Any, Any], key: str) -> tuple[float, ...] | None:
    """The list of numbers under ``key``; None where there is none.

    Raises:
        FileFormatError: something else stands there.
    """
    given = fields.get(key)
    if given is None:
        return None
    value = given.tolist() if isinstance(given, Tensor | np.ndarray) and given.ndim == 1 else given
    listed = [_plain(number) for number in value] if isinstance(value, list | tuple) else [None]
    found = tuple(one for one in listed if isinstance(one, int | float) and not isinstance(one, bool))
    if len(found) < len(listed):
        raise FileFormatError(f"{os.fspath(path)}: {key} is {_shown(given)}; a list of numbers is needed.")
    return found


def switch(path: str | os.PathLike[str], fields: Mapping[Any, Any], key: str, default: bool) -> bool:
    """What stands under ``key``, where 0 and 1 are no and yes; ``default`` where nothing does.

    Raises:
        FileFormatError: something else stands there.
    """
    given = fields.get(key)
    if given is None:
        return default
    value = _plain(given)
    if not isinstance(value, bool | int | float) or value not in (0, 1):
        raise FileFormatError(f"{os.fspath(path)}: {key} is {_shown(given)}; a value of type bool is needed.")
    return bool(value)


def text(path: str | os.PathLike[str], fields: Mapping[Any, Any], key: str) -> str | None:
    """The text under ``key``; None where there is none.

    Raises:
        FileFormatError: something else stands there.
    """
    given = fields.get(key)
    if given is not None and not isinstance(given, str):
        raise FileFormatError(f"{os.fspath(path)}: {key} is {_shown(given)}; a value of type str is needed.")
    return given


def _shown(value: object) -> str:
    return " ".join(reprlib.repr(value).split())  # tensors are shown in several lines


def _plain(value: object) -> object:
    """``value``, a tensor or array of one number as that number."""
    if isinstance(value, Tensor) and (value.device.type != "cpu" or value.is_sparse or value.is_quantized):
        return value
    return value.item() if isinstance(value, Tensor | np.ndarray) and _count(value) == 1 else value


def _count(value: Tensor | np.ndarray[Any, Any]) -> int:
    return value.numel() if isinstance(value, Tensor) else value.size
