"""Runs that save memory, run out of it, and go on."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.own_memory import OwnMemory
from tests.runs import RANDOM, Bench, Recorder, equal, last_state, trained
from tincture import recipe
from tincture.cli import main
from tincture.errors import OutOfMemoryError, UsageError
from tincture.events import MemoryFitted
from tincture.models import stable_diffusion
from tincture.models.placement import DENOISER, TEXT_ENCODERS, VAE
from tincture.models.stable_diffusion import StableDiffusion
from tincture.run import components
from tincture.run.folder import read_record
from tincture.run.memory.estimate import TRAINING, MemoryEstimator
from tincture.training.trainer import Trainer

KINDS = ("embedding", "hypernetwork")
PREVIEWS: dict[str, Any] = {"preview_every": 2, "preview_steps": 2}


@pytest.fixture(scope="module")
def known_steps() -> dict[str, Any]:
    return {}


@pytest.fixture(autouse=True)
def steps_are_rehearsed_once(known_steps: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of equal settings, adapters and pictures; the model is the same everywhere here."""
    once = MemoryEstimator._once

    def remembered(self: MemoryEstimator, find: Callable[[], Any], *key: Any) -> Any:
        if key[0] != TRAINING:
            return once(self, find, *key)
        shapes = [parameter.shape for parameter in self.adapter.parameters()]
        captions = [sample.caption for sample in self.dataset]
        whole = f"{key} {self.device_type} {shapes} {self.dataset.sizes()} {captions} {self.lines}"
        whole = re.sub(re.escape(str(tmp_path)) + r"/\w+", "", whole)
        if whole not in known_steps:
            known_steps[whole] = find()
        return known_steps[whole]

    monkeypatch.setattr(MemoryEstimator, "_once", remembered)


@pytest.fixture
def own_memory(monkeypatch: pytest.MonkeyPatch) -> list[StableDiffusion]:
    """The CPU stands for a device with a memory of its own; the models that were placed."""
    models: list[StableDiffusion] = []
    place = components.place

    def watched(*arguments: Any) -> StableDiffusion:
        models.append(place(*arguments))
        return models[-1]

    monkeypatch.setattr(stable_diffusion, "Placement", OwnMemory)
    monkeypatch.setattr(components, "place", watched)
    return models


def told(models: list[StableDiffusion]) -> list[str]:
    assert isinstance(models[-1].placement, OwnMemory)
    return models[-1].placement.told


# --- parts that rest elsewhere ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, RANDOM])
@pytest.mark.parametrize("kind", KINDS)
def test_offloading_changes_no_bit(
    new_bench: Callable[[str], Bench], own_memory: list[StableDiffusion], kind: str, changes: dict[str, Any]
) -> None:
    """Whoever uses a part that is not on the device gets NaN."""
    plain = new_bench("plain").train(kind, **PREVIEWS, **changes)
    moved = new_bench("moved").train(kind, offload=True, **PREVIEWS, **changes)
    assert told(own_memory)
    assert equal(trained(plain.adapter_path), trained(moved.adapter_path))
    assert equal(last_state(plain.run_dir), last_state(moved.run_dir))
    pictures = [sorted((result.run_dir / "images").glob("*.png")) for result in (plain, moved)]
    assert len(pictures[0]) > 4
    assert [path.read_bytes() for path in pictures[0]] == [path.read_bytes() for path in pictures[1]]


def test_parts_come_once_and_leave(bench: Bench, own_memory: list[StableDiffusion]) -> None:
    bench.train("hypernetwork", offload=True)
    assert told(own_memory) == ["+vae", "-vae", "+text_encoders", "-text_encoders", "+unet"]


def test_text_encoders_stay_where_they_are_used_in_every_step(bench: Bench, own_memory: list[StableDiffusion]) -> None:
    bench.train("embedding", offload=True)
    assert told(own_memory) == ["+vae", "-vae", "+text_encoders", "+unet"]
    bench.train("hypernetwork", offload=True, shuffle_tags=True)
    assert told(own_memory) == ["+vae", "-vae", "+text_encoders", "+unet"]


