"""Small pictures within the list of runs, as data, so that a list of many costs no request each."""

from __future__ import annotations

import base64
import io
import threading
from collections import OrderedDict
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from tincture.formats.pictures import open_picture

SIDE = 56
MOST = 500
"""Thumbnails that stay in memory, some 2 kB each."""


class Thumbnails:
    """Makes each one once, as long as it stays in memory. May be asked from any thread."""

    def __init__(self) -> None:
        self._made: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, path: str) -> str:
        """The picture in ``path`` as a ``data:`` address; empty where there is none that can be read."""
        with self._lock:
            if path in self._made:
                self._made.move_to_end(path)
                return self._made[path]
        if not path or not (made := _data(Path(path))):
            return ""  # asked again: it may be there then
        with self._lock:
            self._made[path] = made
            if len(self._made) > MOST:
                self._made.popitem(last=False)
        return made


def _data(path: Path) -> str:
    try:
        with open_picture(path) as picture:
            small = picture.convert("RGB")
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError):  # as Pillow tells of damage
        return ""
    small.thumbnail((2 * SIDE, 2 * SIDE), Image.Resampling.BILINEAR)
    written = io.BytesIO()
    small.save(written, "JPEG", quality=75)
    return "data:image/jpeg;base64," + base64.b64encode(written.getvalue()).decode()
