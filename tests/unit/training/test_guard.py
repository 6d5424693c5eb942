"""Guards: what is judged unsound, and what becomes of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.runs import Recorder, equal
from tests.support import tiny_model
from tests.unit.training.test_trainer import make_adapter, make_trainer
from tincture.adapters.adapter import Adapter
from tincture.errors import DivergedError
from tincture.events import RolledBack, StepEnd, StepRejected, StepsDone
from tincture.models.stable_diffusion import StableDiffusion
from tincture.settings.schedule import Schedule
from tincture.training import checkpoint
from tincture.training.guard import SOUND, SPIKE_WINDOW, Guard, Verdict
from tincture.training.trainer import Trainer

KINDS = pytest.mark.parametrize("kind", ["embedding", "hypernetwork"])
STEPS = 6


def weights(adapter: Adapter) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in adapter.state_dict().items()}


@pytest.fixture(scope="module")
def model() -> StableDiffusion:
    return tiny_model()


class Faulty(Trainer):
    """Each of ``faults`` spoils the loss or a gradient of one step, as often as it says."""

    faults: dict[int, tuple[str, float, int]]

    def _accumulate_gradients(self) -> Tensor:
        loss = super()._accumulate_gradients()
        what, value, times = self.faults.get(self.global_step + 1, ("", 0.0, 0))
        if times > 0:
            self.faults[self.global_step + 1] = what, value, times - 1
            if what == "loss":
                return loss * value if math.isfinite(value) else torch.full_like(loss, value)
            gradient = self.adapter.parameters()[-1].grad
            assert gradient is not None
            gradient.view(-1)[-1] = value
        return loss


def made(model: StableDiffusion, kind: str, faults: dict[int, tuple[str, float, int]], **changes: Any) -> Faulty:
    """One with momentum: what an optimizer remembers must go back too."""
    settings: dict[str, Any] = {"optimizer": torch.optim.Adam, "steps": STEPS, **changes}
    trainer = make_trainer(model, make_adapter(kind, model, dropout=0.2), **settings)
    trainer.__class__ = Faulty
    assert isinstance(trainer, Faulty)
    trainer.faults = dict(faults)
    return trainer


def with_states(trainer: Trainer, folder: Path, every: int) -> list[Any]:
    """Watchers that save states as a run does."""
    trainer.restore_last_good = lambda: checkpoint.restore_state(trainer, checkpoint.newest_state(folder))

    class Saver:
        def on_event(self, event: object) -> None:
            if isinstance(event, RolledBack) or (isinstance(event, StepEnd) and event.global_step % every == 0):
                trainer.read_losses()
                checkpoint.save_state(trainer, folder)

    checkpoint.save_state(trainer, folder)
    return [Saver()]


# --- what is unsound --------------------------------------------------------------------------------------------------


def judged(guard: Guard, loss: float, gradient: float = 1.0, scaled: bool = False) -> Verdict:
    parameter = nn.Parameter(torch.ones(3))
    parameter.grad = torch.tensor([0.0, gradient, 1e30])
    return guard.judge(torch.tensor(loss), [parameter, nn.Parameter(torch.ones(1))], scaled)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite(value: float) -> None:
    guard = Guard("skip")
    assert judged(guard, 1.0) is SOUND
    assert judged(guard, value).kind == "diverged" and str(value) in judged(guard, value).reason
    assert judged(guard, 1.0, gradient=value) == ("diverged", "its gradients are NaN or infinite")
    # Only gradients of a scaled loss can have overflowed; a loss that is not finite is no overflow of gradients.
    assert judged(guard, 1.0, gradient=value, scaled=True).kind == "overflow"
    assert judged(guard, value, scaled=True).kind == "diverged"
    assert judged(Guard("stop"), 1.0, gradient=value, scaled=True).kind == "overflow"


def test_nothing_is_read_where_nothing_depends_on_it() -> None:
    class Unread(nn.Parameter):
        @property
        def grad(self) -> Any:
            raise AssertionError("a gradient was looked at")

    assert Guard().judge(torch.tensor(math.nan), [Unread(torch.ones(1))], scaled=False) is SOUND


def test_spikes_are_compared_with_the_mean_of_the_losses_before() -> None:
    guard = Guard("skip", spike_threshold=3)
    losses = [1.0 + index / 10 for index in range(40)]
    for index, loss in enumerate(losses):
        if index >= SPIKE_WINDOW:
            mean = sum(losses[index - SPIKE_WINDOW : index]) / SPIKE_WINDOW
            verdict = judged(guard, 3.01 * mean)  # a spike is no part of the mean
            assert verdict.kind == "diverged"
            assert f", over 3 times the mean of the 32 before, {mean:.4g}" in verdict.reason
        assert judged(guard, loss) is SOUND
    assert judged(guard, 2.99 * sum(losses[-SPIKE_WINDOW:]) / SPIKE_WINDOW) is SOUND
    assert judged(Guard("skip", spike_threshold=3), 1e30) is SOUND  # as long as there is little to compare with


def test_the_states_of_a_guard() -> None:
    guard = Guard("rollback", spike_threshold=2)
    for loss in range(50):
        judged(guard, float(loss % 7 + 5))
    guard.count_overflow(5, 2.0)
    guard.count_divergence(6, 0.1, "it was so")
    guard.lower_rate(1, 1.0)
    other = Guard("rollback", spike_threshold=2)
    other.load_state_dict(guard.state_dict())
    assert (other.overflows, other.divergences, other.rate_factor) == (1, 1, 0.5)
    assert other.state_dict() == guard.state_dict() and len(guard.state_dict()["losses"]) == SPIKE_WINDOW
    assert judged(other, 40.0).kind == judged(guard, 40.0).kind == "diverged"


# --- stop -------------------------------------------------------------------------------------------------------------


@KINDS
def test_a_spike_stops_the_run_before_it_changes_the_weights(model: StableDiffusion, kind: str) -> None:
    trainer = made(model, kind, {4: ("loss", 1e4, 1)}, guard=Guard(spike_threshold=50))
    trainer.guard._losses.extend([1.0] * SPIKE_WINDOW)
    expected = made(model, kind, {}, steps=3)
    expected.run()
    recorder = Recorder()
    with pytest.raises(
        DivergedError, match=r"Step 4 was not made: its loss is .*, over 50 times the mean .*it was 0\.1"
    ):
        trainer.run([recorder])
    assert trainer.global_step == 3 and equal(weights(trainer.adapter), weights(expected.adapter))
    assert recorder.of(StepsDone)[-1].global_step == 3  # the log has all that was sound


# --- skip -------------------------------------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("fault", [("loss", math.nan), ("gradient", math.inf)])
def test_a_skipped_step_changes_nothing_and_the_next_follows(
    model: StableDiffusion, kind: str, fault: tuple[str, float]
) -> None:
    trainer = made(model, kind, {3: (*fault, 1)}, guard=Guard("skip"))
    recorder = Recorder()
    assert not trainer.run([recorder])
    # The same by hand: a trainer that is put behind the step.
    expected = made(model, kind, {}, steps=2)
    expected.run()
    expected.global_step, expected.steps = 3, STEPS
    expected.adapter.step = 3
    expected.run()
    assert equal(weights(trainer.adapter), weights(expected.adapter))
    assert equal(trainer.optimizer.state_dict()["state"], expected.optimizer.state_dict()["state"])
    assert trainer.global_step == trainer.adapter.step == STEPS
    (rejected,) = recorder.of(StepRejected)
    assert (rejected.global_step, rejected.again, rejected.times) == (3, False, 1)
    logged = [record.global_step for event in recorder.of(StepsDone) for record in event.records]
    assert logged == [1, 2, 4, 5, 6]  # no loss that is none


def test_too_many_skipped_steps_stop_the_run(model: StableDiffusion) -> None:
    faults = {step: ("loss", math.nan, 1) for step in (2, 3, 5)}
    with pytest.raises(DivergedError, match="Step 5 was not made: its loss is nan, and that happened 2 times before"):
        made(model, "embedding", faults, guard=Guard("skip", divergence_limit=2)).run()
    made(model, "embedding", faults, guard=Guard("skip", divergence_limit=3)).run()


# --- rollback ---------------------------------------------------------------------------------------------------------


@KINDS
def test_going_back_equals_a_run_with_the_lower_rate_from_there(
    model: StableDiffusion, kind: str, tmp_path: Path
) -> None:
    trainer = made(model, kind, {4: ("gradient", math.nan, 1)}, guard=Guard("rollback", rollback_factor=0.25))
    recorder = Recorder()
    assert not trainer.run([*with_states(trainer, tmp_path, every=2), recorder])
    expected = made(model, kind, {}, learning_rate=Schedule.parse("0.1:2, 0.025", STEPS))
    expected.run()
    assert equal(weights(trainer.adapter), weights(expected.adapter))
    assert equal(trainer.optimizer.state_dict()["state"], expected.optimizer.state_dict()["state"])
    assert trainer.window.state() == expected.window.state()
    (back,) = recorder.of(RolledBack)
    assert (back.global_step, back.from_step, back.rate_factor, back.times) == (2, 4, 0.25, 1)
    assert [event.global_step for event in recorder.of(StepEnd)] == [1, 2, 3, 3, 4, 5, 6]


@KINDS
def test_a_run_that_went_back_and_was_killed_goes_on_alike(model: StableDiffusion, kind: str, tmp_path: Path) -> None:
    def guard() -> Guard:
        return Guard("rollback", divergence_limit=2)

    fault = ("loss", math.inf, 1)
    whole = made(model, kind, {4: fault, 6: fault}, guard=guard())
    whole.run(with_states(whole, tmp_path / "whole", every=2))
    first = made(model, kind, {4: fault}, guard=guard(), steps=3)
    first.steps = 4
    first.run(with_states(first, tmp_path / "killed", every=2))
    second = made(model, kind, {6: fault}, guard=guard())
    checkpoint.restore_state(second, checkpoint.newest_state(tmp_path / "killed"))
    assert second.guard.divergences == 1 and second.guard.rate_factor == 0.5
    second.run(with_states(second, tmp_path / "killed", every=2))
    assert equal(weights(second.adapter), weights(whole.adapter)) and second.guard.rate_factor == 0.25
    assert second.guard.state_dict() == whole.guard.state_dict()


def test_a_step_that_diverges_again_and_again_ends_the_run(model: StableDiffusion, tmp_path: Path) -> None:
    trainer = made(model, "embedding", {4: ("loss", math.nan, 99)}, guard=Guard("rollback", divergence_limit=2))
    recorder = Recorder()
    with pytest.raises(DivergedError, match=r"that happened 2 times before.*\(it was 0\.025\)"):
        trainer.run([*with_states(trainer, tmp_path, every=2), recorder])
    assert [event.rate_factor for event in recorder.of(RolledBack)] == [0.5, 0.25]


def test_without_a_state_nothing_can_be_gone_back_to(model: StableDiffusion) -> None:
    with pytest.raises(DivergedError, match="no saved state to go back to"):
        made(model, "embedding", {2: ("loss", math.nan, 1)}, guard=Guard("rollback")).run()


# --- overflow in float16 ----------------------------------------------------------------------------------------------


@KINDS
def test_an_overflowed_step_is_made_again_and_every_step_is_made(kind: str) -> None:
    model = tiny_model()
    trainer, usual = (made(model, kind, {}, precision="fp16", optimizer=torch.optim.SGD) for _ in range(2))
    trainer.grad_scaler = torch.amp.GradScaler("cpu", init_scale=2.0**30)
    usual.run()
    before = weights(usual.adapter)
    recorder = Recorder()
    assert not trainer.run([recorder])
    rejected = recorder.of(StepRejected)
    assert rejected and all(event.again and event.global_step == 1 for event in rejected)
    assert trainer.guard.overflows == len(rejected) == rejected[-1].times
    assert trainer.grad_scaler.get_scale() == 2.0 ** (30 - len(rejected))
    logged = [record.global_step for event in recorder.of(StepsDone) for record in event.records]
    assert logged == list(range(1, STEPS + 1)) and trainer.adapter.step == STEPS
    for name, tensor in weights(trainer.adapter).items():  # as far as float16 is the same at another scale
        torch.testing.assert_close(tensor, before[name], rtol=0.05, atol=0.02)


def test_steps_that_overflow_for_ever_end_the_run_and_are_no_success(model: StableDiffusion) -> None:
    trainer = made(model, "embedding", {3: ("gradient", math.inf, 10**6)}, precision="fp16")
    trainer.guard = Guard(overflow_limit=12)
    start = made(model, "embedding", {}, precision="fp16", steps=2)
    start.run()
    with pytest.raises(DivergedError, match=r"step 3 overflowed in float16 12 times in a row.* bf16"):
        trainer.run()
    assert trainer.global_step == 2 and equal(weights(trainer.adapter), weights(start.adapter))
