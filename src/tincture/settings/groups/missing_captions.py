"""What becomes of pictures without a caption."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tincture.settings.fields import CheckedSettings, setting

GROUP = "Missing captions"


@dataclass(frozen=True, kw_only=True)
class MissingCaptionSettings(CheckedSettings):
    """Captions by a model, written before the run."""

    caption_missing: Literal["none", "blip", "wd", "deepdanbooru"] = setting(
        "none", GROUP, "What describes pictures without a caption before the run; none: their names count."
    )
    caption_model: str = setting(
        "",
        GROUP,
        "The model for --caption-missing: a folder or file, or a name on the hub; empty: the one found by itself.",
        path=True,
    )
    write_captions: bool = setting(
        False, GROUP, "Write what --caption-missing says beside the pictures too, never over a file."
    )

    @classmethod
    def faults_between(cls, values: Mapping[str, Any], faulty: Collection[str]) -> list[str]:
        if values.get("caption_missing", "none") != "none" or "caption_missing" in faulty:
            return []
        faults = []
        if values.get("caption_model"):
            faults.append(
                f"caption_model is {values['caption_model']!r}, but caption_missing is none, so that no model is "
                "asked; give both or neither"
            )
        if values.get("write_captions"):
            faults.append(
                "write_captions is on, but caption_missing is none, so that there is nothing to write; give both or "
                "neither"
            )
        return faults
