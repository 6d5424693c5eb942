"""Files that are written whole or not at all, and torch files that are read without running code."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from tincture.errors import FileFormatError, StorageError, UsageError
from tincture.formats import pickled_numpy
from tincture.formats.file_kinds import HEAD, refuse_other_file, refuse_other_zip
from tincture.formats.integrity import COMMENT, require_whole_zip, seal
from tincture.formats.pickle_check import (
    MOST_STEPS,
    PARAMETER_DICT,
    ForbiddenPickleError,
    names_in_pickles,
    without_module_source,
)
from tincture.formats.temporary_file import TemporaryFile, sweep, sync_folder

# torch is imported where it is needed: processes that only write pictures start without it.
if TYPE_CHECKING:
    import torch

# The only entries the webui's check of a .pt file lets through: data.pkl, version and data/N in one folder.
_PORTABLE_ENTRY = re.compile(r"[^/]+/(data\.pkl|version|data/\d+)")
# torch stores tensors uncompressed; a file that unpacks to far more than its size is made to fill the memory.
_LARGEST_EXPANSION = 4
# torch's own words advise to load the file with code execution, so they are not passed on.
_REFUSED_BY_TORCH = "it is damaged, no torch file, or holds Python objects that could run code; save or copy it again"
_CAUSES = {
    errno.ENOSPC: "the disk is full; free some space or choose another folder",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another folder",
    errno.EACCES: "there is no permission to write there; change it or choose another folder",
    errno.EPERM: "there is no permission to write there; change it or choose another folder",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.EISDIR: "a folder of that name stands in the way; choose another name",
    errno.EEXIST: "a file stands where a folder is needed; choose another folder",
    errno.ENOTDIR: "a file stands where a folder is needed; choose another folder",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
}


def write_atomically(path: str | os.PathLike[str], write: Callable[[BinaryIO], None], *, durably: bool = True) -> None:
    """Writes a file that appears at ``path`` complete, or not at all.

    The bytes go to a temporary file in the same folder, which takes the place of ``path`` once they are on the disk.
    When anything fails, or the process dies, the file that was there before is untouched. A folder that is not there
    yet is made; a link is followed. What killed processes left in the folder is swept, where it is written durably.

    Args:
        path: the file to write.
        write: writes the content to the binary file it is given.
        durably: wait until it is on the disk. False is for many files that are checked when they are read: after a
            power cut, one may be there and yet be incomplete.

    Raises:
        StorageError: a full disk, no permission, and whatever else the system refuses.
    """
    target = Path(os.path.realpath(path))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if durably:
            sweep(target.parent)
        with contextlib.closing(TemporaryFile(target.parent)) as temporary:
            write(temporary.file)
            temporary.move(target, durably=durably)
        if durably:
            sync_folder(target.parent)
    except OSError as error:
        raise StorageError(f"{os.fspath(path)} could not be written: {_cause(error)}.") from error


def refuse_taken(target: Path, overwrite: bool) -> None:
    """UsageError for a new file where one stands already, unless it may be replaced."""
    if target.exists() and not overwrite:
        raise UsageError(f"There is a file {target} already; choose another name, or allow overwriting it.")


def require_place(folder: Path) -> None:
    """StorageError where a file stands in the way of a folder that is to be made, or of one above it."""
    stands = next((place for place in (folder, *folder.parents) if os.path.lexists(place)), None)
    if stands is not None and not stands.is_dir():
        raise StorageError(f"{folder} could not be written: {_CAUSES[errno.ENOTDIR]}.")


def write_text(path: str | os.PathLike[str], text: str, *, durably: bool = True) -> None:
    """Writes ``text`` as UTF-8, whole or not at all; see ``write_atomically``."""
    write_atomically(path, lambda file: _write_all(file, text.encode()), durably=durably)


def write_new(path: str | os.PathLike[str], content: bytes) -> bool:
    """Writes a file that is not there yet; False where something of that name is, which stays as it is.

    Raises:
        StorageError: a full disk, no permission, and whatever else the system refuses.
    """
    try:
        with Path(path).open("xb") as file:
            try:
                file.write(content)
                file.flush()
            except OSError:
                Path(path).unlink(missing_ok=True)
                raise
    except FileExistsError:
        return False
    except OSError as error:
        raise StorageError(f"{os.fspath(path)} could not be written: {_cause(error)}.") from error
    return True


def _cause(error: OSError) -> str:
    reason = (error.strerror or str(error) or type(error).__name__).lower()
    return _CAUSES.get(error.errno or 0, reason)


def atomic_torch_save(obj: Any, path: str | os.PathLike[str]) -> None:
    """Writes ``obj`` as a torch zip file that ``torch.load`` and the webui's check of ``.pt`` files accept.

    That check refuses the extra entries of today's ``torch.save``, so they are left out. Equal objects give equal
    bytes. A checksum of all of it stands at the end, see ``integrity``. The file lies in memory meanwhile, and so does
    what torch wrote.

    Raises:
        StorageError: see ``write_atomically``.
    """
    content = _portable_zip(obj)
    write_atomically(path, lambda file: _write_all(file, content.getbuffer()))


def _write_all(file: BinaryIO, content: bytes | memoryview) -> None:
    file.write(content)


def _portable_zip(obj: Any) -> io.BytesIO:
    import torch

    saved, portable = io.BytesIO(), io.BytesIO()
    torch.save(obj, saved)
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(portable, "w") as target:
        for name in source.namelist():
            if _PORTABLE_ENTRY.fullmatch(name):
                # A ZipInfo made by hand carries no time of day.
                target.writestr(zipfile.ZipInfo(name), source.read(name))
        target.comment = COMMENT
    seal(portable)
    return portable


def entries_refused_by_webui(content: bytes) -> tuple[str, ...]:
    """Entries of a zip file of ``torch.save`` for which the webui's check of ``.pt`` files refuses it."""
    if not content.startswith(b"PK"):
        return ()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return tuple(name for name in archive.namelist() if not _PORTABLE_ENTRY.fullmatch(name))