def test_previews_bring_back_what_they_need(bench: Bench, own_memory: list[StableDiffusion]) -> None:
    bench.train("hypernetwork", offload=True, steps=2, **PREVIEWS)
    moves = told(own_memory)
    assert moves.count("+vae") == 3 and moves.count("-vae") == 3  # the pictures, and previews before and after
    assert moves.count("-unet") >= 2  # for prompts and for decoding
    assert moves.count("+text_encoders") >= 2


def test_without_offloading_nothing_moves(bench: Bench, own_memory: list[StableDiffusion]) -> None:
    bench.train("hypernetwork")
    placement = own_memory[-1].placement
    assert not placement.offloading and not hasattr(placement, "told")
    assert set(placement.parts) == {TEXT_ENCODERS, VAE, DENOISER}


# --- other measures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_slicing_changes_nothing_at_the_models_size(new_bench: Callable[[str], Bench], kind: str) -> None:
    plain = new_bench("plain").train(kind, latent_sampling_method="random")
    sliced = new_bench("sliced").train(kind, latent_sampling_method="random", slicing=True, **PREVIEWS)
    assert equal(trained(plain.adapter_path), trained(sliced.adapter_path))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_float8_trains_on_the_rounded_weights(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, kind: str, checkpointing: bool
) -> None:
    stored: list[int] = []

    store = StableDiffusion.store_in_float8

    def watched(model: StableDiffusion, by: torch.device) -> None:
        store(model, by)
        stored.extend(1 for weight in model.unet.parameters() if weight.dtype == torch.uint8)

    monkeypatch.setattr(StableDiffusion, "store_in_float8", watched)
    before = trained(bench.path(kind))
    result = bench.train(kind, steps=2, weight_storage="float8", gradient_checkpointing=checkpointing)
    assert len(stored) > 20
    after = trained(result.adapter_path)
    assert not equal(before, after) and all(torch.isfinite(value).all() for value in after.values())


def test_latents_of_slices_are_kept_apart(bench: Bench, tmp_path: Path) -> None:
    for slicing in (False, True, True):
        bench.train("embedding", steps=1, cache_dir=str(tmp_path / "kept"), slicing=slicing, log_dir=str(tmp_path))
        bench.path("embedding").unlink()
        recipe.create_embedding("cat", workspace=bench.workspace, model=str(bench.model), num_vectors=2)
    assert len(list((tmp_path / "kept").rglob("*.latents"))) == 2 * 5


# --- choosing ---------------------------------------------------------------------------------------------------------


def gib(bench: Bench, kind: str, **changes: Any) -> float:
    plan = recipe.plan(bench.settings(kind, width=64, height=64, **changes), bench.workspace)
    return float(plan["memory_mib"]["peak"]) / 1024


def test_vram_chooses_what_fits_and_says_so(bench: Bench) -> None:
    least = gib(bench, "hypernetwork", gradient_checkpointing=True)
    recorder = Recorder()
    vram = f"{least / 0.92 * 1.02:.6f}"
    changes: dict[str, Any] = {
        "width": 64,
        "height": 64,
        "precision": "fp32",
        "vram": vram,
        "small_pictures": "enlarge",
    }
    plan = recipe.plan(bench.settings("hypernetwork", **changes), bench.workspace)
    assert plan["chosen_for_memory"]["gradient_checkpointing"] is True
    assert plan["settings"]["gradient_checkpointing"] is True and plan["settings"]["precision"] == "fp32"
    with pytest.warns(UserWarning, match=r"Smaller than they are trained in"):
        result = bench.train("hypernetwork", steps=1, callbacks=[recorder], **changes)
    (event,) = recorder.of(MemoryFitted)
    assert event.chosen == plan["chosen_for_memory"] and event.peak <= event.available
    assert read_record(result.run_dir)["settings"]["gradient_checkpointing"] is True


