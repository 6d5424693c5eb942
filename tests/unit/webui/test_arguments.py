from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tincture.errors import UsageError
from tincture.models.families import MAX_VECTORS
from tincture.preprocessing.describer_kinds import find_describers
from tincture.settings.fields import specs_of
from tincture.settings.preprocess import PreprocessSettings
from tincture.settings.train import TrainSettings
from tincture.webui.arguments import (
    MOST_VECTORS,
    CreateEmbedding,
    CreateHypernetwork,
    Preprocess,
    TrainEmbedding,
    TrainHypernetwork,
    WebuiArguments,
)
from tincture.webui.translation import (
    at_root,
    clamped,
    hypernetwork_options,
    preprocess_settings,
    reference_name,
    refuse_existing,
    train_settings,
)
from tincture.workspace import Workspace

CALLS = (CreateEmbedding, CreateHypernetwork, Preprocess, TrainEmbedding, TrainHypernetwork)

# As the reference's own example gives them.
EXAMPLE: dict[str, Any] = {
    "id_task": "task-001",
    "hypernetwork_name": "my_style",
    "learn_rate": "0.00005:2000",
    "batch_size": 1,
    "gradient_step": 1,
    "data_root": "pictures",
    "log_directory": "logs",
    "training_width": 512,
    "training_height": 512,
    "varsize": False,
    "steps": 2000,
    "clip_grad_mode": "norm",
    "clip_grad_value": 1.0,
    "shuffle_tags": False,
    "tag_drop_out": False,
    "latent_sampling_method": "once",
    "use_weight": False,
    "create_image_every": 500,
    "save_hypernetwork_every": 500,
    "template_filename": "hypernetwork.txt",
    "preview_from_txt2img": False,
    "preview_prompt": "",
    "preview_negative_prompt": "",
    "preview_steps": 20,
    "preview_sampler_name": "Euler a",
    "preview_cfg_scale": 7.0,
    "preview_seed": -1,
    "preview_width": 512,
    "preview_height": 512,
}
FEW = {"hypernetwork_name": "ink", "data_root": "pictures"}


def settings_of(**changes: Any) -> TrainSettings:
    return TrainSettings.from_dict(train_settings(TrainHypernetwork.of({**FEW, **changes})))


def refusal(kind: type[WebuiArguments], values: dict[str, Any]) -> str:
    with pytest.raises(UsageError) as caught:
        kind.of(values)
    return str(caught.value)


def test_the_references_example_becomes_settings() -> None:
    settings = TrainSettings.from_dict(train_settings(TrainHypernetwork.of(EXAMPLE)))
    expected = TrainSettings(
        kind="hypernetwork",
        name="my_style",
        learning_rate="0.00005:2000",
        data="pictures",
        log_dir="logs",
        width=512,
        height=512,
        resize="stretch",  # as the reference does, whatever is usual elsewhere
        steps=2000,
        clip_grad_mode="norm",
        clip_grad_value="1.0",
        template="hypernetwork.txt",
    )
    assert settings == expected


def test_positions_are_those_of_the_reference() -> None:
    assert tuple(EXAMPLE) == TrainHypernetwork.ORDER
    assert TrainHypernetwork.of_call(list(EXAMPLE.values()), {}) == TrainHypernetwork.of(EXAMPLE)
    embedding = list(EXAMPLE)
    embedding[1], embedding[18] = "embedding_name", "save_embedding_every"
    embedding.insert(20, "save_image_with_stored_embedding")
    assert tuple(embedding) == TrainEmbedding.ORDER
    assert (len(TrainEmbedding.ORDER), len(TrainHypernetwork.ORDER)) == (30, 29)


@pytest.mark.parametrize("kind", CALLS)
def test_every_argument_has_a_position_and_help(kind: type[WebuiArguments]) -> None:
    specs = specs_of(kind)
    assert set(specs) == set(kind.ORDER)
    assert len(kind.ORDER) == len(set(kind.ORDER))
    assert all(spec.help.endswith(".") and spec.group for spec in specs.values())


