"""Checksums inside files of ours: whether a file still is, to the bit, what was written.

A torch zip ends in a comment, ``tincture sha256 `` and 64 hex digits: the sha256 of all bytes before them. Every reader
of zip files passes over it. A safetensors file of ours has ``tincture.checksum`` in its metadata, over the tensors and
the other ``tincture.`` texts; what people and other programs may change in its author, licence and so on is left out.
Files of other programs have neither; the CRC-32 that zip files have of each entry is checked in their stead.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from typing import Any

from tincture.errors import FileFormatError

_DIGITS = 64
_MARK = b"tincture sha256 "
COMMENT = _MARK + b"0" * _DIGITS
"""What ``seal`` needs at the end of a zip file: the comment before its digits are known."""
CHECKSUM = "tincture.checksum"
"""The key in the metadata of a safetensors file."""
_OWN = "tincture."
_FOLDER = 0x10  # among the attributes of an entry, as MS-DOS has them


def damaged(path: str | os.PathLike[str]) -> FileFormatError:
    """The error of a file whose checksum does not fit."""
    return FileFormatError(
        f"{os.fspath(path)} is damaged: its checksum shows that it is not what was written. Copy it again from where "
        f"it came from, or take an earlier copy."
    )


def seal(file: io.BytesIO) -> None:
    """Puts its checksum into a zip file that ends in ``COMMENT``."""
    with file.getbuffer() as content:
        content[-_DIGITS:] = _digits(content[:-_DIGITS])


def require_whole_zip(path: str | os.PathLike[str], content: bytes) -> None:
    """Compares the bytes of a zip file with the checksum at its end, or the entries with theirs where it has none.

    Raises:
        FileFormatError: they do not fit.
        ValueError, LookupError, zipfile.BadZipFile, EOFError: damaged otherwise.
    """
    if content[-len(COMMENT) : -_DIGITS] == _MARK:
        if content[-_DIGITS:] != _digits(memoryview(content)[:-_DIGITS]):
            raise damaged(path)
        return
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        # torch leaves the memory as it is for an entry that claims to be a folder.
        folders = any(entry.external_attr & _FOLDER and entry.file_size for entry in archive.infolist())
        if folders or archive.testzip() is not None:
            raise damaged(path)


def _digits(content: memoryview) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


def tensors_checksum(header: Mapping[str, Any], values: bytes | memoryview, metadata: Mapping[str, str]) -> str:
    """The checksum of a safetensors file, 64 hex digits; "" where ``metadata`` has no texts of ours.

    Args:
        header: by name, each tensor's ``dtype``, ``shape`` and ``data_offsets``; ``__metadata__`` does not count.
        values: the bytes behind the header.
        metadata: its texts.
    """
    own = {key: text for key, text in metadata.items() if key.startswith(_OWN) and key != CHECKSUM}
    if not own:
        return ""
    total = hashlib.sha256(json.dumps(own, sort_keys=True).encode())
    for name, entry in sorted(header.items()):
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            total.update(json.dumps([name, entry["dtype"], entry["shape"]]).encode())
            total.update(memoryview(values)[start:end])
    return total.hexdigest()
