from __future__ import annotations

import contextlib
import dataclasses
import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.runs import OnStep, Recorder, equal
from tests.support import tiny_model, weights
from tincture import randomness
from tincture.adapters.adapter import Adapter
from tincture.adapters.embedding import Embedding, create_embedding
from tincture.adapters.hypernetwork import Hypernetwork, create_hypernetwork
from tincture.data.batches import BatchPlan
from tincture.data.latents import LatentCache
from tincture.errors import DivergedError
from tincture.events import Event, RunEnded, RunStarted, StepEnd, StepRecord, StepsDone
from tincture.models.devices import PRECISIONS
from tincture.models.stable_diffusion import StableDiffusion
from tincture.settings.schedule import Schedule
from tincture.training import checkpoint
from tincture.training.conditioning import Conditioning
from tincture.training.step_data import Share, TrainingData
from tincture.training.trainer import Clipping, Trainer

KINDS = ("embedding", "hypernetwork")
SAMPLES = 6


@dataclasses.dataclass
class FixedPlan(BatchPlan):
    """Micro-batches as they are given, over and over."""

    batches: Sequence[Sequence[int]]

    @property
    def micro_batches_per_epoch(self) -> int:  # type: ignore[override]
        return len(self.batches)

    def micro_batch(self, m: int) -> list[int]:
        return list(self.batches[m % len(self.batches)])


def make_adapter(kind: str, model: StableDiffusion, dropout: float = 0.0) -> Adapter:
    if kind == "embedding":
        return create_embedding("cat", model, 2, "moon")
    return create_hypernetwork("ink", model.context_widths(), (1, 2, 1), "relu", dropout_structure=(0, dropout, 0))


def latents(samples: int = SAMPLES) -> LatentCache:
    generator = torch.Generator().manual_seed(0)
    means = [torch.randn(4, 2, 2, generator=generator) for _ in range(samples)]
    return LatentCache(means, [torch.full((4, 2, 2), 0.1)] * samples)


def make_trainer(
    model: StableDiffusion, adapter: Adapter, batches: Sequence[Sequence[int]] = ((0, 1), (2, 3)), **changes: Any
) -> Trainer:
    optimizer = changes.pop("optimizer", torch.optim.SGD)
    data = TrainingData(
        FixedPlan(batches),
        changes.pop("latents", None) or latents(),
        lambda index, global_step, slot: f"cat {'red' if index % 2 else 'blue'} moon",
        weights=changes.pop("weights", None),
    )
    settings: dict[str, Any] = {"learning_rate": Schedule.parse("0.1", 100), "steps": 3, "seed": 5, **changes}
    return Trainer(
        model,
        adapter,
        data,
        Conditioning(model, trains_text=adapter.trains_text),
        optimizer(adapter.parameters(), lr=1.0),
        **settings,
    )


def result(adapter: Adapter) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in adapter.state_dict().items()}


def change(adapter: Adapter, start: dict[str, Tensor]) -> Tensor:
    """All that training changed, as one vector."""
    return torch.cat([(value - start[key]).flatten() for key, value in adapter.state_dict().items()])


def assert_trained_alike(one: Adapter, other: Adapter, dropout: float = 0.0) -> None:
    """What training changed differs by rounding only, as seen beside the change itself."""
    fresh = make_adapter(one.kind, tiny_model(), dropout).state_dict()
    moved, also_moved = change(one, fresh), change(other, fresh)
    assert moved.norm() > 0
    assert (moved - also_moved).norm() < 1e-3 * moved.norm()
    assert (moved - also_moved).abs().max() < 1e-6


# --- the frozen model ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_adapter_is_trained_and_the_model_stays_bit_for_bit(model: StableDiffusion, kind: str) -> None:
    before, adapter = weights(model), make_adapter(kind, model)
    start = result(adapter)
    make_trainer(model, adapter).run()
    assert not equal(result(adapter), start)
    assert equal(weights(model), before)
    parts: list[nn.Module] = [model.unet, model.vae, model.text_encoders[0].module]
    assert not any(p.requires_grad or p.grad is not None for part in parts for p in part.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_of_the_adapters_size_and_no_more(model: StableDiffusion, kind: str) -> None:
    adapter = make_adapter(kind, model)
    trainer = make_trainer(model, adapter)
    with adapter.attach(model):
        trainer._accumulate_gradients()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in adapter.parameters())
    assert any(bool(p.grad.any()) for p in adapter.parameters() if p.grad is not None)


