"""Which files of which folders are pictures, and how often each comes in an epoch."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tincture.data.caption_files import assign_captions, find_caption_file, is_called_caption, is_caption_file
from tincture.data.caption_lists import read_metadata
from tincture.data.mask_files import MASK_FOLDER
from tincture.data.preprocessed import is_for_validation, is_no_training_data, sides_of
from tincture.errors import DataError, UsageError

MAX_REPEATS = 10_000

PICTURE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff", ".heic", ".heif"}
    | {".ppm", ".pgm", ".jp2"}
)
"""The usual ones: what lies in a folder that nobody named, or comes from another machine, is a picture by these."""
_REPEATS = r"(\d{1,4})_.+"
MOST_SEARCHED = 200
"""So many folders are looked into where one has no pictures, to say which have."""

# What lies beside pictures without being meant as one. Everything else is tried: an ending says little of a content.
NO_PICTURES = frozenset(
    {".txt", ".caption", ".json", ".jsonl", ".csv", ".tsv", ".md", ".toml", ".yaml", ".yml", ".xml", ".html", ".log"}
    | {".py", ".ini", ".db", ".zip", ".npy", ".npz", ".pt", ".safetensors", ".ckpt", ".bin", ".optim", ".latents"}
)


@dataclass(frozen=True)
class Source:
    """A folder of pictures, each of which comes `repeats` times in an epoch."""

    folder: Path
    repeats: int = 1

    @classmethod
    def parse(cls, text: str | Path) -> Source:
        """From "FOLDER" or "FOLDER:3". A folder that is really called so is taken by its name.

        Raises:
            UsageError: the number of repeats is not allowed.
        """
        match = re.fullmatch(r"(.+):(\d+)", str(text), re.DOTALL)
        if match is None or os.path.isdir(text):
            return cls(Path(text))
        repeats = int(match[2]) if len(match[2]) < 9 else MAX_REPEATS + 1
        if not 1 <= repeats <= MAX_REPEATS:
            raise UsageError(f"The data {str(text)!r} asks for {match[2]} repeats; give 1 to {MAX_REPEATS}.")
        return cls(Path(match[1]), repeats)

    def __str__(self) -> str:
        return str(self.folder) if self.repeats == 1 else f"{self.folder}:{self.repeats}"

    def trained(self, *, folder_repeats: bool = False) -> Source:
        """What is trained of it: where preprocessing has set a part aside, the folder of the other.

        With `folder_repeats` that keeps what this one's name says of repeats.
        """
        sides = sides_of(self.folder)
        if sides is None:
            return self
        times = _number_in(self.folder.resolve().name) if folder_repeats else 0
        return Source(sides[0], self.repeats * max(1, times))

    def resolved(self) -> Source:
        """With an absolute path."""
        return Source(self.folder.resolve(), self.repeats)


@dataclass(frozen=True)
class PictureFile:
    """A file that may be a picture.

    Attributes:
        root: the folder that was given, in which it was found.
        caption: what a metadata file says, None where there is none.
        text_file: the file with its caption, None where there is none; it goes before the metadata.
    """

    path: Path
    root: Path
    repeats: int
    caption: str | None = None
    text_file: Path | None = None

    @property
    def has_caption(self) -> bool:
        """Whether somebody gave it a caption, be it an empty one; its name is none."""
        return self.text_file is not None or self.caption is not None


@dataclass
class Listing:
    """What folders hold.

    Attributes:
        remarks: sentences about what is odd.
        unused_captions: caption files that belong to no picture.
        further_captions: by the caption file of a picture that counts, the others that the picture has.
        no_captions: what is called like a caption file, but is a folder or the like.
    """

    files: list[PictureFile] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    unused_captions: list[Path] = field(default_factory=list)
    further_captions: dict[Path, list[Path]] = field(default_factory=dict)
    no_captions: list[Path] = field(default_factory=list)

    def assign(self, pictures: Sequence[Path], entries: Sequence[Path]) -> dict[Path, Path | None]:
        """The caption file of each picture of a folder, None for one without; what is odd with such files is noted."""
        found = assign_captions(pictures, entries)
        used = {path for paths in found.values() for path in paths}
        self.unused_captions += [path for path in entries if path not in used and is_caption_file(path)]
        self.no_captions += [path for path in entries if is_called_caption(path) and not path.is_file()]
        self.further_captions |= {first: more for first, *more in found.values() if more}
        return {picture: next(iter(found.get(picture, ())), None) for picture in pictures}


def list_pictures(
    source: Source, *, recursive: bool = False, folder_repeats: bool = False, set_aside: bool = False
) -> Listing:
    """The files of a folder that may be pictures, in the order of their names; those of inner folders come after.

    Pictures that a metadata file names are found in inner folders too. Hidden files and folders, files that plainly are
    no pictures (`NO_PICTURES`) and folders called "mask" are passed over. So are, unless they are the source itself,
    folders in which preprocessing put what is not to be trained.

    Args:
        recursive: Look into the folders inside it too, and so on; links to folders are followed, each folder once.
        folder_repeats: Take the number of a folder called like "10_rex" as repeats of the pictures in it.
        set_aside: Take what is not to be trained too.

    Raises:
        DataError: the folder cannot be read.
    """
    listing = Listing()
    captions: dict[Path, str] = {}
    paths: dict[Path, None] = {}
    text_files: dict[Path, Path | None] = {}
    for folder, entries in _folders(source.folder, recursive, set_aside, listing.remarks):
        pictures = [path for path in entries if _may_be_picture(path)]
        paths.update(dict.fromkeys(pictures))
        text_files |= listing.assign(pictures, entries)
        named, remarks = read_metadata(folder)
        captions.update(named)
        listing.remarks += remarks
        if unnamed := [path.name for path in pictures if named and path not in named]:
            listing.remarks.append(f"The metadata file in {folder} does not name {name_some(unnamed)}.")
    paths.update(dict.fromkeys(captions))
    folders = set() if set_aside else {path.parent for path in paths}
    aside = {inner for inner in folders if _is_aside(inner, source.folder)}
    listing.remarks += [remark for remark in _named_aside(aside) if remark not in listing.remarks]
    for path in (path for path in paths if path.parent not in aside):
        times = _repeats_of(path.parent, source.folder) if folder_repeats else 1
        text_file = text_files[path] if path in text_files else find_caption_file(path)
        listing.files.append(PictureFile(path, source.folder, source.repeats * times, captions.get(path), text_file))
    return listing


def caption_remarks(listings: Iterable[Listing]) -> list[str]:
    """Sentences about caption files that belong to no picture or are no files, and of pictures that have several."""
    every = list(listings)
    unused = [path.name for listing in every for path in listing.unused_captions]
    both = [(first, more) for listing in every for first, more in listing.further_captions.items()]
    pairs = [f"{first.name} and not {', '.join(path.name for path in more)}" for first, more in both]
    others = [path.name for listing in every for path in listing.no_captions]
    called = "One is called like its picture, such as 1.txt beside 1.png"
    remarks = [f"Caption files that belong to no picture: {name_some(unused)}. {called}."] if unused else []
    remarks += [f"Of several caption files of one picture, the first counts: {name_some(pairs)}."] if pairs else []
    return remarks + ([f"Called like caption files, but no files: {name_some(others)}."] if others else [])


def inner_remarks(folders: Sequence[Path], files: Iterable[PictureFile]) -> list[str]:
    """A sentence about folders inside the folders whose pictures are not among the files, where there are any."""
    taken = {file.path.parent for file in files}
    inner = [(folder, place) for folder in folders for place in inner_folders(folder) if place not in taken]
    if not inner:
        return []
    names = name_some([place.relative_to(folder).as_posix() for folder, place in inner])
    return [f"Pictures in inner folders are left out: {names}. The setting recursive takes them."]


def inner_folders(folder: Path) -> list[Path]:
    """Folders inside that hold pictures, nearest first; of very many, some of the first."""
    found = itertools.islice(_folders(folder, True, True, []), MOST_SEARCHED)
    inner = [place for place, entries in found if place != folder and any(map(_is_called_a_picture, entries))]
    return sorted(inner, key=lambda place: len(place.parts))


def no_pictures(folders: Sequence[Path], *, with_repeats: bool = True) -> str:
    """What to say of folders without pictures: what lies in folders inside them, and which setting takes it.

    Args:
        with_repeats: whether the caller knows the setting folder_repeats.
    """
    sentence = f"There are no pictures in the folder {', '.join(map(str, folders))}"
    inner = [(folder, place) for folder in folders for place in inner_folders(folder)]
    if not inner:
        return f"{sentence}. Put some into it (PNG, JPEG, WebP, ...)."
    names = [place.relative_to(folder).as_posix() for folder, place in inner]
    numbered = with_repeats and any(re.match(_REPEATS, place.name) for _, place in inner)
    repeats = ", with the setting folder_repeats to take the number in a folder's name as repeats" if numbered else ""
    return (
        f"{sentence} itself, but in folders inside it: {name_some(names)}. To take them, give the setting recursive"
        f"{repeats}; or name one of them instead, such as {inner[0][1]}."
    )


def name_some(names: list[str], most: int = 5) -> str:
    """The first few of many names."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def _folders(root: Path, recursive: bool, set_aside: bool, remarks: list[str]) -> Iterator[tuple[Path, list[Path]]]:
    """Each folder with its entries in the order of their names."""
    waiting, seen = [root], set()
    while waiting:
        folder = waiting.pop()
        try:
            place = folder.stat()
            entries = sorted(folder.iterdir())
        except OSError as error:
            if folder == root:
                raise DataError(_why_not(root, error)) from error
            remarks.append(f"The folder {folder} cannot be read: {error.strerror}.")
            continue
        if (place.st_dev, place.st_ino) in seen:
            continue
        seen.add((place.st_dev, place.st_ino))
        yield folder, entries
        if recursive:
            inner = [path for path in entries if _may_hold_pictures(path)]
            aside = {path for path in inner if not set_aside and is_no_training_data(path)}
            remarks += _named_aside(aside)
            waiting += [path for path in reversed(inner) if path not in aside]


