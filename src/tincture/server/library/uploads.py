"""Takes the files of an upload into a folder: pictures, captions, masks, and zip files of those.

Nothing is believed that an upload says of itself: names are taken apart and put together anew, bytes are counted while
they arrive or are unpacked, and every picture's head is read. What is not allowed refuses the whole upload, by name.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from tincture.data.caption_files import CAPTION_ENDINGS
from tincture.data.listing import PICTURE_SUFFIXES
from tincture.data.mask_files import MASK_FOLDER
from tincture.data.picture_files import UnreadablePictureError
from tincture.errors import DataError, StorageError, UsageError, shortened
from tincture.server.errors import TooMuchError
from tincture.server.requests.pictures import facts_of

METADATA = frozenset({"metadata.jsonl", "metadata.csv"})
JUNK = frozenset({"__macosx", "thumbs.db", "desktop.ini"})
RESERVED = frozenset({"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))})
"""What Windows takes for a device, whatever the ending."""
DEEPEST = 6
LONGEST_PART = 200
"""In bytes: file systems allow 255, and latents and crops have longer names than their pictures."""
LARGEST_CAPTION = 40_000
"""In bytes: lists of a data set hold the captions of all its pictures."""
LARGEST_METADATA = 16 * 2**20
CHUNK = 2**20
_BYTES_OF_A_NAME = 400
_KINDS = "pictures, captions (.txt, .caption), metadata.jsonl or .csv, and zip files of these"


class Intake:
    """Takes files into ``folder``, until one is not allowed.

    Args:
        folder: exists, and is empty.
        max_bytes: of all files together, unpacked.
        max_files: how many there may be.

    Attributes:
        pictures: how many were taken, without masks.
    """

    def __init__(self, folder: Path, max_bytes: int, max_files: int) -> None:
        self.folder, self.max_bytes, self.max_files = folder, max_bytes, max_files
        self.pictures = 0
        self._bytes = 0
        self._files = 0
        self._taken: dict[str, str] = {}  # folded name -> name; "" for a folder

    def take(self, name: str, file: BinaryIO) -> None:
        """Takes one file, or what is in it if it is a zip file, which must be seekable.

        Raises:
            UsageError: its name or kind is not allowed, or is there already.
            DataError: a picture or zip file that cannot be read.
            TooMuchError: too many bytes or files.
            StorageError: the disk is full.
        """
        if name.lower().endswith(".zip"):
            self._unpack(name, file)
        else:
            self._store(name, shortened(name), file)

    def _store(self, name: str, label: str, file: BinaryIO) -> None:
        parts = parts_of(name, label)
        if is_junk(parts):
            return
        self._files += 1
        if self._files > self.max_files:
            raise TooMuchError(f"The upload has more than {self.max_files:,} files, which this server allows.")
        is_picture = _is_picture(parts[-1], label)
        self._claim(parts, label)
        path = self.folder.joinpath(*parts)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._write(path, file, label, None if is_picture else _largest_text(parts[-1]))
        except OSError as error:
            raise StorageError(f"{label} could not be stored: {(error.strerror or str(error)).lower()}.") from error
        if is_picture:
            _check_picture(path, label)
            self.pictures += MASK_FOLDER not in parts[:-1]

    def _write(self, path: Path, file: BinaryIO, label: str, most: int | None) -> None:
        size = 0
        with path.open("xb") as target:
            while chunk := file.read(CHUNK):
                size += len(chunk)
                self._bytes += len(chunk)
                if self._bytes > self.max_bytes:
                    raise TooMuchError(
                        f"The upload has more than {self.max_bytes / 2**20:,.0f} MiB unpacked, which this server "
                        f"allows; {label} goes beyond."
                    )
                if most is not None and size > most:
                    raise TooMuchError(f"{label} has more than {most:,} bytes, far more than captions need.")
                target.write(chunk)

    def _claim(self, parts: tuple[str, ...], label: str) -> None:
        """Refuses a name that some file system takes for another one that came before."""
        for depth in range(1, len(parts)):
            folder = "/".join(parts[:depth])
            before = self._taken.setdefault(folded(folder), f"{folder}/")
            if before != f"{folder}/":
                raise UsageError(
                    f"{label} and {before} cannot lie beside each other on every disk; rename one of them."
                )
        name = "/".join(parts)
        if (before := self._taken.setdefault(folded(name), name)) != name or self.folder.joinpath(*parts).exists():
            raise UsageError(f"{label} is there twice (as {before}); rename one of them.")

    # --- zip files ---------------------------------------------------------------------------------------------------

    def _unpack(self, name: str, file: BinaryIO) -> None:
        label = shortened(name)
        try:
            with zipfile.ZipFile(_Bounded(file, max(CHUNK, self.max_files * _BYTES_OF_A_NAME))) as archive:
                for entry in archive.infolist():
                    self._unpack_entry(archive, entry, label)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, struct.error, NotImplementedError) as error:
            raise DataError(f"The zip file {label} cannot be read ({error}); pack it again.") from error
        except (ValueError, IndexError, KeyError, RuntimeError) as error:
            if isinstance(error, UsageError):
                raise
            raise DataError(f"The zip file {label} is damaged ({error}); pack it again.") from error

    def _unpack_entry(self, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, zip_label: str) -> None:
        name = _name_of(entry)
        label = f"{shortened(name)} in {zip_label}"
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise UsageError(f"{label} is a link or a device; pack the files themselves.")
        if name.endswith(("/", "\\")):
            parts_of(name.rstrip("/\\"), label)
            return
        if entry.flag_bits & 0x1:
            raise UsageError(f"{label} is encrypted; pack the files without a password.")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UsageError(f"{label} is packed by an unusual method; pack the files by the usual one (deflate).")
        with archive.open(entry) as file:
            self._store(name, label, file)  # type: ignore[arg-type]


class _Bounded:
    """A file of which no more than ``most`` bytes are ever read at once.

    ``zipfile`` reads the list of a zip file's contents in one go, and how large that is the file itself says.
    """

    def __init__(self, file: BinaryIO, most: int) -> None:
        self._file, self._most = file, most

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(self._most + 1 if size < 0 else min(size, self._most + 1))
        if len(content) > self._most:
            raise TooMuchError("A zip file lists more files than this server allows in an upload.")
        return content

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _name_of(entry: zipfile.ZipInfo) -> str:
    """The name as the file has it, which ``ZipInfo.filename`` cuts off at a zero byte."""
    name = entry.orig_filename
    if not entry.flag_bits & 0x800:  # not marked as UTF-8, which some programs write all the same
        try:
            return name.encode("cp437").decode("utf-8")
        except UnicodeError:
            return name
    return name


# --- names ------------------------------------------------------------------------------------------------------------


def parts_of(name: str, label: str = "") -> tuple[str, ...]:
    r"""The parts of a relative path, between / or \\, that any system can hold.

    Args:
        name: as the upload gives it.
        label: what errors call it.

    Raises:
        UsageError: it is absolute, leads upwards, is too long or too deep, or a part of it is not allowed.
    """
    label = label or shortened(name)
    text = name.replace("\\", "/")
    if not text.strip() or any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise UsageError(f"{shortened(name)} is no name for a file.")
    if text.startswith("/") or re.match(r"[A-Za-z]:", text):
        raise UsageError(f"{label} is an absolute path; pack files by relative ones.")
    parts = tuple(part for part in text.split("/") if part != ".")
    if not parts or "" in parts or ".." in parts:
        raise UsageError(f"{label} leads out of its folder, or has an empty part; rename it.")
    if len(parts) > DEEPEST:
        raise UsageError(f"{label} lies in {len(parts) - 1} folders; at most {DEEPEST - 1} are allowed.")
    for part in parts:
        if fault := _fault_of(part):
            raise UsageError(f"{label} {fault}; rename it.")
    return parts


def _fault_of(part: str) -> str:
    """Why some system cannot hold a file or folder of this name, as words; empty where all can."""
    try:
        size = len(part.encode())
    except UnicodeEncodeError:
        return "is not valid Unicode text"
    if size > LONGEST_PART:
        return f"has a part of {size} bytes, and {LONGEST_PART} are allowed"
    if part.endswith((" ", ".")) or ":" in part or (os.name == "nt" and re.search(r'[<>"|?*]', part)):
        return "has a part that ends in a blank or dot, or a character that names cannot have"
    if part.split(".")[0].strip().casefold() in RESERVED:
        return "is a name that Windows keeps for devices"
    return ""


def is_junk(parts: tuple[str, ...]) -> bool:
    """Whether a file is one that systems put beside others unasked, or hidden."""
    return any(part.startswith(".") or part.casefold() in JUNK for part in parts)


def folded(name: str) -> str:
    """What names have in common that are one on some disk: they differ in case, or in how accents are made."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _is_picture(file_name: str, label: str) -> bool:
    suffix = os.path.splitext(file_name)[1].lower()
    if suffix in PICTURE_SUFFIXES:
        return True
    if suffix in CAPTION_ENDINGS or file_name.lower() in METADATA:
        return False
    raise UsageError(f"{label} is none of what a data set has: {_KINDS}. Leave it out.")


def _largest_text(file_name: str) -> int:
    return LARGEST_METADATA if file_name.lower() in METADATA else LARGEST_CAPTION


# --- pictures ---------------------------------------------------------------------------------------------------------


def _check_picture(path: Path, label: str) -> None:
    try:
        facts_of(path)
    except UnreadablePictureError as error:
        raise DataError(f"{label} {str(error).rstrip('.')}; leave it out, and upload the others again.") from error
