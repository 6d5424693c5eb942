"""Where pictures come from and where crops go, so that no source is ever in danger."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from tincture.data.listing import Listing, PictureFile, Source, list_pictures, name_some
from tincture.data.mask_files import MASK_FOLDER
from tincture.data.preprocessed import DEBUG, REPORT, TRAIN, VALIDATION
from tincture.errors import UsageError
from tincture.formats.temporary_file import is_temporary

FOLDERS = ("", TRAIN, VALIDATION, DEBUG)
LONGEST_STEM = 180
"""In bytes: file systems allow 255 for a name, and a number comes before and an ending behind."""


def check_places(source: Path, destination: Path, *, recursive: bool, named: tuple[str, str] | None = None) -> None:
    """Refuse places where crops would come among the sources, also by way of links; neither need be there yet.

    Args:
        source: the folder of pictures.
        destination: the folder for crops.
        recursive: whether folders inside the source are read too.
        named: what errors call the two; None: by their paths.

    Raises:
        UsageError: saying which places, and what to do.
    """
    from_name, to_name = named or (str(source), str(destination))
    inner, outer = Path(os.path.realpath(destination)), Path(os.path.realpath(source))
    if inner == outer or _same(source, destination):
        raise UsageError(
            f"The destination {to_name} is the source folder itself; choose another, since sources are kept."
        )
    if recursive and outer in inner.parents:
        raise UsageError(
            f"The destination {to_name} lies inside the source {from_name}, whose inner folders are read too: its "
            "crops would be taken for pictures next time. Choose a folder outside it, or leave out the setting "
            "recursive."
        )
    if os.path.lexists(destination) and not os.path.isdir(destination):
        raise UsageError(f"The destination {to_name} is a file; choose a folder.")


def list_sources(source: Path, destination: Path, *, recursive: bool) -> Listing:
    """The files in the source folder that may be pictures; crops of earlier runs inside it are passed over.

    Raises:
        DataError: the folder cannot be read.
        UsageError: a folder that crops go to is one that pictures lie in.
    """
    listing = list_pictures(Source(source), recursive=recursive)
    made = {folder for found in listing.files if (folder := _made_by_us(found.path.parent, source))}
    sources = [found for found in listing.files if not _made_by_us(found.path.parent, source)]
    remarks = [
        *listing.remarks,
        *_within(source, destination),
        *(f"The folder {folder} holds crops, not sources; passed over." for folder in made),
    ]
    _refuse_mixing({found.path.parent for found in sources}, destination)
    return Listing(sources, remarks, listing.unused_captions)


def _within(source: Path, destination: Path) -> Iterator[str]:
    if Path(os.path.realpath(source)) in Path(os.path.realpath(destination)).parents:
        yield (
            f"The destination {destination} lies inside the source {source}: whoever reads that with inner folders, as "
            "training with the setting recursive does, gets the crops too."
        )


def check_emptiness(destination: Path) -> None:
    """Refuse a folder in which something lies that no preprocessing put there.

    Raises:
        UsageError: naming some of it.
    """
    try:
        names = sorted(name for name in os.listdir(destination) if not name.startswith("."))
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(f"The destination {destination} cannot be read: {error.strerror}.") from None
    if names:
        raise UsageError(
            f"The destination {destination} is not empty ({name_some(names, 3)}) and holds no {REPORT}; choose a new "
            "folder, or give the setting overwrite to put crops among what is there."
        )


def relative_name(found: PictureFile) -> str:
    """The picture's path in the source folder, with / between its parts, as text that any file can hold."""
    parts = found.path.relative_to(found.root).parts
    return "/".join(os.fsencode(part).decode("utf-8", "backslashreplace") for part in parts)


def stem_of(path: Path) -> str:
    """What the names of a picture's crops end with: its own name without ending, shortened where it is very long."""
    stem = os.fsencode(path.stem).decode("utf-8", "replace").encode()
    return stem[:LONGEST_STEM].decode("utf-8", "ignore")


def leftovers(destination: Path, stems: Mapping[int, str]) -> Iterator[Path]:
    """What a killed run left without telling its report: crops of these numbers and stems, and files half written."""
    for folder in FOLDERS[:3]:
        for name in _names_in(destination / folder):
            match = re.fullmatch(r"(\d{5,})-\d+-(.*)\.png", name, re.DOTALL)
            if is_temporary(name) or (match and stems.get(int(match[1])) == match[2]):
                yield destination / folder / name


def _names_in(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _refuse_mixing(sources: set[Path], destination: Path) -> None:
    for folder in FOLDERS:
        for inner in ("", MASK_FOLDER):
            place = destination / folder / inner
            if mixed := next((source for source in sources if _same(source, place)), None):
                raise UsageError(
                    f"Crops would go to {place}, where the pictures of {mixed} lie; choose another destination, since "
                    "sources are kept."
                )


def _same(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def _made_by_us(folder: Path, root: Path) -> Path | None:
    """The folder, or one above it within `root`, that a preprocessing made."""
    inside = [folder, *folder.parents]
    within = inside[: inside.index(root)] if root in inside else []
    return next((place for place in within if os.path.isfile(place / REPORT)), None)
