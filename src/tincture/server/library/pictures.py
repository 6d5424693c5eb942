"""The pictures of a folder: listed, shown small, captioned, deleted.

A folder is a data set by its name, or any other folder that requests may name, by its path: one that ``preprocess``
fills, for example.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image

from tincture.data.caption_files import CAPTION_ENDINGS, assign_captions
from tincture.data.captions import caption_in
from tincture.data.listing import NO_PICTURES, PictureFile, Source, list_pictures
from tincture.data.mask_files import MaskFinder
from tincture.data.picture_files import UnreadablePictureError, read_picture
from tincture.errors import DataError, StorageError, UsageError, shortened
from tincture.formats.files import write_text
from tincture.server.errors import ForbiddenPathError, NotFoundError
from tincture.server.requests.pictures import facts_of
from tincture.server.requests.places import Places

LONGEST_CAPTION = 10_000
THUMBNAIL_SIDES = (16, 2048)
AT_ONCE = 2
"""So many pictures are read at a time: one of 180 million pixels takes a gigabyte on the way."""
ORIGINALS = ".originals"
"""The folder beside pictures that holds those which were cropped, as they were; hidden, so that nobody trains them."""


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
        cropped: whether it was cropped here, and the original can be had back.
        version: differs once the file was changed.
    """

    file: str
    path: Path
    caption: str
    captioned: bool
    width: int
    height: int
    mask: bool
    fault: str = ""
    cropped: bool = False
    version: str = ""


