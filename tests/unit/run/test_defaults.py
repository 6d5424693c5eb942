"""What a run takes where its settings say nothing, and how that is told."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from PIL import Image

from tests.runs import Bench, Recorder, equal, trained
from tincture import recipe
from tincture.cli import main
from tincture.errors import UsageError
from tincture.events import ModelLoaded
from tincture.models.loading.default_model import LAST_MODEL
from tincture.run import defaults
from tincture.run.defaults import completed
from tincture.run.folder import read_record, write_record
from tincture.settings.train import EARLIER_DEFAULTS

GPU = torch.device("cuda", 0)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets the defaults see a GPU of 24 GiB; what computes stays the CPU."""

    def put(half: str = "bf16", free: int | None = 24 * 2**30) -> None:
        monkeypatch.setattr(defaults, "resolve_device", lambda name: GPU)
        monkeypatch.setattr(defaults, "half_precision", lambda device: half)
        monkeypatch.setattr(defaults, "free_memory", lambda device: free)

    return put


def test_a_cpu_computes_in_full_precision_and_chooses_nothing(bench: Bench) -> None:
    found = completed(bench.settings("embedding"), bench.workspace)
    assert (found.settings.vram, found.settings.precision, found.model_reason) == ("off", "fp32", "")
    assert found.reasons == {"vram": "off, since it is a CPU", "precision": "fp32, the usual one on a CPU"}


@pytest.mark.parametrize("half", ["bf16", "fp16"])
def test_a_gpu_fits_the_run_and_takes_its_best_precision(bench: Bench, card: Callable[..., None], half: str) -> None:
    card(half)
    found = completed(bench.settings("embedding"), bench.workspace)
    assert (found.settings.vram, found.settings.precision, found.settings.offload) == ("auto", half, None)
    assert found.reasons == {
        "vram": "auto, since cuda:0 is a GPU",
        "precision": f"{half}, the best half precision of cuda:0",
    }


def test_what_is_given_wins_on_a_gpu(bench: Bench, card: Callable[..., None]) -> None:
    card()
    found = completed(bench.settings("embedding", vram="off", precision="fp32"), bench.workspace)
    assert (found.settings.vram, found.settings.precision, found.reasons) == ("off", "fp32", {})


def test_a_gpu_that_does_not_say_what_is_free_has_nothing_chosen(bench: Bench, card: Callable[..., None]) -> None:
    card(free=None)
    found = completed(bench.settings("embedding"), bench.workspace)
    assert (found.settings.vram, found.settings.precision, found.settings.slicing) == ("off", "bf16", False)
    assert found.reasons["vram"] == "off, since cuda:0 does not say what is free"


def test_a_run_by_these_defaults_goes_on_with_them(
    new_bench: Callable[[str], Bench], card: Callable[..., None]
) -> None:
    card()
    whole, parts = new_bench("whole"), new_bench("parts")
    plan = recipe.plan(whole.settings("embedding"), whole.workspace, timing="none")
    assert plan["chosen_by_default"]["precision"] == "bf16, the best half precision of cuda:0"
    assert plan["settings"]["precision"] == "bf16" and set(plan["chosen_for_memory"]) >= {"slicing", "offload"}
    result = whole.train("embedding")
    record = read_record(result.run_dir)["settings"]
    assert (record["vram"], record["precision"], record["weight_storage"]) == ("auto", "bf16", "same")
    stopped = parts.train("embedding", stop_after=2)
    card("fp16")  # of another card nothing is taken
    parts.resume(stopped.run_dir)
    assert equal(trained(whole.path("embedding")), trained(parts.path("embedding")))


