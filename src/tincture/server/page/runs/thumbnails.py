"""Small pictures within the list of runs, as data, so that a list of many costs no request each."""

from __future__ import annotations

import threading
from collections import OrderedDict

from tincture.reports.document import picture_data

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
        if not path or not (made := picture_data(path, 2 * SIDE)):
            return ""  # asked again: it may be there then
        with self._lock:
            self._made[path] = made
            if len(self._made) > MOST:
                self._made.popitem(last=False)
        return made
