"""Where the caption of a picture may stand: names of files, without a look at the disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

CAPTION_ENDINGS = (".txt", ".caption")


def caption_files(picture: Path) -> Iterator[Path]:
    """Where the caption of a picture may stand, what comes first counts: of 1.png in 1.txt, 1.caption, 1.png.txt, ...

    Some programs write the endings in capitals.
    """
    for stem in dict.fromkeys((picture.stem, picture.name)):
        for ending in (*CAPTION_ENDINGS, *(ending.upper() for ending in CAPTION_ENDINGS)):
            yield picture.with_name(stem + ending)
