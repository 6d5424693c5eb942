from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tincture.server.queue import folder as job_folder
from tincture.server.queue.event_file import EventFile
from tincture.server.queue.folder import JobFolder


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    return JobFolder(tmp_path)


def write(folder: JobFolder, *events: dict[str, Any], end: str = "\n") -> None:
    number = folder.last()[0]
    lines = [json.dumps({"n": number + place, "time": 1.0, **event}) for place, event in enumerate(events, 1)]
    with folder.event_file.open("a") as file:
        file.write("\n".join(lines) + end)


def steps(*numbers: int, loss: float | None = 0.5) -> dict[str, Any]:
    return {"type": "steps", "records": [[number, 0, number - 1, loss, 0.01] for number in numbers]}


def test_a_job_that_never_ran(folder: JobFolder) -> None:
    assert (folder.events(), folder.metrics(), folder.previews(), folder.log()) == ([], [], [], ("", 0))
    assert (folder.read_from(0), folder.last(), folder.ended(1), folder.run_dir()) == (([], 0), (0, 0), None, None)
    assert folder.last_lines() == []


def test_events_since_a_number(folder: JobFolder) -> None:
    write(folder, *({"type": "progress", "global_step": step} for step in range(1, 2001)))
    assert folder.event_file.stat().st_size > job_folder._TAIL
    for since in (0, 1, 2, 700, 1500, 1998, 1999, 2000, 5000):
        assert [event["n"] for event in folder.events(since)] == list(range(since + 1, 2001))


def test_a_follower_gets_each_event_once_and_half_written_ones_later(folder: JobFolder) -> None:
    write(folder, {"type": "a"}, {"type": "b"})
    first, offset = folder.read_from(0)
    assert [event["type"] for event in first] == ["a", "b"]
    assert folder.read_from(offset) == ([], offset)
    whole = json.dumps({"n": 3, "time": 1.0, "type": "c"}) + "\n"
    with folder.event_file.open("a") as file:
        file.write(whole[:15])
    assert folder.read_from(offset) == ([], offset)
    assert [event["n"] for event in folder.events()] == [1, 2]
    with folder.event_file.open("a") as file:
        file.write(whole[15:])
    assert [event["type"] for event in folder.read_from(offset)[0]] == ["c"]


def test_long_files_and_lines_come_in_parts(folder: JobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_folder, "MOST_BYTES", 100)
    write(folder, {"type": "a"}, {"type": "long", "text": "x" * 1000}, {"type": "c"})
    seen, offset = [], 0
    while True:
        events, following = folder.read_from(offset)
        seen += [event["type"] for event in events]
        if following == offset:
            break
        offset = following
    assert seen == ["a", "long", "c"]


@pytest.mark.parametrize("damage", [b"\x00" * 300, b'{"n": 3, "ti', b"[1, 2]", b'{"type": "x"}', b"\xff\xfe"])
def test_what_a_power_cut_damaged_is_passed_over(folder: JobFolder, damage: bytes) -> None:
    write(folder, {"type": "a"}, {"type": "b"})
    end = folder.event_file.stat().st_size
    with folder.event_file.open("ab") as file:
        file.write(damage)
    assert folder.last() == (2, end)
    with folder.event_file.open("ab") as file:
        file.write(b"\n")
    assert folder.last() == (2, end)
    write(folder, {"type": "c"})
    assert [event["type"] for event in folder.events()] == ["a", "b", "c"]
    assert [event["type"] for event in folder.read_from(0)[0]] == ["a", "b", "c"]


