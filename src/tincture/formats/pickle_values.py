"""Follows what a pickle builds without building it: how large its tuples are, what is called, what is copied.

torch's ``weights_only`` reader calls functions with whatever a pickle hands to them. What an honest file does with
those that are allowed is narrow, and all else is refused here: tuples of tuples that share their parts (as a key of a
dict, a thousand bytes of them take longer than the age of the universe), texts encoded by other codecs than numpy's,
tensors turned into others that take more memory, and the same bytes copied over and over.
"""

from __future__ import annotations

import pickletools
from typing import Any

_LARGEST_TUPLE = 100_000  # items within items, each counted as often as it occurs
_LONGEST_WORD = 100  # characters of a text whose meaning counts: names of codecs, kinds of numbers
_MOST_ARGUMENTS = 8
_PUTS, _GETS = ("BINPUT", "LONG_BINPUT", "PUT"), ("BINGET", "LONG_BINGET", "GET")
_LATIN = ("latin1", "latin-1", "iso-8859-1")
# Each text is encoded, put into an array and made a tensor: three copies.
_COPIES, _SMALL_COPIES = 4, 2**20
_STORAGES = {
    "Double": "float64",
    "Float": "float32",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
}
_ARRAYS = {
    "f8": "float64",
    "f4": "float32",
    "f2": "float16",
    "i8": "int64",
    "i4": "int32",
    "i2": "int16",
    "i1": "int8",
    "u1": "uint8",
    "b1": "bool",
}


class ForbiddenPickleError(Exception):
    """Why a pickle is not loaded, as words that follow the file's name."""


class Value:
    """What is known of an object: ``size`` items meets a walk through it, ``weight`` characters of text are in it.

    ``name`` is that of a Python object, ``kind`` of the numbers in a tensor, an array or a storage.
    """

    __slots__ = ("items", "kind", "name", "size", "text", "weight")

    def __init__(self, text: str = "", *, name: str = "", kind: str = "", weight: int = 0) -> None:
        self.text, self.name, self.kind, self.weight = text, name, kind, weight
        self.size, self.items = 1, ()  # type: int, tuple[Value, ...]


_PLAIN = Value()


class PickleValues:
    """The stack and the memo of one pickle. ``follow`` takes one step after the other.

    Raises:
        ForbiddenPickleError: something that no honest file does.
        ValueError, LookupError: damaged.
    """

    def __init__(self) -> None:
        self.stack: list[Value] = []
        self.marks: list[int] = []
        self.memo: dict[Any, Value] = {}
        self.copied, self.most_copied = 0, _SMALL_COPIES

    def follow(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        name = opcode.name
        if name in _PUTS:
            self.memo[argument] = self.stack[-1]
        elif name in _GETS:
            self.stack.append(self.memo[argument])
        elif name == "MARK":
            self.marks.append(len(self.stack))
        elif name == "GLOBAL":
            self.stack.append(Value(name=str(argument).replace(" ", ".")))
        elif name == "DUP":
            self.stack.append(self.stack[-1])
        elif isinstance(argument, str | bytes):
            self._text(argument)
        else:
            self._make(opcode, self._take(opcode))

    def _text(self, argument: str | bytes) -> None:
        self.most_copied += _COPIES * len(argument)
        short = argument if isinstance(argument, str) and len(argument) <= _LONGEST_WORD else ""
        self.stack.append(Value(short, weight=len(argument)))

    def _take(self, opcode: pickletools.OpcodeInfo) -> list[Value]:
        count = len(opcode.stack_before)
        start = len(self.stack) - count
        if pickletools.markobject in opcode.stack_before:
            start = self.marks.pop() - opcode.stack_before.index(pickletools.markobject)
        if start < 0:
            raise ValueError("the stack is empty")
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def _make(self, opcode: pickletools.OpcodeInfo, taken: list[Value]) -> None:
        name = opcode.name
        if "TUPLE" in name:
            self.stack.append(_tuple(taken))
        elif name in ("REDUCE", "NEWOBJ"):
            self.stack.append(self._called(taken[0].name, taken[1]))
        elif name == "BUILD":
            self.stack.append(self._built(*taken))
        elif name == "BINPERSID":
            self.stack.append(_persistent(taken[0].items))
        else:
            self.stack.extend(_PLAIN for _ in opcode.stack_after)

    def _called(self, name: str, arguments: Value) -> Value:
        given = arguments.items
        if not name:
            raise ForbiddenPickleError(
                "it holds Python objects that could run code, in a form that torch does not write"
            )
        if name == "_codecs.encode":
            return self._encoded(given)
        if name.startswith("torch._utils._rebuild_device_tensor_from_"):
            return self._moved(name, given)
        if name == "numpy.dtype":
            return Value(kind=_ARRAYS.get(given[0].text, "") if given else "")
        return Value(kind=given[0].kind if name.startswith("torch._utils._rebuild_") and given else "")

    def _encoded(self, given: tuple[Value, ...]) -> Value:
        if len(given) != 2 or given[1].text not in _LATIN:
            raise ForbiddenPickleError("it encodes texts in another way than numpy does")
        self._copy(given[0].weight)
        return Value(weight=given[0].weight)

    def _moved(self, name: str, given: tuple[Value, ...]) -> Value:
        """A tensor of another device, which is made of an array or a tensor: it must keep the kind of its numbers."""
        kind = given[1].name.removeprefix("torch.") if len(given) == 4 else ""
        # numpy has no bfloat16
        held = "float32" if kind == "bfloat16" and name.endswith("numpy") else kind
        if not held or given[0].kind != held:
            raise ForbiddenPickleError(f"it turns numbers of one kind into another ({kind or 'unknown'})")
        self._copy(given[0].weight)
        return Value(kind=kind)

    def _built(self, target: Value, state: Value) -> Value:
        self._copy(state.weight)
        if target is not _PLAIN:
            target.weight += state.weight
            if len(state.items) == 5:  # of an array: version, shape, kind of numbers, order, bytes
                target.kind = state.items[2].kind
        return target

    def _copy(self, weight: int) -> None:
        self.copied += weight
        if self.copied > self.most_copied:
            raise ForbiddenPickleError("it copies the same bytes over and over")


def _tuple(taken: list[Value]) -> Value:
    made = Value(weight=sum(value.weight for value in taken))
    made.size = 1 + sum(value.size for value in taken)
    if made.size > _LARGEST_TUPLE:
        raise ForbiddenPickleError("it holds tuples within tuples without end")
    if len(taken) <= _MOST_ARGUMENTS:
        made.items = tuple(taken)
    return made


def _persistent(given: tuple[Value, ...]) -> Value:
    """torch's storages and, in the legacy format, classes of modules."""
    if len(given) > 1 and given[0].text == "module":
        return given[1]
    if len(given) > 1 and given[0].text == "storage":
        return Value(kind=_STORAGES.get(given[1].name.removeprefix("torch.").removesuffix("Storage"), ""))
    return _PLAIN
