"""How many seconds things took on this machine, remembered between runs.

One small JSON file for each thing lies in ``tincture/timings`` of the user's cache folder: its name is the hash of all
on which the time depends, which it holds too, for people. What is not such a file is as good as none.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tincture.errors import TinctureError
from tincture.formats.files import write_text
from tincture.formats.user_cache import user_cache

Facts = Mapping[str, Any]
"""On what a time depends, as JSON has it."""


def timings_folder() -> Path:
    """Where they are remembered."""
    return user_cache("timings")


def remembered_seconds(what: Facts) -> float | None:
    """How long it took when it was last measured; None when it was not, or that cannot be read."""
    try:
        content = json.loads(_path(what).read_text(encoding="utf-8"))
        seconds = content["seconds"]
        same = content["what"] == json.loads(_text(what))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return float(seconds) if same and _is_sound(seconds) else None


def remember_seconds(what: Facts, seconds: float) -> None:
    """Remembers it from now on; where that cannot be written, nothing is remembered."""
    if not _is_sound(seconds):
        return
    try:
        write_text(_path(what), json.dumps({"seconds": seconds, "what": what}, sort_keys=True) + "\n")
    except (TinctureError, OSError):
        return


def _is_sound(seconds: object) -> bool:
    return isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 < seconds < math.inf


def _path(what: Facts) -> Path:
    return timings_folder() / f"{hashlib.sha256(_text(what).encode()).hexdigest()}.json"


def _text(what: Facts) -> str:
    return json.dumps(what, sort_keys=True)
