from __future__ import annotations

import json
import math
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import FakeRecipe, Result
from tincture.cli import main
from tincture.errors import AlreadyTrainedError
from tincture.settings.train import FIELDS, TrainSettings
from tincture.workspace import Workspace

RUN_FILE = 'kind = "hypernetwork"\nname = "ink"\ndata = "d"\nsteps = 5\nlearning_rate = 1e-4\n'


@pytest.fixture
def run_file(recipe: FakeRecipe, tmp_path: Path) -> str:
    path = tmp_path / "run.toml"
    path.write_text(RUN_FILE)
    return str(path)


def trained(recipe: FakeRecipe, function: str = "train") -> TrainSettings:
    ((name, arguments, _),) = recipe.calls
    assert name == function
    settings = arguments[0]
    assert isinstance(settings, TrainSettings)
    return settings


# one value per setting that is not its default, as words of a command line and as it must arrive
VALUES: dict[str, tuple[list[str], Any]] = {
    "model": (["m"], "m"),
    "vae": (["v"], "v"),
    "family": (["sd2"], "sd2"),
    "prediction_type": (["v_prediction"], "v_prediction"),
    "zero_terminal_snr": ([], True),
    "data": (["d"], "d"),
    "recursive": ([], True),
    "folder_repeats": ([], True),
    "flip": ([], True),
    "width": (["128"], 128),
    "height": (["64"], 64),
    "resize": (["crop"], "crop"),
    "buckets": ([], True),
    "bucket_step": (["16"], 16),
    "bucket_min": (["32"], 32),
    "bucket_max": (["256"], 256),
    "small_pictures": (["skip"], "skip"),
    "caption_encoding": (["latin-1"], "latin-1"),
    "caption_missing": (["wd"], "wd"),
    "caption_model": (["owner/model"], "owner/model"),
    "write_captions": ([], True),
    "keep_tags": (["1"], 1),
    "masks": (["m"], "m"),
    "unmasked_weight": (["0.1"], 0.1),
    "cache_dir": (["c"], "c"),
    "attention_mask_weight": (["0.5:100, 0"], "0.5:100, 0"),
    "template": (["style"], "style"),
    "word_regex": (["[a-z]+"], "[a-z]+"),
    "join_string": ([", "], ", "),
    "shuffle_tags": ([], True),
    "tag_drop_out": (["0.5"], 0.5),
    "caption_drop_out": (["0.1"], 0.1),
    "latent_sampling_method": (["random"], "random"),
    "use_weight": ([], True),
    "steps": (["7"], 7),
    "save_optimizer_state": ([], True),
    "author": (["Ada"], "Ada"),
    "license": (["CC0-1.0"], "CC0-1.0"),
    "learning_rate": (["1e-3:5, 1e-4"], "1e-3:5, 1e-4"),
    "batch_size": (["2"], 2),
    "gradient_accumulation_steps": (["3"], 3),
    "optimizer": (["SGD"], "SGD"),
    "optimizer_args": (["momentum=0.9"], "momentum=0.9"),
    "weight_decay": (["0.5"], 0.5),
    "weight_decay_bias": (["0"], 0.0),
    "weight_decay_norm": (["0.25"], 0.25),
    "clip_grad_mode": (["norm"], "norm"),
    "clip_grad_value": (["1"], "1"),
    "clip_skip": (["2"], 2),
    "seed": (["9"], 9),
    "loss": (["huber"], "huber"),
    "loss_scale": (["0.5"], 0.5),
    "timestep_weighting": (["min_snr"], "min_snr"),
    "min_snr_gamma": (["5:100, 1"], "5:100, 1"),
    "offset_noise": (["0.05"], 0.05),
    "input_perturbation": (["0.1"], 0.1),
    "timestep_distribution": (["logit_normal"], "logit_normal"),
    "logit_mean": (["0.5"], 0.5),
    "logit_std": (["2"], 2.0),
    "timestep_min": (["0.1"], 0.1),
    "timestep_max": (["0.9"], 0.9),
    "prior_data": (["p"], "p"),
    "prior_weight": (["0.5"], "0.5"),
    "prior_prompt": (["a photo of a cat"], "a photo of a cat"),
    "prior_count": (["7"], 7),
    "prior_negative_prompt": (["blurred"], "blurred"),
    "prior_steps": (["30"], 30),
    "prior_sampler": (["DDIM"], "DDIM"),
    "prior_guidance_scale": (["4.5"], 4.5),
    "prior_seed": (["3"], 3),
    "norm_limit": (["2:100, 1"], "2:100, 1"),
    "norm_weight": (["0.1"], "0.1"),
    "prior_template": (["none"], "none"),
    "ema": (["0.9:100, 0.99"], "0.9:100, 0.99"),
    "ema_warmup": ([], True),
    "ema_publish": (["raw"], "raw"),
    "on_divergence": (["skip"], "skip"),
    "divergence_limit": (["5"], 5),
    "rollback_factor": (["0.25"], 0.25),
    "spike_threshold": (["6"], 6.0),
    "overflow_limit": (["9"], 9),
    "validation_share": (["0.2"], 0.2),
    "validation_every": (["50"], 50),
    "validation_pictures": (["4"], 4),
    "validation_bands": (["3"], 3),
    "early_stopping_patience": (["2"], 2),
    "device": (["cuda:1"], "cuda:1"),
    "threads": (["3"], 3),
    "processes": (["1"], "1"),
    "vram": (["6.5"], "6.5"),
    "offload": ([], True),
    "slicing": ([], True),
    "precision": (["bf16"], "bf16"),
    "gradient_checkpointing": ([], True),
    "weight_storage": (["float8"], "float8"),
    "log_dir": (["logs"], "logs"),
    "save_every": (["0"], 0),
    "keep_copies": (["3"], 3),
    "keep_copies_every": (["100"], 100),
    "keep_states": (["4"], 4),
    "keep_states_every": (["200"], 200),
    "log_every": (["1"], 1),
    "tensorboard": ([], True),
    "log_with": (["wandb, mlflow"], ("wandb", "mlflow")),
    "log_project": (["p"], "p"),
    "log_norms": ([], True),
    "preview_every": (["7"], 7),
    "preview_prompts": (["a cat"], ("a cat",)),
    "preview_negative_prompt": (["dog"], "dog"),
    "preview_steps": (["5"], 5),
    "preview_sampler": (["DDIM"], "DDIM"),
    "preview_guidance_scale": (["3"], 3.0),
    "preview_seed": (["8"], 8),
    "companions": (["hypernetwork:ink pot:0:2, 1e-4"], ("hypernetwork:ink pot:0:2, 1e-4",)),
    "fixed_adapters": (["hypernetwork:gold:0.7"], ("hypernetwork:gold:0.7",)),
    "preview_width": (["512"], 512),
    "preview_height": (["768"], 768),
    "preview_with_embedding": ([], True),
}


