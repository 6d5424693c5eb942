from __future__ import annotations

import math
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from tincture.errors import StorageError
from tincture.events import RunEnded, StepRecord, StepsDone
from tincture.training.metrics import CsvLog, LossWindow, TensorBoardLog, mean_and_error, read_csv


def done(*records: StepRecord) -> StepsDone:
    return StepsDone(records, 10, 0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("samples", [1, 5, 40])
def test_window_against_numpy(samples: int) -> None:
    losses = np.random.default_rng(0).gamma(2, size=150)
    window = LossWindow(samples)
    for count, loss in enumerate(losses, start=1):
        window.append(float(loss))
        if count < 2:
            continue
        for (mean, error), length in ((window.window(), 3 * samples), (window.recent(), 32)):
            latest = losses[max(0, count - length) : count]
            assert mean == pytest.approx(latest.mean())
            assert error == pytest.approx(latest.std(ddof=1) / math.sqrt(len(latest)))


def test_window_of_nothing_and_of_one() -> None:
    window = LossWindow(2)
    assert all(math.isnan(value) for value in window.window())
    window.append(0.5)
    assert window.window() == window.recent() == mean_and_error([0.5]) == (0.5, 0.0)


def test_window_goes_on_from_its_state() -> None:
    whole, first, second = LossWindow(2), LossWindow(2), LossWindow(2)
    for loss in range(50):
        whole.append(loss)
        (first if loss < 30 else second).append(loss)
        if loss == 29:
            second.restore(first.state())
    assert second.window() == whole.window()
    assert second.recent() == whole.recent()


def test_csv_has_the_webuis_columns_and_seven_digits(tmp_path: Path) -> None:
    path = tmp_path / "run" / "loss.csv"
    log = CsvLog(path, 0)
    log.on_event(done(StepRecord(1, 0, 0, 0.123456789, 0.005), StepRecord(2, 0, 1, 2.0, 1e-5)))
    log.on_event(done(StepRecord(3, 1, 0, 0.5, 1e-5)))
    assert path.read_text() == (
        "step,epoch,epoch_step,loss,learn_rate\n1,0,0,0.1234568,0.005\n2,0,1,2.0000000,1e-05\n3,1,0,0.5000000,1e-05\n"
    )


def test_a_log_that_goes_on_drops_later_and_torn_lines(tmp_path: Path) -> None:
    path = tmp_path / "loss.csv"
    head = "step,epoch,epoch_step,loss,learn_rate\n"
    path.write_text(head + "1,0,0,0.1000000,0.1\n2,0,1,0.2000000,0.1\n3,0,2,0.3000000,0.1\n4,0,3,0.4")
    log = CsvLog(path, 2)
    log.on_event(done(StepRecord(3, 0, 2, 0.25, 0.1)))
    assert path.read_text() == head + "1,0,0,0.1000000,0.1\n2,0,1,0.2000000,0.1\n3,0,2,0.2500000,0.1\n"


def test_torn_lines_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "loss.csv"
    assert read_csv(path) == []
    path.write_text("step,epoch,epoch_step,loss,learn_rate\n1,0,0,0.1,0.1\n2,0")
    assert [row["step"] for row in read_csv(path)] == ["1"]


HEAD = b"step,epoch,epoch_step,loss,learn_rate\n"
LINES = b"1,0,0,0.1000000,0.1\n2,0,1,0.2000000,1e-05\n"


@pytest.mark.parametrize(
    "tail",
    [
        b"3,0,2,0.3000000,0.0",  # looks whole
        b"\0" * 4096,
        b"\0" * 40 + b"\n",
        b"3,0,2,\xff\xfe\xc3,0.1\n",
        b"\xb3,0,2,0.3,0.1\n",
        "²,0,2,0.3,0.1\n".encode(),
        b"3,0,2,0.3,0.1,9,9\n",
        b'3,0,2,"0.3,0.1\n',
        b"3,0,2,0.3;0.1\n",
        b"3" * 200_000 + b",0,2,0.3,0.1\n",
        b"\n\n\r\n,,,,\n",
    ],
    ids=lambda tail: ascii(tail[:20]),
)
def test_a_spoiled_tail_is_left_out_and_blocks_nothing(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "loss.csv"
    path.write_bytes(HEAD + LINES + tail)
    CsvLog(path, 9).on_event(done(StepRecord(3, 0, 2, 0.25, 0.1)))
    assert path.read_bytes() == HEAD + LINES + b"3,0,2,0.2500000,0.1\n"


@pytest.mark.parametrize("content", [b"", b"\n", b"\0" * 99, b"st\0p,epoch\n1,2\n", b"step", HEAD[:20]])
def test_a_log_of_which_nothing_is_left_begins_anew(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "loss.csv"
    path.write_bytes(content)
    CsvLog(path, 9)
    assert path.read_bytes() == HEAD


def test_a_tensorboard_log_whose_last_file_is_spoiled_goes_on_in_another(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = TensorBoardLog(tmp_path, 0)
    log.on_event(done(StepRecord(1, 0, 0, 0.5, 0.25), StepRecord(2, 0, 1, 0.75, 0.125)))
    log.on_event(RunEnded(2, False, 1.0))
    (first,) = tmp_path.iterdir()
    before = first.read_bytes()[:-7]
    first.write_bytes(before)
    os.rename(first, first.with_name(first.name.replace("events.out.tfevents.", "events.out.tfevents.0")))
    again = TensorBoardLog(tmp_path, 1)
    again.on_event(done(StepRecord(2, 0, 1, 0.625, 0.125)))
    again.on_event(RunEnded(2, False, 1.0))
    new = next(path for path in tmp_path.iterdir() if path.read_bytes() != before)
    read = EventAccumulator(str(new))
    read.Reload()
    assert [(event.step, event.value) for event in read.Scalars("Loss/train")] == [(2, 0.625)]


def test_a_log_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    log = CsvLog(tmp_path / "loss.csv", 0)
    log.path.unlink()
    log.path.mkdir()
    with pytest.raises(StorageError, match=r"The loss log .*loss\.csv could not be written"):
        log.on_event(done(StepRecord(1, 0, 0, 0.5, 0.1)))


def test_tensorboard_names_are_the_webuis(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    threads = set(threading.enumerate())
    log = TensorBoardLog(tmp_path, 0)
    log.on_event(done(StepRecord(1, 0, 0, 0.5, 0.25), StepRecord(2, 0, 1, 0.75, 0.125)))
    log.on_event(RunEnded(2, False, 1.0))
    assert set(threading.enumerate()) <= threads, "what writes the log was left running"
    read = EventAccumulator(str(tmp_path))
    read.Reload()
    assert [(event.step, event.value) for event in read.Scalars("Loss/train")] == [(1, 0.5), (2, 0.75)]
    assert [(event.step, event.value) for event in read.Scalars("Learn rate/train")] == [(1, 0.25), (2, 0.125)]


def test_a_spoiled_head_costs_no_line_of_the_log(tmp_path: Path) -> None:
    path = tmp_path / "loss.csv"
    path.write_text("step,epoch,etoch_step,loss,learn_rate\n1,0,0,0.5000000,0.1\n2,0,1,0.4000000,0.1\n")
    CsvLog(path, 1)
    assert path.read_text() == "step,epoch,epoch_step,loss,learn_rate\n1,0,0,0.5000000,0.1\n"
