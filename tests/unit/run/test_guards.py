"""Guards in a run: what stays of a way back in files, log and job, and after a kill."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor

from tests.runs import RANDOM, Bench, Recorder, csv_text, equal, last_state, trained
from tincture.errors import DivergedError
from tincture.events import RolledBack, StepRejected, Validated
from tincture.formats.picture_text import read_parameters
from tincture.run.lines import Lines
from tincture.training.metrics import read_csv
from tincture.training.step_data import Share
from tincture.training.trainer import Trainer

KINDS = pytest.mark.parametrize("kind", ["embedding", "hypernetwork"])


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes the losses of steps NaN, each as often as it is said; ``spoil({4: 1})``."""
    faults: dict[int, int] = {}
    made = Trainer._micro_batch_loss

    def faulty(self: Trainer, share: Share) -> Tensor:
        loss = made(self, share)
        step = self.global_step + 1
        if faults.get(step, 0) > 0:
            faults[step] -= 1
            return loss * math.nan
        return loss

    monkeypatch.setattr(Trainer, "_micro_batch_loss", faulty)
    return faults.update


def settings(**changes: Any) -> dict[str, Any]:
    return {"steps": 6, "save_every": 2, "ema": "0.8", "on_divergence": "rollback", "log_every": 1, **changes}


@KINDS
def test_a_run_that_goes_back_leaves_what_one_with_the_lower_rate_does(
    new_bench: Callable[[str], Bench], kind: str, spoil: Callable[..., None]
) -> None:
    expected = new_bench("expected").train(kind, **RANDOM, **settings(learning_rate="1e-2:2, 5e-3"))
    spoil({4: 1})
    recorder, lines = Recorder(), []
    result = new_bench("back").train(
        kind, **RANDOM, **settings(preview_every=3, preview_steps=2), callbacks=[recorder, Lines(lines.append)]
    )
    assert equal(trained(result.adapter_path), trained(expected.adapter_path))
    assert csv_text(result.run_dir) == csv_text(expected.run_dir)
    assert (result.divergences, result.overflows) == (1, 0)
    (back,) = recorder.of(RolledBack)
    assert (back.global_step, back.from_step) == (2, 4)
    assert any(
        line.startswith("back to step 2, with 0.5 times the learning rate, from step 4: its loss") for line in lines
    )
    state, other = last_state(result.run_dir), last_state(expected.run_dir)
    assert equal(state["adapter"], other["adapter"]) and equal(state["optimizer"], other["optimizer"])


@KINDS
def test_a_way_back_is_remembered_by_a_resume(
    new_bench: Callable[[str], Bench], kind: str, spoil: Callable[..., None]
) -> None:
    """Stopped after the way back, before the next state: the rate stays lowered, and the count counts."""
    spoil({4: 1})
    whole = new_bench("whole").train(kind, **RANDOM, **settings())
    spoil({4: 1})
    bench = new_bench("stopped")
    killed = _KilledAfterGoingBack()
    with pytest.raises(KeyboardInterrupt):
        bench.train(kind, **RANDOM, **settings(), callbacks=[killed])
    assert killed.run_dir is not None
    resumed = bench.resume(killed.run_dir)
    assert resumed.divergences == 1
    assert equal(trained(resumed.adapter_path), trained(whole.adapter_path))
    assert csv_text(resumed.run_dir) == csv_text(whole.run_dir)


class _KilledAfterGoingBack:
    run_dir: Any = None

    def on_event(self, event: Any) -> None:
        self.run_dir = getattr(event, "run_dir", self.run_dir)
        if isinstance(event, RolledBack):
            raise KeyboardInterrupt


@KINDS
def test_measurements_of_what_was_gone_back_from_go(
    new_bench: Callable[[str], Bench], kind: str, spoil: Callable[..., None]
) -> None:
    measured = {"validation_share": 0.4, "validation_every": 1, "validation_bands": 2}
    expected = new_bench("expected").train(kind, **settings(learning_rate="1e-2:2, 5e-3", **measured))
    spoil({4: 1})
    recorder = Recorder()
    result = new_bench("back").train(kind, **settings(**measured), callbacks=[recorder])
    assert [each.global_step for each in recorder.of(Validated)] == [0, 1, 2, 3, 3, 4, 5, 6]
    one, other = ((run.run_dir / "validation_loss.csv").read_text() for run in (result, expected))
    assert one == other and one.count("\n") == 8
    assert result.best_path and expected.best_path
    assert equal(trained(result.best_path), trained(expected.best_path))


def test_previews_of_what_was_gone_back_from_go(bench: Bench, spoil: Callable[..., None]) -> None:
    spoil({4: 1})
    recorder = Recorder()
    drawn: list[list[str]] = []

    class Seen:
        def on_event(self, event: Any) -> None:
            if isinstance(event, RolledBack):
                drawn.append(sorted(path.name for path in run_dir().glob("*/cat-*.png")))
                sheet = read_parameters(run_dir() / "images" / "contact-sheet.png")
                drawn.append([sheet.settings["Sheet rows"]] if sheet else [])

    def run_dir() -> Any:
        return next(event.run_dir for event in recorder.events if hasattr(event, "run_dir"))

    bench.train(
        "embedding",
        **settings(preview_every=3, preview_steps=2, preview_prompts=["a cat"], preview_with_embedding=True),
        callbacks=[recorder, Seen()],
    )
    assert drawn == [["cat-0-0.png", "cat-0.png"], ["step 0"]]  # those of step 3 went
    assert sorted(path.name for path in run_dir().glob("images/cat-*.png")) == [
        f"cat-{step}-0.png" for step in (0, 3, 6)
    ]


@KINDS
def test_a_skipped_step_has_no_line_in_the_log(bench: Bench, kind: str, spoil: Callable[..., None]) -> None:
    spoil({3: 1})
    recorder = Recorder()
    result = bench.train(kind, **settings(on_divergence="skip"), callbacks=[recorder])
    (path,) = result.run_dir.glob("*_loss.csv")
    assert [int(row["step"]) for row in read_csv(path)] == [1, 2, 4, 5, 6]
    assert result.divergences == 1 and [event.global_step for event in recorder.of(StepRejected)] == [3]


def test_a_run_stops_as_a_rule_and_leaves_the_adapter_as_it_was(bench: Bench, spoil: Callable[..., None]) -> None:
    before = bench.path("embedding").read_bytes()
    spoil({3: 1})
    with pytest.raises(DivergedError, match="The loss of step 3 is nan"):
        bench.train("embedding", steps=6, save_every=4)
    assert bench.path("embedding").read_bytes() == before