def flag_name(name: str) -> str:
    return (FIELDS[name].alias or name).replace("_", "-")


def test_every_setting_is_a_flag(recipe: FakeRecipe) -> None:
    apart = {"varsize", "validation_data", "timestep_bias", "negative_prompt", "guidance_scale"}
    assert set(VALUES) == set(FIELDS) - {"kind", "name"} - apart
    words = [word for name, (given, _) in VALUES.items() for word in (f"--{flag_name(name)}", *given)]
    assert main(["train", "embedding", "cat", *words]) == 0
    assert trained(recipe) == TrainSettings(
        kind="embedding", name="cat", **{name: value for name, (_, value) in VALUES.items()}
    )


def test_flags_win_over_the_tables_of_a_run_file(recipe: FakeRecipe, run_file: str) -> None:
    with open(run_file, "a") as file:
        file.write('[[with]]\nkind = "embedding"\nname = "cat"\nlearning_rate = 1e-2\n')
    assert main(["train", "--config", run_file]) == 0
    assert trained(recipe).companions == ("embedding:cat:0.01",)
    recipe.calls.clear()
    assert main(["train", "--config", run_file, "--with", "embedding:dog:0:2, 1e-3", "--with", "embedding:cow"]) == 0
    assert trained(recipe).companions == ("embedding:dog:0:2, 1e-3", "embedding:cow")


