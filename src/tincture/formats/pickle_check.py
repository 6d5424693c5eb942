"""What the pickles in a torch file name and how long they are, found without loading them.

torch's own ``weights_only`` reader runs no foreign code, but it lets a pickle call some hundred classes and functions,
``bytearray(10**12)`` among them. Adapter files need a handful, so the rest is refused before torch sees it.
"""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from collections.abc import Iterator
from typing import BinaryIO

PARAMETER_DICT = "torch.nn.modules.container.ParameterDict"
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


class ForbiddenPickleError(Exception):
    """Why a pickle is not loaded, as words that follow the file's name."""


def names_in_pickles(content: bytes, longest: int | None = None) -> set[str]:
    """The Python objects that the pickles of a torch file, zip or legacy, name as ``module.name``.

    Args:
        content: the file.
        longest: bytes a pickle may have; None for any number.

    Raises:
        ForbiddenPickleError: an object that could run code or fill the memory, or a pickle that is too long.
        ValueError, zipfile.BadZipFile, EOFError: damaged.
    """
    if content.startswith(b"PK"):
        return {name for stream in _zipped_pickles(content, longest) for name in _checked_names(stream, longest)}
    stream = io.BytesIO(content)
    return {name for _ in range(_LEGACY_PICKLES) for name in _checked_names(stream, longest)}


def _zipped_pickles(content: bytes, longest: int | None) -> Iterator[BinaryIO]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for entry in archive.infolist():
            # torch finds entries whatever their case
            if entry.filename.lower().endswith(".pkl"):
                _refuse_length(entry.file_size, longest)
                yield io.BytesIO(archive.read(entry))


def _checked_names(stream: BinaryIO, longest: int | None) -> Iterator[str]:
    start = stream.tell()
    for opcode, argument, _ in pickletools.genops(stream):
        _refuse_length(stream.tell() - start, longest)
        if opcode.name == "GLOBAL":
            name = str(argument).replace(" ", ".")
            if name not in _ALLOWED and not _STORAGE.fullmatch(name):
                raise ForbiddenPickleError(
                    f"it holds the Python object {name}, which could run code; only plain values and tensors are "
                    f"allowed"
                )
            yield name


def _refuse_length(length: int, longest: int | None) -> None:
    if longest is not None and length > longest:
        raise ForbiddenPickleError(f"its description of the content has more than {longest} bytes, which none needs")