@pytest.mark.parametrize("kind", KINDS)
def test_an_exception_within_a_run_leaves_the_model_as_it_was(model: StableDiffusion, kind: str) -> None:
    before, adapter = weights(model), make_adapter(kind, model, dropout=0.5)
    random_state = torch.get_rng_state()

    def fail() -> None:
        raise KeyError("a watcher's own fault")

    with pytest.raises(KeyError):
        make_trainer(model, adapter).run([OnStep(2, fail)])
    assert equal(weights(model), before)
    assert model.text.attached == []
    hooks = [hook for module in model.unet.modules() for hook in module._forward_pre_hooks.values()]
    assert hooks == []
    assert torch.equal(torch.get_rng_state(), random_state)


def test_a_hypernetwork_is_in_eval_mode_after_its_run(model: StableDiffusion) -> None:
    adapter = make_adapter("hypernetwork", model, dropout=0.5)
    assert isinstance(adapter, Hypernetwork)
    make_trainer(model, adapter).run()
    context = torch.ones(1, 3, 32)
    assert torch.equal(adapter.transform(context)[0], adapter.transform(context)[0])


def test_network_dropout_does_not_depend_on_the_global_generator(model: StableDiffusion) -> None:
    def run(seed: int) -> dict[str, Tensor]:
        adapter = make_adapter("hypernetwork", model, dropout=0.5)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            make_trainer(model, adapter).run()
        return result(adapter)

    assert equal(run(1), run(2))


def test_network_dropout_is_on_and_differs_from_step_to_step(model: StableDiffusion) -> None:
    adapter = make_adapter("hypernetwork", model, dropout=0.5)
    trainer = make_trainer(model, adapter, learning_rate=Schedule.parse("0", 100), batches=[(0,)], steps=1)
    with trainer._training():
        first = trainer._micro_batch_loss(Share(trainer.data, [0], 0, 1.0)).item()
        again = trainer._micro_batch_loss(Share(trainer.data, [0], 0, 1.0)).item()
    without = make_adapter("hypernetwork", model, dropout=0.0)
    other = make_trainer(model, without, batches=[(0,)])
    with other._training():
        plain = other._micro_batch_loss(Share(other.data, [0], 0, 1.0)).item()
    assert first == again
    assert first != plain


