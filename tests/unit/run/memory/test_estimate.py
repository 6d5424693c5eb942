"""The memory that is told for a run against that which torch's profiler sees when it runs, on the CPU."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from PIL import Image
from torch.profiler import ProfilerActivity, profile

from tests.runs import Bench, write_pictures
from tests.support import tiny_sdxl
from tincture import recipe
from tincture.adapters.hypernetwork import create_hypernetwork
from tincture.models.placement import DENOISER, TEXT_ENCODERS, VAE
from tincture.run import components
from tincture.run.components import load_adapter, load_base
from tincture.run.data import load_data, load_template
from tincture.run.memory.estimate import ENCODING, PREVIEWS, PROMPTS, TRAINING, MemoryEstimate, MemoryEstimator
from tincture.settings.train import TrainSettings

KINDS = ("embedding", "hypernetwork")


def estimator_of(bench: Bench, settings: TrainSettings, device_type: str = "cpu") -> MemoryEstimator:
    adapter = load_adapter(settings.kind, bench.path(settings.kind), settings.name)
    model = load_base(settings, bench.workspace, stay=True)
    lines = load_template(settings, bench.workspace)
    return MemoryEstimator(model, adapter, load_data(settings, model), lines, device_type)


def estimated(bench: Bench, kind: str, device_type: str = "cpu", **changes: Any) -> MemoryEstimate:
    settings = bench.settings(kind, **changes).resolved()
    return estimator_of(bench, settings, device_type).estimate(settings)


def enlarge(bench: Bench, side: int) -> None:
    for path in bench.data.glob("*.png"):
        Image.open(path).resize((side, side)).save(path)


def taken_by_run(bench: Bench, monkeypatch: pytest.MonkeyPatch, kind: str, **changes: Any) -> int:
    """The most bytes that torch had allocated at a time during a run, from the loaded model on."""
    settings = bench.settings(kind, **changes)
    model = load_base(settings.resolved(), bench.workspace)
    monkeypatch.setattr(components, "load_base", lambda *_: model)
    model.speed_up_convolutions()  # weights that the run lays out otherwise would count twice
    gc.collect()  # what is freed inside must not count
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        recipe.train(settings, bench.workspace)
    now = peak = 0
    for event in profiler.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return peak + sum(nbytes(part) for parts in model.placement.parts.values() for part in parts)


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_the_peak_of_a_run_on_picto_is_told_within_15_percent(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, kind: str, batch_size: int, checkpointing: bool
) -> None:
    enlarge(bench, 64)
    changes = {"model": "picto", "width": 64, "height": 64, "steps": 3, "gradient_checkpointing": checkpointing}
    if kind == "hypernetwork":
        recipe.create_hypernetwork("ink", workspace=bench.workspace, overwrite=True)
    else:
        recipe.create_embedding("cat", workspace=bench.workspace, num_vectors=4, overwrite=True)
    told = estimated(bench, kind, batch_size=batch_size, **changes)
    taken = taken_by_run(bench, monkeypatch, kind, batch_size=batch_size, **changes)
    assert told.peak == pytest.approx(taken, rel=0.15)
    assert told.fullest == TRAINING or checkpointing


@pytest.mark.parametrize("kind", KINDS)
def test_the_peak_of_a_run_is_told_within_15_percent(bench: Bench, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """The tiny model at its own size, with previews, whose many pictures need the most."""
    enlarge(bench, 64)
    changes = {"width": 64, "height": 64, "steps": 2, "preview_every": 2, "preview_steps": 2}
    told = estimated(bench, kind, **changes)
    taken = taken_by_run(bench, monkeypatch, kind, **changes)
    assert told.peak == pytest.approx(taken, rel=0.15)


def test_the_plan_tells_it(bench: Bench) -> None:
    told = estimated(bench, "hypernetwork", width=64, height=64)
    memory = recipe.plan(bench.settings("hypernetwork", width=64, height=64), bench.workspace)["memory_mib"]
    assert memory["peak"] == round(told.peak / 2**20, 1)
    assert memory[TRAINING] == memory["peak"] >= max(memory[ENCODING], memory[PROMPTS])
    assert memory["weights of unet"] == round(told.weights[DENOISER] / 2**20, 1)
    assert PREVIEWS not in memory


def test_weights_adapter_and_data_are_counted(bench: Bench) -> None:
    template = bench.data.parent / "one.txt"
    template.write_text("[filewords]")
    settings = bench.settings("hypernetwork", use_weight=True, width=64, height=64, template=str(template)).resolved()
    estimator = estimator_of(bench, settings)
    told, model = estimator.estimate(settings), estimator.model
    assert told.weights == {
        DENOISER: nbytes(model.unet),
        VAE: nbytes(model.vae),
        TEXT_ENCODERS: nbytes(model.text_encoders[0].module),
    }
    trained = sum(parameter.nbytes for parameter in estimator.adapter.parameters())
    assert told.trained == pytest.approx(3 * trained, rel=0.01)  # themselves and AdamW's two moments
    # mean, spread and the sample drawn once, 4 channels each, and a weight for each cell; five prompts and an empty one
    assert told.data == 5 * 64 * (3 * 4 + 1) * 4 + 6 * 77 * 32 * 4


def nbytes(module: torch.nn.Module) -> int:
    """In float32."""
    tensors = (*module.parameters(), *module.buffers())
    return sum(tensor.numel() * (4 if tensor.is_floating_point() else tensor.element_size()) for tensor in tensors)


def test_the_largest_batch_counts(bench: Bench) -> None:
    """Two pictures of 64 x 64 are more than one of 96 x 64, but less than one of 192 x 64."""
    changes: dict[str, Any] = {"varsize": True, "batch_size": 2}
    enlarge(bench, 64)
    small = estimated(bench, "embedding", **changes).phases[TRAINING]
    write_pictures(bench.data / "more", ["wide"]).joinpath("0.png").rename(bench.data / "wide.png")
    Image.open(bench.data / "wide.png").resize((96, 64)).save(bench.data / "wide.png")
    assert estimated(bench, "embedding", **changes).phases[TRAINING] == pytest.approx(small, rel=0.001)
    Image.open(bench.data / "wide.png").resize((192, 64)).save(bench.data / "wide.png")
    assert estimated(bench, "embedding", **changes).phases[TRAINING] > 1.1 * small


# --- what saves memory ------------------------------------------------------------------------------------------------


def test_each_measure_saves_memory(bench: Bench) -> None:
    settings = bench.settings("hypernetwork", width=128, height=128, preview_every=5, batch_size=4).resolved()
    estimator = estimator_of(bench, settings, "cuda")
    plain = estimator.estimate(settings).phases
    saves = {
        "offload": (True, (ENCODING, PROMPTS, TRAINING, PREVIEWS)),
        "slicing": (True, (ENCODING, PREVIEWS)),
        "precision": ("bf16", (PROMPTS, TRAINING)),
        "gradient_checkpointing": (True, (TRAINING,)),
        "weight_storage": ("float8", (ENCODING, PROMPTS)),
        "batch_size": (1, (TRAINING,)),
        "preview_every": (0, ()),
    }
    for name, (value, phases) in saves.items():
        found = estimator.estimate(settings.replace(**{name: value})).phases
        for phase in phases:
            assert found[phase] < 0.995 * plain[phase], (name, phase)
    assert PREVIEWS not in estimator.estimate(settings.replace(preview_every=0)).phases


def test_offloaded_parts_count_where_they_act(bench: Bench) -> None:
    settings = bench.settings("hypernetwork", preview_every=5, width=64, height=64).resolved()
    estimator = estimator_of(bench, settings, "cuda")
    plain, saved = (estimator.estimate(settings.replace(offload=offload)) for offload in (False, True))
    unet, vae, text = (plain.weights[name] for name in (DENOISER, VAE, TEXT_ENCODERS))
    less = {phase: plain.phases[phase] - saved.phases[phase] for phase in plain.phases}
    assert less[ENCODING] == unet + text
    assert less[PROMPTS] == vae + unet
    assert less[TRAINING] == vae + text
    # Decoding took the most, all parts being there; with offloading the VAE has the device to itself, and drawing does.
    assert vae < less[PREVIEWS] < unet + text


@pytest.mark.parametrize(
    "change", [{"kind": "embedding", "name": "cat"}, {"shuffle_tags": True}, {"tag_drop_out": 0.1}]
)
def test_text_encoders_stay_where_prompts_are_not_known_ahead(bench: Bench, change: dict[str, Any]) -> None:
    settings = bench.settings("hypernetwork").replace(**change).resolved()
    estimator = estimator_of(bench, settings, "cuda")
    plain, saved = (estimator.estimate(settings.replace(offload=offload)) for offload in (False, True))
    assert plain.phases[TRAINING] - saved.phases[TRAINING] == plain.weights[VAE]


def test_on_a_cpu_offloading_saves_nothing(bench: Bench) -> None:
    settings = bench.settings("hypernetwork").resolved()
    estimator = estimator_of(bench, settings, "cpu")
    plain, saved = (estimator.estimate(settings.replace(offload=offload)) for offload in (False, True))
    assert plain == saved


def test_phases_are_rehearsed_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from tincture.run.memory.rehearsal import Rehearsal

    steps: list[object] = []
    step = Rehearsal.step
    monkeypatch.setattr(Rehearsal, "step", lambda self, *given: (steps.append(self), step(self, *given))[1])
    settings = bench.settings("embedding").resolved()
    estimator = estimator_of(bench, settings, "cuda")
    for offload in (False, True):
        for slicing in (False, True):
            estimator.estimate(settings.replace(offload=offload, slicing=slicing))
    estimator.estimate(settings.replace(preview_every=0, steps=7, save_every=3))
    assert len(steps) == 1
    for precision in ("bf16", "fp16"):
        estimator.estimate(settings.replace(precision=precision))
    assert len(steps) == 2


def test_sdxl_and_attention_masks(bench: Bench) -> None:
    """All that a trainer can draw from is rehearsed too."""
    settings = bench.settings("embedding", attention_mask_weight=1.0, width=64, height=64).resolved()
    plain = estimated(bench, "embedding", width=64, height=64)
    estimator = estimator_of(bench, settings)
    assert estimator.estimate(settings).phases[TRAINING] > plain.phases[TRAINING]
    model = tiny_sdxl()
    network = create_hypernetwork("ink", model.context_widths())
    settings = bench.settings("hypernetwork", width=64, height=64).resolved()
    told = MemoryEstimator(model, network, estimator.dataset, estimator.lines, "cpu").estimate(settings)
    assert told.weights[DENOISER] == nbytes(model.unet)
