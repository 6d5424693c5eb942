"""Where the caption of a picture may stand: names of files, and which of a folder's files belong to which picture.

Programs write 1.txt or 1.caption (kohya's scripts, OneTrainer, the webui) or 1.png.txt; people and systems add to that
endings in other cases, two endings where one was hidden, the ending of the picture before it was converted.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

CAPTION_ENDINGS = (".txt", ".caption")
_CAPTION_ENDING = re.compile(r"\s*\.(txt|caption)\s*$")
_PICTURE_ENDING = re.compile(
    r"\s*\.(png|jpe?g|jpe|jfif|webp|avif|bmp|gif|tiff?|heic|heif|ppm|pgm|jp2|ico|icns|pcx|psd|qoi|sgi|dds|tga)$"
)


def caption_files(picture: Path) -> Iterator[Path]:
    """Where the caption of a picture usually stands, what comes first counts: of 1.png in 1.txt, 1.caption, 1.png.txt…

    Some programs write the endings in capitals.
    """
    for stem in dict.fromkeys((picture.stem, picture.name)):
        for ending in (*CAPTION_ENDINGS, *(ending.upper() for ending in CAPTION_ENDINGS)):
            yield picture.with_name(stem + ending)


def find_caption_file(picture: Path) -> Path | None:
    """The file with the caption of a picture, by a look at its folder where it is not called as usual."""
    usual = next((path for path in caption_files(picture) if os.path.isfile(path)), None)
    if usual is not None:
        return usual
    try:
        with os.scandir(picture.parent) as found:
            entries = sorted(picture.parent / entry.name for entry in found)
    except OSError:
        return None
    pictures = [path for path in entries if _is_called_a_picture(path) or path.name == picture.name]
    return next(iter(assign_captions(pictures, entries).get(picture, ())), None)


def assign_captions(pictures: Sequence[Path], entries: Iterable[Path]) -> dict[Path, list[Path]]:
    """For each picture of a folder the files with its caption, of which the first counts; left out are those without.

    First come the usual names, in the order of ``caption_files``. Then those that differ in case, blanks at the end,
    and in endings that stand twice or are another picture format's, where only one picture can be meant: 1.Txt,
    1.txt.txt, IMG_1.txt beside img_1.jpg, 1.png.txt beside 1.webp.

    Args:
        entries: what is in the folder.
    """
    written = {path.name: path for path in sorted(entries) if is_caption_file(path)}
    if not written:
        return {}
    found: dict[Path, list[Path]] = {}
    left = dict(written)
    for picture in pictures:
        for place in caption_files(picture):
            if place.name in written:
                found.setdefault(picture, []).append(written[place.name])
                left.pop(place.name, None)
    names, stems = _by_key(pictures, whole=True), _by_key(pictures, whole=False)
    for path in left.values():
        key = _key(path.name)
        meant = names.get(key) or stems.get(_without_picture_ending(key), [])
        if len(meant) == 1:
            found.setdefault(meant[0], []).append(path)
    return found


def is_caption_file(path: Path) -> bool:
    """Whether a file is called as those with captions are."""
    return is_called_caption(path) and path.is_file()


def is_called_caption(path: Path) -> bool:
    """Whether something is called so, be it a file or not."""
    return not path.name.startswith(".") and _CAPTION_ENDING.search(path.name.lower()) is not None


def place_for_caption(picture: Path) -> Path:
    """Where to write the caption of a picture that has none, so that it becomes that of no other picture.

    1.txt for 1.png, but 1.png.txt where 1.jpg is there too, or something that is called 1.txt and is no file.
    """
    with os.scandir(picture.parent) as found:
        others = [Path(entry.name) for entry in found if entry.name != picture.name]
    pictures = [other for other in others if _is_called_a_picture(other) or not other.suffix]
    shared = any(_folded(other.stem) == _folded(picture.stem) for other in pictures)
    usual = picture.with_name(f"{picture.stem}{CAPTION_ENDINGS[0]}")
    taken = os.path.lexists(usual) and not usual.is_file()
    return picture.with_name(f"{picture.name}{CAPTION_ENDINGS[0]}") if shared or taken else usual


def _by_key(pictures: Sequence[Path], *, whole: bool) -> dict[str, list[Path]]:
    keys: dict[str, list[Path]] = {}
    for picture in pictures:
        key = _folded(picture.name if whole else picture.stem)
        keys.setdefault(key, []).append(picture)
    return keys


def _key(name: str) -> str:
    """A caption file's name without all its endings of such."""
    key, shorter = "", _folded(name)
    while key != shorter:
        key, shorter = shorter, _CAPTION_ENDING.sub("", shorter)
    return key


def _without_picture_ending(key: str) -> str:
    return _PICTURE_ENDING.sub("", key)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold().strip()


def _is_called_a_picture(path: Path) -> bool:
    return _PICTURE_ENDING.search(path.name.lower()) is not None
