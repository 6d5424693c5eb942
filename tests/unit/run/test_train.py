from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.runs import NAMES, Bench, OnStep, Recorder, csv_text, equal, trained, write_pictures
from tests.support import save_folder, tiny_model
from tincture import recipe, version
from tincture.adapters.embedding import Embedding
from tincture.adapters.hypernetwork import Hypernetwork, create_hypernetwork
from tincture.cli import main
from tincture.errors import AlreadyTrainedError, DataError, DivergedError, ModelError, StorageError, UsageError
from tincture.events import CheckpointSaved, Progressed, StepsDone
from tincture.models.stable_diffusion import StableDiffusion
from tincture.run import trainer as run_trainer
from tincture.run.duration import ENCODING
from tincture.training.checkpoint import list_states
from tincture.training.conditioning import Conditioning
from tincture.training.optimizer import create_optimizer
from tincture.workspace import Workspace

KINDS = ("embedding", "hypernetwork")


def load(path: Path) -> Embedding | Hypernetwork:
    return Embedding.load(path) if "embeddings" in path.parts else Hypernetwork.load(path)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_run_folder_and_what_its_files_hold(bench: Bench, kind: str) -> None:
    recorder, name = Recorder(), NAMES[kind]
    result = bench.train(kind, steps=5, save_every=2, preview_every=3, preview_steps=1, callbacks=[recorder])
    assert result.run_dir.parent.parent == bench.workspace.logs
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", result.run_dir.parent.name)
    assert result.run_dir.name == name
    loss_csv = {"embedding": "textual_inversion_loss.csv", "hypernetwork": "hypernetwork_loss.csv"}[kind]
    found = [re.sub(r"\d{4}-\d\d-\d\d-\d\d-\d\d-\d\d", "TIME", name) for name in names(result.run_dir)]
    assert found == sorted([f"{kind}s", "images", "run.json", "settings-TIME.json", "start.pt", "state", loss_csv])
    copies = result.run_dir / f"{kind}s"
    assert names(copies) == [f"{name}-2.pt", f"{name}-4.pt"]
    assert [load(copies / f"{name}-{step}.pt").step for step in (2, 4)] == [2, 4]
    assert (load(result.adapter_path).step, load(result.adapter_path).name) == (5, name)
    assert result.adapter_path == bench.path(kind)
    assert [step for step, _ in list_states(result.run_dir / "state")] == [5, 4]
    saved = [(event.global_step, event.path) for event in recorder.of(CheckpointSaved)]
    assert saved == [
        (2, copies / f"{name}-2.pt"),
        (4, copies / f"{name}-4.pt"),
        (5, result.adapter_path),
    ]
    lines = csv_text(result.run_dir).splitlines()
    assert lines[0] == "step,epoch,epoch_step,loss,learn_rate"
    assert [re.fullmatch(r"(\d+),0,(\d+),\d+\.\d{7},0\.01", line) is not None for line in lines[1:]] == [True] * 5


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_holds_the_weights_of_its_step(new_bench: Callable[[str], Bench], kind: str) -> None:
    whole = new_bench("whole").train(kind, steps=4, save_every=2)
    short = new_bench("short").train(kind, steps=2)
    copy = whole.run_dir / f"{kind}s" / f"{NAMES[kind]}-2.pt"
    state = {key: value.clone() for key, value in load(copy).state_dict().items()}
    assert equal(state, trained(short.adapter_path))


def test_provenance_is_in_the_file(bench: Bench) -> None:
    result = bench.train("embedding")
    saved = Embedding.load(result.adapter_path)
    assert (saved.model_name, len(saved.model_hash)) == ("tiny", 10)
    assert saved.provenance["software"].startswith("tincture ")
    assert saved.provenance["settings"]["learning_rate"] == "1e-2"
    assert len(saved.provenance["data_hash"]) >= 40


@pytest.mark.parametrize("kind", KINDS)
def test_author_and_licence_are_kept_also_by_later_runs(bench: Bench, kind: str) -> None:
    bench.train(kind, steps=1, author="Ada", license="CC0-1.0")
    bench.train(kind, steps=2, license="CC-BY-4.0")
    load = Embedding.load if kind == "embedding" else Hypernetwork.load
    provenance = load(bench.path(kind)).provenance
    assert (provenance["author"], provenance["license"]) == ("Ada", "CC-BY-4.0")
    assert provenance["settings"]["steps"] == 2


