"""What the pickles in a torch file name and how many steps they take, found without loading them.

torch's own ``weights_only`` reader runs no foreign code, but it lets a pickle call some hundred classes and functions,
``bytearray(10**12)`` among them. Adapter files need a handful, so the rest is refused before torch sees it. So are
tuples of tuples that share their parts: as a key of a dict, a thousand bytes of them take longer than the age of the
universe.
"""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

PARAMETER_DICT = "torch.nn.modules.container.ParameterDict"
_PARAMETER_DICT_GLOBAL = "torch.nn.modules.container ParameterDict"
_ALLOWED = {
    "collections.OrderedDict",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch.nn.parameter.Parameter",
    PARAMETER_DICT,
    "__builtin__.set",  # in every ParameterDict
}
_STORAGE = re.compile(r"torch\.[A-Z]\w*Storage")
# The legacy format is five pickles (magic number, protocol, system, content, storage keys) before the raw numbers.
_LEGACY_PICKLES = 5
# Other ways to name an object, which torch does not write.
_FOREIGN_NAMINGS = ("STACK_GLOBAL", "INST", "OBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4")
_LARGEST_NUMBER = 2**128  # Python refuses to write out numbers of some thousand digits
_LARGEST_TUPLE = 100_000  # items within items, each counted as often as it occurs
_LARGEST_PICKLE = 256 * 2**20  # bytes; of ours and of whole models they have a few megabytes at most


class ForbiddenPickleError(Exception):
    """Why a pickle is not loaded, as words that follow the file's name."""


def names_in_pickles(
    content: bytes | BinaryIO, most_steps: int | None = None, harmless: Callable[[str], bool] = lambda name: False
) -> set[str]:
    """The Python objects that the pickles of a torch file, zip or legacy, name as ``module.name``.

    Args:
        content: the file, or the file opened; of that only the pickles are read.
        most_steps: steps a pickle may take to build its values; None for any number.
        harmless: tells of a name whether it may stand there too. The caller must not load what it means.

    Raises:
        ForbiddenPickleError: an object that could run code or fill the memory, or a pickle of too many steps.
        ValueError, LookupError, zipfile.BadZipFile, EOFError: damaged.
    """
    file = io.BytesIO(content) if isinstance(content, bytes) else content
    is_zip = file.read(2) == b"PK"
    file.seek(0)
    streams = _zipped_pickles(file) if is_zip else (file for _ in range(_LEGACY_PICKLES))
    return {name for stream in streams for name in _checked_names(stream, most_steps, harmless)}


def _zipped_pickles(file: BinaryIO) -> Iterator[BinaryIO]:
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            # torch finds entries whatever their case
            if entry.filename.lower().endswith(".pkl"):
                if entry.file_size > _LARGEST_PICKLE:
                    raise ForbiddenPickleError(
                        f"its entry {ascii(entry.filename[:100])[1:-1]} unpacks to {entry.file_size} bytes, which no "
                        f"list of tensors needs"
                    )
                yield io.BytesIO(archive.read(entry))


def _checked_names(stream: BinaryIO, most_steps: int | None, harmless: Callable[[str], bool]) -> Iterator[str]:
    sizes = _TupleSizes()
    for step, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if step == most_steps:
            raise ForbiddenPickleError(f"it takes more than {most_steps} steps to build its values, which none needs")
        sizes.follow(opcode, argument)
        if opcode.name in _FOREIGN_NAMINGS:
            raise ForbiddenPickleError(
                "it holds Python objects that could run code, in a form that torch does not write"
            )
        if isinstance(argument, int) and abs(argument) >= _LARGEST_NUMBER:
            raise ForbiddenPickleError("it holds a whole number of more than 128 bits, which none needs")
        if opcode.name == "GLOBAL":
            name = str(argument).replace(" ", ".")
            if name not in _ALLOWED and not _STORAGE.fullmatch(name) and not harmless(name):
                raise ForbiddenPickleError(
                    f"it holds the Python object {ascii(name[:100])[1:-1]}, which could run code; only plain values "
                    f"and tensors are allowed"
                )
            yield name


class _TupleSizes:
    """Follows a pickle's stack and memo, and knows of every object how many items a walk through its tuples meets."""

    def __init__(self) -> None:
        self.stack: list[int] = []
        self.marks: list[int] = []
        self.memo: dict[Any, int] = {}

    def follow(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        if opcode.name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self.memo[argument] = self.stack[-1]
        elif opcode.name in ("BINGET", "LONG_BINGET", "GET"):
            self.stack.append(self.memo[argument])
        elif opcode.name == "MARK":
            self.marks.append(len(self.stack))
        else:
            taken = self._take(opcode)
            size = 1 + sum(taken) if "TUPLE" in opcode.name else 1
            if size > _LARGEST_TUPLE:
                raise ForbiddenPickleError("it holds tuples within tuples without end")
            self.stack.extend(size for _ in opcode.stack_after)

    def _take(self, opcode: pickletools.OpcodeInfo) -> list[int]:
        count = len(opcode.stack_before)
        start = len(self.stack) - count
        if pickletools.markobject in opcode.stack_before:
            start = self.marks.pop() - opcode.stack_before.index(pickletools.markobject)
        if start < 0:
            raise ValueError("the stack is empty")
        taken = self.stack[start:]
        del self.stack[start:]
        return taken


def without_module_source(content: bytes) -> bytes:
    """A legacy torch file in which a ParameterDict is named plainly.

    The legacy format writes the class of a module as the persistent id ("module", class, file name, source text), which
    torch's safe reader refuses whatever the class. Only the naming of the class is kept of it.

    Raises:
        ValueError, LookupError: damaged.
    """
    stream = io.BytesIO(content)
    for _ in range(_LEGACY_PICKLES - 2):  # the content is the last but one
        for _ in pickletools.genops(stream):
            pass
    # Putting into the memo may follow every step; the steps themselves are always the same.
    steps = [step for step in pickletools.genops(stream) if step[0].name not in ("BINPUT", "LONG_BINPUT")]
    naming = next((n for n, step in enumerate(steps) if step[1] == _PARAMETER_DICT_GLOBAL), 0)
    mark, name, named, file, _, _, persistent = steps[naming - 2 : naming + 5]
    if name[1] != "module" or persistent[0].name != "BINPERSID":
        return content
    start, first, stop, end = (step[2] or 0 for step in (mark, named, file, persistent))
    return content[:start] + content[first:stop] + content[end + 1 :]