def test_network_dropout_is_of_step_and_slot(model: StableDiffusion) -> None:
    """What it leaves out of the same context differs from step to step and within one, and comes again in a rerun."""

    def left_out() -> list[Tensor]:
        adapter = make_adapter("hypernetwork", model, dropout=0.5)
        assert isinstance(adapter, Hypernetwork)
        masks: list[Tensor] = []
        text_keys = adapter.pairs[32][0]
        (dropout,) = [layer for layer in text_keys.modules() if isinstance(layer, nn.Dropout)]
        dropout.register_forward_pre_hook(lambda layer, args: (torch.ones_like(args[0]),))
        dropout.register_forward_hook(lambda layer, args, output: masks.append(output == 0))
        still = Schedule.parse("0", 100)
        batches = [(0,), (0,)]
        make_trainer(model, adapter, batches, learning_rate=still, gradient_accumulation_steps=2, steps=3).run()
        return masks[:: len(masks) // 6]

    masks, again = left_out(), left_out()
    assert len(masks) == 6 and masks[0].any() and not masks[0].all()
    assert all(torch.equal(mask, other) for mask, other in zip(masks, again, strict=True))
    assert not any(torch.equal(one, other) for one, other in itertools.combinations(masks, 2))


def test_noise_timesteps_and_latents_are_those_of_seed_step_and_slot(
    model: StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit: a run of an earlier version goes on with the numbers that it would have drawn."""
    given: list[tuple[Tensor, Tensor]] = []
    predict = model.predict_noise

    def recorded(noisy: Tensor, timesteps: Tensor, *rest: Any) -> Tensor:
        given.append((noisy, timesteps))
        return predict(noisy, timesteps, *rest)

    monkeypatch.setattr(model, "predict_noise", recorded)
    trainer = make_trainer(model, make_adapter("embedding", model), [(0, 1), (2,)], gradient_accumulation_steps=2)
    trainer.data = dataclasses.replace(trainer.data, latent_sampling_method="random")
    trainer.run()
    assert len(given) == 3 * 2
    cache, slots = trainer.data.latents, ((0, 1), (2,))
    for call, (noisy, timesteps) in enumerate(given):
        step, part = divmod(call, 2)
        for row, slot in enumerate(slots[part]):
            timestep = int(randomness.generator(5, "timestep", step, slot).integers(1000))
            drawn = randomness.normal((4, 2, 2), 5, "latent sample", step, slot)
            latents = cache.means[slot] + cache.stds[slot] * drawn
            noise = randomness.normal((4, 2, 2), 5, "noise", step, slot)
            assert int(timesteps[row]) == timestep
            kept = model.noise_scheduler.alphas_cumprod[timestep]
            assert torch.equal(noisy[row], kept**0.5 * latents + (1 - kept) ** 0.5 * noise)


# --- gradients -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_accumulated_micro_batches_equal_one_batch(model: StableDiffusion, kind: str) -> None:
    in_parts, at_once = make_adapter(kind, model), make_adapter(kind, model)
    make_trainer(model, in_parts, [(0, 1), (2, 3), (4, 5)], gradient_accumulation_steps=3).run()
    make_trainer(model, at_once, [(0, 1, 2, 3, 4, 5)]).run()
    assert_trained_alike(in_parts, at_once)


@pytest.mark.parametrize("kind", KINDS)
def test_samples_of_a_smaller_micro_batch_count_as_much_as_others(model: StableDiffusion, kind: str) -> None:
    in_parts, at_once = make_adapter(kind, model), make_adapter(kind, model)
    recorders = Recorder(), Recorder()
    make_trainer(model, in_parts, [(0, 1, 2), (3,)], gradient_accumulation_steps=2).run([recorders[0]])
    make_trainer(model, at_once, [(0, 1, 2, 3)]).run([recorders[1]])
    assert_trained_alike(in_parts, at_once)
    losses = [[r.loss for e in recorder.of(StepsDone) for r in e.records] for recorder in recorders]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def gradient_of_first_step(model: StableDiffusion, **changes: Any) -> Tensor:
    """What the first step changed, at rate 1: the gradient as the optimizer got it."""
    adapter = make_adapter("embedding", model)
    before = adapter.parameters()[0].detach().clone()
    make_trainer(model, adapter, learning_rate=Schedule.parse("1", 100), steps=1, **changes).run()
    return before - adapter.parameters()[0].detach()


def test_clipping_by_norm_and_by_value(model: StableDiffusion) -> None:
    plain = gradient_of_first_step(model)
    norm = plain.norm().item()
    by_norm = gradient_of_first_step(model, clipping=Clipping("norm", Schedule.parse(norm / 4, 100)))
    torch.testing.assert_close(by_norm, plain / 4, rtol=1e-3, atol=1e-6)
    limit = plain.abs().max().item() / 2
    by_value = gradient_of_first_step(model, clipping=Clipping("value", Schedule.parse(limit, 100)))
    torch.testing.assert_close(by_value, plain.clamp(-limit, limit), rtol=1e-3, atol=1e-6)


def test_clipping_threshold_follows_its_schedule(model: StableDiffusion) -> None:
    """At rate 1 a step is as long as the gradient, which is longer than the thresholds."""
    adapter = make_adapter("embedding", model)
    (vectors,) = adapter.parameters()
    lengths, last = [], vectors.detach().clone()

    class Measure:
        def on_event(self, event: Event) -> None:
            nonlocal last
            if isinstance(event, StepEnd):
                lengths.append((vectors.detach() - last).norm().item())
                last = vectors.detach().clone()

    clipping = Clipping("norm", Schedule.parse("1e-4:2, 1e-5", 4))
    rate = Schedule.parse("1", 4)
    make_trainer(model, adapter, learning_rate=rate, steps=4, clipping=clipping).run([Measure()])
    assert lengths == pytest.approx([1e-4, 1e-4, 1e-5, 1e-5], rel=0.05)


def test_learning_rate_follows_its_schedule_also_in_a_run_that_goes_on(model: StableDiffusion) -> None:
    schedule = Schedule.parse("0.4:2, 0.2:3, 0.1", 5)
    applied: list[float] = []

    class Sgd(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            applied.append(self.param_groups[0]["lr"])
            super().step(closure)

    make_trainer(model, make_adapter("embedding", model), learning_rate=schedule, steps=5, optimizer=Sgd).run()
    assert applied == [0.4, 0.4, 0.2, 0.1, 0.1]
    applied.clear()
    recorder = Recorder()
    going_on = make_trainer(
        model, make_adapter("embedding", model), learning_rate=schedule, steps=5, global_step=2, optimizer=Sgd
    )
    going_on.run([recorder])
    assert applied == [0.2, 0.1, 0.1]
    records = [record for event in recorder.of(StepsDone) for record in event.records]
    assert [(record.global_step, record.learning_rate) for record in records] == [(3, 0.2), (4, 0.1), (5, 0.1)]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradient_checkpointing_changes_nothing(kind: str, precision: str) -> None:
    """In half precision it makes weights anew that autocast had cast, and must not find them in its cache."""
    adapters = []
    for checkpointing in (False, True):
        model = tiny_model().to("cpu", PRECISIONS[precision])
        if checkpointing:
            model.enable_gradient_checkpointing()
        adapter = make_adapter(kind, model, dropout=0.4)
        make_trainer(model, adapter, [(0, 1)], precision=precision).run()
        adapters.append(adapter)
    if precision == "bf16":
        assert equal(result(adapters[0]), result(adapters[1]))
        assert change(adapters[0], make_adapter(kind, tiny_model(), 0.4).state_dict()).norm() > 0
    else:
        assert_trained_alike(adapters[0], adapters[1], dropout=0.4)


def test_loss_weights_count_for_their_own_sample_and_cell(
    model: StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    flat = [torch.ones(1, 2, 2)] * SAMPLES
    own = [*torch.rand(SAMPLES, 1, 2, 2, generator=torch.Generator().manual_seed(1))]
    plain, ones = (gradient_of_first_step(model, weights=given) for given in (None, flat))
    assert torch.equal(plain, ones)

    predicted: list[Tensor] = []
    predict = model.predict_noise

    def recorded(*given: Any) -> Tensor:
        predicted.append(predict(*given))
        return predicted[-1]

    monkeypatch.setattr(model, "predict_noise", recorded)
    adapter = make_adapter("embedding", model)
    trainer = make_trainer(model, adapter, [(4, 1)], weights=own)
    with trainer._training():
        loss = trainer._micro_batch_loss(Share(trainer.data, [4, 1], 0, 1.0))
    noise = torch.stack([randomness.normal((4, 2, 2), 5, "noise", 0, slot) for slot in (0, 1)])
    expected = (predicted[0] - noise).square() * torch.stack([own[4], own[1]])
    torch.testing.assert_close(loss, expected.mean())


def test_an_auxiliary_loss_is_added_and_sees_the_prediction(model: StableDiffusion) -> None:
    asked: list[Any] = []

    class Constant:
        @contextlib.contextmanager
        def watching(self) -> Iterator[None]:
            asked.append("begin")
            yield
            asked.append("end")

        def value(self, indices: Sequence[int], prompts: Sequence[str]) -> Tensor:
            asked.append((list(indices), list(prompts)))
            return torch.tensor(0.75)

    losses = []
    for auxiliary in (None, Constant()):
        trainer = make_trainer(model, make_adapter("embedding", model), [(4, 1)], auxiliary_loss=auxiliary)
        with trainer._training():
            losses.append(trainer._micro_batch_loss(Share(trainer.data, [4, 1], 0, 1.0)).item())
    assert losses[1] == pytest.approx(losses[0] + 0.75)
    assert asked == ["begin", "end", ([4, 1], ["cat blue moon", "cat red moon"])]


# --- precision -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_trains_float32_weights(kind: str, precision: str) -> None:
    model = tiny_model().to("cpu", {"bf16": torch.bfloat16, "fp16": torch.float16}[precision])
    adapter, exact = make_adapter(kind, model), make_adapter(kind, tiny_model())
    start = result(adapter)
    recorder = Recorder()
    make_trainer(model, adapter, precision=precision, steps=1).run([recorder])
    make_trainer(tiny_model(), exact, steps=1).run()
    (event,) = recorder.of(StepsDone)
    assert 0 < event.records[0].loss < 10
    assert all(parameter.dtype == torch.float32 for parameter in adapter.parameters())
    # It goes the way of full precision, roughly.
    assert nn.functional.cosine_similarity(change(adapter, start), change(exact, start), dim=0) > 0.9


def test_gradients_are_unscaled_before_they_are_clipped() -> None:
    """The scale is 65536: were scaled gradients clipped, what is left of them after unscaling would be tiny."""
    model = tiny_model().to("cpu", torch.float16)
    clipping = Clipping("norm", Schedule.parse("1e-4", 100))
    moved = gradient_of_first_step(model, precision="fp16", clipping=clipping)
    assert moved.norm().item() == pytest.approx(1e-4, rel=0.01)


# --- divergence ------------------------------------------------------------------------------------------------------


def broken_latents(index: int) -> LatentCache:
    cache = latents()
    means = list(cache.means)
    means[index] = torch.full((4, 2, 2), float("nan"))
    return LatentCache(means, cache.stds)


@pytest.mark.parametrize("log_every", [1, 100])
def test_nan_loss_stops_the_run_and_finite_losses_are_told(model: StableDiffusion, log_every: int) -> None:
    recorder = Recorder()
    trainer = make_trainer(
        model,
        make_adapter("embedding", model),
        [(0,), (1,), (2,), (3,)],
        latents=broken_latents(2),
        steps=4,
        log_every=log_every,
    )
    with pytest.raises(DivergedError, match=r"The loss of step 3 is nan.*learning rate \(it was 0\.1\)"):
        trainer.run([recorder])
    records: list[StepRecord] = [record for event in recorder.of(StepsDone) for record in event.records]
    assert [record.global_step for record in records] == [1, 2]
    assert np.isfinite([record.loss for record in records]).all()
    assert recorder.of(RunEnded) == []


# --- what a run tells ------------------------------------------------------------------------------------------------


def test_events_come_in_order_and_steps_are_numbered_by_what_is_done(model: StableDiffusion) -> None:
    recorder, adapter = Recorder(), make_adapter("embedding", model)
    assert make_trainer(model, adapter, steps=5, log_every=2).run([recorder]) is False
    told = [(type(e).__name__, e.global_step) for e in recorder.events if not isinstance(e, StepsDone)]  # type: ignore[attr-defined]
    assert told == [("RunStarted", 0), *(("StepEnd", n) for n in range(1, 6)), ("RunEnded", 5)]
    assert [[r.global_step for r in e.records] for e in recorder.of(StepsDone)] == [[1, 2], [3, 4], [5]]
    assert adapter.step == 5
    (started,) = recorder.of(RunStarted)
    assert (started.steps, started.samples, started.micro_batches_per_epoch) == (5, SAMPLES, 2)


def test_the_window_has_the_losses_of_all_steps(model: StableDiffusion) -> None:
    recorder = Recorder()
    trainer = make_trainer(model, make_adapter("embedding", model), steps=5, log_every=2)
    trainer.run([recorder])
    losses = [record.loss for event in recorder.of(StepsDone) for record in event.records]
    assert len(losses) == 5
    assert trainer.window.state() == losses
    assert trainer.window.window()[0] == pytest.approx(np.mean(losses))


def test_epochs_count_micro_batches(model: StableDiffusion) -> None:
    recorder = Recorder()
    batches = [(0,), (1,), (2,), (3,)]
    trainer = make_trainer(
        model, make_adapter("embedding", model), batches, gradient_accumulation_steps=2, steps=5, log_every=5
    )
    trainer.run([recorder])
    (event,) = recorder.of(StepsDone)
    assert [(r.epoch, r.epoch_step) for r in event.records] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]


def test_stop_finishes_the_step_and_says_so(model: StableDiffusion) -> None:
    recorder, stop = Recorder(), threading.Event()
    trainer = make_trainer(model, make_adapter("embedding", model), steps=5)
    assert trainer.run([OnStep(2, stop.set), recorder], stop) is True
    (ended,) = recorder.of(RunEnded)
    assert (ended.global_step, ended.interrupted) == (2, True)
    assert [r.global_step for e in recorder.of(StepsDone) for r in e.records] == [1, 2]


def test_stop_in_the_last_step_is_no_interruption(model: StableDiffusion) -> None:
    stop = threading.Event()
    trainer = make_trainer(model, make_adapter("embedding", model), steps=2)
    assert trainer.run([OnStep(2, stop.set)], stop) is False


def test_a_run_is_a_function_of_its_seed(model: StableDiffusion) -> None:
    def run(seed: int) -> dict[str, Tensor]:
        adapter = make_adapter("embedding", model)
        make_trainer(model, adapter, seed=seed).run()
        return result(adapter)

    assert equal(run(1), run(1))
    assert not equal(run(1), run(2))


def test_vectors_train_for_a_v_prediction_model_too() -> None:
    adapters: list[Embedding] = []
    for prediction_type in ("epsilon", "v_prediction"):
        model = tiny_model(prediction_type=prediction_type)
        adapters.append(create_embedding("cat", model, 2, "moon"))
        make_trainer(model, adapters[-1]).run()
    assert not equal(adapters[0].state_dict(), adapters[1].state_dict())


class _Count:
    """A part that counts the steps, and ends the run at one of them."""

    def __init__(self, trainer: Trainer, end_at: int = 0) -> None:
        self.trainer, self.end_at, self.counted = trainer, end_at, 0

    def on_event(self, event: Event) -> None:
        if isinstance(event, StepEnd):
            self.counted += 1
            if event.global_step == self.end_at:
                self.trainer.end("Enough was seen.")

    def state_dict(self) -> dict[str, Any]:
        return {"counted": self.counted}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.counted = state["counted"]


def test_a_watcher_may_end_the_run_which_is_not_interrupted_then() -> None:
    model, recorder = tiny_model(), Recorder()
    trainer = make_trainer(model, make_adapter("embedding", model), steps=5)
    assert not trainer.run([_Count(trainer, end_at=2), recorder])
    (ended,) = recorder.of(RunEnded)
    assert (ended.global_step, ended.interrupted, ended.ending) == (2, False, "Enough was seen.")


@pytest.mark.parametrize("early", [True, False])
def test_parts_are_restored_with_the_state_whenever_they_are_added(tmp_path: Path, early: bool) -> None:
    model = tiny_model()
    trainer = make_trainer(model, make_adapter("embedding", model), steps=2)
    part = _Count(trainer)
    trainer.add_part("count", part)
    trainer.run([part])
    checkpoint.save_state(trainer, tmp_path)
    again = make_trainer(model, make_adapter("embedding", model), steps=4)
    restored = _Count(again)
    if early:
        again.add_part("count", restored)
    checkpoint.restore_state(again, checkpoint.newest_state(tmp_path))
    if not early:
        assert restored.counted == 0
        again.add_part("count", restored)
    assert restored.counted == 2
    again.run([restored])
    assert restored.counted == 4