EXPECTED_SETTINGS = {
    "model_name": "tiny",
    "num_of_dataset_images": 5,
    "learn_rate": "1e-2",
    "batch_size": 2,
    "gradient_step": 1,
    "training_width": 16,
    "training_height": 16,
    "steps": 4,
    "clip_grad_mode": "none",
    "clip_grad_value": "0.1",
    "latent_sampling_method": "once",
    "create_image_every": 0,
    "save_image_with_stored_embedding": False,
    "initial_step": 0,
}
OF_KIND: dict[str, dict[str, Any]] = {
    "embedding": {
        "num_vectors_per_token": 2,
        "embedding_name": "cat",
        "save_embedding_every": 0,
        "template_file": "subject_filewords",
    },
    "hypernetwork": {
        "layer_structure": [1, 2, 1],
        "activation_func": "relu",
        "weight_init": "Normal",
        "add_layer_norm": True,
        "use_dropout": True,
        "hypernetwork_name": "ink",
        "save_hypernetwork_every": 0,
        "template_file": "hypernetwork",
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_settings_file_has_the_webuis_keys(bench: Bench, kind: str) -> None:
    result = bench.train(kind, batch_size=2)
    (path,) = result.run_dir.glob("settings-*.json")
    content = json.loads(path.read_text())
    expected = {**EXPECTED_SETTINGS, **OF_KIND[kind]}
    assert {key: content[key] for key in expected} == expected
    varying = {"datetime", "model_hash", "data_root", "log_directory"}
    assert content.keys() == expected.keys() | varying
    assert content["data_root"] == str(bench.data)
    assert len(content["model_hash"]) == 10


def test_settings_file_tells_of_previews_when_they_were_asked_for(bench: Bench) -> None:
    result = bench.train("embedding", preview_prompts=["cat", "red"], preview_steps=3, steps=1)
    (path,) = result.run_dir.glob("settings-*.json")
    previews = {key: value for key, value in json.loads(path.read_text()).items() if key.startswith("preview_")}
    assert previews == {
        "preview_prompt": "cat",
        "preview_negative_prompt": "",
        "preview_steps": 3,
        "preview_sampler_name": "Euler a",
        "preview_cfg_scale": 7.0,
        "preview_seed": 0,
        "preview_width": 16,
        "preview_height": 16,
    }


def test_previews_have_their_own_size_and_a_card_with_the_embedding(bench: Bench) -> None:
    changes = {"preview_every": 2, "preview_steps": 1, "preview_width": 24, "preview_height": 32}
    result = bench.train("embedding", **changes, preview_with_embedding=True, save_every=2)
    with Image.open(result.run_dir / "images" / "cat-2-0.png") as picture:
        assert picture.size == (24, 32)
    assert names(result.run_dir / "image_embeddings") == [f"cat-{step}.png" for step in (0, 2, 4)]
    card = Embedding.load(result.run_dir / "image_embeddings" / "cat-2.png")
    copy = Embedding.load(result.run_dir / "embeddings" / "cat-2.pt")
    assert (card.name, card.step) == ("cat", 2)
    assert equal(card.state_dict(), copy.state_dict())
    with Image.open(result.run_dir / "image_embeddings" / "cat-2.png") as picture:
        assert min(picture.size) >= 256  # the preview enlarged, with blocks beside it
    (path,) = result.run_dir.glob("settings-*.json")
    assert json.loads(path.read_text())["save_image_with_stored_embedding"] is True


def test_tensorboard_is_written_only_when_asked_for(bench: Bench) -> None:
    pytest.importorskip("tensorboard")
    assert not (bench.train("embedding", steps=1).run_dir / "tensorboard").exists()
    assert names(bench.train("embedding", steps=2, tensorboard=True).run_dir / "tensorboard")


def test_a_second_run_on_the_same_day_has_a_folder_of_its_own(bench: Bench) -> None:
    first = bench.train("embedding", steps=2)
    before = {path: path.read_bytes() for path in first.run_dir.rglob("*") if path.is_file()}
    second = bench.train("embedding", steps=4)
    assert second.run_dir == first.run_dir.with_name("cat-2")
    assert {path: path.read_bytes() for path in before} == before


def test_log_dir_takes_the_place_of_the_workspaces(bench: Bench, tmp_path: Path) -> None:
    assert bench.train("embedding", log_dir=str(tmp_path / "logs")).run_dir.parts[: len(tmp_path.parts) + 1] == (
        *tmp_path.parts,
        "logs",
    )


def test_the_files_own_name_does_not_count(bench: Bench) -> None:
    """Someone else's file may hold any name, one that leads out of the folder too."""
    embedding = Embedding.load(bench.path("embedding"))
    embedding.name = "../../../elsewhere"
    embedding.save(bench.path("embedding"))
    result = bench.train("embedding", save_every=2)
    assert result.run_dir.name == "cat"
    assert Embedding.load(result.adapter_path).name == "cat"
    stopped = bench.train("embedding", steps=6, stop_after=5)
    assert Embedding.load(bench.resume(stopped.run_dir).adapter_path).name == "cat"


# --- going on --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_more_steps_train_an_adapter_further(bench: Bench, kind: str) -> None:
    first, recorder = bench.train(kind, steps=2), Recorder()
    before = trained(first.adapter_path)
    second = bench.train(kind, steps=5, callbacks=[recorder])
    assert [r.global_step for event in recorder.of(StepsDone) for r in event.records] == [3, 4, 5]
    assert load(second.adapter_path).step == 5
    assert not equal(trained(second.adapter_path), before)
    (path,) = second.run_dir.glob("settings-*.json")
    assert json.loads(path.read_text())["initial_step"] == 2


def test_a_run_that_went_on_resumes_exactly(new_bench: Callable[[str], Bench]) -> None:
    whole, stopped = new_bench("whole"), new_bench("stopped")
    for each in (whole, stopped):
        each.train("embedding", steps=2)
    result = stopped.train("embedding", steps=6, stop_after=4)
    resumed = stopped.resume(result.run_dir)
    assert equal(trained(resumed.adapter_path), trained(whole.train("embedding", steps=6).adapter_path))


def test_steps_done_already_are_refused(bench: Bench) -> None:
    bench.train("embedding", steps=3)
    with pytest.raises(
        AlreadyTrainedError, match=r"'cat' has 3 steps already, and `steps` is 3: nothing is left to do"
    ):
        bench.train("embedding", steps=3)


def test_a_schedule_that_ends_early_ends_the_run(bench: Bench) -> None:
    result = bench.train("embedding", steps=6, learning_rate="0.01:2, 0.001:3")
    assert (result.global_step, result.interrupted) == (3, False)
    with pytest.raises(UsageError, match=r"has 3 steps already, and the learning rate's schedule ends at 3"):
        bench.train("embedding", steps=6, learning_rate="0.01:2, 0.001:3")


# --- nothing is paid twice -------------------------------------------------------------------------------------------


def test_every_picture_is_encoded_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []
    encode = StableDiffusion.encode_pictures

    def counting(self: StableDiffusion, pixels: Tensor) -> tuple[Tensor, Tensor]:
        encoded.append(len(pixels))
        return encode(self, pixels)

    monkeypatch.setattr(StableDiffusion, "encode_pictures", counting)
    recorder = Recorder()
    bench.train("embedding", steps=12, latent_sampling_method="random", callbacks=[recorder])
    assert sum(encoded) == 5
    encoding = [event for event in recorder.of(Progressed) if event.stage == ENCODING]
    assert encoding == [Progressed(ENCODING, done, 5) for done in range(6)]


@pytest.mark.parametrize(("kind", "expected"), [("embedding", 12), ("hypernetwork", 5)])
def test_texts_are_encoded_once_where_they_are_not_trained(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, kind: str, expected: int
) -> None:
    """Twelve steps of one picture, over more than two epochs of five captions in one template line."""
    template = bench.data.parent / "one.txt"
    template.write_text("[filewords] [name]")
    made: list[Conditioning] = []

    class Watched(Conditioning):
        def __init__(self, *arguments: Any, **keywords: Any) -> None:
            super().__init__(*arguments, **keywords)
            made.append(self)

    monkeypatch.setattr(run_trainer, "Conditioning", Watched)
    bench.train(kind, steps=12, template=str(template))
    assert [conditioning.encoded for conditioning in made] == [expected]


def test_an_embedding_has_no_weight_decay_and_a_hypernetwork_the_optimizers(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    decays: list[float] = []

    def watched(*arguments: Any) -> torch.optim.Optimizer:
        optimizer = create_optimizer(*arguments)
        decays.append(optimizer.param_groups[0]["weight_decay"])
        return optimizer

    monkeypatch.setattr(run_trainer, "create_optimizer", watched)
    bench.train("embedding", steps=1)
    bench.train("hypernetwork", steps=1)
    bench.train("embedding", steps=2, weight_decay=0.5)
    assert list(dict.fromkeys(decays)) == [0.0, 0.01, 0.5]


@pytest.mark.parametrize("kind", ["embedding", "hypernetwork"])
def test_an_optimizer_is_made_where_the_adapter_is_trained(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Adagrad makes its state when it is made, and on the device that the parameters are on then."""
    order: list[str] = []
    adapter: Any = Embedding if kind == "embedding" else Hypernetwork
    move = adapter.to

    def watched_move(self: Any, device: torch.device | str) -> Any:
        order.append("moved")
        return move(self, device)

    def watched(*arguments: Any) -> torch.optim.Optimizer:
        order.append("made")
        return create_optimizer(*arguments)

    monkeypatch.setattr(adapter, "to", watched_move)
    monkeypatch.setattr(run_trainer, "create_optimizer", watched)
    assert bench.train(kind, steps=1, optimizer="Adagrad").global_step == 1
    assert "made" in order[order.index("moved") :]


# --- settings that change the result ---------------------------------------------------------------------------------


def test_transparency_weighs_the_loss_when_asked_for(new_bench: Callable[[str], Bench]) -> None:
    results = []
    for use_weight in (False, True):
        bench = new_bench(f"weight-{use_weight}")
        for path in bench.data.glob("*.png"):
            picture = Image.open(path).convert("RGBA")
            picture.putalpha(Image.linear_gradient("L").resize(picture.size))
            picture.save(path)
        results.append(trained(bench.train("embedding", use_weight=use_weight).adapter_path))
    assert not equal(*results)


def test_pictures_of_several_sizes(bench: Bench) -> None:
    write_pictures(bench.data / "more", ["wide"]).joinpath("0.png").rename(bench.data / "wide.png")
    Image.open(bench.data / "wide.png").resize((32, 16)).save(bench.data / "wide.png")
    result = bench.train("embedding", varsize=True, batch_size=2, steps=6)
    assert result.global_step == 6
    assert recipe.plan(bench.settings("embedding", varsize=True, steps=9), bench.workspace)["buckets"] == [
        {"size": "16x16", "pictures": 5, "cropped": 0.0},
        {"size": "32x16", "pictures": 1, "cropped": 0.0},
    ]


def test_gradient_checkpointing_gives_the_same_weights(new_bench: Callable[[str], Bench]) -> None:
    results = [
        trained(new_bench(f"{on}").train("hypernetwork", steps=2, gradient_checkpointing=on).adapter_path)
        for on in (False, True)
    ]
    for key, value in results[0].items():
        torch.testing.assert_close(value, results[1][key], rtol=0, atol=1e-6)


# --- divergence ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("log_every", [1, 50])
def test_a_run_that_diverges_leaves_the_adapter_as_it_was(
    bench: Bench, capsys: pytest.CaptureFixture[str], log_every: int
) -> None:
    before = bench.path("hypernetwork").read_bytes()
    settings = bench.settings(
        "hypernetwork", learning_rate="1:1, 1e30", steps=8, log_every=log_every, save_every=1, optimizer="SGD"
    )
    config = bench.workspace.root / "run.toml"
    config.write_text(settings.to_toml())
    code = main(["train", "--config", str(config), "--root", str(bench.workspace.root)])
    message = capsys.readouterr().err.splitlines()[-1]
    assert code == 1
    assert re.match(r"error: The (loss of step \d+ is (nan|inf)|trained weights became NaN)", message)
    assert "Lower the learning rate" in message
    assert bench.path("hypernetwork").read_bytes() == before
    (run_dir,) = bench.workspace.logs.glob("*/*")
    lines = csv_text(run_dir).splitlines()[1:]
    assert lines
    assert all(float(line.split(",")[3]) < float("inf") for line in lines)
    for copy in (run_dir / "hypernetworks").glob("*.pt"):
        assert all(bool(torch.isfinite(value).all()) for value in Hypernetwork.load(copy).state_dict().values())


def test_weights_that_are_nan_are_not_saved_although_every_loss_was_finite(bench: Bench) -> None:
    """The last step may break the weights: no later loss will tell."""
    before = bench.path("embedding").read_bytes()
    with pytest.raises(DivergedError, match="The trained weights became NaN or infinite by step 1"):
        bench.train("embedding", steps=1, learning_rate="1e38", optimizer="SGD")
    assert bench.path("embedding").read_bytes() == before


# --- failures --------------------------------------------------------------------------------------------------------


def fail() -> None:
    raise RuntimeError("a watcher's own fault")


@pytest.mark.parametrize("step", [2, 3])
def test_a_failing_watcher_spoils_no_file_and_the_run_can_go_on(new_bench: Callable[[str], Bench], step: int) -> None:
    whole = new_bench("whole").train("embedding", save_every=2)
    bench = new_bench("failing")
    before = bench.path("embedding").read_bytes()
    with pytest.raises(RuntimeError, match="own fault"):
        bench.train("embedding", save_every=2, callbacks=[OnStep(step, fail)])
    assert bench.path("embedding").read_bytes() == before
    (run_dir,) = bench.workspace.logs.glob("*/*")
    assert Embedding.load(run_dir / "embeddings" / "cat-2.pt").step == 2
    result = bench.resume(run_dir)
    assert equal(trained(result.adapter_path), trained(whole.adapter_path))
    assert csv_text(run_dir) == csv_text(whole.run_dir)


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "the disk quota is used up")]
)
def test_a_disk_that_refuses_is_told_and_nothing_old_is_touched(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    bench.train("embedding", steps=2, save_every=1)
    old = {path: path.read_bytes() for path in bench.workspace.root.rglob("*") if path.is_file()}

    def refuse(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    # From step 4 on, and then from the very start.
    with pytest.raises(StorageError, match=words):
        patch = OnStep(3, lambda: monkeypatch.setattr(os, "fsync", refuse))
        bench.train("embedding", steps=5, save_every=1, callbacks=[patch])
    with pytest.raises(StorageError, match=words):
        bench.train("embedding", steps=5)
    assert {path: path.read_bytes() for path in old} == old
    monkeypatch.undo()
    run_dir = next(iter(bench.workspace.logs.glob("*/cat-2")))
    assert not list(run_dir.rglob("*.tmp"))
    assert bench.resume(run_dir).global_step == 5


def test_a_log_folder_that_cannot_be_made_is_told(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"The folder .*file.* could not be made: .*`log_dir`"):
        bench.train("embedding", log_dir=str(tmp_path / "file"))


# --- bad input -------------------------------------------------------------------------------------------------------


REFUSED: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    ("embedding", {"batch_size": 6}, UsageError, r"`batch_size` is 6, but .* has 5 usable pictures"),
    ("embedding", {"name": "dog"}, UsageError, r"There is no embedding 'dog'.*tincture create embedding 'dog'"),
    ("hypernetwork", {"name": "inc"}, UsageError, r"did you mean ink\?"),
    ("embedding", {"data": "nowhere"}, DataError, r"The picture folder nowhere does not exist"),
    ("embedding", {"model": "nothing"}, ModelError, r"There is no model 'nothing'"),
    ("embedding", {"clip_skip": 3}, UsageError, r"`clip_skip` is 3, but the text encoder has 2 layers"),
    ("embedding", {"preview_sampler": "Eular"}, UsageError, r"There is no sampler 'Eular'"),
    ("embedding", {"template": "hypernetwork"}, UsageError, r"has a line without \[name\]"),
    ("embedding", {"template": "no such"}, UsageError, r"There is no template 'no such'"),
    ("embedding", {"optimizer": "Adamm"}, UsageError, r"Did you mean Adam"),
    ("embedding", {"optimizer": "LBFGS"}, UsageError, r"'LBFGS' cannot be used"),
    ("hypernetwork", {"optimizer": "Muon"}, UsageError, r"'?Muon'? cannot be used"),
    ("embedding", {"device": "cuda:77"}, UsageError, r"Device 'cuda:77' cannot be used here"),
]


@pytest.mark.parametrize(("kind", "changes", "error", "message"), REFUSED, ids=lambda value: str(value)[:30])
def test_bad_input_is_told_before_anything_is_written(
    bench: Bench, kind: str, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        bench.train(kind, **changes)
    assert not bench.workspace.logs.exists()
    with pytest.raises(error, match=message):  # the plan does not promise what cannot be
        recipe.plan(bench.settings(kind, **changes), bench.workspace)


def test_an_adapter_for_another_model_is_refused(bench: Bench) -> None:
    Embedding("cat", {"clip_l": torch.zeros(1, 768)}).save(bench.path("embedding"))
    with pytest.raises(
        ModelError, match=r"'cat' has vectors of width clip_l 768, but .* 'tiny' is clip_l 32 .*\(`model`\)"
    ):
        bench.train("embedding")
    create_hypernetwork("ink", (768, 320)).save(bench.path("hypernetwork"))
    with pytest.raises(
        ModelError, match=r"has layers for the widths 320, 768, but .* 'tiny' \(Stable Diffusion 1\) take 32, 64"
    ):
        bench.train("hypernetwork")


def test_skipped_pictures_are_warned_of(bench: Bench) -> None:
    (bench.data / "broken.png").write_bytes(b"\x89PNG")
    with pytest.warns(UserWarning, match=r"broken\.png is skipped: "):
        assert bench.train("embedding", steps=1).global_step == 1


# --- create and plan -------------------------------------------------------------------------------------------------


def test_create_writes_into_the_workspace_and_overwrites_only_when_told(model_folder: Path, tmp_path: Path) -> None:
    workspace, model = Workspace(tmp_path), str(model_folder)
    path = recipe.create_embedding("v1.5", workspace=workspace, model=model, num_vectors=3, init_text="red")
    made = Embedding.load(path)
    assert (path, made.name, made.num_vectors) == (tmp_path / "embeddings" / "v1.5.pt", "v1.5", 3)
    network = recipe.create_hypernetwork("ink", workspace=workspace, model=model, activation_func="relu")
    assert Hypernetwork.load(network).sizes == [32, 64]
    assert made.provenance["software"] == Hypernetwork.load(network).provenance["software"] == f"tincture {version()}"
    content = path.read_bytes()
    with pytest.raises(UsageError, match=r"exists already; choose another name, or give `overwrite`"):
        recipe.create_embedding("v1.5", workspace=workspace, model=model)
    with pytest.raises(UsageError, match=r"exists already"):
        recipe.create_hypernetwork("ink", workspace=workspace, model=model)
    assert path.read_bytes() == content
    recipe.create_embedding("v1.5", workspace=workspace, model=model, num_vectors=1, overwrite=True)
    assert Embedding.load(path).num_vectors == 1


def test_plan_writes_nothing_and_counts(bench: Bench) -> None:
    before = sorted(bench.workspace.root.rglob("*"))
    plan = recipe.plan(
        bench.settings("embedding", batch_size=2, gradient_accumulation_steps=3, steps=10), bench.workspace
    )
    assert sorted(bench.workspace.root.rglob("*")) == before
    assert (plan["pictures"], plan["micro_batches_per_epoch"], plan["steps"], plan["epochs"]) == (5, 3, 10, 10.0)
    assert plan["trained_numbers"] == 64


def test_a_plan_ends_where_the_schedule_of_the_rate_ends(bench: Bench) -> None:
    plan = recipe.plan(bench.settings("embedding", steps=10, learning_rate="0.1:4"), bench.workspace)
    assert (plan["steps"], plan["epochs"]) == (4, 0.8)
    (remark,) = [remark for remark in plan["remarks"] if "schedule" in remark]
    assert "ends at step 4" in remark and "steps is 10" in remark


def test_a_plan_says_when_nothing_is_left_to_do(bench: Bench) -> None:
    bench.train("embedding", steps=4)
    plan = recipe.plan(bench.settings("embedding", steps=4), bench.workspace)
    assert (plan["steps"], plan["epochs"]) == (0, 0)
    assert any("has 4 steps already" in remark for remark in plan["remarks"])


def test_a_v_prediction_model_is_trained(bench: Bench, tmp_path: Path) -> None:
    folder = save_folder(tiny_model(prediction_type="v_prediction"), tmp_path / "v")
    other = bench.train("embedding", steps=2, model=str(folder))
    assert other.global_step == 2
    assert Embedding.load(other.adapter_path).model_name == "v"
