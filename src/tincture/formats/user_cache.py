"""The folder of the user where things are remembered between runs, all of which can be found out anew."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache(name: str) -> Path:
    """Our part ``name`` of it: in XDG_CACHE_HOME, or ``.cache`` of the user's home. It need not exist."""
    chosen = os.environ.get("XDG_CACHE_HOME", "")
    try:
        base = Path(chosen) if os.path.isabs(chosen) else Path.home() / ".cache"
    except RuntimeError:  # a user without a home
        base = Path(".cache")
    return base / "tincture" / name
