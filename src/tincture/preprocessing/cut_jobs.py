"""What is to be done with one source picture, and what became of it: the values that processes hand to each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tincture.preprocessing.faces import Detector
from tincture.preprocessing.focal import FocalWeights
from tincture.preprocessing.geometry import Crop, MulticropRules, Size


@dataclass(frozen=True)
class SplitRules:
    """Which pictures are cut into tiles, and by what part of a tile neighbours overlap at least; both 0..1."""

    threshold: float = 0.5
    overlap: float = 0.2


@dataclass(frozen=True)
class CutRules:
    """How every picture is cut; what is None is not done."""

    size: Size
    split: SplitRules | None = None
    focal: FocalWeights | None = None
    detector: Detector = "none"
    yunet_model: str = ""
    multicrop: MulticropRules | None = None
    keep_original: bool = False
    flip: bool = False
    keep_alpha: bool = False


@dataclass(frozen=True)
class CutJob:
    """One source picture.

    Attributes:
        path: the source.
        folder: where its crops go.
        prefix: what their names begin with, the number of the source.
        stem: what their names end with.
        rules: how it is cut.
        mask: its mask picture.
        debug: file for the picture that shows what drew the eye.
        existing: the caption beside the source, None for none.
        write_captions: write it beside each crop too.
        known: fingerprint of the source when its crops were made; equal, and nothing is done.
    """

    path: Path
    folder: Path
    prefix: str
    stem: str
    rules: CutRules
    mask: Path | None = None
    debug: Path | None = None
    existing: str | None = None
    write_captions: bool = False
    known: str = ""


@dataclass(frozen=True)
class CutFile:
    """One crop that was written. `box` is in pixels of the upright source."""

    path: Path
    size: Size
    crop: Crop
    mirrored: bool


@dataclass(frozen=True)
class Cut:
    """What became of a source: `size` is its own, upright; `notes` are words that follow its name.

    The fingerprint is the sha256 of all that its crops depend on beside the rules: picture, mask, caption.
    """

    fingerprint: str
    size: Size
    thumbnail: str
    files: tuple[CutFile, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unchanged:
    """The source is what it was when its crops were made."""


@dataclass(frozen=True)
class Skipped:
    """Why there are no crops, as words that follow the source's name."""

    reason: str


@dataclass(frozen=True)
class Probed:
    """What is known of a picture without cutting it; `digest` is the sha256 of its file."""

    digest: str
    thumbnail: str
