"""Numbers and previews come in the order of their steps, each once, and no run ends for a tracker that fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.runs import Bench
from tincture.events import PreviewReady, RolledBack, RunEnded, RunMeasured, StepRecord, StepsDone, Validated
from tincture.training.tracker_log import Shown, TrackerLog, numbers_of


@dataclass
class Listed:
    """A tracker that lists what it is given."""

    name: str = "listed"
    given: list[tuple[Any, ...]] = field(default_factory=list)

    def log(self, global_step: int, source: str, numbers: Mapping[str, float]) -> None:
        self.given.append((global_step, source, *numbers.values()))

    def log_previews(self, global_step: int, pictures: Mapping[str, Shown]) -> None:
        self.given.append((global_step, *pictures))

    def go_back(self, global_step: int) -> None:
        self.given.append(("back", global_step))

    def close(self) -> None:
        self.given.append(("closed",))


def steps(*numbers: int) -> StepsDone:
    return StepsDone(tuple(StepRecord(n, 0, n, n / 10, 0.1) for n in numbers), 9, 0, 0, 0, 0)


def preview(tmp_path: Path, step: int) -> PreviewReady:
    path = tmp_path / f"cat-{step}-0.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    return PreviewReady(step, (path, tmp_path / "gone.png"), ("a cat", "a dog"))


def validated(step: int) -> Validated:
    return Validated(step, 9, 0.5, 0.0, 0.25, 0.0, None, 0.0)


def test_what_comes_between_readings_waits_for_the_steps_before_it(tmp_path: Path) -> None:
    tracker = Listed()
    log = TrackerLog(tracker)
    for event in (validated(0), steps(1, 2), preview(tmp_path, 3), validated(4), steps(3, 4, 5), RunEnded(5, False, 1)):
        log.on_event(event)
    assert [given[0] for given in tracker.given] == [0, 1, 2, 3, 3, 4, 4, 5, "closed"]
    assert (3, "Previews/1") in tracker.given, "a picture that is gone is left out"
    log.close()
    assert tracker.given.count(("closed",)) == 1


def test_what_is_made_again_does_not_wait(tmp_path: Path) -> None:
    tracker = Listed()
    log = TrackerLog(tracker)
    for event in (steps(1), validated(3), RolledBack(2, 3, "", 0.5, 1), steps(2), RunEnded(2, True, 1)):
        log.on_event(event)
    assert [given[0] for given in tracker.given] == [1, "back", 2, "closed"]


def test_a_tracker_that_fails_is_left_out_and_the_run_goes_on() -> None:
    class Failing(Listed):
        def log(self, global_step: int, source: str, numbers: Mapping[str, float]) -> None:
            if global_step == 2:
                raise ConnectionError("no route\nto host")
            super().log(global_step, source, numbers)

    tracker = Failing(name="far")
    log = TrackerLog(tracker)
    log.on_event(steps(1))
    with pytest.warns(UserWarning, match=r"tracker far failed \(ConnectionError: no route to host\); the run goes on"):
        log.on_event(steps(2, 3))
    log.on_event(steps(4))
    log.on_event(RunEnded(4, False, 1))
    assert [given[0] for given in tracker.given] == [1]


def test_numbers_have_names_that_stand_in_groups() -> None:
    further = {"learn_rate hypernetwork:Ink": 0.2, "gradient_norm hypernetwork:Ink": 3.0, "vector_norm_max": 4.0}
    assert numbers_of(StepRecord(1, 0, 0, 0.5, 0.1, 0.3, further)) == {
        "Loss/train": 0.5,
        "Learn rate/train": 0.1,
        "Effective learn rate/train": 0.3,
        "Learn rate/hypernetwork:Ink": 0.2,
        "Gradient norm/hypernetwork:Ink": 3.0,
        "Vector norm max": 4.0,
    }
    measured = RunMeasured(1, 0.5, 8.0, {"process": 2**30, "device_peak": 2**31}, {"steps": 1.5})
    assert numbers_of(measured) == {
        "Speed/seconds per step": 0.5,
        "Speed/pictures per second": 8.0,
        "Memory/process GiB": 1.0,
        "Memory/device peak GiB": 2.0,
        "Seconds/steps": 1.5,
    }


def points(folder: Path) -> dict[str, list[int]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0}).Reload()
    scalars = {tag: [event.step for event in read.Scalars(tag)] for tag in read.Tags()["scalars"]}
    return {**scalars, **{tag: [event.step for event in read.Images(tag)] for tag in read.Tags()["images"]}}


@pytest.mark.parametrize("kind", ["embedding", "hypernetwork"])
def test_tensorboard_has_everything_once_also_after_a_resume(new_bench: Callable[[str], Bench], kind: str) -> None:
    pytest.importorskip("tensorboard")
    changes: dict[str, Any] = {"steps": 6, "log_every": 2, "save_every": 3, "validation_share": 0.4}
    changes |= {"validation_every": 3, "tensorboard": True, "preview_every": 3, "preview_steps": 1}
    changes |= {"preview_prompts": ["a cat", "an ink"]}
    bench = new_bench("stopped")
    begun = bench.train(kind, stop_after=4, **changes).run_dir
    # As after a kill: the run stands at step 3 again, and its log is ahead.
    newest = max((begun / "state").iterdir())
    newest.unlink()
    bench.resume(begun)
    found = points(begun / "tensorboard")
    for tag in ("Loss/train", "Learn rate/train", "Gradient norm", "Weight norm"):
        assert found[tag] == [1, 2, 3, 4, 5, 6], tag
    assert ("Vector norm mean" in found) is (kind == "embedding")
    for tag in ("Loss/validation", "Previews/1", "Previews/2"):
        assert found[tag] == [0, 3, 6], tag
    phases = {tag.removeprefix("Seconds/") for tag in found if tag.startswith("Seconds/")}
    assert phases == {"loading", "encoding", "steps", "previews", "validation", "saving", "other"}
    assert {"Speed/pictures per second", "Memory/process GiB", "Memory/process peak GiB"} <= found.keys()


def test_the_last_measure_of_a_step_counts() -> None:
    tracker = Listed()
    log = TrackerLog(tracker)
    for event in (RunMeasured(2, 0.5, None, {}, {}), steps(1, 2), RunMeasured(2, 0.25, None, {}, {})):
        log.on_event(event)
    log.on_event(RunEnded(2, False, 1))
    assert [given for given in tracker.given if given[1:2] == ("RunMeasured",)] == [(2, "RunMeasured", 0.25)]
