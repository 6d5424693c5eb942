"""Norms of every step are true, cost nothing where nobody asks, and never a further reading of the device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runs import RANDOM, Bench, Recorder, csv_text, equal, last_state, trained
from tincture import recipe
from tincture.events import GRADIENT_NORM, VECTOR_NORMS, WEIGHT_NORM, StepRecord, StepsDone
from tincture.training.metrics import CSV_COLUMNS, CsvLog
from tincture.training.norms import LoggedNorms


def logged(recorder: Recorder) -> list[Any]:
    return [dict(record.further) for event in recorder.of(StepsDone) for record in event.records]


def test_norms_are_those_of_gradients_and_weights(new_bench: Callable[[str], Bench]) -> None:
    """With SGD at the rate 1 the weights move by the gradient, which clipping leaves as it is logged."""
    moves = {}
    for clipping in ("none", "norm"):
        bench, recorder = new_bench(clipping), Recorder()
        before = trained(bench.path("embedding"))
        changes = {"steps": 1, "optimizer": "SGD", "learning_rate": 1.0, "weight_decay": 0.0, "log_norms": True}
        changes |= {"clip_grad_mode": clipping, "clip_grad_value": 1e-3}
        result = bench.train("embedding", callbacks=[recorder], **changes)
        after = trained(result.adapter_path)
        (moved,) = (torch.linalg.vector_norm(after[key] - before[key]).item() for key in after)
        (norms,) = logged(recorder)
        moves[clipping] = moved, norms[GRADIENT_NORM]
        (rows,) = after.values()
        each = torch.linalg.vector_norm(rows, dim=1)
        assert norms[WEIGHT_NORM] == pytest.approx(torch.linalg.vector_norm(rows).item())
        assert [norms[name] for name in VECTOR_NORMS] == pytest.approx(
            torch.stack([each.mean(), each.min(), each.max()]).tolist()
        )
    assert moves["none"] == pytest.approx((moves["none"][1], moves["none"][1]), rel=1e-3)
    assert moves["norm"] == pytest.approx((1e-3, moves["none"][1]), rel=1e-2)


@pytest.mark.parametrize("kind", ["embedding", "hypernetwork"])
def test_norms_change_nothing_and_are_read_with_the_losses(
    new_bench: Callable[[str], Bench], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[LoggedNorms] = []
    begin = LoggedNorms.__init__
    monkeypatch.setattr(LoggedNorms, "__init__", lambda self, adapter: (made.append(self), begin(self, adapter))[1])
    read = {"count": 0}
    for name in ("tolist", "item", "__bool__", "__float__"):
        monkeypatch.setattr(torch.Tensor, name, counted(getattr(torch.Tensor, name), read))
    states, readings, asked = [], [], []
    for log_norms in (False, True):
        read["count"] = 0
        changes = {**RANDOM, "steps": 6, "log_every": 3, "log_norms": log_norms, "clip_grad_mode": "norm"}
        result = new_bench(f"{log_norms}").train(kind, **changes)
        readings.append(read["count"])
        asked.append(len(made))
        states.append(last_state(result.run_dir))
    assert equal(*states)
    assert asked[0] == 0 < asked[1]
    assert readings[0] == readings[1] > 0


def counted(real: Callable[..., Any], count: dict[str, int]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        count["count"] += 1
        return real(*args)

    return call


def test_adapters_that_are_trained_together_have_norms_of_their_own(new_bench: Callable[[str], Bench]) -> None:
    recorder = Recorder()
    companions = ["hypernetwork:ink:0:2, 1e-2"]
    bench = new_bench("joint")
    result = bench.train("embedding", steps=3, callbacks=[recorder], companions=companions, log_norms=True)
    first, *_, last = logged(recorder)
    behind = " hypernetwork:ink"
    names = {GRADIENT_NORM, WEIGHT_NORM, *VECTOR_NORMS, GRADIENT_NORM + behind, WEIGHT_NORM + behind}
    assert first.keys() == {*names, "learn_rate hypernetwork:ink"}
    assert first[GRADIENT_NORM + behind] == 0 < last[GRADIENT_NORM + behind], "it rests at a rate of 0"
    assert csv_text(result.run_dir).splitlines()[0].split(",")[: len(CSV_COLUMNS)] == list(CSV_COLUMNS)


@pytest.mark.parametrize("log_norms", [False, True], ids=("without", "with"))
def test_a_run_may_go_on_with_other_trackers_and_keeps_its_log(
    new_bench: Callable[[str], Bench], log_norms: bool
) -> None:
    bench = new_bench("other")
    begun = bench.train("embedding", steps=4, log_norms=log_norms, stop_after=2, log_every=1).run_dir
    before = csv_text(begun).splitlines()
    recipe.resume(begun, memory={"log_norms": not log_norms})
    after = csv_text(begun).splitlines()
    assert after[:3] == before and len(after) == 5
    assert all(len(line.split(",")) == len(before[0].split(",")) for line in after)


def test_a_log_whose_head_names_other_numbers_goes_on_with_them(tmp_path: Path) -> None:
    path = tmp_path / "loss.csv"
    path.write_text("step,epoch,epoch_step,loss,learn_rate,weight_norm\n1,0,0,0.5000000,0.1,2\n")
    log = CsvLog(path, 1, further=["gradient_norm"])
    log.on_event(StepsDone((StepRecord(2, 0, 1, 0.25, 0.1, None, {"gradient_norm": 3.0}),), 2, 0.0, 0.0, 0.0, 0.0))
    assert path.read_text().splitlines()[1:] == ["1,0,0,0.5000000,0.1,2", "2,0,1,0.2500000,0.1,"]