def test_varsize_is_a_flag_but_not_with_buckets(recipe: FakeRecipe, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "embedding", "cat", "--data", "d", "--varsize", "--buckets"]) == 2
    assert "varsize and buckets are both on" in capsys.readouterr().err
    assert main(["train", "embedding", "cat", "--data", "d", "--varsize", "--no-buckets"]) == 0
    assert trained(recipe).varsize


def test_validation_data_is_a_flag_but_not_with_a_share(recipe: FakeRecipe, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "embedding", "cat", "--data", "d", "--validation-data", "e", "--validation-data", "f"]
    assert main([*words, "--validation-share", "0.1"]) == 2
    assert "validation_share" in capsys.readouterr().err.replace("-", "_")
    assert main(words) == 0
    assert trained(recipe).validation_data == ("e", "f")


def test_a_bias_is_a_flag_of_other_distributions(recipe: FakeRecipe, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "embedding", "cat", "--data", "d", "--timestep-bias", "0.5"]
    assert main(words) == 2
    assert "timestep_bias" in capsys.readouterr().err.replace("-", "_")
    assert main([*words, "--timestep-distribution", "late"]) == 0
    assert trained(recipe).timestep_bias == 0.5


def test_a_guidance_scale_is_a_flag_beside_a_negative_prompt(
    recipe: FakeRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "embedding", "cat", "--data", "d", "--guidance-scale", "2 -> 4:1000"]
    assert main(words) == 2
    assert "negative_prompt is empty" in capsys.readouterr().err.replace("-", "_")
    assert main([*words, "--negative-prompt", "blurry, [name]"]) == 0
    assert (trained(recipe).guidance_scale, trained(recipe).negative_prompt) == ("2 -> 4:1000", "blurry, [name]")


def test_data_may_be_several_folders(recipe: FakeRecipe, run_file: str) -> None:
    assert main(["train", "--config", run_file, "--data", "d", "--data", "e:3"]) == 0
    assert trained(recipe).folders == ("d", "e:3")


def test_without_flags_the_defaults_stand(recipe: FakeRecipe) -> None:
    assert main(["train", "hypernetwork", "ink", "--data", "d"]) == 0
    assert trained(recipe) == TrainSettings(kind="hypernetwork", name="ink", data="d")


def test_the_help_tells_defaults_and_groups(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "embedding", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"--{flag_name(name)} " in shown for name in VALUES if name != "preview_prompts")
    assert "[default: Euler" in shown
    assert all(f"{FIELDS[name].group}:" in shown for name in VALUES)


def test_a_run_file_alone_is_enough(recipe: FakeRecipe, run_file: str) -> None:
    assert main(["train", "--config", run_file]) == 0
    assert trained(recipe) == TrainSettings(kind="hypernetwork", name="ink", data="d", steps=5, learning_rate="0.0001")


@pytest.mark.parametrize("command", [["train"], ["train", "hypernetwork"], ["train", "hypernetwork", "pen"]])
def test_flags_win_over_the_run_file(command: list[str], recipe: FakeRecipe, run_file: str) -> None:
    words = ["--config", run_file, "--steps", "6", "--preview-prompt", "a", "--preview-prompt", "b", "--no-varsize"]
    assert main([*command, *words]) == 0
    settings = trained(recipe)
    assert (settings.steps, settings.learning_rate, settings.preview_prompts) == (6, "0.0001", ("a", "b"))
    assert settings.name == (command[2] if len(command) > 2 else "ink")


