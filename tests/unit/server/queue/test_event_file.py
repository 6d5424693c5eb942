from __future__ import annotations

import errno
import json
import math
import os
import re
import threading
from pathlib import Path
from typing import Any

import pytest

from tincture.events import (
    CheckpointSaved,
    Event,
    MemoryFitted,
    ModelLoaded,
    PreviewReady,
    Progressed,
    RunEnded,
    RunPrepared,
    RunStarted,
    StepEnd,
    StepRecord,
    StepsDone,
    Validated,
)
from tincture.run.event_records import RECORDS
from tincture.server.queue import event_file
from tincture.server.queue.event_file import EventFile, Reporter
from tincture.server.queue.folder import JobFolder


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    return JobFolder(tmp_path)


def losses(*steps: int, loss: float = 0.5) -> StepsDone:
    records = tuple(StepRecord(step, 0, step - 1, loss, 0.01) for step in steps)
    return StepsDone(records, 20, loss, 0.1, loss, 0.2)


def report(folder: JobFolder, *events: Event, **ended: Any) -> list[dict[str, Any]]:
    reporter = Reporter(folder)
    for event in events:
        reporter.on_event(event)
    reporter.end({"attempt": 1, "state": "done", "result": {}, **ended})
    return folder.events()


def test_every_event_becomes_the_line_that_is_documented(folder: JobFolder) -> None:
    told = report(
        folder,
        ModelLoaded("picto, 64 x 64"),
        MemoryFitted({"slicing": True}, 2**30, 2**31),
        Progressed("encoding pictures", 3, 5),
        RunPrepared(Path("run"), {"steps": 20}),
        RunStarted(0, 20, 5, 3),
        losses(1, 2),
        StepEnd(2, 20),
        CheckpointSaved(2, Path("cat-2.pt")),
        PreviewReady(2, (Path("a.png"), Path("b.png")), ("a", "b")),
        RunEnded(2, False, 1.0),
    )
    assert [event.pop("n") for event in told] == list(range(1, 11))
    taken = told[6].pop("step_s"), told[6].pop("eta_s")
    assert taken[0] > 0 and taken[1] is not None
    assert all(event.pop("time") > 1e9 for event in told)
    records = [[1, 0, 0, 0.5, 0.01], [2, 0, 1, 0.5, 0.01]]
    means = {"loss_mean": 0.5, "loss_error": 0.1, "recent_mean": 0.5, "recent_error": 0.2}
    assert told == [
        {"type": "model", "text": "picto, 64 x 64"},
        {"type": "memory", "text": "memory: about 1.00 of 2.00 GiB, by slicing yes"},
        {"type": "stage", "stage": "encoding pictures", "done": 3, "total": 5, "step": 0, "steps": 0, "eta_s": None},
        {"type": "prepared", "run_dir": "run"},
        {"type": "started", "global_step": 0, "steps": 20, "samples": 5, "micro_batches_per_epoch": 3},
        {"type": "steps", "records": records, "steps": 20, **means, "eta_s": None},
        {"type": "progress", "global_step": 2, "steps": 20},
        {"type": "saved", "global_step": 2, "path": "cat-2.pt"},
        {"type": "preview", "global_step": 2, "paths": ["a.png", "b.png"], "prompts": ["a", "b"]},
        {"type": "ended", "attempt": 1, "state": "done", "result": {}},
    ]


