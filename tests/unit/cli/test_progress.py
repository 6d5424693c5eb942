from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from tincture.cli.progress import progress
from tincture.events import (
    CheckpointSaved,
    Event,
    MemoryFitted,
    ModelLoaded,
    PreviewReady,
    Progressed,
    RunStarted,
    StepEnd,
    StepRecord,
    StepsDone,
)


def steps_done(global_step: int, steps: int) -> StepsDone:
    record = StepRecord(global_step=global_step, epoch=3, epoch_step=1, loss=0.5, learning_rate=0.005)
    return StepsDone((record,), steps, loss_mean=0.1234, loss_error=0.01, recent_mean=0.2, recent_error=0.02)


RUN: list[Event] = [
    ModelLoaded("tiny [0123456789]: Stable Diffusion 1, predicts noise"),
    MemoryFitted({"offload": True, "weight_storage": "same"}, peak=3 * 2**30, available=7 * 2**29),
    Progressed("encoding pictures", 1, 2),
    Progressed("encoding pictures", 2, 2),
    RunStarted(global_step=10, steps=20, samples=5, micro_batches_per_epoch=5),
    StepEnd(11, 20),
    steps_done(11, 20),
    CheckpointSaved(15, Path("copies/cat-15.pt")),
    PreviewReady(15, (Path("images/cat-15.png"),)),
    StepEnd(20, 20),
    steps_done(20, 20),
]


def shown(events: list[Event], *, terminal: bool) -> str:
    out = io.StringIO()
    with progress(Console(file=out, force_terminal=terminal, width=200)) as callback:
        for event in events:
            callback.on_event(event)
    return out.getvalue()


def test_a_terminal_sees_a_bar_with_loss_rate_and_epoch() -> None:
    text = shown(RUN, terminal=True)
    for part in ("encoding pictures 1 of 2", "training", "20/20", "0.1234±0.0100", "rate 0.005", "epoch 3"):
        assert part in text
    assert "tiny [0123456789]: Stable Diffusion 1, predicts noise" in text
    assert "memory: about 3.00 of 3.50 GiB, by offload yes, weight storage same" in text
    assert "saved copies/cat-15.pt" in text
    assert "1 previews in images" in text


def test_a_log_file_gets_lines() -> None:
    text = shown(RUN, terminal=False)
    assert "tiny [0123456789]: Stable Diffusion 1, predicts noise\n" in text  # not [0123456789] as a colour
    assert text.splitlines()[-1] == "step 20/20  loss 0.1234±0.0100  rate 0.005  epoch 3"


def test_a_second_run_starts_a_new_bar() -> None:
    again = [RunStarted(0, 40, 12, 1), StepEnd(40, 40)]
    last = [line for line in shown([*RUN, *again], terminal=True).splitlines() if "training" in line][-1]
    assert "40/40" in last
    assert "0.1234" not in last
