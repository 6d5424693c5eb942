"""Data sets: folders of pictures in the workspace's ``datasets``, uploaded, listed, deleted."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tincture.data.listing import Source, list_pictures
from tincture.data.mask_files import MASK_FOLDER
from tincture.errors import DataError, StorageError, UsageError
from tincture.server.errors import ConflictError, NotFoundError
from tincture.server.library.pictures import PictureFolders, is_captioned
from tincture.server.library.uploads import RESERVED, Intake, folded
from tincture.server.requests.places import Places
from tincture.workspace import clean_name

LEFTOVER_S = 24 * 3600.0
"""After so long, what an upload or deletion left that was killed is removed."""
_REPEATS_FOLDER = re.compile(r"\d{1,4}_.+")


@dataclass(frozen=True)
class DatasetInfo:
    """What a data set holds.

    Attributes:
        name: of its folder.
        path: its folder.
        pictures: how many files may be pictures, those in inner folders included, masks not.
        captions: how many of them have a caption of their own, in a file beside them or in a metadata file.
        bytes: of all files.
    """

    name: str
    path: Path
    pictures: int
    captions: int
    bytes: int


class Datasets(PictureFolders):
    """All data sets of a workspace; may be used from several threads.

    Args:
        places: which paths may be named.
        max_bytes: of an upload, unpacked.
        max_files: of an upload.
    """

    def __init__(self, places: Places, max_bytes: int, max_files: int) -> None:
        super().__init__(places)
        self.max_bytes, self.max_files = max_bytes, max_files
        self._writing = threading.Lock()
        self._sweep()

    # --- data sets ---------------------------------------------------------------------------------------------------

    def list(self) -> list[DatasetInfo]:
        """All data sets, by name. Folders that are links out of what is allowed are passed over."""
        try:
            names = sorted(entry.name for entry in os.scandir(self.root) if entry.is_dir())
        except OSError:
            return []
        infos = []
        for name in names:
            if not name.startswith("."):
                with contextlib.suppress(DataError, UsageError):
                    infos.append(self._info(name, self.places.path(self.root / name)))
        return infos

    def info(self, name: str) -> DatasetInfo:
        """One data set; NotFoundError."""
        return self._info(name, self._existing(name))

    def upload(self, name: str, files: Iterable[tuple[str, BinaryIO]], *, add: bool = False) -> DatasetInfo:
        """Makes a data set of files, whole or not at all. A folder that all files lie in is left out.

        Args:
            name: of the data set.
            files: relative paths and contents: pictures, .txt and .caption, metadata.jsonl and .csv, masks in a folder
                ``mask``, and zip files of these, which must be seekable.
            add: put them among those of a data set that is there; no file of it is replaced.

        Raises:
            UsageError: a name is not allowed, or a file is none of these.
            ConflictError: there is such a data set, or it has such a file.
            DataError: a picture or zip file that cannot be read, or no picture at all.
            TooMuchError: too many bytes or files.
            StorageError: the disk is full.
        """
        target = self._place(name)
        if not add and os.path.lexists(target):
            raise _taken(target)
        staging = self.root / f".upload-{secrets.token_hex(8)}"
        try:
            _make(staging)
            intake = Intake(staging, self.max_bytes, self.max_files)
            for file_name, file in files:
                intake.take(file_name, file)
            if not intake.pictures and not (add and target.is_dir()):
                raise DataError(f"The upload for {name!r} holds no picture; give at least one.")
            with self._writing:
                self._put(_without_shell(staging), target, add)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return self.info(name)

    def _put(self, made: Path, target: Path, add: bool) -> None:
        if not os.path.lexists(target):
            try:
                made.rename(target)
            except OSError as error:
                raise StorageError(f"{target} could not be made: {(error.strerror or str(error)).lower()}.") from error
        elif add:
            _merge(made, target)
        else:
            raise _taken(target)

    def delete(self, name: str) -> None:
        """Deletes a data set with all that is in it.

        Raises:
            NotFoundError: there is none of this name.
            ConflictError: it is a link, which somebody made by hand.
        """
        target = self._place(name)
        if target.is_symlink():
            raise ConflictError(f"The data set {name!r} is a link; remove it where it was made.")
        self._existing(name)
        away = self.root / f".deleted-{secrets.token_hex(8)}"
        with self._writing:
            try:
                target.rename(away)
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                raise StorageError(f"The data set {name!r} could not be deleted: {reason}.") from error
        shutil.rmtree(away, ignore_errors=True)

    # --- on the disk --------------------------------------------------------------------------------------------------

    def _info(self, name: str, path: Path) -> DatasetInfo:
        found = list_pictures(Source(path), recursive=True, set_aside=True).files
        return DatasetInfo(name, path, len(found), sum(map(is_captioned, found)), sum(_sizes(path)))

    def _place(self, name: str) -> Path:
        """Where the data set of this name lies, or would lie."""
        cleaned = clean_name(name)
        if cleaned.startswith(".") or cleaned.endswith(".") or cleaned.split(".")[0].casefold() in RESERVED:
            raise UsageError(
                f"The name {cleaned!r} is not allowed for a data set; begin and end with a letter or digit."
            )
        self.places.path(self.root / cleaned, writing=True)
        return self.root / cleaned

    def _existing(self, name: str) -> Path:
        path = self._place(name)
        if not path.is_dir():
            raise NotFoundError(f"There is no data set {name!r}.")
        return self.places.path(path)

    def _sweep(self) -> None:
        """Removes what is left of uploads and deletions that were killed long ago."""
        with contextlib.suppress(OSError):
            for path in [*self.root.glob(".upload-*"), *self.root.glob(".deleted-*")]:
                if time.time() - path.stat().st_mtime > LEFTOVER_S:
                    shutil.rmtree(path, ignore_errors=True)


def _make(staging: Path) -> None:
    try:
        staging.mkdir(parents=True)
    except OSError as error:
        raise StorageError(f"{staging} could not be made: {(error.strerror or str(error)).lower()}.") from error


def _without_shell(folder: Path) -> Path:
    """The folder that holds the files: a single one inside says nothing, unless it is of masks or says repeats."""
    while True:
        entries = list(folder.iterdir())
        if len(entries) != 1 or not entries[0].is_dir() or entries[0].name == MASK_FOLDER:
            return folder
        if _REPEATS_FOLDER.fullmatch(entries[0].name):
            return folder
        folder = entries[0]


def _merge(made: Path, target: Path) -> None:
    """Moves all files of ``made`` into ``target``; where one cannot, those that were moved are taken away again."""
    there = {folded(path.relative_to(target).as_posix()) for path in target.rglob("*") if not path.is_dir()}
    files = sorted(path for path in made.rglob("*") if not path.is_dir())
    twice = [name for path in files if folded(name := path.relative_to(made).as_posix()) in there]
    if twice:
        raise ConflictError(
            f"The data set {target.name!r} has a file {twice[0]} already; rename it, or delete that one."
        )
    moved: list[Path] = []
    try:
        for path in files:
            place = target / path.relative_to(made)
            place.parent.mkdir(parents=True, exist_ok=True)
            path.rename(place)
            moved.append(place)
    except OSError as error:
        for place in moved:
            place.unlink(missing_ok=True)
        raise StorageError(f"{target} could not be added to: {(error.strerror or str(error)).lower()}.") from error


def _taken(target: Path) -> ConflictError:
    return ConflictError(f"There is a data set {target.name!r} already; choose another name, or add to it.")


def _sizes(folder: Path) -> Iterator[int]:
    for directory, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                yield os.lstat(os.path.join(directory, name)).st_size