def test_a_record_that_is_silent_means_what_it_meant(
    new_bench: Callable[[str], Bench], card: Callable[..., None]
) -> None:
    whole, parts = new_bench("whole"), new_bench("parts")
    for bench in (whole, parts):
        Image.new("RGB", (40, 16), "red").save(bench.data / "9 wide.png")
    whole.train("embedding", resize="stretch")
    stopped = parts.train("embedding", resize="stretch", stop_after=2)
    record = read_record(stopped.run_dir)
    for name in EARLIER_DEFAULTS.keys() - {"model"}:
        del record["settings"][name]
    write_record(stopped.run_dir, record)
    card()
    parts.resume(stopped.run_dir)
    assert equal(trained(whole.path("embedding")), trained(parts.path("embedding")))


def test_pictures_keep_their_proportions(bench: Bench) -> None:
    Image.new("RGB", (80, 16), "red").save(bench.data / "9 wide.png")
    plan = recipe.plan(bench.settings("embedding"), bench.workspace, timing="none")
    assert plan["settings"]["resize"] == "crop"
    assert plan["buckets"] == [{"size": "16x16", "pictures": 6, "cropped": 0.1333}]
    assert any("13% is cut off on average" in remark and "`buckets`" in remark for remark in plan["remarks"])
    for other in ({"resize": "stretch"}, {"buckets": True, "bucket_step": 8}):
        plan = recipe.plan(bench.settings("embedding", **other), bench.workspace, timing="none")
        assert not any("cut off on average" in remark for remark in plan["remarks"])


# --- the model --------------------------------------------------------------------------------------------------------


def placed(bench: Bench, *names: str) -> None:
    for name in names:
        shutil.copytree(bench.model, bench.workspace.models / name)


def open_settings(bench: Bench, **changes: Any) -> Any:
    return bench.settings("embedding", model="", **changes)


def loaded(bench: Bench, **changes: Any) -> str:
    recorder = Recorder()
    recipe.train(open_settings(bench, **changes), bench.workspace, [recorder])
    (event,) = recorder.of(ModelLoaded)
    return str(event.description)


def test_the_only_model_is_trained_on_and_told_first(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    placed(bench, "house")
    (bench.workspace.models / "a page.safetensors").write_text("<!DOCTYPE html><html></html>")
    root = ["--root", str(bench.workspace.root)]
    words = ["train", "embedding", "cat", "--data", str(bench.data), "--width", "16", "--height", "16", *root]
    assert main([*words, "--dry-run", "--no-timing"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("# model: house (the only one in the workspace): Stable Diffusion 1")
    assert f'model = "{bench.workspace.models / "house"}"' in told
    assert "(the only one in the workspace)" in loaded(bench, steps=1)
    assert main(["create", "embedding", "rex", *root]) == 0
    assert "model: house (the only one in the workspace)" in capsys.readouterr().err
    assert main(["train", "embedding", "rex", *words[3:], "--dry-run", "--no-timing"]) == 0
    assert "# model: house (the one that rex was made on)" in capsys.readouterr().out


def test_of_several_models_the_one_that_was_used_goes_on(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    placed(bench, "a", "b")
    for call in (recipe.plan, recipe.train):
        with pytest.raises(UsageError, match=r"There are several models in .*: a, b\. Name one by `model`"):
            call(open_settings(bench), bench.workspace)
    with pytest.raises(UsageError, match="There are several models"):
        recipe.create("embedding", "rex", workspace=bench.workspace)
    assert main(["generate", "x", "--root", str(bench.workspace.root)]) == 2
    assert "Name one by --model, such as --model 'a'" in capsys.readouterr().err
    recipe.create("embedding", "rex", workspace=bench.workspace, model="b")
    assert (bench.workspace.logs / LAST_MODEL).read_text() == "b\n"
    told = loaded(bench, steps=1)
    assert told.startswith("b [") and told.endswith("(the last used of 2 in the workspace)")
    recipe.create("embedding", "fox", workspace=bench.workspace, model="a")
    plan = recipe.plan(open_settings(bench, name="rex"), bench.workspace, timing="none")
    assert (plan["model"]["name"], plan["model"]["chosen"]) == ("b", "the one that rex was made on")
    plan = recipe.plan(open_settings(bench), bench.workspace, timing="none")
    assert plan["model"]["chosen"] == "the one that cat was made on"  # as its training has noted
