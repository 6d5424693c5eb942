"""Folders of pictures to train on: uploaded, listed, captioned, deleted.

A data set is a folder in the workspace's ``datasets``. Those that ``preprocess`` fills, or that lie in another allowed
folder, can be looked at and captioned too.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from tincture.data.caption_files import CAPTION_ENDINGS, caption_files
from tincture.data.captions import caption_for
from tincture.data.listing import NO_PICTURES, PictureFile, Source, list_pictures
from tincture.data.masks import MASK_FOLDER, MaskFinder
from tincture.data.picture_files import UnreadablePictureError, read_picture
from tincture.errors import DataError, StorageError, UsageError, shortened
from tincture.formats.files import write_text
from tincture.server.errors import ConflictError, ForbiddenPathError, NotFoundError
from tincture.server.library.uploads import RESERVED, Intake, folded
from tincture.server.requests.pictures import facts_of
from tincture.server.requests.places import Places
from tincture.workspace import clean_name

LONGEST_CAPTION = 10_000
THUMBNAIL_SIDES = (16, 2048)
AT_ONCE = 2
"""So many thumbnails are made at a time: a picture of 180 million pixels takes a gigabyte on the way."""
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


@dataclass(frozen=True)
class PictureInfo:
    """One picture of a folder.

    Attributes:
        file: its path from the folder on, with / between its parts.
        path: where it lies.
        caption: what training takes for it.
        captioned: whether the caption is its own; else it comes from the file's name.
        width: in pixels, upright; 0 where it cannot be read.
        height: likewise.
        mask: whether it has a mask.
        fault: why it, or its caption, cannot be read; empty where all is well.
    """

    file: str
    path: Path
    caption: str
    captioned: bool
    width: int
    height: int
    mask: bool
    fault: str = ""


class Datasets:
    """All data sets of a workspace; may be used from several threads.

    Args:
        places: which paths may be named.
        max_bytes: of an upload, unpacked.
        max_files: of an upload.
    """

    def __init__(self, places: Places, max_bytes: int, max_files: int) -> None:
        self.places, self.max_bytes, self.max_files = places, max_bytes, max_files
        self.root = places.workspace.datasets
        self._writing = threading.Lock()
        self._reading = threading.Semaphore(AT_ONCE)
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

    # --- pictures ----------------------------------------------------------------------------------------------------

    def pictures(self, folder: str, offset: int = 0, limit: int | None = None) -> Sequence[PictureInfo]:
        """The pictures of a folder, in the order of their names, those of inner folders behind; masks are left out.

        Args:
            folder: the name of a data set, or a path that is allowed.
            offset: so many first ones are left out.
            limit: so many at most.

        Raises:
            NotFoundError: there is no such folder.
        """
        root = self.folder(folder)
        found = list_pictures(Source(root), recursive=True, set_aside=True).files
        masks = MaskFinder()
        return [self._picture_info(each, root, masks) for each in found[offset:][:limit]]

    def folder(self, folder: str) -> Path:
        """The folder that the name of a data set, or a path, means; NotFoundError where there is none."""
        path = self.places.folder(folder)
        if not path.is_dir():
            raise NotFoundError(f"There is no data set or folder {shortened(folder)}.")
        return path

    def set_caption(self, folder: str, file: str, text: str) -> None:
        """Writes a picture's caption into the .txt beside it, whole or not at all; an empty one is written too.

        Raises:
            UsageError: the text is too long, or not Unicode.
            NotFoundError: there is no such picture.
            ForbiddenPathError: it may not be changed.
        """
        picture = self._picture(folder, file)
        write_text(self.places.path(picture.with_suffix(CAPTION_ENDINGS[0]), writing=True), _caption(text))

    def thumbnail(self, folder: str, file: str, side: int = 256) -> bytes:
        """The picture as a JPEG whose longer side has at most ``side`` pixels.

        Raises:
            UsageError: no such size.
            NotFoundError: there is no such picture.
            DataError: it cannot be read, or has too many pixels.
        """
        least, most = THUMBNAIL_SIDES
        if not least <= side <= most:
            raise UsageError(f"A thumbnail of {shortened(side)} pixels is not possible; {least} to {most} are.")
        path = self._picture(folder, file)
        with self._reading:
            try:
                facts_of(path)
                picture, _ = read_picture(path, enough=(side, side))
            except UnreadablePictureError as error:
                raise DataError(f"{file} {str(error).rstrip('.')}.") from error
            picture.thumbnail((side, side))
        content = io.BytesIO()
        picture.save(content, "JPEG", quality=85)
        return content.getvalue()

    def remove_picture(self, folder: str, file: str) -> None:
        """Deletes a picture of a data set, with its caption files and its mask if no other picture has that name.

        Raises:
            NotFoundError: there is no such picture.
            ForbiddenPathError: the folder is none of the data sets.
        """
        root, picture = self.folder(folder), self._picture(folder, file)
        datasets = Path(os.path.realpath(self.root))
        if root == datasets or not root.is_relative_to(datasets):
            raise ForbiddenPathError(f"{shortened(folder)} is none of the data sets; only their pictures are deleted.")
        mask = MaskFinder().find(picture, root)
        try:
            picture.unlink()
            others = [path for path in picture.parent.iterdir() if _may_be_picture(path)]
            shared = {path for other in others for path in caption_files(other)}
            masks = [mask] if mask and not any(other.stem == picture.stem for other in others) else []
            for path in (*(path for path in caption_files(picture) if path not in shared), *masks):
                path.unlink(missing_ok=True)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise StorageError(f"{file} could not be deleted: {reason}.") from error

    def _picture(self, folder: str, file: str) -> Path:
        """The picture by its path from the folder on; what it leads to is checked, but a link stays one."""
        root = self.folder(folder)
        parts = PurePosixPath(file).parts if isinstance(file, str) else ()
        if not parts or parts[0] == "/" or ".." in parts:
            raise UsageError(f"{shortened(file)} is not the path of a picture in its folder.")
        self.places.path(root.joinpath(*parts))
        path = root.joinpath(*parts)
        if not path.is_file() or not _may_be_picture(path):
            raise NotFoundError(f"There is no picture {shortened(file)} in {shortened(folder)}.")
        return path

    def _picture_info(self, found: PictureFile, root: Path, masks: MaskFinder) -> PictureInfo:
        size, caption, fault = (0, 0), "", ""
        try:
            self.places.path(found.path)
            size = facts_of(found.path).size
            caption = caption_for(found.path, otherwise=found.caption)
        except (UsageError, DataError, UnreadablePictureError) as error:
            fault = str(error)
        mask = masks.find(found.path, root) is not None
        file = found.path.relative_to(root).as_posix()
        return PictureInfo(file, found.path, caption, _is_captioned(found), *size, mask, fault)

    def _info(self, name: str, path: Path) -> DatasetInfo:
        found = list_pictures(Source(path), recursive=True, set_aside=True).files
        return DatasetInfo(name, path, len(found), sum(map(_is_captioned, found)), sum(_sizes(path)))

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


def _caption(text: str) -> str:
    if not isinstance(text, str) or len(text) > LONGEST_CAPTION:
        raise UsageError(f"The caption is not a text of at most {LONGEST_CAPTION:,} characters.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError("The caption is not valid Unicode text.") from None
    if "\0" in text:
        raise UsageError("The caption has zero bytes in it; leave them out.")
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def _is_captioned(found: PictureFile) -> bool:
    return found.caption is not None or any(os.path.isfile(path) for path in caption_files(found.path))


def _may_be_picture(path: Path) -> bool:
    return not path.name.startswith(".") and path.suffix.lower() not in NO_PICTURES


def _sizes(folder: Path) -> Iterator[int]:
    for directory, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                yield os.lstat(os.path.join(directory, name)).st_size