def test_a_call_gives_each_argument_once() -> None:
    made = CreateEmbedding.of_call(["cat", 3], {"init_text": "dog"})
    assert (made.name, made.num_vectors_per_token, made.init_text) == ("cat", 3, "dog")
    with pytest.raises(UsageError, match="create_embedding was given name both by position and by name"):
        CreateEmbedding.of_call(["cat"], {"name": "dog"})
    with pytest.raises(UsageError, match="create_embedding takes 4 arguments, but 5 were given"):
        CreateEmbedding.of_call(["cat", 1, False, "*", 0], {})


NEEDED: dict[type[WebuiArguments], dict[str, Any]] = {
    CreateEmbedding: {"name": "cat"},
    CreateHypernetwork: {"name": "ink"},
    Preprocess: {"process_src": "a", "process_dst": "b"},
    TrainEmbedding: {"embedding_name": "cat", "data_root": "d"},
    TrainHypernetwork: {"hypernetwork_name": "ink", "data_root": "d"},
}


@pytest.mark.parametrize("given", [0, 1.5, True, -3, 10**12, "x" * 30_000, [1, {}], {"a": None}, float("nan")])
@pytest.mark.parametrize("kind", [kind for kind in CALLS if kind.UNCHECKED])
def test_a_field_that_nothing_depends_on_is_not_checked(kind: type[WebuiArguments], given: Any) -> None:
    for name in kind.UNCHECKED:
        assert kind.of({**NEEDED[kind], name: given}) == kind.of(NEEDED[kind])


@pytest.mark.parametrize("off", [{}, False, 0, None])
@pytest.mark.parametrize("kind", [kind for kind in CALLS if kind.SWITCHES])
def test_what_counts_only_with_a_switch_is_not_checked_without_it(kind: type[WebuiArguments], off: Any) -> None:
    assert kind.SWITCHES.keys() | set(kind.SWITCHES.values()) <= set(kind.ORDER)
    switches = {} if off == {} else dict.fromkeys(kind.SWITCHES.values(), off)
    switches |= {"clip_grad_mode": "disabled"} if "clip_grad_mode" in switches else {}
    for given in ("", "abc", -7, [1], {"a": 1}):
        assert kind.of({**NEEDED[kind], **switches, **dict.fromkeys(kind.SWITCHES, given)}) == kind.of(NEEDED[kind])


def test_numbers_and_switches_as_other_languages_write_them() -> None:
    made = CreateHypernetwork.of({"name": "ink", "enable_sizes": [768.0, 320], "add_layer_norm": 1, "use_dropout": 0.0})
    assert (made.enable_sizes, made.add_layer_norm, made.use_dropout) == (("768", "320"), True, False)
    assert "use_dropout is 2, but must be true or false" in refusal(
        CreateHypernetwork, {"name": "ink", "use_dropout": 2}
    )


@pytest.mark.parametrize("kind", CALLS)
def test_none_stands_for_what_is_not_given(kind: type[WebuiArguments]) -> None:
    assert kind.of({**dict.fromkeys((*kind.ORDER, *kind.EARLIER_NAMES)), **NEEDED[kind]}) == kind.of(NEEDED[kind])
    for name in NEEDED[kind]:
        assert f"{name} is missing" in refusal(kind, {**NEEDED[kind], name: None})


@pytest.mark.parametrize(
    ("kind", "earlier", "value", "today", "means"),
    [
        (TrainEmbedding, "preview_sampler_index", "DDIM", "preview_sampler_name", "DDIM"),
        (TrainEmbedding, "preview_sampler_index", 1, "preview_sampler_name", "Euler a"),
        (TrainHypernetwork, "preview_sampler_index", 9.0, "preview_sampler_name", "DDIM"),
        (TrainHypernetwork, "preview_sampler_name", 0, "preview_sampler_name", "Euler"),
        (TrainHypernetwork, "template_file", "style.txt", "template_filename", "style.txt"),
        (CreateEmbedding, "initialization_text", "dog", "init_text", "dog"),
        (CreateEmbedding, "nvpt", 3, "num_vectors_per_token", 3),
    ],
)
def test_names_of_earlier_years_mean_those_of_today(
    kind: type[WebuiArguments], earlier: str, value: Any, today: str, means: Any
) -> None:
    previews = {"preview_from_txt2img": True} if issubclass(kind, TrainEmbedding | TrainHypernetwork) else {}
    assert getattr(kind.of({**NEEDED[kind], **previews, earlier: value}), today) == means
    if earlier != today:
        told = refusal(kind, {**NEEDED[kind], **previews, today: means, earlier: value})
        assert f"was given {today} twice: also by its earlier name {earlier}" in told


