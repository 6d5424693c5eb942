from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from tests.support import tiny_model, tiny_sdxl, weights
from tests.unit.training.test_trainer import KINDS, make_adapter
from tincture.adapters.adapter import Adapter
from tincture.data.batches import BatchPlan
from tincture.data.latents import LatentCache
from tincture.models.float8 import store_in_float8
from tincture.models.loading.load import load_model
from tincture.models.placement import DENOISER, VAE
from tincture.models.stable_diffusion import StableDiffusion
from tincture.run.memory.rehearsal import Rehearsal
from tincture.settings.schedule import Schedule
from tincture.training.conditioning import Conditioning
from tincture.training.optimizer import create_optimizer
from tincture.training.step_data import TrainingData
from tincture.training.trainer import Trainer

SIDE = 64
MODELS: dict[str, Callable[[], StableDiffusion]] = {"sd1": tiny_model, "sdxl": tiny_sdxl, "picto": load_model}


def trainer_maker(
    cache: LatentCache, batch_size: int, optimizer: str = "AdamW", **changes: Any
) -> Callable[[StableDiffusion, Adapter], Trainer]:
    def make(model: StableDiffusion, adapter: Adapter) -> Trainer:
        size = (SIDE, SIDE)
        told = [model.time_ids(size, (0, 0), size)] * batch_size if model.family.knows_sizes else None
        data = TrainingData(
            BatchPlan([size] * batch_size, batch_size, 0),
            cache,
            lambda index, global_step, slot: f"(a red:1.2) {adapter.name} moon {index}",
            time_ids=told,
        )
        return Trainer(
            model,
            adapter,
            data,
            Conditioning(model, trains_text=adapter.trains_text),
            create_optimizer(optimizer, adapter.parameters(), 1e-3),
            learning_rate=Schedule.parse("1e-3", 100),
            steps=2,
            **changes,
        )

    return make


def measured(act: Callable[[], object]) -> int:
    """The most bytes that torch had allocated at a time while ``act`` ran, beside what it had before."""
    gc.collect()  # what is freed inside must not count
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        act()
    now = peak = 0
    for event in profiler.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return peak


def really(model: StableDiffusion, adapter: Adapter, batch_size: int, **changes: Any) -> int:
    """Bytes beside the weights, adapter and latents that two real steps took."""
    cell = torch.zeros(4, SIDE // 8, SIDE // 8)
    trainer = trainer_maker(LatentCache([cell] * batch_size, [cell] * batch_size), batch_size, **changes)(
        model, adapter
    )

    def two_steps() -> None:
        with adapter.attach(model):
            adapter.train()
            trainer.make_step(1e-3)
            trainer.make_step(1e-3)

    return measured(two_steps)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "batch_size"), [("sd1", 1), ("sdxl", 2), ("picto", 1), ("picto", 2)])
def test_a_step_takes_what_was_said(name: str, kind: str, batch_size: int, checkpointing: bool) -> None:
    model = MODELS[name]()
    adapter = make_adapter(kind, model)
    rehearsal = Rehearsal(model, adapter, gradient_checkpointing=checkpointing)
    step = rehearsal.step(trainer_maker(rehearsal.cached_latents(batch_size, SIDE, SIDE), batch_size))
    if checkpointing:
        model.enable_gradient_checkpointing()
    trained = sum(parameter.nbytes for parameter in adapter.parameters())
    expected = step.lasting - trained + step.passing
    taken = really(model, adapter, batch_size)
    assert expected == pytest.approx(taken, rel=0.15)


