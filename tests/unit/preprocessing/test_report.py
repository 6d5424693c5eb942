from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tincture.errors import StorageError, UsageError
from tincture.preprocessing.duplicates import Pair
from tincture.preprocessing.report import REPORT, CropRecord, Report, SourceRecord, read_report


def crop(path: str = "train/00000-0-fox.png", caption: str | None = "a fox") -> CropRecord:
    return CropRecord(path, (64, 64), "focal", (0.5, 0.0, 64.5, 64.0), False, caption)


def record(**changes: Any) -> SourceRecord:
    values = {"source": "fox.png", "index": 0, "side": "train", "fingerprint": "ab", "size": (100, 64)}
    return SourceRecord(**{**values, "crops": (crop(),), "notes": ("is odd",), **changes})


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    report = Report(
        settings={"width": 64, "excluded_tags": [], "yunet_model": ""},
        records={
            "füchse/fox.png": record(source="füchse/fox.png"),
            "bad.png": SourceRecord("bad.png", 1, skipped="is bad"),
        },
        face_detector="haar",
        near_duplicates=[Pair("a", "b", 3, True)],
        complete=True,
    )
    report.write(tmp_path)
    assert read_report(tmp_path) == report
    plain = json.loads((tmp_path / REPORT).read_text(encoding="utf-8"))
    assert plain["counts"] == {
        "sources": 2,
        "used": 1,
        "skipped": 1,
        "pictures": 1,
        "captions": 1,
        "training": 1,
        "validation": 0,
        "near_duplicates": 1,
    }
    assert plain["skipped"] == [{"source": "bad.png", "reason": "is bad"}]
    assert "füchse" in (tmp_path / REPORT).read_text(encoding="utf-8")


def test_without_a_report_there_is_none(tmp_path: Path) -> None:
    assert read_report(tmp_path) is None
    assert read_report(tmp_path / "absent") is None


DAMAGE: dict[str, Any] = {
    "no json": "{",
    "a list": [],
    "no settings": {"settings": None},
    "no sources": {"sources": 3},
    "a crop outside": {"sources": [{"crops": [{"path": "../fox.png"}]}]},
    "brackets": "[" * 100000,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_report_is_told(tmp_path: Path, damage: str) -> None:
    Report(settings={}, records={"fox.png": record()}).write(tmp_path)
    plain = json.loads((tmp_path / REPORT).read_text())
    change = DAMAGE[damage]
    (tmp_path / REPORT).write_text(
        change if isinstance(change, str) else json.dumps({**plain, **change} if change else change)
    )
    with pytest.raises(UsageError, match="is damaged; remove it"):
        read_report(tmp_path)


@pytest.mark.parametrize("path", ["/etc/fox.png", "../fox.png", "a/../../fox.png", "notes.txt", "a\\b.png", ""])
def test_only_crops_within_the_destination_are_believed(tmp_path: Path, path: str) -> None:
    """Files that a report names are removed at times."""
    Report(settings={}, records={"fox.png": record(crops=(crop(path),))}).write(tmp_path)
    with pytest.raises(UsageError, match="is damaged"):
        read_report(tmp_path)


def test_a_report_of_another_version_is_told(tmp_path: Path) -> None:
    (tmp_path / REPORT).write_text('{"format": 99}')
    with pytest.raises(UsageError, match="of another version"):
        read_report(tmp_path)


def test_a_source_is_complete_when_its_files_are_there(tmp_path: Path) -> None:
    picture = tmp_path / "train" / "00000-0-fox.png"
    picture.parent.mkdir()
    assert not record().is_complete(tmp_path)
    picture.touch()
    picture.with_suffix(".txt").touch()
    assert not record().is_complete(tmp_path)  # empty, as a power cut leaves it
    picture.write_bytes(b"png")
    assert record().is_complete(tmp_path)
    picture.with_suffix(".txt").unlink()
    assert not record().is_complete(tmp_path)
    assert record(crops=(crop(caption=None),)).is_complete(tmp_path)
    assert not record(crops=()).is_complete(tmp_path)


def test_forgetting_removes_all_files_of_a_source_and_no_others(tmp_path: Path) -> None:
    ours = ["train/00000-0-fox.png", "train/00000-0-fox.txt", "train/mask/00000-0-fox.png", "debug/00000-fox.jpg"]
    others = ["train/00001-0-fox.png", "debug/00001-fox.jpg", "train/notes.txt"]
    for name in ours + others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    one = record()
    one.forget(tmp_path)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")) == sorted(others)
    assert (one.crops, one.fingerprint, one.side) == ((), "", "train")


def test_a_destination_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="could not be written"):
        Report(settings={}).write(tmp_path / "file")
