"""Tiny sets of drawings, so that no test needs npm, the network or the packages."""

from __future__ import annotations

import json
from typing import Any

COLOURS = ("#d02020", "#20a040", "#2040c0", "#e0b000")


def icons(style: str, subjects: int = 12) -> dict[str, Any]:
    """An Iconify set of shapes: in ``noto`` circles, elsewhere squares; the colour and its dot say which subject."""
    bodies = {}
    for index in range(subjects):
        colour = COLOURS[index % len(COLOURS)]
        shape = (
            f'<circle cx="16" cy="16" r="14" fill="{colour}"/>'
            if style == "noto"
            else f'<path fill="{colour}" d="M2 2h28v28h-28z"/>'
        )
        dot = f'<circle cx="{6 + 5 * (index // 4 % 4)}" cy="16" r="4" fill="#101010"/>'
        bodies[f"thing-{chr(97 + index)}"] = {"body": shape + dot}
    bodies["thing-a-medium-dark"] = {"body": "<g/>"}
    return {"icons": bodies, "width": 32, "height": 32}


def text(style: str) -> str:
    return json.dumps(icons(style))