class PictureFolders:
    """Folders of pictures; may be used from several threads.

    Args:
        places: which paths may be named.

    Attributes:
        root: the folder of the data sets.
    """

    def __init__(self, places: Places) -> None:
        self.places = places
        self.root = places.workspace.datasets
        self._reading = threading.Semaphore(AT_ONCE)

    def folder(self, folder: str) -> Path:
        """The folder that the name of a data set, or a path, means; NotFoundError where there is none."""
        path = self.places.folder(folder)
        if not path.is_dir():
            raise NotFoundError(f"There is no data set or folder {shortened(folder)}.")
        return path

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
        return [self._info_of_file(each, root, masks) for each in found[offset:][:limit]]

    def info_of(self, folder: str, file: str) -> PictureInfo:
        """One picture of a folder; NotFoundError."""
        root = self.folder(folder)
        for found in list_pictures(Source(root), recursive=True, set_aside=True).files:
            if found.path.relative_to(root).as_posix() == file:
                return self._info_of_file(found, root, MaskFinder())
        raise NotFoundError(f"There is no picture {shortened(file)} in {shortened(folder)}.")

    def picture(self, folder: str, file: str, *, writing: bool = False) -> Path:
        """The picture by its path from the folder on; what it leads to is checked, but a link stays one.

        Args:
            writing: it, or what lies beside it, is to be changed.

        Raises:
            UsageError: ``file`` is no path inside a folder.
            NotFoundError: there is no such picture.
            ForbiddenPathError: it may not be read, or changed.
        """
        root = self.folder(folder)
        parts = PurePosixPath(file).parts if isinstance(file, str) else ()
        if not parts or parts[0] == "/" or ".." in parts:
            raise UsageError(f"{shortened(file)} is not the path of a picture in its folder.")
        self.places.path(root.joinpath(*parts), writing=writing)
        path = root.joinpath(*parts)
        if not path.is_file() or not may_be_picture(path):
            raise NotFoundError(f"There is no picture {shortened(file)} in {shortened(folder)}.")
        return path

    def read(self, folder: str, file: str, enough: tuple[int, int] | None = None) -> PictureRead:
        """A picture and its alpha, upright; see ``read_picture``.

        Raises:
            DataError: it cannot be read, or has too many pixels.
            NotFoundError: there is no such picture.
        """
        path = self.picture(folder, file)
        with self._reading:
            try:
                facts_of(path)
                return read_picture(path, enough=enough)
            except UnreadablePictureError as error:
                raise DataError(f"{file} {str(error).rstrip('.')}.") from error

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
        picture, _ = self.read(folder, file, enough=(side, side))
        picture.thumbnail((side, side))
        content = io.BytesIO()
        picture.save(content, "JPEG", quality=85)
        return content.getvalue()

    # --- captions ----------------------------------------------------------------------------------------------------

    def set_caption(self, folder: str, file: str, text: str) -> None:
        """Writes a picture's caption into the .txt beside it, whole or not at all; an empty one is written too.

        Raises:
            UsageError: the text is too long, or not Unicode.
            NotFoundError: there is no such picture.
            ForbiddenPathError: it may not be changed.
        """
        picture = self.picture(folder, file)
        write_text(self.places.path(picture.with_suffix(CAPTION_ENDINGS[0]), writing=True), checked_caption(text))

    def set_captions(self, folder: str, captions: Mapping[str, str]) -> None:
        """Writes the captions of several pictures, by file; all are checked before the first is written.

        Raises:
            UsageError, NotFoundError, ForbiddenPathError: as ``set_caption``.
        """
        for file, text in captions.items():
            self.picture(folder, file, writing=True)
            checked_caption(text)
        for file, text in captions.items():
            self.set_caption(folder, file, text)

    def remove_picture(self, folder: str, file: str) -> None:
        """Deletes a picture of a data set, with its caption files and its mask if no other picture has that name.

        Raises:
            NotFoundError: there is no such picture.
            ForbiddenPathError: the folder is none of the data sets.
        """
        root, picture = self.folder(folder), self.picture(folder, file)
        datasets = Path(os.path.realpath(self.root))
        if root == datasets or not root.is_relative_to(datasets):
            raise ForbiddenPathError(f"{shortened(folder)} is none of the data sets; only their pictures are deleted.")
        mask = MaskFinder().find(picture, root)
        try:
            entries = list(picture.parent.iterdir())
            captions = assign_captions([path for path in entries if may_be_picture(path)], entries)
            own = captions.pop(picture, [])
            picture.unlink()
            others = [path for path in picture.parent.iterdir() if may_be_picture(path)]
            shared = {path for paths in captions.values() for path in paths}
            masks = [mask] if mask and not any(other.stem == picture.stem for other in others) else []
            original = picture.parent / ORIGINALS / picture.name
            for path in (*(path for path in own if path not in shared), *masks, original):
                path.unlink(missing_ok=True)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise StorageError(f"{file} could not be deleted: {reason}.") from error

    def _info_of_file(self, found: PictureFile, root: Path, masks: MaskFinder) -> PictureInfo:
        size, caption, fault, version = (0, 0), "", "", ""
        try:
            self.places.path(found.path)
            version = _version(found.path)
            size = facts_of(found.path).size
            caption = caption_in(found.text_file, found.path, otherwise=found.caption)
        except (UsageError, DataError, UnreadablePictureError) as error:
            fault = str(error)
        mask = masks.find(found.path, root) is not None
        file = found.path.relative_to(root).as_posix()
        cropped = (found.path.parent / ORIGINALS / found.path.name).is_file()
        return PictureInfo(
            file, found.path, caption, is_captioned(found), *size, mask, fault, cropped=cropped, version=version
        )


PictureRead = tuple[Image.Image, Image.Image | None]
"""A picture (RGB) and its alpha (L), if it has one."""


def checked_caption(text: str) -> str:
    """A caption as it is written: its lines joined to one.

    Raises:
        UsageError: it is too long, or not Unicode.
    """
    if not isinstance(text, str) or len(text) > LONGEST_CAPTION:
        raise UsageError(f"The caption is not a text of at most {LONGEST_CAPTION:,} characters.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError("The caption is not valid Unicode text.") from None
    if "\0" in text:
        raise UsageError("The caption has zero bytes in it; leave them out.")
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def is_captioned(found: PictureFile) -> bool:
    """Whether a picture has a caption of its own, in a file beside it or in a metadata file."""
    return found.has_caption


def may_be_picture(path: Path) -> bool:
    """Whether a file may be a picture, by its name."""
    return not path.name.startswith(".") and path.suffix.lower() not in NO_PICTURES


def _version(path: Path) -> str:
    try:
        found = path.stat()
    except OSError:
        return ""
    return f"{found.st_mtime_ns:x}-{found.st_size:x}"