def test_a_place_behind_the_last_sampler_is_refused_where_it_counts() -> None:
    far = {**FEW, "preview_sampler_index": 40}
    assert TrainHypernetwork.of(far) == TrainHypernetwork.of(FEW)
    told = refusal(TrainHypernetwork, {**far, "preview_from_txt2img": True})
    assert "preview_sampler_index is 40, but must be from 0 to 12, or a name: Euler, Euler a" in told


def test_all_faults_are_told_at_once_in_the_references_names() -> None:
    message = refusal(TrainHypernetwork, {"hypernetwork_name": "ink", "learn_rat": 1, "steps": 0, "batch_size": "1"})
    for told in (
        "there is no setting 'learn_rat'; the nearest is learn_rate",
        "data_root is missing (Folder of pictures)",
        "steps is 0, but must be at least 1",
        "batch_size is '1', but must be a whole number",
        "in train_hypernetwork",
    ):
        assert told in message


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("learn_rate", "fast", "learn_rate: In the schedule 'fast'"),
        ("learn_rate", "0.1:5, 0.2:3", "must end after step 5"),
        ("clip_grad_value", "0.1:x", "clip_grad_value: In the schedule"),
        ("clip_grad_mode", "both", "disabled, value or norm"),
        ("training_width", 500, "multiple of 8"),
        ("tag_drop_out", 1, "below 1"),
        ("tag_drop_out", True, "a number"),
        ("latent_sampling_method", "twice", "once, deterministic or random"),
        ("gradient_step", 0, "at least 1"),
        ("gradient_step", 1.5, "a whole number"),
        ("varsize", "yes", "true or false"),
        ("preview_seed", -2, "-1 (one by chance)"),
        ("preview_steps", 0, "at least 1"),
        ("preview_cfg_scale", float("nan"), "a finite number"),
        ("preview_width", 20, "multiple of 8"),
        ("data_root", " ", "not empty"),
        ("create_image_every", -1, "at least 0"),
    ],
)
def test_values_that_are_not_allowed_are_refused(name: str, value: Any, told: str) -> None:
    message = refusal(TrainHypernetwork, {**FEW, "clip_grad_mode": "norm", "preview_from_txt2img": True, name: value})
    assert name in message
    assert told in message


def test_a_sampler_counts_only_where_previews_are_drawn_by_it() -> None:
    assert settings_of(preview_sampler_name="Restart").preview_sampler == "Euler a"
    message = refusal(TrainHypernetwork, {**FEW, "preview_sampler_name": "Restart", "preview_from_txt2img": True})
    assert "preview_sampler_name is 'Restart', but must be one of Euler, Euler a" in message


@pytest.mark.parametrize("mode", ["disabled", "", None])
def test_spellings_of_no_clipping(mode: str | None) -> None:
    assert settings_of(clip_grad_mode=mode).clip_grad_mode == "none"


def test_spellings_of_other_clients_mean_the_same() -> None:
    settings = settings_of(steps=50.0, learn_rate=1e-4, id_task=None, batch_size=None, tag_drop_out=0)
    assert (settings.steps, settings.learning_rate, settings.batch_size, settings.tag_drop_out) == (50, "0.0001", 1, 0)