def test_people_read_the_same_in_the_log(folder: JobFolder, capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter(folder)
    reporter.remark("a picture is odd")
    paths = Path("images/a.png"), Path("images/b.png")
    for event in (
        RunStarted(0, 20, 5, 3),
        losses(19, 20),
        CheckpointSaved(2, Path("cat-2.pt")),
        PreviewReady(2, paths),
    ):
        reporter.on_event(event)
    reporter.end({"attempt": 1, "state": "failed", "error": "The disk is full.", "error_type": "StorageError"})
    log = capsys.readouterr().out
    lines = [
        "a picture is odd",
        "training from step 0 to 20 on 5 pictures",
        "step 20/20  loss 0.5000±0.1000  rate 0.01  epoch 0",
        "saved cat-2.pt",
        "2 previews in images",
        "failed: The disk is full.",
    ]
    assert [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in log.splitlines()] == lines


def test_the_run_never_waits_for_the_disk_and_what_comes_together_is_joined(
    folder: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, may_write, writing = EventFile.write, threading.Event(), threading.Event()

    def slow(self: EventFile, *arguments: Any, **options: Any) -> None:
        writing.set()
        may_write.wait()
        write(self, *arguments, **options)

    monkeypatch.setattr(EventFile, "write", slow)
    reporter = Reporter(folder)
    reporter.on_event(StepEnd(0, 2000))
    writing.wait()
    for step in range(1, 2001):  # would never end, did a step wait for what is written
        reporter.on_event(losses(step))
        reporter.on_event(StepEnd(step, 2000))
        reporter.on_event(Progressed("a", step, 2000))
    reporter.remark("odd")
    reporter.remark("odder")
    assert not folder.events()
    may_write.set()
    reporter.end({"attempt": 1, "state": "done", "result": {}})
    told = folder.events()
    kinds = ["progress", *["steps"] * 4, "progress", "stage", "remark", "remark", "ended"]
    assert [event["type"] for event in told] == kinds
    assert [len(event["records"]) for event in told[1:5]] == [RECORDS] * 4
    assert [entry["global_step"] for entry in folder.metrics()] == list(range(1, 2001))
    assert (told[5]["global_step"], told[6]["done"]) == (2000, 2000)


def test_numbers_that_json_has_not_are_null(folder: JobFolder) -> None:
    report(folder, losses(1, loss=float("nan")), result={"loss": float("inf"), "list": (float("-inf"), 1.0)})
    text = folder.event_file.read_text()
    assert "NaN" not in text and "Infinity" not in text
    steps, ended = (json.loads(line) for line in text.splitlines())
    assert (steps["records"][0][3], steps["loss_mean"]) == (None, None)
    assert ended["result"] == {"loss": None, "list": [None, 1.0]}


def test_a_measurement_is_a_line_for_programs_and_one_for_people(
    folder: JobFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    first = Validated(0, 20, 0.5, 0.1, math.nan, 0.2, 0, 0.5)
    second = Validated(10, 20, 0.25, 0.125, 0.2, 0.05, 10, 0.25)
    third = Validated(20, 20, 0.75, 0.125, 0.1, 0.05, 10, 0.25)
    found = [each for each in report(folder, first, second, third) if each["type"] == "validated"]
    assert [(each["global_step"], each["loss"], each["training_loss"], each["best_step"]) for each in found] == [
        (0, 0.5, None, 0),
        (10, 0.25, 0.2, 10),
        (20, 0.75, 0.1, 10),
    ]
    printed = capsys.readouterr().out
    assert "validation at step 10: loss 0.2500±0.1250, 0.2000±0.0500 on trained pictures; best so far" in printed
    assert "validation at step 20: loss 0.7500±0.1250, 0.1000±0.0500 on trained pictures; best 0.2500 at step 10" in (
        printed
    )


def test_the_model_is_not_kept_alive(folder: JobFolder) -> None:
    class Model:
        gone = False

        def __del__(self) -> None:
            Model.gone = True

    reporter = Reporter(folder)
    reporter.on_event(ModelLoaded("it", Model()))
    assert Model.gone
    reporter.end({"attempt": 1, "state": "done", "result": {}})


def test_a_later_attempt_goes_on_counting_and_cuts_off_what_is_half_written(folder: JobFolder) -> None:
    report(folder, StepEnd(1, 5))
    with folder.event_file.open("a") as file:
        file.write('{"n": 3, "time"')
    told = report(folder, StepEnd(2, 5), attempt=2)
    assert [(event["n"], event["type"]) for event in told] == [
        (1, "progress"),
        (2, "ended"),
        (3, "progress"),
        (4, "ended"),
    ]
    assert all(json.loads(line) for line in folder.event_file.read_text().splitlines())


def test_a_full_disk_holds_lines_back_until_there_is_room(folder: JobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite

    def half(file: int, content: bytes, offset: int) -> int:
        return pwrite(file, content[: len(content) // 2], offset)

    def full(file: int, content: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    lines = EventFile(folder.event_file)
    lines.write([{"time": 1.0, "type": "a"}])
    for refuse in (half, full):
        monkeypatch.setattr(os, "pwrite", refuse)
        lines.write([{"time": 1.0, "type": "b"}])
        assert folder.event_file.read_text().count("\n") == 1
    monkeypatch.undo()
    lines.write([{"time": 1.0, "type": "c"}], durably=True)
    lines.close()
    assert [(event["n"], event["type"]) for event in folder.events()] == [(1, "a"), (2, "b"), (3, "b"), (4, "c")]


def test_how_it_ended_waits_for_room(folder: JobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite, tries = os.pwrite, []

    def full(file: int, content: bytes, offset: int) -> int:
        tries.append(content)
        if len(tries) < 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(file, content, offset)

    monkeypatch.setattr(os, "pwrite", full)
    monkeypatch.setattr(event_file, "END_PAUSE_S", 0.0)
    report(folder)
    ended = folder.ended(1)
    assert ended and ended["state"] == "done"
    monkeypatch.setattr(event_file, "END_TRIES", 1)
    tries.clear()
    report(folder, attempt=2)  # gives up in the end
    assert folder.ended(2) is None


def test_a_fault_in_writing_does_not_end_what_comes_after(
    folder: JobFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write, faults = EventFile.write, [ValueError("odd")]

    def faulty(self: EventFile, *arguments: Any, **options: Any) -> None:
        if faults:
            raise faults.pop()
        write(self, *arguments, **options)

    monkeypatch.setattr(EventFile, "write", faulty)
    reporter = Reporter(folder)
    reporter.on_event(StepEnd(1, 5))
    while faults:
        pass
    reporter.end({"attempt": 1, "state": "done", "result": {}})
    assert [event["type"] for event in folder.events()] == ["ended"]
    assert "ValueError: odd" in capsys.readouterr().err