def test_metrics_grow_and_begin_anew_where_a_run_goes_on(folder: JobFolder) -> None:
    write(folder, {"type": "started", "global_step": 0}, steps(1, 2), steps(3, loss=None))
    assert folder.metrics() == [
        {"global_step": 1, "epoch": 0, "epoch_step": 0, "loss": 0.5, "learning_rate": 0.01},
        {"global_step": 2, "epoch": 0, "epoch_step": 1, "loss": 0.5, "learning_rate": 0.01},
        {"global_step": 3, "epoch": 0, "epoch_step": 2, "loss": None, "learning_rate": 0.01},
    ]
    assert type(folder.metrics()[0]["global_step"]) is int
    write(folder, steps(4, 5, 6))
    assert [entry["global_step"] for entry in folder.metrics(4)] == [5, 6]
    write(folder, {"type": "started", "global_step": 2})
    assert [entry["global_step"] for entry in folder.metrics()] == [1, 2]
    write(folder, steps(3, 4, loss=0.25))
    assert [entry["loss"] for entry in folder.metrics()] == [0.5, 0.5, 0.25, 0.25]
    assert folder.metrics(4) == folder.metrics(100) == []
    assert JobFolder(folder.path).metrics() == folder.metrics()


def test_some_of_the_metrics_of_a_long_run(folder: JobFolder) -> None:
    write(folder, steps(*range(1, 24)))

    def told(since: int = 0, **which: Any) -> list[Any]:
        return [entry["global_step"] for entry in folder.metrics(since, **which)]

    assert told(every=10) == [10, 20, 23]
    assert told(every=10, most=2) == [10, 20]
    assert told(20, every=10, most=2) == [23]
    assert told(20, most=2) == [21, 22]
    assert told(23, every=10) == []


def test_a_follower_goes_on_where_a_worker_cut_off_what_was_damaged(folder: JobFolder) -> None:
    write(folder, {"type": "a"})
    with folder.event_file.open("ab") as file:
        file.write(b"\0\0 as a power cut leaves it\n")
    events, offset = folder.read_from(0)
    assert [event["type"] for event in events] == ["a"]
    later = EventFile(folder.event_file)
    later.write([{"time": 1.0, "type": "b"}])
    later.close()
    assert [event["type"] for event in folder.read_from(offset)[0]] == ["b"]


def test_previews_that_are_there_and_the_latest_run(folder: JobFolder, tmp_path: Path) -> None:
    pictures = [tmp_path / name for name in ("1.png", "2.png", "gone.png")]
    for picture in pictures[:2]:
        picture.touch()
    write(folder, {"type": "prepared", "run_dir": "first"})
    write(folder, {"type": "preview", "global_step": 5, "paths": [str(pictures[2]), str(pictures[0])]})
    assert folder.previews() == pictures[:1]
    write(folder, {"type": "preview", "global_step": 10, "paths": [str(pictures[0]), str(pictures[1])]})
    write(folder, {"type": "prepared", "run_dir": "second"})
    assert folder.previews() == pictures[:2]
    assert folder.run_dir() == "second"


def test_how_an_attempt_ended(folder: JobFolder) -> None:
    write(folder, {"type": "ended", "attempt": 1, "state": "failed"})
    write(folder, *[{"type": "progress"}] * 3000)
    assert (folder.ended(1), folder.ended(2)) == (None, None)  # only the end of the file is looked at
    write(folder, {"type": "ended", "attempt": 2, "state": "done"})
    ended = folder.ended(2)
    assert ended and ended["state"] == "done"


def test_the_log_is_read_in_parts_that_break_no_character(folder: JobFolder) -> None:
    folder.log_file.write_bytes("früh".encode())
    assert folder.log() == ("früh", 5)
    assert folder.log(1) == ("rüh", 5)
    folder.log_file.write_bytes("früh".encode()[:3])
    assert folder.log() == ("fr", 2)
    folder.log_file.write_bytes("früh".encode())
    assert folder.log(2) == ("üh", 5)
    folder.log_file.write_bytes(b"a\xffb\n")
    assert folder.log() == ("a�b\n", 4)
    assert folder.log(99) == ("", 99)
    folder.log_file.write_text("one\n\n  two \nthree\n")
    assert folder.last_lines(2) == ["two", "three"]


def test_removing(folder: JobFolder, tmp_path: Path) -> None:
    inner = JobFolder(tmp_path / "job")
    inner.remove()
    inner.path.mkdir()
    inner.log_file.write_text("x")
    inner.remove()
    assert not inner.path.exists()
