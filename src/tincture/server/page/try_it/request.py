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
class DrawingInputs:
    """The inputs as they stand; None and 0 leave the choice to the model.

    Attributes:
        mode: one of ``MODES``.
        seed: of the first picture, the others count up; -1: all by chance.
        instead: what stands for embeddings in the pictures without them.
        strengths: of a grid's columns, as typed.
        copies: adapter files of a grid's rows.
        further: fields of ``DrawingRequest`` as they are.
        named: adapters that the prompt names.
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
    instead: str = ""
    strengths: str = ""
    copies: Sequence[str] = ()
    further: Mapping[str, Any] = field(default_factory=dict)
    named: Sequence[Named] = ()


def request(inputs: DrawingInputs) -> dict[str, Any]:
    """The request; UsageError says what is missing."""
    if not (inputs.prompt or "").strip():
        raise UsageError("The prompt is empty; say what the picture is to show.")
    drawing: dict[str, Any] = {
        **inputs.further,
        "negative_prompt": inputs.negative_prompt,
        "model": inputs.model,
        "sampler": inputs.sampler,
        "steps": int(inputs.steps),
        "guidance_scale": inputs.guidance_scale,
        "width": int(inputs.width or 0) or None,
        "height": int(inputs.height or 0) or None,
    }
    asked = {name: value for name, value in drawing.items() if value is not None}
    make = {PICTURES: _pictures, COMPARED: _compared, GRID: _grid}[inputs.mode]
    return {**asked, **make(inputs)}


def _pictures(inputs: DrawingInputs) -> dict[str, Any]:
    return {"prompts": [inputs.prompt], "seeds": _seeds(inputs)}


def _compared(inputs: DrawingInputs) -> dict[str, Any]:
    if not inputs.named:
        raise UsageError("The prompt names no adapter to compare with; choose one above.")
    return {
        "prompts": [prompt_edit.without(inputs.prompt, inputs.named, inputs.instead), inputs.prompt],
        "seeds": _seeds(inputs),
    }


def _grid(inputs: DrawingInputs) -> dict[str, Any]:
    try:
        strengths = prompt_edit.numbers(inputs.strengths)
    except ValueError:
        raise UsageError(
            f"The strengths are {inputs.strengths!r}, but must be numbers between commas, such as 0, 0.5, 1."
        ) from None
    if not strengths and not inputs.copies:
        raise UsageError("A grid needs strengths for its columns or copies for its rows; give at least one of them.")
    sheet = {"strengths": strengths or [1.0], "checkpoints": list(inputs.copies)}
    return {"prompts": [inputs.prompt], "seeds": _seeds(inputs)[:1], **sheet}


def _seeds(inputs: DrawingInputs) -> list[int]:
    first = -1 if inputs.seed is None else int(inputs.seed)
    return [-1 if first < 0 else first + number for number in range(int(inputs.count))]