def test_vram_takes_half_precision_or_leaves_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[torch.dtype] = []
    load = components.load_model
    monkeypatch.setattr(
        components, "load_model", lambda *given, **named: (loaded.append(named["dtype"]), load(*given, **named))[1]
    )
    assert bench.train("hypernetwork", steps=1, vram="4").global_step == 1
    assert loaded == [torch.bfloat16, torch.float32]
    loaded.clear()
    small = gib(bench, "hypernetwork", precision="bf16", slicing=True)
    loaded.clear()
    changes: dict[str, Any] = {"width": 64, "height": 64, "gradient_checkpointing": False, "weight_storage": "same"}
    with pytest.warns(UserWarning, match=r"Smaller than they are trained in"):
        bench.train("hypernetwork", steps=2, vram=f"{small / 0.92 * 1.02:.6f}", **changes)
    assert loaded == [torch.bfloat16]


def test_vram_refuses_what_cannot_fit(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "embedding", "cat", "--data", str(bench.data), "--model", str(bench.model), "--device", "cpu"]
    assert main([*words, "--root", str(bench.workspace.root), "--vram", "0.001", "--dry-run"]) == 1
    shown = capsys.readouterr().err
    assert "error: The run does not fit into the memory of the device cpu, of which 0.9 MiB is to be used" in shown
    assert "Traceback" not in shown


# --- running out ------------------------------------------------------------------------------------------------------


def fail_at(monkeypatch: pytest.MonkeyPatch, step: int, error: Exception) -> None:
    made, errors = Trainer.make_step, [error]

    def failing(self: Trainer, rate: float) -> torch.Tensor:
        if self.global_step == step and errors:  # once: what is rehearsed afterwards fits
            raise errors.pop()
        return made(self, rate)

    monkeypatch.setattr(Trainer, "make_step", failing)


@pytest.mark.parametrize(
    ("kind", "error"),
    [("embedding", torch.OutOfMemoryError("CUDA out of memory")), ("hypernetwork", MemoryError("no"))],
)
def test_a_run_that_runs_out_of_memory_can_be_resumed(
    new_bench: Callable[[str], Bench], monkeypatch: pytest.MonkeyPatch, kind: str, error: Exception
) -> None:
    whole = trained(new_bench("whole").train(kind, steps=6, save_every=2).adapter_path)
    bench = new_bench("short")
    with monkeypatch.context() as patched:
        fail_at(patched, 5, error)
        with pytest.raises(
            OutOfMemoryError, match=r"ran out\. The run takes about .* MiB \(training\), and "
        ) as caught:
            bench.train(kind, steps=6, save_every=2)
    (run_dir,) = {path.parent for path in bench.workspace.root.rglob("run.json")}
    assert f"go on with tincture resume {str(run_dir)!r} and such an option" in str(caught.value)
    assert "MiB with `gradient_checkpointing`" in str(caught.value)
    assert not trained(bench.path(kind)).keys() - whole.keys() and not equal(trained(bench.path(kind)), whole)
    result = recipe.resume(run_dir, memory={"slicing": True})
    assert result.global_step == 6 and equal(trained(result.adapter_path), whole)
    assert read_record(run_dir)["settings"]["slicing"] is True


def test_pictures_that_do_not_fit_are_told_before_the_run(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def encode(self: StableDiffusion, pixels: torch.Tensor) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(StableDiffusion, "encode_pictures", encode)
    words = ["train", "embedding", "cat", "--data", str(bench.data), "--model", str(bench.model), "--device", "cpu"]
    words += ["--width", "16", "--height", "16"]
    assert main([*words, "--root", str(bench.workspace.root)]) == 1
    shown = capsys.readouterr().err
    assert "error: The memory of the device cpu ran out." in shown and "--gradient-checkpointing" in shown
    assert not list(bench.workspace.root.rglob("run.json"))


def test_a_run_goes_on_with_other_memory_settings_only(bench: Bench) -> None:
    result = bench.train("embedding", stop_after=2)
    with pytest.raises(UsageError, match=r"cannot go on with another batch_size; what can change is offload, slicing"):
        recipe.resume(result.run_dir, memory={"batch_size": 1})
    again = recipe.resume(result.run_dir, memory={"vram": "4"})
    assert again.global_step == 4
    settings = read_record(result.run_dir)["settings"]
    assert (settings["vram"], settings["offload"], settings["precision"]) == ("4", False, "fp32")
