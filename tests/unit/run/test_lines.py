from __future__ import annotations

from pathlib import Path

from tests.unit.cli.test_progress import RUN, steps_done
from tincture.events import Event, PreviewReady, Progressed, RunEnded, StepEnd
from tincture.run.lines import Lines, sentence


def written(*events: Event) -> list[str]:
    found: list[str] = []
    watcher = Lines(found.append)
    for event in events:
        watcher.on_event(event)
    return found


def test_a_run_is_few_plain_lines_and_ends_with_its_last_step() -> None:
    assert written(*RUN) == [
        "tiny [0123456789]: Stable Diffusion 1, predicts noise",
        "memory: about 3.00 of 3.50 GiB, by offload yes, weight storage same",
        "training from step 10 to 20 on 5 pictures",
        "saved copies/cat-15.pt",
        "1 previews in images",
        "step 20/20  loss 0.1234±0.0100  rate 0.005  epoch 3",
    ]


def test_what_changes_often_is_a_line_every_15_seconds_with_the_time_left() -> None:
    now = [0.0]
    found: list[str] = []
    watcher = Lines(found.append, clock=lambda: now[0])
    for seconds, event in (
        (14.9, Progressed("encoding pictures", 1, 9)),
        (15.0, Progressed("encoding pictures", 2, 9)),
        (20.0, RUN[4]),
        (28.0, steps_done(11, 20)),
        (28.0, StepEnd(11, 20)),
        (36.0, steps_done(12, 20)),
        (37.0, steps_done(13, 20)),
    ):
        now[0] = seconds
        watcher.on_event(event)
    assert [line.split("  ")[0] for line in found] == [
        "encoding pictures 2 of 9",
        "training from step 10 to 20 on 5 pictures",
        "step 12/20",
    ]
    assert found[-1].endswith("  1 min 04 s left")  # 8 s a step: nine after the eleventh, of which 8 s are gone


def test_steps_themselves_are_no_lines() -> None:
    assert (sentence(StepEnd(1, 2)), sentence(RunEnded(2, False, 1.0))) == ("", "")
    assert sentence(PreviewReady(3, (Path("out/a.png"), Path("out/b.png")))) == "2 previews in out"