def test_a_flag_can_switch_off_what_the_run_file_switches_on(recipe: FakeRecipe, run_file: str, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(RUN_FILE + "varsize = true\n")
    assert main(["train", "--config", run_file, "--no-varsize"]) == 0
    assert trained(recipe).varsize is False


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["train", "embedding", "ink", "--config", "run.toml"], "is for 'hypernetwork', but 'embedding'"),
        (["train", "--steps", "3", "embedding", "cat", "--data", "d"], "behind 'embedding'"),
        (["train", "embedding", "--data", "d"], "name is missing"),
        (["train", "embedding", "cat"], "data is missing"),
        (["train", "embedding", "cat", "--data", "d", "--no-timing"], "--no-timing leaves something out of what"),
        (["train", "--data", "d"], "kind is missing"),
        (["train", "--config", "absent.toml"], "absent.toml"),
        (["train", "embedding", "a/b", "--data", "d", "--steps", "0"], "2 settings are not allowed"),
        (["train", "embedding", "cat", "--data", "d", "--learning-rate", "1:2:3"], "'1:2:3'"),
        (["resume", "absent"], "'absent'"),
    ],
)
def test_what_makes_no_sense_is_refused(
    words: list[str], told: str, recipe: FakeRecipe, run_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert told in capsys.readouterr().err
    assert not recipe.calls


def test_dry_run_shows_a_run_file_and_trains_nothing(
    recipe: FakeRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe.answers["plan"] = {
        "settings": {"precision": "bf16"},
        "pictures": 5,
        "skipped": {"x.png": "truncated\nfile"},
        "remarks": ["One.", "Two."],
        "buckets": [
            {"size": "512x512", "pictures": 3, "cropped": 0.0},
            {"size": "448x576", "pictures": 2, "cropped": 0.0312},
        ],
        "micro_batches_per_epoch": 3,
        "duration": {"seconds": 47.0, "description": "about 47 s (95 steps of 0.25 s)"},
    }
    assert main(["train", "embedding", "cat", "--data", "d", "--dry-run"]) == 0
    settings = trained(recipe, "plan")
    shown = capsys.readouterr().out
    assert "# pictures: 5\n# skipped x.png: truncated file\n" in shown
    assert "# remarks: One. Two.\n" in shown
    assert "# duration: about 47 s (95 steps of 0.25 s)\n" in shown
    assert "# buckets: 512x512 3, 448x576 2 (3.1% cropped)\n# micro batches per epoch: 3\n" in shown
    (tmp_path / "again.toml").write_text(shown)
    assert TrainSettings.from_toml(tmp_path / "again.toml") == settings.resolved().replace(precision="bf16")


def test_a_dry_run_measures_how_long_the_run_will_take_unless_told_not_to(recipe: FakeRecipe) -> None:
    asked = ["train", "embedding", "cat", "--data", "d", "--dry-run"]
    assert main(asked) == main([*asked, "--no-timing"]) == 0
    assert [keywords["timing"] for _, _, keywords in recipe.calls] == ["measure", "none"]


def test_dry_run_as_json(recipe: FakeRecipe, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "embedding", "cat", "--data", "d", "--dry-run", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["settings"]["learning_rate"] == "0.005"
    assert shown["pictures"] == 5


def test_the_result_is_on_stdout(recipe: FakeRecipe, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "embedding", "cat", "--data", "d"]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[0] == "embeddings/cat.pt"
    assert "step 12, loss 0.1250" in captured.out
    assert captured.err == ""


def test_the_result_as_json_has_no_nan(recipe: FakeRecipe, capsys: pytest.CaptureFixture[str]) -> None:
    recipe.answers["train"] = Result(loss=math.nan)
    assert main(["train", "embedding", "cat", "--data", "d", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["loss"] is None
    assert (shown["global_step"], shown["run_dir"], shown["interrupted"]) == (12, "runs/cat", False)


@pytest.mark.parametrize("function", ["train", "resume"])
def test_an_interrupted_run_says_how_to_go_on_and_exits_130(
    function: str, recipe: FakeRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe.answers[function] = replace(Result(), interrupted=True)
    words = {"train": ["train", "embedding", "cat", "--data", "d"], "resume": ["resume", str(tmp_path)]}
    assert main(words[function]) == 130
    captured = capsys.readouterr()
    assert "tincture resume 'runs/cat'" in captured.err
    assert "embeddings/cat.pt" in captured.out


def test_a_run_that_ended_early_says_why(recipe: FakeRecipe, capsys: pytest.CaptureFixture[str]) -> None:
    recipe.answers["train"] = replace(Result(), ending="It got no better.")
    assert main(["train", "embedding", "cat", "--data", "d", "--json"]) == 0
    captured = capsys.readouterr()
    assert "ended early: It got no better." in captured.err
    assert json.loads(captured.out)["ending"] == "It got no better."


def test_nothing_to_do_is_no_failure(recipe: FakeRecipe, capsys: pytest.CaptureFixture[str]) -> None:
    recipe.answers["train"] = AlreadyTrainedError("It has 9 steps, and --steps is 9: nothing is left to do.", 9)
    recipe.answers["find_adapter"] = Path("embeddings/cat.pt")
    assert main(["train", "embedding", "cat", "--data", "d"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "embeddings/cat.pt\n"
    assert captured.err.endswith("nothing to do: It has 9 steps, and --steps is 9: nothing is left to do.\n")
    assert main(["train", "embedding", "cat", "--data", "d", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["nothing_to_do"], shown["global_step"], shown["interrupted"]) == (True, 9, False)


def test_resume_hands_on_the_folder_and_the_stop_event(recipe: FakeRecipe, tmp_path: Path) -> None:
    assert main(["resume", str(tmp_path)]) == 0
    ((name, arguments, keywords),) = recipe.calls
    assert (name, arguments) == ("resume", (tmp_path,))
    assert isinstance(keywords["stop"], threading.Event)
    assert len(keywords["callbacks"]) == 2  # progress and extensions
    assert keywords["workspace"] is None  # the run knows its own


def test_resume_hands_on_what_saves_memory(recipe: FakeRecipe, tmp_path: Path) -> None:
    assert main(["resume", str(tmp_path), "--offload", "--vram", "8"]) == 0
    assert recipe.calls[0][2]["memory"] == {"offload": True, "vram": "8"}
    assert main(["resume", str(tmp_path), "--batch-size", "1"]) == 2


def test_resume_looks_in_a_workspace_that_was_named(recipe: FakeRecipe, tmp_path: Path) -> None:
    assert main(["resume", str(tmp_path), "--root", str(tmp_path)]) == 0
    assert recipe.calls[0][2]["workspace"] == Workspace(tmp_path)


def test_a_run_file_and_flags_win_over_a_preset_and_the_plan_names_it(
    recipe: FakeRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.toml").write_text('batch_size = 3\nsteps = 77\nmodel = "v1-5"\n')
    asked = ["train", "embedding", "cat", "--data", "d", "--preset", "careful", "--config", str(tmp_path / "run.toml")]
    assert main([*asked, "--steps", "88", "--dry-run"]) == 0
    settings = trained(recipe, "plan")
    assert (settings.steps, settings.batch_size, settings.ema, settings.validation_share) == (88, 3, "0.99", 0.1)
    assert "# preset: careful\n" in capsys.readouterr().out


def test_a_preset_that_is_not_there_or_has_no_kind_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "embedding", "cat", "--data", "d", "--preset", "fast"]) == 2
    assert "there are quick, subject, style, careful" in capsys.readouterr().err
    assert main(["train", "--preset", "quick"]) == 2
    assert "--preset quick is not the same for each kind" in capsys.readouterr().err


def test_presets_of_the_workspace_are_taken_too(
    recipe: FakeRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Workspace(tmp_path).presets
    folder.mkdir()
    (folder / "mine.toml").write_text('kind = "embedding"\nsteps = 77\nema = "0.9"\n')
    asked = ["--root", str(tmp_path), "--data", "d", "--preset", "mine", "--dry-run"]
    assert main(["train", "embedding", "cat", "--steps", "88", *asked]) == 0
    assert (trained(recipe, "plan").steps, trained(recipe, "plan").ema) == (88, "0.9")
    assert main(["train", "hypernetwork", "ink", *asked]) == 2
    assert "The preset 'mine' is for an embedding, not for a hypernetwork." in capsys.readouterr().err


def test_a_run_file_may_be_the_only_argument(recipe: FakeRecipe, tmp_path: Path) -> None:
    path = tmp_path / "rex.TOML"
    path.write_text('kind = "embedding"\nname = "rex"\ndata = "d"\nsteps = 9\n')
    assert main(["train", str(path), "--batch-size", "2"]) == 0
    assert (trained(recipe).name, trained(recipe).steps, trained(recipe).batch_size) == ("rex", 9, 2)