def test_previews_are_those_of_txt2img_when_asked_for() -> None:
    told = {
        "preview_prompt": "a moon",
        "preview_negative_prompt": "red",
        "preview_steps": 7,
        "preview_sampler_name": "DDIM",
        "preview_cfg_scale": 3,
        "preview_seed": 5,
        "preview_width": 64,
        "preview_height": 128,
    }
    drawn = settings_of(**told, preview_from_txt2img=True)
    assert (drawn.preview_prompts, drawn.preview_negative_prompt, drawn.preview_steps) == (("a moon",), "red", 7)
    assert (drawn.preview_sampler, drawn.preview_guidance_scale, drawn.preview_seed) == ("DDIM", 3.0, 5)
    assert (drawn.preview_width, drawn.preview_height) == (64, 128)
    plain = settings_of(**told)
    assert (plain.preview_prompts, plain.preview_steps, plain.preview_width) == ((), 20, 0)
    chance = {settings_of(preview_from_txt2img=True).preview_seed for _ in range(3)}
    assert len(chance) == 3


def test_a_card_is_drawn_only_with_a_preview() -> None:
    given = {"embedding_name": "cat", "data_root": "d", "save_image_with_stored_embedding": True}
    assert train_settings(TrainEmbedding.of(given))["preview_with_embedding"] is True
    assert train_settings(TrainEmbedding.of({**given, "create_image_every": 0}))["preview_with_embedding"] is False


@pytest.mark.parametrize(
    ("batch", "accumulation", "pictures", "expected"),
    [(4, 2, 3, (3, 1)), (2, 5, 5, (2, 2)), (1, 1, 5, (1, 1)), (2, 2, 4, (2, 2)), (3, 3, 0, (1, 1))],
)
def test_batches_are_no_larger_than_the_data(
    batch: int, accumulation: int, pictures: int, expected: tuple[int, int]
) -> None:
    settings = train_settings(TrainHypernetwork.of({**FEW, "batch_size": batch, "gradient_step": accumulation}))
    made, remarks = clamped(settings, pictures)
    assert (made["batch_size"], made["gradient_accumulation_steps"]) == expected
    assert len(remarks) == (batch != expected[0]) + (accumulation != expected[1])
    assert all(f"there are {pictures} pictures" in remark for remark in remarks)


# --- create ----------------------------------------------------------------------------------------------------------


def test_the_most_vectors_are_those_of_embeddings() -> None:
    assert MOST_VECTORS == MAX_VECTORS
    assert "from 1 to 75" in refusal(CreateEmbedding, {"name": "cat", "num_vectors_per_token": 76})


@pytest.mark.parametrize(
    ("given", "sizes", "structure", "dropout"),
    [
        ({}, None, [1, 2, 1], None),
        ({"enable_sizes": ["768", 320]}, [768, 320], [1, 2, 1], None),
        ({"layer_structure": [1, 3, 1]}, None, [1, 3, 1], None),
        ({"layer_structure": "1,2,2,1", "use_dropout": True}, None, [1, 2, 2, 1], [0, 0.3, 0.3, 0]),
        ({"use_dropout": True, "dropout_structure": "0, 0.1, 0"}, None, [1, 2, 1], [0, 0.1, 0]),
        ({"use_dropout": False, "dropout_structure": "0, 0.1, 0"}, None, [1, 2, 1], None),
    ],
)
def test_hypernetwork_options(
    given: dict[str, Any], sizes: list[int] | None, structure: list[float], dropout: list[float] | None
) -> None:
    options = hypernetwork_options(CreateHypernetwork.of({"name": "ink", **given}))
    assert (options["sizes"], options["layer_structure"], options["dropout_structure"]) == (sizes, structure, dropout)
    assert (options["activation_func"], options["weight_init"]) == ("linear", "Normal")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"layer_structure": "2, 1"}, "layer_structure: The layer structure"),
        ({"layer_structure": "1, x"}, "layer_structure: The layer structure"),
        ({"use_dropout": True, "dropout_structure": "0, 2, 0"}, "dropout_structure: "),
        ({"enable_sizes": ["wide"]}, "a list of context widths"),
        ({"enable_sizes": "768"}, "a list of texts"),
    ],
)
def test_structures_that_are_not_allowed_are_refused(given: dict[str, Any], told: str) -> None:
    assert told in refusal(CreateHypernetwork, {"name": "ink", **given})


