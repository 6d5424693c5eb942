"""Where the mask of a picture stands. No picture is opened here, so neither numpy nor Pillow is loaded."""

from __future__ import annotations

import os
from pathlib import Path

from tincture.errors import DataError

MASK_FOLDER = "mask"
"""The folder beside the pictures that holds their masks. It is never searched for pictures."""


class MaskFinder:
    """Finds the mask picture of a picture: the file of the same name but for the ending, in the folder of masks.

    Args:
        folder: where masks lie, with folders inside it like those of the pictures. Those of several data folders may
            lie in a folder of each data folder's name. Empty: they lie in a folder "mask" beside each picture.

    Raises:
        DataError: the folder does not exist.
    """

    def __init__(self, folder: str | Path = "") -> None:
        if folder and not os.path.isdir(folder):
            raise DataError(f"The mask folder {folder} does not exist, or is no folder. Check the path.")
        self._folder = folder
        self._listed: dict[Path, dict[str, Path]] = {}
        self._unused: set[Path] = set()

    def find(self, picture: Path, root: Path) -> Path | None:
        """The mask of a picture that was found in `root`, or in a folder inside it; None where there is none."""
        folder = self._place(picture.parent, root)
        if folder not in self._listed:
            self._listed[folder] = _files_by_stem(folder)
            self._unused |= set(self._listed[folder].values())
        mask = self._listed[folder].get(picture.stem)
        self._unused -= {mask} if mask else set()
        return mask

    def _place(self, beside: Path, root: Path) -> Path:
        if not self._folder:
            return beside / MASK_FOLDER
        named = Path(self._folder, root.resolve().name)
        return (named if named.is_dir() else Path(self._folder)) / beside.relative_to(root)

    def unused(self) -> list[Path]:
        """Files in the folders that were looked into, which are no picture's mask."""
        return sorted(self._unused)


def _files_by_stem(folder: Path) -> dict[str, Path]:
    try:
        entries = sorted(folder.iterdir(), reverse=True)  # of two with one stem, the first by name stays
    except OSError:
        return {}
    return {path.stem: path for path in entries if not path.name.startswith(".") and not path.is_dir()}