def _is_aside(folder: Path, root: Path) -> bool:
    """Whether a metadata file in ``root`` names what preprocessing set aside in a folder inside of it."""
    inside = itertools.takewhile(lambda place: place != root, (folder, *folder.parents))
    return folder.is_relative_to(root) and any(is_no_training_data(place) for place in inside)


def _named_aside(folders: Iterable[Path]) -> list[str]:
    return [
        f"The folder {folder} is what preprocessing set aside for validation; its pictures are left out."
        for folder in sorted(folders)
        if is_for_validation(folder)
    ]


def require_folder(folder: Path) -> None:
    """DataError, as of ``list_pictures``, for a folder that is not there or cannot be read."""
    try:
        os.scandir(folder).close()
    except OSError as error:
        raise DataError(_why_not(folder, error)) from error


def _why_not(folder: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"The picture folder {folder} does not exist. Check the path."
    if isinstance(error, NotADirectoryError):
        packed = folder.suffix.lower() in (".zip", ".7z", ".rar", ".tar", ".gz")
        advice = "Unpack it, and give the folder" if packed else "Give the folder that holds the pictures"
        return f"{folder} is a file. {advice}{'' if packed else f' ({folder.parent})'}."
    return f"The picture folder {folder} cannot be read: {error.strerror}."


def _may_hold_pictures(path: Path) -> bool:
    return not path.name.startswith(".") and path.name != MASK_FOLDER and path.is_dir()


def _may_be_picture(path: Path) -> bool:
    if path.name.startswith(".") or path.suffix.lower() in NO_PICTURES:
        return False
    # Neither folders nor pipes, which would keep the reader waiting; but links that lead nowhere, to be named.
    return path.is_file() or (path.is_symlink() and not path.exists())


def _is_called_a_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURE_SUFFIXES and _may_be_picture(path)


def _repeats_of(folder: Path, root: Path) -> int:
    """The number before "_" in the name of the innermost folder, from `root` on, that has one; else 1."""
    for inner in (folder, *folder.parents):
        if times := _number_in(inner.resolve().name if inner == root else inner.name):
            return times
        if inner == root:
            break
    return 1


def _number_in(name: str) -> int:
    """How often a folder of this name says that its pictures come; 0 where it says nothing."""
    match = re.fullmatch(_REPEATS, name)
    return max(1, int(match[1])) if match else 0
