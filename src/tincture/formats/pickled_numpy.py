"""What stands for numpy's objects while a pickle is read: numbers and arrays of them, made here, and nothing else.

Programs write numpy's numbers where they count steps, and torch wrote tensors of a Mac's graphics processor as arrays
(up to version 2.0). The state of an array is (version, shape, kind of numbers, whether columns come first, bytes), that
of a kind of numbers has the order of bytes in its second place.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

_NUMBERS, _TEXTS = "biuf", "US"
_KIND = re.compile(rf"[{_NUMBERS}{_TEXTS}]\d{{1,6}}")
_ORDERS = ("<", ">", "=", "|")
_UNUSED = re.compile(r"numpy\.(dtypes\.\w+DType|(float|int|uint|bool|str)_?\d*)")


class Nothing:
    """Stands for an object that is not loaded: takes whatever it is given, and keeps nothing."""

    def __new__(cls, *_: object, **__: object) -> Nothing:
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None: ...


class _Kind:
    """Stands for ``numpy.dtype``."""

    def __init__(self, code: object, align: object = False, copy: object = False) -> None:
        if not isinstance(code, str) or not _KIND.fullmatch(code):
            raise ValueError(f"numpy values of the kind {str(code)[:20]!r} are not read")
        self.code, self.order = code, "="

    def __setstate__(self, state: Any) -> None:
        if state[1] not in _ORDERS:
            raise ValueError("the order of bytes of a numpy value is damaged")
        self.order = state[1]

    def values(self, content: object, count: int) -> np.ndarray[Any, Any]:
        import numpy as np

        kind = np.dtype(f"{self.order}{self.code}")
        if not isinstance(content, bytes) or len(content) != count * kind.itemsize or not kind.itemsize:
            raise ValueError("a numpy value has another size than its bytes")
        return np.frombuffer(content, kind)


def _scalar(kind: _Kind, content: object) -> object:
    value: object = kind.values(content, 1)[0].item()
    return value


@functools.cache
def _array() -> Any:
    """What stands for ``numpy.ndarray``; made when a pickle has one, so that nothing else waits for numpy."""
    import numpy as np

    class Array(np.ndarray[Any, Any]):
        def __setstate__(self, state: Any) -> None:
            _, shape, kind, columns_first, content = state
            if kind.code[0] not in _NUMBERS or min(shape, default=0) < 0:
                raise ValueError("an array holds something else than numbers")
            values = kind.values(content, math.prod(shape))
            native = values.dtype.newbyteorder("=")
            content = values.astype(native).tobytes()
            # numpy's types ask for its own kind of bool, its code for Python's.
            super().__setstate__((tuple(shape), native, bool(columns_first), content))  # type: ignore[arg-type]

    return Array


def _reconstruct(*_: object) -> object:
    import numpy as np

    return np.ndarray.__new__(_array(), (0,), "u1")


_CALLS: dict[str, Callable[..., object]] = {
    "numpy.dtype": _Kind,
    **{f"numpy.{core}.multiarray._reconstruct": _reconstruct for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
}
_ARRAY = "numpy.ndarray"


def has_stand_in(name: str) -> bool:
    """Whether something here stands for the Python object ``name``, or nothing needs to."""
    return name in _CALLS or name == _ARRAY or _UNUSED.fullmatch(name) is not None


def stand_ins(names: Iterable[str]) -> list[Any]:
    """What stands for those of ``names``, as ``torch.serialization.safe_globals`` takes it."""
    known = [name for name in names if has_stand_in(name)]
    return [(_array() if name == _ARRAY else _CALLS.get(name, Nothing), name) for name in known]
