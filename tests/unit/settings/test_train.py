from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tincture.errors import UsageError
from tincture.settings.train import FIELDS, TrainSettings

REQUIRED = {"kind": "embedding", "name": "cat", "data": "pictures"}


def refusal(values: dict[str, Any]) -> str:
    with pytest.raises(UsageError) as caught:
        TrainSettings.from_dict(values)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_defaults_depend_on_the_kind_only_when_resolved() -> None:
    embedding = TrainSettings.from_dict(REQUIRED)
    assert (embedding.learning_rate, embedding.template, embedding.weight_decay) == ("", "", None)
    resolved = embedding.resolved()
    assert (resolved.learning_rate, resolved.template, resolved.weight_decay) == ("0.005", "subject_filewords", 0.0)
    other = embedding.replace(kind="hypernetwork").resolved()
    assert (other.learning_rate, other.template, other.weight_decay) == ("1e-5", "hypernetwork", None)


def test_resolved_keeps_what_was_given() -> None:
    given = {**REQUIRED, "learning_rate": "1e-3:5, 1e-4", "weight_decay": 0.1, "template": "t"}
    memory = {"offload": True, "slicing": False, "precision": "bf16", "gradient_checkpointing": True}
    settings = TrainSettings.from_dict({**given, **memory, "weight_storage": "float8", "vram": "off"})
    assert settings.resolved("fp16") == settings
    assert settings.resolved() == settings and settings.open_memory_settings() == {}


def test_memory_settings_are_usual_unless_they_shall_be_chosen() -> None:
    settings = TrainSettings.from_dict({**REQUIRED, "gradient_checkpointing": True})
    usual = {"offload": False, "slicing": False, "precision": "fp32", "weight_storage": "same"}
    assert settings.open_memory_settings() == usual
    resolved = settings.resolved()
    assert {name: getattr(resolved, name) for name in usual} == usual and resolved.gradient_checkpointing
    assert settings.replace(vram="auto").resolved().open_memory_settings() == usual


@pytest.mark.parametrize("value", ["auto", "off", 8, 5.5, "6", ".5"])
def test_vram_is_auto_or_gigabytes(value: Any) -> None:
    assert TrainSettings.from_dict({**REQUIRED, "vram": value}).vram == str(value)


@pytest.mark.parametrize("value", [" ", "0", "8GB", "-1", "all"])
def test_vram_refuses_the_rest(value: str) -> None:
    assert "off, auto or gigabytes, such as 8 or 5.5" in refusal({**REQUIRED, "vram": value})


@pytest.mark.parametrize("half", ["bf16", "fp16"])
def test_a_gpu_takes_its_best_precision_and_what_fits_where_nothing_is_given(half: str) -> None:
    settings = TrainSettings.from_dict(REQUIRED)
    on_cpu, on_gpu = settings.resolved(), settings.resolved(half)
    assert (on_cpu.vram, on_cpu.precision, on_cpu.open_memory_settings()) == ("off", "fp32", {})
    assert (on_gpu.vram, on_gpu.precision) == ("auto", half)
    assert set(on_gpu.open_memory_settings()) == {"offload", "slicing", "gradient_checkpointing", "weight_storage"}
    given = settings.replace(vram="off", precision="fp32").resolved(half)
    assert (given.vram, given.precision, given.open_memory_settings()) == ("off", "fp32", {})
    assert settings.replace(vram="6").resolved(half).vram == "6"
    assert settings.replace(vram="off").resolved(half).precision == half