@pytest.mark.parametrize(
    "optimizer", ["SGD", "Adam", "NAdam", "RAdam", "Adafactor", "RMSprop", "ASGD", "Rprop", "Adamax"]
)
def test_every_optimizers_numbers_are_foreseen(optimizer: str) -> None:
    model = tiny_model()
    adapter = make_adapter("hypernetwork", model)
    rehearsal = Rehearsal(model, adapter)
    step = rehearsal.step(trainer_maker(rehearsal.cached_latents(1, SIDE, SIDE), 1, optimizer))
    cell = torch.zeros(4, SIDE // 8, SIDE // 8)
    trainer = trainer_maker(LatentCache([cell], [cell]), 1, optimizer)(model, adapter)
    with adapter.attach(model):
        trainer.make_step(1e-3)
    state = [value for kept in trainer.optimizer.state.values() for value in kept.values() if isinstance(value, Tensor)]
    kept = sum(tensor.nbytes for tensor in (*adapter.parameters(), *state))
    assert step.lasting == pytest.approx(kept, rel=0.01)


def test_half_precision_and_float8() -> None:
    model = tiny_model()
    adapter = make_adapter("hypernetwork", model)
    rehearsal = Rehearsal(model, adapter, dtype=torch.bfloat16, float8=True)
    step = rehearsal.step(trainer_maker(rehearsal.cached_latents(2, SIDE, SIDE), 2, precision="bf16"))
    model.to("cpu", torch.bfloat16)
    store_in_float8(model.unet)
    unet = sum(tensor.nbytes for tensor in (*model.unet.parameters(), *model.unet.buffers()))
    assert rehearsal.weights()[DENOISER] == unet
    trained = sum(parameter.nbytes for parameter in adapter.parameters())
    assert step.lasting - trained + step.passing == pytest.approx(really(model, adapter, 2, precision="bf16"), rel=0.15)


def test_accumulation_keeps_gradients_while_the_next_are_made() -> None:
    model = tiny_model()
    adapter = make_adapter("hypernetwork", model)
    sizes = []
    for count in (1, 2):
        rehearsal = Rehearsal(model, adapter)
        make = trainer_maker(rehearsal.cached_latents(1, SIDE, SIDE), 1, gradient_accumulation_steps=count)
        sizes.append(rehearsal.step(make).passing)
    assert sizes[1] - sizes[0] == pytest.approx(sum(p.nbytes for p in adapter.parameters()), rel=0.2)


@pytest.mark.parametrize(("count", "slicing"), [(1, False), (2, False), (2, True)])
@pytest.mark.parametrize("side", [SIDE, 2 * SIDE])
def test_pictures_take_what_was_said(count: int, slicing: bool, side: int) -> None:
    model = load_model()
    rehearsal = Rehearsal(model, make_adapter("embedding", model), slicing=slicing)
    if slicing:
        model.enable_slicing()
    pixels, latents = torch.zeros(count, 3, side, side), torch.zeros(count, 4, side // 8, side // 8)
    vae = rehearsal.weights()[VAE]
    encoding = vae + pixels.nbytes + measured(lambda: model.encode_pictures(pixels))
    decoding = vae + latents.nbytes + measured(lambda: model.decode_latents(latents))
    assert vae + rehearsal.encoding_pictures(count, side, side) == pytest.approx(encoding, rel=0.15)
    assert vae + rehearsal.decoding_pictures(count, side, side) == pytest.approx(decoding, rel=0.15)


def test_previews_take_what_was_said() -> None:
    model = load_model()
    adapter = make_adapter("hypernetwork", model)
    rehearsal = Rehearsal(model, adapter)
    prompts = ["a red moon", "a blue star"]

    def predict() -> None:
        with adapter.attach(model), torch.no_grad():
            conditions = model.encode_prompts(prompts)
            model.predict_noise(torch.zeros(2, 4, 8, 8), torch.zeros(2, dtype=torch.int64), conditions)

    assert rehearsal.predicting(2, SIDE, SIDE) == pytest.approx(measured(predict), rel=0.15)
    with torch.no_grad():
        taken = measured(lambda: model.encode_prompts(prompts))
    assert rehearsal.encoding_prompts(prompts) == pytest.approx(taken, rel=0.15)


# --- what it leaves alone ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_rehearsal_leaves_everything_as_it_was(model: StableDiffusion, kind: str) -> None:
    adapter = make_adapter(kind, model)
    before, parameters = weights(model), [parameter.detach().clone() for parameter in adapter.parameters()]
    random_state = torch.get_rng_state()
    rehearsal = Rehearsal(model, adapter, gradient_checkpointing=True, float8=True, slicing=True, device_type="cuda")
    rehearsal.step(trainer_maker(rehearsal.cached_latents(1, SIDE, SIDE), 1))
    after = weights(model)
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert all(torch.equal(own, old) for own, old in zip(adapter.parameters(), parameters, strict=True))
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not model.slicing and not model.text.attached
    assert not any(module.gradient_checkpointing for module in model.unet.modules() if has_checkpointing(module))


def has_checkpointing(module: Any) -> bool:
    return isinstance(getattr(module, "gradient_checkpointing", None), bool)


def test_no_weights_are_needed() -> None:
    model = tiny_model()
    adapter = make_adapter("embedding", model)
    expected = Rehearsal(model, adapter).encoding_pictures(1, SIDE, SIDE)
    parts: Sequence[Any] = (model.unet, model.vae, model.text_encoders[0].module)
    for part in parts:
        part.to("meta")
    assert Rehearsal(model, adapter).encoding_pictures(1, SIDE, SIDE) == expected


def test_on_cuda_norms_keep_float32_under_autocast() -> None:
    model = tiny_model()
    adapter = make_adapter("embedding", model)
    taken = {}
    for device_type in ("cpu", "cuda"):
        rehearsal = Rehearsal(model, adapter, dtype=torch.bfloat16, device_type=device_type)
        make = trainer_maker(rehearsal.cached_latents(4, SIDE, SIDE), 4, precision="bf16")
        taken[device_type] = rehearsal.step(make).passing
    assert taken["cuda"] - 8_519_680 > 1.1 * taken["cpu"]


def test_what_layers_keep_from_their_first_use_counts_in_every_phase_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("winograd.LEAST_CHANNELS", 4), ("winograd.LEAST_TILES", 1), ("convolutions.MOST_CHANNELS", 0)):
        monkeypatch.setattr(f"tincture.models.{name}", value)
    model = tiny_model()
    adapter = make_adapter("embedding", model)
    rehearsal, other = Rehearsal(model, adapter), Rehearsal(model, adapter)
    weights, predicting = rehearsal.weights(), other.predicting(1, SIDE, SIDE)
    make = trainer_maker(rehearsal.cached_latents(1, SIDE, SIDE), 1)
    step = rehearsal.step(make)
    assert 0 < step.retained < step.passing
    assert rehearsal.weights() == weights
    assert rehearsal.predicting(1, SIDE, SIDE) == predicting
    assert rehearsal.step(make).passing == pytest.approx(step.passing, rel=0.01)
