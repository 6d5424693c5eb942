"""Latents kept from run to run, and attention held to masks, as the settings ask for them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.runs import RANDOM, Bench, Recorder, csv_text, equal, last_state, trained, write_pictures
from tincture import recipe
from tincture.errors import UsageError
from tincture.events import Progressed
from tincture.models.stable_diffusion import StableDiffusion
from tincture.run.duration import ENCODING


def no_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on a VAE that is used raises."""

    def refuse(*_: object) -> None:
        raise AssertionError("a picture was encoded")

    monkeypatch.setattr(StableDiffusion, "encode_pictures", refuse)


def assert_same(one: recipe.RunResult, other: recipe.RunResult) -> None:
    assert equal(trained(one.adapter_path), trained(other.adapter_path))
    assert csv_text(one.run_dir) == csv_text(other.run_dir)
    assert equal(last_state(one.run_dir), last_state(other.run_dir))


# --- latents ---------------------------------------------------------------------------------------------------------


def test_a_second_run_trains_the_same_from_the_cache(
    new_bench: Callable[[str], Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {**RANDOM, "flip": True}
    plain = new_bench("plain").train("embedding", **settings)
    cold = new_bench("cold").train("embedding", **settings, cache_dir=str(tmp_path / "cache"))
    no_encoder(monkeypatch)
    recorder = Recorder()
    warm = new_bench("warm").train("embedding", **settings, cache_dir=str(tmp_path / "cache"), callbacks=[recorder])
    assert_same(cold, plain)
    assert_same(warm, plain)
    encoding = [event for event in recorder.of(Progressed) if event.stage == ENCODING]
    assert encoding == [Progressed(ENCODING, done, 10) for done in (0, 10)]


def test_a_run_resumes_exactly_with_and_without_what_was_kept(
    new_bench: Callable[[str], Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = new_bench("whole").train("hypernetwork", **RANDOM, steps=5)
    bench = new_bench("stopped")
    monkeypatch.chdir(tmp_path)
    stopped = bench.train("hypernetwork", **RANDOM, steps=5, stop_after=2, cache_dir="cache")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert json.loads((stopped.run_dir / "run.json").read_text())["settings"]["cache_dir"] == str(tmp_path / "cache")
    with monkeypatch.context() as patch:
        no_encoder(patch)
        again = bench.resume(stopped.run_dir, stop_after=3)
    shutil.rmtree(tmp_path / "cache")
    assert_same(bench.resume(again.run_dir), whole)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_damage_is_warned_of_and_repaired(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bench.train("embedding", cache_dir=str(tmp_path / "cache"))
    result = trained(whole.adapter_path)
    for path in sorted((tmp_path / "cache").rglob("*.latents"))[:2]:
        path.write_bytes(path.read_bytes()[:-5])
    shutil.copy(whole.run_dir / "start.pt", bench.path("embedding"))
    with pytest.warns(UserWarning, match="damaged latents of 2 pictures"):
        assert equal(trained(bench.train("embedding", cache_dir=str(tmp_path / "cache")).adapter_path), result)
    no_encoder(monkeypatch)
    assert bench.train("embedding", cache_dir=str(tmp_path / "cache"), steps=5).global_step == 5


def test_another_vae_has_latents_of_its_own(bench: Bench, tmp_path: Path) -> None:
    write_pictures(bench.data, side=64)
    bench.train("embedding", cache_dir=str(tmp_path / "cache"), width=64, height=64)
    recipe.create_embedding("dog", workspace=bench.workspace, model="picto")
    bench.train("embedding", cache_dir=str(tmp_path / "cache"), model="picto", name="dog", width=64, height=64)
    assert len(list((tmp_path / "cache").rglob("*.latents"))) == 10


def test_the_plan_neither_keeps_latents_nor_minds_a_cache(bench: Bench, tmp_path: Path) -> None:
    settings = bench.settings("embedding", cache_dir=str(tmp_path / "cache"))
    assert recipe.plan(settings, bench.workspace)["pictures"] == 5
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_is_a_file_is_refused(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(UsageError, match=r"The cache folder .*cache is a file; give a folder by `cache_dir`"):
        bench.train("embedding", cache_dir=str(tmp_path / "cache"))
    assert not bench.workspace.logs.exists()


# --- attention -------------------------------------------------------------------------------------------------------


def write_masks(bench: Bench, count: int = 5) -> None:
    """Masks for the first pictures, white on the left."""
    (bench.data / "mask").mkdir()
    mask = np.zeros((16, 16), np.uint8)
    mask[:, :8] = 255
    for index in range(count):
        Image.fromarray(mask).save(bench.data / "mask" / f"{index}.png")


def masked(new_bench: Callable[[str], Bench], name: str) -> Bench:
    bench = new_bench(name)
    write_masks(bench)
    return bench


def test_the_weight_changes_what_is_learned(new_bench: Callable[[str], Bench]) -> None:
    plain = trained(new_bench("plain").train("embedding", **RANDOM).adapter_path)
    off = trained(masked(new_bench, "off").train("embedding", **RANDOM, attention_mask_weight=0).adapter_path)
    held = trained(masked(new_bench, "held").train("embedding", **RANDOM, attention_mask_weight=1).adapter_path)
    by_alpha = new_bench("alpha")
    write_masks(by_alpha)
    for index in range(5):
        picture = Image.open(by_alpha.data / f"{index}.png")
        picture.putalpha(Image.open(by_alpha.data / "mask" / f"{index}.png"))
        picture.save(by_alpha.data / f"{index}.png")
    shutil.rmtree(by_alpha.data / "mask")
    assert equal(off, plain)
    assert not equal(held, plain)
    assert not equal(trained(by_alpha.train("embedding", **RANDOM, attention_mask_weight=1).adapter_path), plain)


def test_a_run_with_masked_attention_resumes_exactly(new_bench: Callable[[str], Bench]) -> None:
    settings: dict[str, Any] = {**RANDOM, "steps": 5, "attention_mask_weight": "1:3, 2 -> 0.5", "use_weight": True}
    whole = masked(new_bench, "whole").train("embedding", **settings, preview_every=2, preview_steps=1)
    bench = masked(new_bench, "stopped")
    stopped = bench.train("embedding", **settings, stop_after=2)
    assert_same(bench.resume(stopped.run_dir), whole)


def test_the_plan_draws_the_weight_and_has_it_among_the_losses(bench: Bench) -> None:
    write_masks(bench)
    settings = bench.settings("embedding", attention_mask_weight="2 -> 1", steps=4)
    plan = recipe.plan(settings, bench.workspace, timing="none")
    assert plan["schedules"]["attention_mask_weight"] == "2 -> 1 until step 4 ██▇▆"
    assert plan["loss"].endswith("; attention held to masks, weight 2 -> 1")


def test_masks_may_lie_elsewhere(bench: Bench, tmp_path: Path) -> None:
    write_masks(bench, 4)
    (bench.data / "mask").rename(tmp_path / "masks")
    with pytest.warns(UserWarning, match="Without a mask picture, unlike others: 4.png"):
        bench.train("embedding", attention_mask_weight=1, masks=str(tmp_path / "masks"))


def test_a_hypernetwork_has_no_name_to_look_at(bench: Bench) -> None:
    write_masks(bench)
    with pytest.raises(
        UsageError, match=r"attention_mask_weight is 1\.0, but a hypernetwork has no name in the prompt"
    ):
        bench.settings("hypernetwork", attention_mask_weight=1)


@pytest.mark.parametrize(
    ("weight", "meant"), [(0, ""), ("0", ""), (0.0, ""), ("0.0", ""), (2, "2.0"), ("0:5, 1", "0:5, 1")], ids=str
)
def test_a_weight_of_0_is_none(bench: Bench, weight: Any, meant: str) -> None:
    assert bench.settings("embedding", attention_mask_weight=weight).attention_mask_weight == meant


@pytest.mark.parametrize(
    ("weight", "fault"),
    [
        ("0:5, 0", "attention_mask_weight is '0:5, 0', so that it would never count; leave it out"),
        ("1:x", "attention_mask_weight: In the schedule '1:x' segment 1"),
        (-1, "attention_mask_weight: In the schedule '-1.0' segment 1 .* negative"),
        (True, "attention_mask_weight is True, but must be a text or a number"),
    ],
    ids=str,
)
def test_weights_that_make_no_sense_are_refused(bench: Bench, weight: Any, fault: str) -> None:
    with pytest.raises(UsageError, match=fault):
        bench.settings("embedding", attention_mask_weight=weight)


@pytest.mark.parametrize("alpha", [None, 255, 100])
@pytest.mark.parametrize("planned", [False, True])
def test_without_any_mask_it_is_refused(bench: Bench, alpha: int | None, planned: bool) -> None:
    for path in bench.data.glob("*.png"):
        picture = Image.open(path)
        if alpha is not None:
            picture.putalpha(alpha)  # the same everywhere, it says nothing
        picture.save(path)
    settings = bench.settings("embedding", attention_mask_weight=0.5)
    with pytest.raises(UsageError, match=r"`attention_mask_weight` is 0\.5, but no picture in .*pictures has a mask"):
        recipe.plan(settings, bench.workspace) if planned else recipe.train(settings, bench.workspace)
    assert not bench.workspace.logs.exists()


def test_pictures_of_several_sizes_have_masks_of_theirs(bench: Bench) -> None:
    write_pictures(bench.data / "more", ["wide"]).joinpath("0.png").rename(bench.data / "wide.png")
    Image.open(bench.data / "wide.png").resize((32, 16)).save(bench.data / "wide.png")
    write_masks(bench, 4)
    Image.open(bench.data / "mask" / "0.png").resize((32, 16)).save(bench.data / "mask" / "wide.png")
    with pytest.warns(UserWarning, match="Without a mask picture, unlike others: 4.png"):
        result = bench.train("embedding", varsize=True, batch_size=2, steps=6, attention_mask_weight=1)
    assert result.global_step == 6


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_masked_attention_in_half_precision(bench: Bench, precision: str) -> None:
    write_masks(bench)
    before = trained(bench.path("embedding"))
    result = bench.train("embedding", precision=precision, attention_mask_weight=1, gradient_checkpointing=True)
    assert np.isfinite(result.loss)
    assert not equal(trained(result.adapter_path), before)
