"""What a run tells of what it does, in the order in which it does it."""

from __future__ import annotations

import itertools

from tests.runs import Bench, Recorder
from tincture.events import CheckpointSaved, Event, PreviewReady, Progressed, RunEnded, RunStarted, StepEnd

PREVIEWS = {"preview_every": 2, "preview_steps": 2, "preview_prompts": ["a cat", "a red cat"]}


def named(event: Event) -> str:
    match event:
        case Progressed() if event.over:
            return f"{event.stage} is over"
        case Progressed():
            return "" if event.step else event.stage
        case StepEnd():
            return f"step {event.global_step}"
        case CheckpointSaved() | PreviewReady() | RunStarted() | RunEnded():
            return type(event).__name__
    return ""


def told(recorder: Recorder) -> list[str]:
    names = (named(event) for event in recorder.events)
    return [name for name, _ in itertools.groupby(filter(None, names))]


def test_the_stages_of_a_run_come_in_their_order(bench: Bench) -> None:
    recorder = Recorder()
    bench.train("hypernetwork", steps=3, save_every=2, **PREVIEWS, callbacks=[recorder])
    saving, drawing = ["saving", "saving is over"], ["drawing previews", "drawing previews is over", "PreviewReady"]
    before = [
        part
        for stage in ("loading the model", "reading pictures", "preparing the model", "encoding pictures")
        for part in (stage, f"{stage} is over")
    ]
    saved = ["saving", "CheckpointSaved", "saving is over"]
    steps = ["step 1", *saved, *drawing, "step 2", *drawing, "step 3"]
    assert told(recorder) == [*before, *saving, *drawing, "RunStarted", *steps, *saved, "RunEnded"]


def test_pictures_of_a_preview_and_their_steps_are_told(bench: Bench) -> None:
    recorder = Recorder()
    bench.train("embedding", steps=1, **{**PREVIEWS, "preview_every": 9}, slicing=True, callbacks=[recorder])
    first = [event.description for event in recorder.of(Progressed) if event.stage == "drawing previews"][:8]
    assert first == [
        "drawing previews 0 of 2",
        "drawing previews 0 of 2, step 1 of 2",
        "drawing previews 0 of 2, step 2 of 2",
        "drawing previews 1 of 2",
        "drawing previews 1 of 2, step 1 of 2",
        "drawing previews 1 of 2, step 2 of 2",
        "drawing previews 2 of 2",
        "drawing previews 0 of 2",
    ]
