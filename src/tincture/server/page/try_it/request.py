"""What the inputs of Try it ask of ``Service.draw``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tincture.errors import UsageError
from tincture.server.page.try_it import prompt_edit
from tincture.server.page.try_it.prompt_edit import Named

PICTURES, COMPARED, GRID = "Pictures", "Before and after", "Grid"
MODES = (PICTURES, COMPARED, GRID)


@dataclass(frozen=True)
class Wish:
    """The inputs as they stand; None and 0 leave the choice to the model.

    Attributes:
        mode: one of ``MODES``.
        named: adapters that the prompt names.
        seed: of the first picture, the others count up; -1: all by chance.
        instead: what stands for embeddings in the pictures without them.
        strengths: of a grid's columns, as typed.
        copies: adapter files of a grid's rows.
        further: fields of ``DrawingRequest`` as they are.
    """

    mode: str
    prompt: str
    negative_prompt: str
    model: str
    sampler: str
    steps: int
    guidance_scale: float | None
    width: float | None
    height: float | None
    seed: float | None
    count: int
    named: Sequence[Named] = ()
    instead: str = ""
    strengths: str = ""
    copies: Sequence[str] = ()
    further: Mapping[str, Any] = field(default_factory=dict)


def request(wish: Wish) -> dict[str, Any]:
    """The request; UsageError says what is missing."""
    if not (wish.prompt or "").strip():
        raise UsageError("The prompt is empty; say what the picture is to show.")
    drawing: dict[str, Any] = {
        **wish.further,
        "negative_prompt": wish.negative_prompt,
        "model": wish.model,
        "sampler": wish.sampler,
        "steps": int(wish.steps),
        "guidance_scale": wish.guidance_scale,
        "width": int(wish.width or 0) or None,
        "height": int(wish.height or 0) or None,
    }
    asked = {name: value for name, value in drawing.items() if value is not None}
    make = {PICTURES: _pictures, COMPARED: _compared, GRID: _grid}[wish.mode]
    return {**asked, **make(wish)}


def _pictures(wish: Wish) -> dict[str, Any]:
    return {"prompts": [wish.prompt], "seeds": _seeds(wish)}


def _compared(wish: Wish) -> dict[str, Any]:
    if not wish.named:
        raise UsageError("The prompt names no adapter to compare with; choose one above.")
    return {"prompts": [prompt_edit.without(wish.prompt, wish.named, wish.instead), wish.prompt], "seeds": _seeds(wish)}


def _grid(wish: Wish) -> dict[str, Any]:
    try:
        strengths = prompt_edit.numbers(wish.strengths)
    except ValueError:
        raise UsageError(
            f"The strengths are {wish.strengths!r}, but must be numbers between commas, such as 0, 0.5, 1."
        ) from None
    if not strengths and not wish.copies:
        raise UsageError("A grid needs strengths for its columns or copies for its rows; give at least one of them.")
    sheet = {"strengths": strengths or [1.0], "checkpoints": list(wish.copies)}
    return {"prompts": [wish.prompt], "seeds": _seeds(wish)[:1], **sheet}


def _seeds(wish: Wish) -> list[int]:
    first = -1 if wish.seed is None else int(wish.seed)
    return [-1 if first < 0 else first + number for number in range(int(wish.count))]
