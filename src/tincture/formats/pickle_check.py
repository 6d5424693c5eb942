"""What the pickles in a torch file name and how many steps they take, found without loading them.

torch's own ``weights_only`` reader runs no foreign code, but it lets a pickle call some hundred classes and functions,
``bytearray(10**12)`` among them. Adapter files need a handful, so the rest is refused before torch sees it, and so is
what ``pickle_values`` finds. For numpy's objects those of ``pickled_numpy`` stand.
"""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from collections.abc import Callable, Iterator
from itertools import count
from typing import BinaryIO

from tincture.formats.pickle_values import ForbiddenPickleError, PickleValues
from tincture.formats.pickled_numpy import has_stand_in

__all__ = ["ForbiddenPickleError", "names_in_pickles", "without_module_source"]

PARAMETER_DICT = "torch.nn.modules.container.ParameterDict"
_PARAMETER_DICT_GLOBAL = "torch.nn.modules.container ParameterDict"
_ALLOWED = {
    "_codecs.encode",  # of the bytes of numpy's values
    "builtins.complex",
    "builtins.set",
    "collections.Counter",
    "collections.OrderedDict",
    "torch.Size",
    "torch._utils._rebuild_device_tensor_from_cpu_tensor",
    "torch._utils._rebuild_device_tensor_from_numpy",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch.device",
    "torch.nn.parameter.Parameter",
    PARAMETER_DICT,
    "__builtin__.complex",
    "__builtin__.set",  # in every ParameterDict
}
_STORAGE = re.compile(r"torch\.[A-Z]\w*Storage")
_KIND_OF_NUMBERS = re.compile(r"torch\.(bfloat16|float(16|32|64|8_\w+)|u?int(8|16|32|64)|bool)")
# The legacy format is five pickles (magic number, protocol, system, content, storage keys) before the raw numbers.
_LEGACY_PICKLES = 5
# Other ways to name an object, which torch does not write.
_FOREIGN_NAMINGS = ("STACK_GLOBAL", "INST", "OBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4")
_NEWEST_PROTOCOL = 2
_LARGEST_NUMBER = 2**128  # Python refuses to write out numbers of some thousand digits
_LARGEST_PICKLE = 256 * 2**20  # bytes of all in a file; of ours and of whole models they have a few megabytes at most
# A checkpoint with two sets of weights and an optimizer's state takes some two hundred thousand; a second's work.
MOST_STEPS = 400_000


def names_in_pickles(
    content: bytes | BinaryIO, most_steps: int = MOST_STEPS, harmless: Callable[[str], bool] = lambda name: False
) -> set[str]:
    """The Python objects that the pickles of a torch file, zip or legacy, name as ``module.name``.

    Args:
        content: the file, or the file opened; of that only the pickles are read.
        most_steps: steps the pickles may take together to build their values.
        harmless: tells of a name whether it may stand there too. The caller must not load what it means.

    Raises:
        ForbiddenPickleError: an object that could run code or fill the memory, or a pickle of too many steps.
        ValueError, LookupError, zipfile.BadZipFile, EOFError: damaged.
    """
    file = io.BytesIO(content) if isinstance(content, bytes) else content
    is_zip = file.read(2) == b"PK"
    file.seek(0)
    streams = _zipped_pickles(file) if is_zip else (file for _ in range(_LEGACY_PICKLES))
    steps = count(1)
    return {name for stream in streams for name in _checked_names(stream, steps, most_steps, harmless)}


def _zipped_pickles(file: BinaryIO) -> Iterator[BinaryIO]:
    total = 0
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            # torch finds entries whatever their case
            if entry.filename.lower().endswith(".pkl"):
                total += entry.file_size
                if total > _LARGEST_PICKLE:
                    raise ForbiddenPickleError(
                        f"its entry {ascii(entry.filename[:100])[1:-1]} unpacks to {total} bytes, which no "
                        f"list of tensors needs"
                    )
                yield io.BytesIO(archive.read(entry))


def _checked_names(
    stream: BinaryIO, steps: Iterator[int], most_steps: int, harmless: Callable[[str], bool]
) -> Iterator[str]:
    values = PickleValues()
    for opcode, argument, _ in pickletools.genops(stream):
        if next(steps) > most_steps:
            raise ForbiddenPickleError(f"it takes more than {most_steps} steps to build its values, which none needs")
        if opcode.name == "PROTO" and isinstance(argument, int) and argument > _NEWEST_PROTOCOL:
            raise ForbiddenPickleError(
                f"it was saved with pickle_protocol={argument}, in which it may hold Python objects that could run "
                f"code; save it with torch.save's own, {_NEWEST_PROTOCOL}, or as .safetensors"
            )
        if opcode.name in _FOREIGN_NAMINGS:
            raise ForbiddenPickleError(
                "it holds Python objects that could run code, in a form that torch does not write"
            )
        values.follow(opcode, argument)
        if isinstance(argument, int) and abs(argument) >= _LARGEST_NUMBER:
            raise ForbiddenPickleError("it holds a whole number of more than 128 bits, which none needs")
        if opcode.name == "GLOBAL":
            name = str(argument).replace(" ", ".")
            if not _is_allowed(name) and not harmless(name):
                raise ForbiddenPickleError(
                    f"it holds the Python object {ascii(name[:100])[1:-1]}, which could run code; only plain values "
                    f"and tensors are allowed"
                )
            yield name


def _is_allowed(name: str) -> bool:
    kinds = (_STORAGE, _KIND_OF_NUMBERS)
    return name in _ALLOWED or has_stand_in(name) or any(kind.fullmatch(name) for kind in kinds)


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
