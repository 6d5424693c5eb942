"""What became of each source: `preprocess-report.json` in the destination, for people, and for going on later."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from tincture.data.preprocessed import DEBUG, REPORT
from tincture.errors import UsageError
from tincture.formats.files import write_text
from tincture.formats.software import VERSION
from tincture.preprocessing.crop_files import caption_path, remove_crop
from tincture.preprocessing.duplicates import Pair
from tincture.preprocessing.geometry import Box, Method, Size

FORMAT = 1
Side = Literal["", "train", "validation"]


@dataclass(frozen=True)
class CropRecord:
    """A crop that was made; `path` is relative to the destination, `box` in pixels of the upright source."""

    path: str
    size: Size
    method: Method
    box: Box
    mirrored: bool
    caption: str | None = None


@dataclass
class SourceRecord:
    """A source picture.

    Attributes:
        source: its path relative to the source folder.
        index: the number that its crops' names begin with; it stays when pictures are added.
        side: "train", "validation", or "" without validation.
        skipped: why it has no crops; "" when it has, or its turn has not come.
        notes: what is odd about it.
        fingerprint: sha256 of the source, its mask and its caption, as they were when its crops were made.
        size: (width, height) in pixels, upright.
        thumbnail: as `duplicates.thumbnail` makes it.
    """

    source: str
    index: int
    side: Side = ""
    skipped: str = ""
    notes: tuple[str, ...] = ()
    fingerprint: str = ""
    size: Size = (0, 0)
    thumbnail: str = ""
    crops: tuple[CropRecord, ...] = ()

    def is_complete(self, destination: Path) -> bool:
        """Whether every file is there. Emptied by a power cut is not; what a person changed stays as it is."""
        return bool(self.crops) and all(_is_whole(destination, crop) for crop in self.crops)

    def forget(self, destination: Path) -> None:
        """Remove its crops, and the picture of what drew the eye in it."""
        for crop in self.crops:
            remove_crop(destination / crop.path)
        for path in (destination / DEBUG).glob(f"{self.index:05}-*.jpg"):
            path.unlink(missing_ok=True)
        self.crops, self.notes, self.fingerprint = (), (), ""


@dataclass
class Report:
    """All that is known of a preprocessing. `settings` are those that decide what is made."""

    settings: dict[str, Any]
    records: dict[str, SourceRecord] = field(default_factory=dict)
    face_detector: str = ""
    remarks: list[str] = field(default_factory=list)
    near_duplicates: list[Pair] = field(default_factory=list)
    complete: bool = False
    seconds: float = 0.0

    def counts(self) -> dict[str, int]:
        """Numbers of sources and of what was made of them."""
        records = self.records.values()
        crops = [crop for record in records for crop in record.crops]
        return {
            "sources": len(records),
            "used": sum(bool(record.crops) for record in records),
            "skipped": sum(bool(record.skipped) for record in records),
            "pictures": len(crops),
            "captions": sum(crop.caption is not None for crop in crops),
            "training": sum(bool(record.crops) and record.side == "train" for record in records),
            "validation": sum(bool(record.crops) and record.side == "validation" for record in records),
            "near_duplicates": len(self.near_duplicates),
        }

    def skipped(self) -> Iterator[tuple[str, str]]:
        """Sources without crops, with the reason."""
        return ((record.source, record.skipped) for record in self.records.values() if record.skipped)

    def write(self, destination: Path) -> None:
        """Put it into the destination; StorageError when the system refuses."""
        plain = {
            "format": FORMAT,
            "software": f"tincture {VERSION}",
            "complete": self.complete,
            "seconds": round(self.seconds, 1),
            "counts": self.counts(),
            "face_detector": self.face_detector,
            "remarks": self.remarks,
            "skipped": [{"source": source, "reason": reason} for source, reason in self.skipped()],
            "near_duplicates": [asdict(pair) for pair in self.near_duplicates],
            "settings": self.settings,
            "sources": [asdict(record) for record in sorted(self.records.values(), key=lambda record: record.index)],
        }
        write_text(destination / REPORT, json.dumps(plain, indent=1, ensure_ascii=False) + "\n")


def read_report(destination: Path) -> Report | None:
    """The report of an earlier run; None when there is none.

    Raises:
        UsageError: it cannot be read, or a newer version wrote it.
    """
    path = destination / REPORT
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UsageError(f"The report {path} cannot be read: {error}. Remove it, or choose another folder.") from None
    try:
        plain = json.loads(text)
        report = _report(plain) if plain["format"] == FORMAT else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UsageError(f"The report {path} is damaged; remove it, or choose another folder.") from None
    if report is None:
        raise UsageError(f"The report {path} is of another version of tincture; choose another folder.")
    return report


def _report(plain: Mapping[str, Any]) -> Report:
    records = [_record(item) for item in plain["sources"]]
    return Report(
        settings=dict(plain["settings"]),
        records={record.source: record for record in records},
        face_detector=str(plain["face_detector"]),
        near_duplicates=[Pair(**item) for item in plain["near_duplicates"]],
        complete=bool(plain["complete"]),
    )


def _record(plain: Mapping[str, Any]) -> SourceRecord:
    crops = tuple(_crop_record(item) for item in plain["crops"])
    texts = {name: str(plain[name]) for name in ("source", "skipped", "fingerprint", "thumbnail")}
    side: Side = plain["side"] if plain["side"] in ("train", "validation") else ""
    width, height = plain["size"]
    notes = tuple(str(note) for note in plain["notes"])
    return SourceRecord(
        **texts, index=int(plain["index"]), side=side, notes=notes, size=(int(width), int(height)), crops=crops
    )


def _crop_record(plain: Mapping[str, Any]) -> CropRecord:
    path = PurePosixPath(plain["path"])
    # Files that a report names are removed at times: none may lie elsewhere.
    if path.is_absolute() or ".." in path.parts or path.suffix != ".png" or "\\" in plain["path"]:
        raise ValueError(f"{path} is no crop")
    width, height = plain["size"]
    left, top, right, bottom = (float(edge) for edge in plain["box"])
    caption = None if plain["caption"] is None else str(plain["caption"])
    return CropRecord(
        str(path),
        (int(width), int(height)),
        plain["method"],
        (left, top, right, bottom),
        bool(plain["mirrored"]),
        caption,
    )


def _is_whole(destination: Path, crop: CropRecord) -> bool:
    picture = destination / crop.path
    try:
        filled = os.stat(picture).st_size > 0
    except OSError:
        return False
    return filled and (crop.caption is None or os.path.isfile(caption_path(picture)))