def safe_torch_load(path: str | os.PathLike[str]) -> Any:
    """Reads a file of ``torch.save`` (zip or legacy format) onto the CPU; code in it is refused, never run.

    ``torch.nn.ParameterDict``, which embeddings of 2022 hold, comes back as an object with its ``_parameters``.

    Raises:
        FileFormatError: no such file, empty, truncated, with a bit that is not as it was written, not of this kind, or
            with something in it other than plain values and tensors.
        StorageError: the system refuses to read it.
    """
    return parse_torch(path, read_bytes(path))


def parse_torch(
    path: str | os.PathLike[str], content: bytes, most_steps: int = MOST_STEPS, needed: str = "give another file"
) -> Any:
    """Reads ``content``, the bytes of the torch file ``path``, as ``safe_torch_load`` does.

    Args:
        path: for error messages.
        content: the file.
        most_steps: steps its pickles may take to build their values.
        needed: what to do if it is a picture and the like, such as ``give the file of an embedding``.

    Raises:
        FileFormatError: see ``safe_torch_load``.
    """
    if not content:
        raise FileFormatError(f"{os.fspath(path)} is empty (0 bytes); copy or save it again.")
    refuse_other_file(path, content[:HEAD], needed)
    try:
        if content.startswith(b"PK"):
            refuse_other_zip(path, content)
        _refuse_expansion(path, content)
        if content.startswith(b"PK"):
            require_whole_zip(path, content)
        return _load_plain(content, names_in_pickles(content, most_steps))
    except FileFormatError:
        raise
    except ForbiddenPickleError as error:
        raise FileFormatError(f"{os.fspath(path)} is not loaded: {error}.") from error
    except pickle.UnpicklingError as error:
        raise FileFormatError(f"{os.fspath(path)} is not loaded: {_REFUSED_BY_TORCH}.") from error
    # Damaged bytes reach deep into torch before anything notices, so every kind of exception stands for "damaged".
    except Exception as error:
        known = "safetensors" if os.fspath(path).lower().endswith((".safetensors", ".sft")) else "torch"
        raise FileFormatError(
            f"{os.fspath(path)} cannot be read as a {known} file; it is damaged, truncated or of another kind"
            f"{_cause_in_words(error)}."
        ) from error