def test_names_are_made_as_the_webui_makes_them() -> None:
    assert reference_name(" my style.1 ") == ("my style.1", [])
    name, remarks = reference_name("../a/b*")
    assert name == "..ab"
    assert "'../a/b*'" in remarks[0]


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_an_old_file_stays_unless_told_otherwise(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "cat.pt"
    refuse_existing(path, False)
    path.with_suffix(suffix).write_bytes(b"x")
    refuse_existing(path, True)
    with pytest.raises(UsageError, match="set overwrite_old to replace it"):
        refuse_existing(path, False)


# --- preprocess ------------------------------------------------------------------------------------------------------


def test_preprocess_arguments_become_settings() -> None:
    given = {
        "process_src": "in",
        "process_dst": "out",
        "process_width": 256,
        "preprocess_txt_action": "prepend",
        "process_flip": True,
        "process_focal_crop": True,
        "process_focal_crop_edges_weight": 0.2,
        "process_multicrop": True,
        "process_multicrop_mindim": None,
        "process_multicrop_objective": "Minimize error",
        "validation_share": 0.2,
    }
    settings = PreprocessSettings.from_dict(preprocess_settings(Preprocess.of(given)))
    assert (settings.source, settings.destination, settings.width, settings.height) == ("in", "out", 256, 512)
    assert (settings.existing_captions, settings.flip, settings.focal_crop) == ("prepend", True, True)
    assert settings.validation_share == 0.2
    assert (settings.focal_corner_weight, settings.focal_entropy_weight) == (0.2, 0.3)
    assert (settings.multicrop, settings.multicrop_min_dim, settings.multicrop_objective) == (True, 384, "error")
    assert PreprocessSettings.from_dict(
        preprocess_settings(Preprocess.of({"process_src": "in", "process_dst": "out"}))
    ) == PreprocessSettings(source="in", destination="out", existing_captions="ignore", focal_entropy_weight=0.3)


def test_preprocess_refuses_what_does_not_go_together() -> None:
    message = refusal(
        Preprocess,
        {
            "process_src": "a",
            "process_dst": "b",
            "process_multicrop": True,
            "process_multicrop_mindim": 1024,
            "process_split": True,
            "overlap_ratio": 0.95,
            "process_focal_crop": True,
            "process_focal_crop_face_weight": 0,
            "process_focal_crop_entropy_weight": 0,
            "process_focal_crop_edges_weight": 0,
        },
    )
    assert "process_multicrop_mindim is 1024, but must be at most process_multicrop_maxdim, 768" in message
    assert "overlap_ratio is 0.95, but must be at least 0 and at most 0.9" in message
    assert "the three process_focal_crop weights are 0" in message


def test_captions_need_a_model_that_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("TINCTURE_CAPTIONER", "TINCTURE_TAGGER"):
        monkeypatch.delenv(variable, raising=False)
    places = {"process_src": "a", "process_dst": "b"}
    described = Preprocess.of({**places, "process_caption": True})
    tagged = Preprocess.of({**places, "process_caption_deepbooru": True})
    workspace = Workspace(tmp_path)
    assert find_describers(workspace) == {}
    with pytest.raises(UsageError, match=r"models/BLIP in the workspace, or name one by the variable TINCTURE_CAPT"):
        preprocess_settings(described)
    with pytest.raises(UsageError, match=r"models/torch_deepdanbooru in the workspace, or name it, or a WD14"):
        preprocess_settings(tagged)
    (tmp_path / "models" / "torch_deepdanbooru").mkdir(parents=True)
    (tmp_path / "models" / "torch_deepdanbooru" / "model-resnet_custom_v3.pt").write_bytes(b"x")
    monkeypatch.setenv("TINCTURE_CAPTIONER", "some/blip")
    found = find_describers(workspace)
    assert found == {"captioner": "some/blip", "tagger": str(tmp_path / "models" / "torch_deepdanbooru")}
    settings = preprocess_settings(described, **found)
    assert (settings["captioner"], settings["tagger"]) == ("some/blip", "")


def test_relative_paths_start_at_the_workspace() -> None:
    made = at_root({"data": "pictures", "log_dir": "", "name": "ink", "source": "/abs"}, Path("/root-folder"))
    assert made == {"data": "/root-folder/pictures", "log_dir": "", "name": "ink", "source": "/abs"}
