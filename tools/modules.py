"""Prints the first line of each module of a package: the index of the house.

    python tools/modules.py [ROOM]

ROOM is a folder of src/tincture, such as ``run`` or ``server/queue``; without one, all of them.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src" / "tincture"


def index(room: Path) -> Iterator[str]:
    """``path  first line`` of each module in ``room``, relative to the package."""
    modules = sorted(room.rglob("*.py"))
    width = max((len(str(path.relative_to(PACKAGE))) for path in modules), default=0)
    for path in modules:
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        first = text.partition("\n")[0]
        yield f"{path.relative_to(PACKAGE)!s:<{width}}  {first}"


if __name__ == "__main__":
    chosen = PACKAGE / (sys.argv[1] if len(sys.argv) > 1 else "")
    if not chosen.is_dir():
        sys.exit(f"There is no room {sys.argv[1]!r}; rooms are the folders of {PACKAGE}.")
    print("\n".join(index(chosen)))
