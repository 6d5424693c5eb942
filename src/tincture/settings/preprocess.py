"""The settings of preprocessing: every default, help text and check in one place.

A field is at once a command-line flag, a key of a TOML file and a keyword of `tincture.preprocess`. Only the standard
library is imported, so that the command line can build its flags at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tincture.randomness import LARGEST_REQUESTED_SEED
from tincture.settings.checks import Bounds, at_least, device_name, filled, overlap, part, share, side, text_encoding
from tincture.settings.fields import CheckedSettings, FieldSpec, setting, specs_of

SOURCES, SIZE, FOCAL, MULTICROP, COPIES, CAPTIONS, CHOICE, MACHINE = (
    "Sources",
    "Size and tiles",
    "Focal crop",
    "Multicrop",
    "Copies",
    "Captions",
    "Validation and near-duplicates",
    "Machine",
)
MADE_ELSEWHERE = ("destination", "workers", "device", "caption_batch_size")
"""Settings that change nothing in what is made."""


_BITS = Bounds("at least 0 and at most 72", 0, 72)
MOST_PIXELS = 8192
"""Of a side, in a request."""


@dataclass(frozen=True, kw_only=True)
class PreprocessSettings(CheckedSettings):
    """All settings of one preprocessing; immutable, checked when made.

    Raises:
        UsageError: naming every value that is not allowed, all in one message.
    """

    source: str = setting(dataclasses.MISSING, SOURCES, "Folder of pictures.", filled, path=True)
    destination: str = setting(dataclasses.MISSING, SOURCES, "Folder for the crops.", filled, path=True)
    recursive: bool = setting(False, SOURCES, "Take the pictures in inner folders too.")

    width: int = setting(512, SIZE, "Width of the crops in pixels.", side, largest=MOST_PIXELS)
    height: int = setting(512, SIZE, "Height of the crops in pixels.", side, largest=MOST_PIXELS)
    keep_original_size: bool = setting(False, SIZE, "Keep each picture whole and in its own size.")
    split: bool = setting(False, SIZE, "Cut pictures that are very long or tall into overlapping tiles.")
    split_threshold: float = setting(
        0.5, SIZE, "Split where at most this part of the long side would stay in a crop.", part
    )
    overlap_ratio: float = setting(0.2, SIZE, "Part of a tile that the next one shares, at least.", overlap)

    focal_crop: bool = setting(False, FOCAL, "Cut around what draws the eye instead of the middle.")
    focal_face_weight: float = setting(0.9, FOCAL, "How much faces count; 0: not.", at_least(0))
    focal_entropy_weight: float = setting(0.15, FOCAL, "How much the busiest part counts; 0: not.", at_least(0))
    focal_corner_weight: float = setting(0.5, FOCAL, "How much corners count; 0: not.", at_least(0))
    focal_debug: bool = setting(False, FOCAL, "Draw what was found into pictures in DST/debug.")
    face_detector: Literal["auto", "yunet", "haar", "none"] = setting(
        "auto", FOCAL, "What finds faces; auto: YuNet if its file is given, else OpenCV's Haar cascades, else none."
    )
    yunet_model: str = setting("", FOCAL, "ONNX file of YuNet, such as face_detection_yunet_2023mar.onnx.", path=True)

    multicrop: bool = setting(False, MULTICROP, "Choose for each picture the size that cuts off little.")
    multicrop_min_dim: int = setting(
        384, MULTICROP, "Smallest width or height; others follow in steps of 64.", side, largest=MOST_PIXELS
    )
    multicrop_max_dim: int = setting(768, MULTICROP, "Largest width or height.", side, largest=MOST_PIXELS)
    multicrop_min_area: int = setting(4096, MULTICROP, "Smallest width times height.", at_least(1))
    multicrop_max_area: int = setting(409600, MULTICROP, "Largest width times height.", at_least(1))
    multicrop_objective: Literal["area", "error"] = setting(
        "area", MULTICROP, "What goes first: the largest area, or the least error of proportions."
    )
    multicrop_threshold: float = setting(0.1, MULTICROP, "Part of a picture that may be cut off.", part)

    flip: bool = setting(False, COPIES, "Add a mirrored copy of each crop.")
    keep_alpha: bool = setting(False, COPIES, "Keep the alpha channel, for training with --use-weight.")

    existing_captions: Literal["copy", "ignore", "prepend", "append"] = setting(
        "copy",
        CAPTIONS,
        "What becomes of captions beside the pictures: copied as they are, ignored, or put before or behind what "
        "--captioner and --tagger say.",
    )
    caption_encoding: str = setting(
        "utf-8", CAPTIONS, "Encoding of caption files that don't begin with a byte order mark.", text_encoding
    )
    captioner: str = setting(
        "", CAPTIONS, "BLIP model that describes crops: a folder, or a name on the hub.", path=True
    )
    captioner_prompt: str = setting("", CAPTIONS, "Words that the captioner goes on from, such as 'a picture of'.")
    captioner_beams: int = setting(
        3, CAPTIONS, "How many beginnings of a caption are followed up.", at_least(1), largest=32
    )
    captioner_min_tokens: int = setting(0, CAPTIONS, "Shortest caption in tokens.", at_least(0), largest=500)
    captioner_max_tokens: int = setting(
        40, CAPTIONS, "Longest caption in tokens; a word is one to three.", at_least(1), largest=500
    )
    captioner_precision: Literal["fp32", "bf16", "fp16"] = setting("fp32", CAPTIONS, "Precision of the captioner.")
    tagger: str = setting(
        "", CAPTIONS, "Booru tagger that tags crops: a folder or file, or a name on the hub.", path=True
    )
    tag_threshold: float | None = setting(
        None, CAPTIONS, "How probable a tag must be; not given: 0.35, for DeepDanbooru 0.5.", part
    )
    tag_character_threshold: float | None = setting(
        None, CAPTIONS, "The same for names of characters; not given: 0.85.", part
    )
    tag_order: Literal["score", "alphabet"] = setting("score", CAPTIONS, "Which tags come first.")
    tag_underscores: bool = setting(False, CAPTIONS, "Keep underscores in tags instead of blanks.")
    tag_escapes: bool = setting(True, CAPTIONS, "Write \\( for brackets in tags, which prompts take for weights.")
    excluded_tags: tuple[str, ...] = setting((), CAPTIONS, "Tag that is never written; repeat for several.")

    validation_share: float = setting(
        0.0,
        CHOICE,
        "Part of the pictures that goes to DST/validation, the rest to DST/train; 0: no such folders.",
        share,
    )
    seed: int = setting(
        0,
        CHOICE,
        "Which pictures are for validation depends on this number.",
        at_least(0),
        largest=LARGEST_REQUESTED_SEED,
    )
    near_duplicates: bool = setting(True, CHOICE, "Report pictures that show the same, and keep them on one side.")
    near_duplicate_bits: int = setting(
        12, CHOICE, "How many of 144 bits of their hashes may differ in near-duplicates.", _BITS
    )

    workers: int = setting(0, MACHINE, "Processes that cut pictures; 0: one for each core.", at_least(0), largest=64)
    device: str = setting("auto", MACHINE, "Where captioner and tagger run: auto, cpu, cuda, mps, xpu.", device_name)
    caption_batch_size: int = setting(8, MACHINE, "Crops described at a time.", at_least(1), largest=256)

    @classmethod
    def faults_between(cls, values: Mapping[str, Any], faulty: Collection[str]) -> list[str]:
        sound = {name: spec.default for name, spec in PREPROCESS_FIELDS.items()}
        sound |= {name: value for name, value in values.items() if name not in faulty}
        faults = []
        for least, most in (
            ("multicrop_min_dim", "multicrop_max_dim"),
            ("multicrop_min_area", "multicrop_max_area"),
            ("captioner_min_tokens", "captioner_max_tokens"),
        ):
            if sound[least] > sound[most]:
                faults.append(f"{least} is {sound[least]}, but must be at most {most}, {sound[most]}")
        weights = [sound[f"focal_{kind}_weight"] for kind in ("face", "entropy", "corner")]
        if sound["focal_crop"] and not any(weights):
            faults.append(
                "the three focal weights are 0, so that nothing would count; give one of them, or no focal_crop"
            )
        return faults

    def making(self) -> dict[str, Any]:
        """The settings that decide what is made, as plain values."""
        return {name: value for name, value in self.to_dict().items() if name not in MADE_ELSEWHERE}


PREPROCESS_FIELDS: Mapping[str, FieldSpec] = specs_of(PreprocessSettings)
