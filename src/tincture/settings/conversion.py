"""Which conversion of an adapter file, or which look into a file, is asked for: one description for every front."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from tincture.errors import UsageError
from tincture.settings.checks import at_least
from tincture.settings.fields import FieldSpec, setting, specs_of
from tincture.settings.request import CheckedRequest

SUFFIXES: Mapping[str, str] = MappingProxyType(
    {".pt": "pt", ".bin": "bin", ".safetensors": "safetensors", ".png": "png", ".webp": "webp"}
)
"""Formats that the suffix of a file tells."""
FILES, FILE, LORA = "Files", "The new file", "A LoRA of a hypernetwork"


@dataclass(frozen=True, kw_only=True)
class InspectionRequest(CheckedRequest):
    """A file to be looked into."""

    UNKNOWN: ClassVar[str] = "An inspection has no option {name}; it has {known}"

    path: str = setting(
        dataclasses.MISSING, FILES, "Embeddings, hypernetworks, LoRA, .optim files, pictures, models.", path=True
    )


@dataclass(frozen=True, kw_only=True)
class ConversionRequest(CheckedRequest):
    """An adapter file to be written in another format; see ``adapters.files.conversion.plan_conversion``.

    Raises:
        UsageError: naming every value that is not allowed, all in one message.
    """

    UNKNOWN: ClassVar[str] = "A conversion has no option {name}; it has {known}"

    path: str = setting(dataclasses.MISSING, FILES, "Embedding or hypernetwork of any format.", path=True)
    out: str = setting(dataclasses.MISSING, FILES, "File to write.", path=True)
    overwrite: bool = setting(False, FILES, "Replace OUT if it is there.")
    to: Literal["pt", "bin", "safetensors", "kohya", "sdxl", "onetrainer", "png", "webp", "lora"] | None = setting(
        None, FILE, "Format of OUT; else its suffix tells."
    )
    name: str = setting("", FILE, "New name of the adapter; else it keeps its own.")
    author: str = setting("", FILE, "Who made it, to be told by the file.")
    license: str = setting("", FILE, "Its licence, such as CC-BY-4.0, to be told by the file.")
    picture: str = setting("", FILE, "Picture that a PNG or WebP card is drawn on; else a pattern.", path=True)
    model: str = setting("", LORA, "For a LoRA: the base model it is to act with; else the one trained on.", path=True)
    rank: int | None = setting(None, LORA, "For a LoRA: its rank; else 64.", at_least(1), largest=4096)
    captions: str = setting(
        "", LORA, "For a LoRA: text file of captions like those trained on, one in each line.", path=True
    )
    strength: float = setting(1.0, LORA, "For a LoRA: strength of the hypernetwork in it.")
    output_bias: bool = setting(False, LORA, "For a LoRA: keep constants exactly, which diffusers cannot read.")

    def lora_options(self) -> dict[str, Any] | None:
        """Fields of ``conversion.LoraOptions`` but captions; None where nothing is asked of a LoRA."""
        given = [getattr(self, name) != spec.default for name, spec in CONVERSION_FIELDS.items() if spec.group == LORA]
        if not any(given):
            return None
        return {
            "model": self.model,
            "rank": self.rank,
            "multiplier": self.strength,
            "output_bias": self.output_bias,
        }


INSPECTION_FIELDS: Mapping[str, FieldSpec] = specs_of(InspectionRequest)
CONVERSION_FIELDS: Mapping[str, FieldSpec] = specs_of(ConversionRequest)


def format_of(target: Path, to: str | None, allowed: Sequence[str]) -> str:
    """The format of a new file: ``to``, or what its suffix tells; UsageError names ``allowed`` where it tells none."""
    found = to or SUFFIXES.get(target.suffix.lower())
    if found is None:
        raise UsageError(
            f"The suffix of {target} tells no format; use {', '.join(SUFFIXES)}, or give the format: "
            f"{', '.join(allowed)}."
        )
    return found