class _ParameterDict:
    """Stands in for ``torch.nn.ParameterDict``: takes its attributes, runs none of its methods."""

    _parameters: dict[str, torch.Tensor]


def _load_plain(content: bytes, names: set[str]) -> Any:
    import torch

    stand_ins: list[Any] = pickled_numpy.stand_ins(names)
    if PARAMETER_DICT in names:
        stand_ins.append((_ParameterDict, PARAMETER_DICT))
        if not content.startswith(b"PK"):
            content = without_module_source(content)
    with torch.serialization.safe_globals(stand_ins):
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _refuse_expansion(path: str | os.PathLike[str], content: bytes) -> None:
    file = io.BytesIO(content)
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > _LARGEST_EXPANSION * len(content):
        raise FileFormatError(
            f"{os.fspath(path)} is refused: its {len(content)} bytes would unpack to {unpacked}, more than "
            f"{_LARGEST_EXPANSION} times as many, which no adapter file does."
        )


def require_own_values(path: str | os.PathLike[str], name: str, tensor: torch.Tensor) -> None:
    """Refuses a tensor that claims more numbers than the file holds for it (a view that repeats its storage).

    Raises:
        FileFormatError: it does.
    """
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise FileFormatError(
            f"{os.fspath(path)}: {name} claims the shape {tuple(tensor.shape)}, but the file holds fewer numbers."
        )


def _cause_in_words(error: BaseException) -> str:
    """The first line of an error that comes from within, in brackets; nothing of one that only programmers read."""
    text = str(error).strip()
    if isinstance(error, RuntimeError) or "opcode" in text:  # torch's own, and the pickle module's
        return ""
    return f" ({text.splitlines()[0][:200].rstrip('.:') if text else type(error).__name__})"


def read_bytes(path: str | os.PathLike[str], most: int | None = None) -> bytes:
    """The whole content of a file.

    Args:
        path: the file.
        most: bytes it may have; None for any number.

    Raises:
        FileFormatError: there is no such file, or it is larger than ``most``.
        StorageError: the system refuses to read it.
    """
    with _open_to_read(path) as file:
        content = file.read() if most is None else file.read(most + 1)
    if most is not None and len(content) > most:
        raise FileFormatError(
            f"{os.fspath(path)} has more than {most // 2**20} MiB, far more than a file of this kind needs; it holds "
            f"something else."
        )
    return content


def first_bytes(path: str | os.PathLike[str], count: int) -> bytes:
    """The first ``count`` bytes of a file, or all of a shorter one.

    Raises:
        FileFormatError: there is no such file.
        StorageError: the system refuses to read it.
    """
    with _open_to_read(path) as file:
        return file.read(count)


def sha256_file(path: str | os.PathLike[str]) -> str:
    """The sha256 of a file, 64 hex digits.

    Raises:
        FileFormatError: there is no such file.
        StorageError: the system refuses to read it.
    """
    with _open_to_read(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _open_to_read(path: str | os.PathLike[str]) -> Iterator[BufferedReader]:
    try:
        with Path(path).open("rb") as file:
            yield file
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileFormatError(f"There is no file {os.fspath(path)}; check its name and folder.") from error
    except IsADirectoryError as error:
        raise FileFormatError(f"{os.fspath(path)} is a folder; a file is needed.") from error
    except OSError as error:
        raise StorageError(f"{os.fspath(path)} could not be read: {error.strerror or error}.") from error


def short_hash(path: str | os.PathLike[str]) -> str:
    """The first 10 hex digits of a file's sha256, as the webui names checkpoints and hypernetworks."""
    return sha256_file(path)[:10]