def test_every_setting_has_help_and_a_group() -> None:
    assert all(spec.help.endswith(".") and spec.group for spec in FIELDS.values())


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("kind", "lora", "embedding or hypernetwork"),
        ("name", "a/b", "letters"),
        ("name", "x" * 101, "100"),
        ("data", "", "not empty"),
        ("data", [], "not empty"),
        ("data", ["d", ""], "not empty"),
        ("data", ["d", 1], "a text or a list of texts"),
        ("data", 1, "a text or a list of texts"),
        ("data", None, "a text or a list of texts"),
        ("resize", "squeeze", "stretch or crop"),
        ("small_pictures", "drop", "enlarge or skip"),
        ("bucket_step", 12, "0 (chosen for you) or a multiple of 8"),
        ("bucket_min", -8, "multiple of 8"),
        ("keep_tags", -1, "at least 0"),
        ("caption_encoding", "klingon", "such as utf-8"),
        ("caption_encoding", "base64", "such as utf-8"),
        ("caption_encoding", "", "such as utf-8"),
        ("unmasked_weight", 1.0, "below 1"),
        ("steps", 0, "at least 1"),
        ("steps", True, "a whole number"),
        ("steps", 1.5, "a whole number"),
        ("steps", "10", "a whole number"),
        ("batch_size", 0, "at least 1"),
        ("gradient_accumulation_steps", -1, "at least 1"),
        ("width", 100, "multiple of 8"),
        ("height", -8, "multiple of 8"),
        ("varsize", 1, "true or false"),
        ("tag_drop_out", 1.0, "below 1"),
        ("tag_drop_out", -0.1, "at least 0"),
        ("tag_drop_out", float("nan"), "finite"),
        ("word_regex", "(", "regular expression"),
        ("latent_sampling_method", "twice", "once, deterministic or random"),
        ("clip_grad_mode", "max", "none, value or norm"),
        ("precision", "fp8", "fp32, bf16 or fp16"),
        ("device", "gpu", "cuda:N"),
        ("learning_rate", True, "a text or a number"),
        ("learning_rate", [0.1], "a text or a number"),
        ("weight_decay", -1, "at least 0"),
        ("weight_decay", float("inf"), "finite"),
        ("preview_prompts", "one", "a list of texts"),
        ("preview_prompts", ["one", 2], "a list of texts"),
        ("seed", -1, "at least 0"),
        ("preview_seed", -1, "from 0 to 18446744073709551615"),
        ("preview_seed", 2**64, "from 0 to 18446744073709551615"),
        ("log_every", 0, "at least 1"),
        ("save_every", -1, "at least 0"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(name: str, value: object, told: str) -> None:
    message = refusal({**REQUIRED, name: value})
    assert f"{name} is {value!r}" in message or f"{name} is {tuple(value)!r}" in message  # type: ignore[arg-type]
    assert told in message


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"varsize": True, "buckets": True}, "varsize and buckets are both on"),
        ({"bucket_min": 64, "bucket_max": 32}, "bucket_min is 64, but must be at most bucket_max, 32"),
        ({"masks": "m"}, "masks is 'm', but use_weight is off"),
        ({"preview_with_embedding": True, "preview_every": 0}, "preview_every is 0, so that there is no preview"),
        ({"preview_with_embedding": True, "kind": "hypernetwork"}, "a picture has no place for a hypernetwork"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(values: dict[str, Any], told: str) -> None:
    assert told in refusal({**REQUIRED, **values})
    for name, value in values.items():
        if name != "masks":
            assert getattr(TrainSettings.from_dict({**REQUIRED, name: value}), name) == value


def test_a_fault_of_one_setting_does_not_hide_behind_another() -> None:
    message = refusal({**REQUIRED, "steps": 0, "bucket_min": "a", "bucket_max": 8, "masks": 3, "varsize": 2})
    assert all(f"{name} is" in message for name in ("steps", "bucket_min", "masks", "varsize"))


@pytest.mark.parametrize("given", ["d", ["d"], ("d",)])
def test_one_folder_is_a_text_however_it_is_given(given: object) -> None:
    settings = TrainSettings.from_dict({**REQUIRED, "data": given})
    assert (settings.data, settings.folders) == ("d", ("d",))


def test_several_folders_survive_json_and_toml(tmp_path: Path) -> None:
    settings = TrainSettings.from_dict({**REQUIRED, "data": ["pictures/rex:3", "pictures/dogs"]})
    assert settings.folders == ("pictures/rex:3", "pictures/dogs")
    assert TrainSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    (tmp_path / "run.toml").write_text(settings.to_toml())
    assert TrainSettings.from_toml(tmp_path / "run.toml") == settings


def test_all_faults_are_told_at_once() -> None:
    message = refusal({"kind": "lora", "name": "cat", "batch_sise": 3, "steps": 0})
    assert message.startswith("4 settings are not allowed")
    for told in ("kind is 'lora'", "data is missing", "nearest is batch_size", "steps is 0"):
        assert told in message


def test_making_settings_directly_checks_too() -> None:
    with pytest.raises(UsageError, match=r"steps is 0.*(\n.*)*seed is -1"):
        TrainSettings(kind="embedding", name="cat", data="d", steps=0, seed=-1)
    with pytest.raises(UsageError, match="steps is 0"):
        TrainSettings.from_dict(REQUIRED).replace(steps=0)


def test_unknown_names_without_a_neighbour_list_what_there_is() -> None:
    assert "known are kind, name, model" in refusal({**REQUIRED, "qqqqq": 1})


@pytest.mark.parametrize(("given", "kept"), [(1e-4, "0.0001"), (1, "1"), ("1e-3:10, 1e-4", "1e-3:10, 1e-4")])
def test_a_schedule_may_be_a_number(given: object, kept: str) -> None:
    settings = TrainSettings.from_dict({**REQUIRED, "learning_rate": given, "clip_grad_value": given})
    assert (settings.learning_rate, settings.clip_grad_value) == (kept, kept)


def test_whole_numbers_do_for_numbers() -> None:
    settings = TrainSettings.from_dict({**REQUIRED, "preview_guidance_scale": 7})
    assert isinstance(settings.preview_guidance_scale, float)


def test_run_file_is_read_and_flags_win(tmp_path: Path) -> None:
    run_file = tmp_path / "run.toml"
    run_file.write_text(
        'kind = "hypernetwork"\nname = "ink"\ndata = "d"\nlearning_rate = 1e-4\nsteps = 5\n'
        'preview_prompts = ["a", "b"]\n'
    )
    settings = TrainSettings.from_toml(run_file, {"steps": 7})
    assert settings == TrainSettings(
        kind="hypernetwork", name="ink", data="d", learning_rate="0.0001", steps=7, preview_prompts=("a", "b")
    )


def test_run_file_faults_name_the_file(tmp_path: Path) -> None:
    run_file = tmp_path / "run.toml"
    with pytest.raises(UsageError, match=r"run\.toml.*cannot be read"):
        TrainSettings.from_toml(run_file)
    run_file.write_text("steps = ")
    with pytest.raises(UsageError, match=r"run\.toml.*not valid TOML"):
        TrainSettings.from_toml(run_file)
    run_file.write_bytes(b'name = "\xff"')
    with pytest.raises(UsageError, match=r"run\.toml.*UTF-8"):
        TrainSettings.from_toml(run_file)
    run_file.write_text('kind = "embedding"\nname = "x"\ndata = "d"\nlearnin_rate = 1\n')
    with pytest.raises(UsageError, match=r"run\.toml.*nearest is learning_rate"):
        TrainSettings.from_toml(run_file)


@given(
    prompts=st.lists(st.text(st.characters(codec="utf-8")), max_size=3),
    join=st.text(st.characters(codec="utf-8"), max_size=5),
    rate=st.floats(min_value=0, allow_infinity=False),
    weight_decay=st.none() | st.floats(min_value=0, allow_infinity=False, allow_nan=False),
)
def test_json_and_toml_give_the_same_settings_back(
    tmp_path_factory: pytest.TempPathFactory, prompts: list[str], join: str, rate: float, weight_decay: float | None
) -> None:
    settings = TrainSettings.from_dict(
        {
            **REQUIRED,
            "preview_prompts": prompts,
            "join_string": join,
            "learning_rate": rate,
            "weight_decay": weight_decay,
        }
    )
    assert TrainSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    run_file = tmp_path_factory.mktemp("toml") / "run.toml"
    run_file.write_text(settings.to_toml(), encoding="utf-8", newline="")
    assert TrainSettings.from_toml(run_file) == settings


def made(**changes: Any) -> TrainSettings:
    return TrainSettings.from_dict({"kind": "embedding", "name": "cat", "data": "pictures", **changes})


def test_what_contradicts_itself_in_validation_is_named_together() -> None:
    with pytest.raises(UsageError) as caught:
        made(validation_data="apart", validation_share=0.2, validation_every=0, early_stopping_patience=2)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("4 settings are not allowed")
    assert "validation_data is 'apart' and validation_share is 0.2" in lines[1] and "give one of them" in lines[1]
    for line, name in zip(lines[2:], ("validation_data", "validation_share", "early_stopping_patience"), strict=True):
        assert line.strip().startswith(f"{name} is ") and "validation_every is 0" in line


def test_folders_for_validation_are_one_or_several() -> None:
    assert made().validation_folders == made(validation_data="").validation_folders == ()
    assert made(validation_data="apart").validation_folders == ("apart",)
    several = made(validation_data=["one", "two:3"])
    assert several.validation_folders == ("one", "two:3")
    assert TrainSettings.from_dict(several.to_dict()) == several
    with pytest.raises(UsageError, match="validation_data"):
        made(validation_data=["one", " "])


@pytest.mark.parametrize(
    ("scale", "uncounted"),
    [
        ("1", "negative_prompt"),
        ("1:5, 1", "negative_prompt"),
        ("0", "the prompts of the pictures"),
        ("0 -> 0:5, 0", "the prompts of the pictures"),
        ("0 -> 1", ""),
    ],
)
def test_guidance_that_leaves_one_prediction_is_refused_with_what_would_not_count(scale: str, uncounted: str) -> None:
    values = {**REQUIRED, "negative_prompt": "blurry", "guidance_scale": scale, "loss_scale": 0.3}
    with pytest.raises(UsageError, match=r"loss_scale is 0\.3") as error:
        TrainSettings.from_dict(values)
    assert (f"so that {uncounted} would not count" in str(error.value)) == bool(uncounted)
