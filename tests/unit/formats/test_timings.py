from __future__ import annotations

import json
from pathlib import Path

import pytest

from tincture.formats.timings import remember_seconds, remembered_seconds, timings_folder

WHAT = {"what": "step", "size": [64, 64], "where": {"device": "cpu", "threads": 2}}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_a_time_is_remembered_for_just_what_it_was_measured_for(tmp_path: Path) -> None:
    assert remembered_seconds(WHAT) is None
    remember_seconds(WHAT, 2.5)
    assert timings_folder() == tmp_path / "tincture" / "timings"
    assert remembered_seconds({**WHAT, "size": (64, 64)}) == 2.5  # as JSON has it
    for other in ({"size": [64, 32]}, {"what": "preview"}, {"where": {"device": "cpu", "threads": 1}}, {"more": None}):
        assert remembered_seconds({**WHAT, **other}) is None
    remember_seconds(WHAT, 1.5)
    assert remembered_seconds(WHAT) == 1.5


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), 0.0, -1.0])
def test_what_is_no_time_is_not_remembered(seconds: float) -> None:
    remember_seconds(WHAT, seconds)
    assert remembered_seconds(WHAT) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"3",
        b"[" * 100_000,
        b'{"what": 1, "seconds": 2.5}',
        *(json.dumps({"what": WHAT, "seconds": value}).encode() for value in (None, True, "2.5", -1, 0, float("nan"))),
        json.dumps({"what": {**WHAT, "size": [1, 1]}, "seconds": 2.5}).encode(),
    ],
)
def test_a_damaged_file_is_as_good_as_none_and_is_replaced(content: bytes) -> None:
    remember_seconds(WHAT, 2.5)
    (file,) = timings_folder().iterdir()
    file.write_bytes(content)
    assert remembered_seconds(WHAT) is None
    remember_seconds(WHAT, 2.5)
    assert remembered_seconds(WHAT) == 2.5


def test_a_folder_that_cannot_be_written_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "tincture").write_text("in the way")
    remember_seconds(WHAT, 2.5)
    assert remembered_seconds(WHAT) is None
