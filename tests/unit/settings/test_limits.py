"""Every numeric limit at its edge, made from the settings themselves, so that a new setting is tried by itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from tincture.errors import UsageError
from tincture.randomness import LARGEST_REQUESTED_SEED
from tincture.server.requests.sizes import (
    LARGEST_NUMBER,
    LONGEST_NAME,
    LONGEST_TEXT,
    MOST_ITEMS,
    MOST_SETTINGS,
    MOST_TEXT,
    check_sizes,
)
from tincture.settings.checks import Bounds
from tincture.settings.conversion import ConversionRequest
from tincture.settings.drawing import Drawing, DrawingSettings
from tincture.settings.fields import CheckedSettings, FieldSpec, specs_of
from tincture.settings.merging import MergeRequest
from tincture.settings.preprocess import PreprocessSettings
from tincture.settings.server import ServerSettings
from tincture.settings.train import TrainSettings
from tincture.webui.arguments import CreateEmbedding, CreateHypernetwork, Preprocess, TrainEmbedding, TrainHypernetwork

SOUND: Mapping[type[CheckedSettings], Mapping[str, Any]] = {
    TrainSettings: {"kind": "embedding", "name": "cat", "data": "pictures"},
    PreprocessSettings: {"source": "pictures", "destination": "crops"},
    ServerSettings: {},
    DrawingSettings: {"prompts": ["a cat"]},
    ConversionRequest: {"path": "cat.pt", "out": "cat.safetensors"},
    MergeRequest: {"sources": ["cat:0.5"], "out": "cat"},
    CreateEmbedding: {"name": "cat"},
    CreateHypernetwork: {"name": "ink"},
    TrainEmbedding: {"embedding_name": "cat", "data_root": "pictures"},
    TrainHypernetwork: {"hypernetwork_name": "ink", "data_root": "pictures"},
    Preprocess: {"process_src": "pictures", "process_dst": "crops"},
}


# what is allowed only with something else
OWNERS: Mapping[str, Mapping[str, Any]] = {
    "loss_scale": {"loss": "huber"},
    "timestep_bias": {"timestep_distribution": "late"},
    "logit_mean": {"timestep_distribution": "logit_normal"},
    "logit_std": {"timestep_distribution": "logit_normal"},
    **{key: {"prior_prompt": "a cat"} for key in ("prior_count", "prior_steps", "prior_guidance_scale", "prior_seed")},
    **{key: {"kind": "hypernetwork"} for key in ("weight_decay_bias", "weight_decay_norm")},
}


def with_partner(settings: type[CheckedSettings], name: str, value: Any) -> dict[str, Any]:
    """The setting with what it needs: the other one of its pair, where the smaller may not be above the larger."""
    specs, given = specs_of(settings), {name: value, **OWNERS.get(name, {})}
    for one, other, outer in (("min", "max", max), ("max", "min", min)):
        partner = name.replace(one, other)
        if partner != name and partner in specs:
            given[partner] = outer(value, specs[partner].default)
    return given


def take(settings: type[CheckedSettings], name: str, value: Any) -> Any:
    given = [value] if specs_of(settings)[name].repeated else value
    made = settings.from_dict({**SOUND[settings], **with_partner(settings, name, given)})
    return getattr(made, name)


def edges(spec: FieldSpec, bounds: Bounds) -> Iterator[tuple[float, bool]]:
    """Numbers at the bounds, with whether they are allowed."""
    step = bounds.multiple_of if spec.type is int else 1e-6
    yield from ((bounds.minimum, True), (bounds.minimum - step, False))
    if bounds.maximum is not None:
        yield from ((bounds.maximum, True), (bounds.maximum + step, False))
    if bounds.below is not None:
        yield from ((bounds.below - 1e-6, True), (bounds.below, False))
    if bounds.multiple_of > 1:
        yield from ((bounds.minimum + step, True), (bounds.minimum + step - 1, False), (bounds.minimum + 1, False))


BOUNDED = [
    pytest.param(settings, spec, value, allowed, id=f"{settings.__name__}-{spec.name}-{value}")
    for settings in SOUND
    for spec in specs_of(settings).values()
    if spec.bounds
    for value, allowed in edges(spec, spec.bounds)
]


@pytest.mark.parametrize(("settings", "spec", "value", "allowed"), BOUNDED)
def test_every_number_is_taken_up_to_its_bounds(
    settings: type[CheckedSettings], spec: FieldSpec, value: float, allowed: bool
) -> None:
    if allowed:
        taken = take(settings, spec.name, value)
        assert taken == ((value,) if spec.repeated else value)
        return
    with pytest.raises(UsageError, match=rf"\b{spec.name} (is|has) "):
        take(settings, spec.name, value)


def test_no_number_is_without_bounds_by_oversight() -> None:
    """What may be any number is listed here."""
    free = {
        f"{settings.__name__}.{spec.name}"
        for settings in SOUND
        for spec in specs_of(settings).values()
        if spec.type in (int, float) and not spec.bounds
    }
    assert free == {"DrawingSettings.strengths", "ConversionRequest.strength", "TrainSettings.spike_threshold"}


# --- what a server takes of strangers ---------------------------------------------------------------------------------

LIMITED = [
    pytest.param(settings, spec, id=f"{settings.__name__}-{spec.name}")
    for settings in SOUND
    for spec in specs_of(settings).values()
    if spec.type is not bool
]


@pytest.mark.parametrize(("settings", "spec"), LIMITED)
def test_a_request_has_numbers_and_texts_up_to_their_limits(settings: type[CheckedSettings], spec: FieldSpec) -> None:
    specs, name = specs_of(settings), spec.name

    def give(value: Any) -> None:
        check_sizes({name: [value] if spec.repeated else value}, specs)

    if spec.type is str:
        most = int(spec.largest or LONGEST_TEXT)
        give("a" * most)
        with pytest.raises(UsageError, match=f"{name} has {most + 1:,} characters; allowed are {most:,}"):
            give("a" * (most + 1))
        return
    largest = int(spec.largest or LARGEST_NUMBER)
    for sign in (1, -1):
        give(sign * largest)
        with pytest.raises(UsageError, match=f"{name} is {sign * (largest + 1)}; allowed is at most {largest:,}"):
            give(sign * (largest + 1))


@pytest.mark.parametrize(("settings", "spec"), [each for each in LIMITED if each.values[1].repeated])  # type: ignore[union-attr]
def test_a_request_has_lists_up_to_their_limits(settings: type[CheckedSettings], spec: FieldSpec) -> None:
    specs, most, item = specs_of(settings), spec.most_items or MOST_ITEMS, "a" if spec.type is str else 1
    check_sizes({spec.name: [item] * most}, specs)
    with pytest.raises(UsageError, match=f"{spec.name} has {most + 1:,} items; allowed are {most:,}"):
        check_sizes({spec.name: [item] * (most + 1)}, specs)


SEED = 2**63 - 1
STATED: Mapping[type[CheckedSettings], Mapping[str, float]] = {
    TrainSettings: {
        "ema": 2000,
        "divergence_limit": 10**6,
        "overflow_limit": 1000,
        "steps": 10**7,
        "batch_size": 1024,
        "gradient_accumulation_steps": 10**4,
        "clip_skip": 100,
        **dict.fromkeys(("width", "height", "bucket_step", "bucket_min", "bucket_max"), 8192),
        "preview_steps": 1000,
        "preview_width": 8192,
        "preview_height": 8192,
        "preview_guidance_scale": 1000,
        "seed": SEED,
        "preview_seed": SEED,
        "word_regex": 200,
        "learning_rate": 2000,
        "optimizer": 100,
        "optimizer_args": 1000,
        "companions": 4000,
        "fixed_adapters": 1000,
        "negative_prompt": 10_000,
        "clip_grad_value": 2000,
        **dict.fromkeys(("min_snr_gamma", "prior_weight", "attention_mask_weight", "norm_limit", "norm_weight"), 2000),
        "guidance_scale": 2000,
        "prior_count": 10**4,
        "prior_steps": 1000,
        "prior_guidance_scale": 1000,
        "prior_seed": SEED,
        "validation_pictures": 10**4,
        "validation_bands": 1000,
        "early_stopping_patience": 10**7,
        "log_project": 100,
    },
    PreprocessSettings: {
        **dict.fromkeys(("width", "height", "multicrop_min_dim", "multicrop_max_dim"), 8192),
        "captioner_beams": 32,
        "captioner_min_tokens": 500,
        "captioner_max_tokens": 500,
        "caption_batch_size": 256,
        "workers": 64,
        "seed": SEED,
    },
    ServerSettings: {},
    DrawingSettings: {
        "steps": 1000,
        "guidance_scale": 1000,
        "clip_skip": 100,
        "seed": SEED,
        "seeds": SEED,
        "batch_size": 64,
        "width": 2**16,
        "height": 2**16,
    },
    ConversionRequest: {"rank": 4096},
    MergeRequest: {"layer_structure": 1000, "sizes": 8192},
    CreateEmbedding: {},
    CreateHypernetwork: {},
    TrainEmbedding: {"preview_seed": 2**32},
    TrainHypernetwork: {"preview_seed": 2**32},
    Preprocess: {},
}
ITEMS: Mapping[type[CheckedSettings], Mapping[str, int]] = {
    TrainSettings: {"preview_prompts": 64, "companions": 16, "fixed_adapters": 16, "log_with": 9},
    DrawingSettings: {"strengths": 100, "checkpoints": 100},
    MergeRequest: {"sources": 20, "layer_structure": 32, "sizes": 32},
}


@pytest.mark.parametrize("settings", SOUND)
def test_limits_of_requests_are_those_that_were_decided_on(settings: type[CheckedSettings]) -> None:
    specs = specs_of(settings)
    assert {name: spec.largest for name, spec in specs.items() if spec.largest} == STATED[settings]
    assert {name: spec.most_items for name, spec in specs.items() if spec.most_items} == ITEMS.get(settings, {})


# --- what is the same in other settings -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Drawing)])
def test_previews_are_drawings(name: str) -> None:
    """Each field of a drawing is a setting of training too, of the same type, bounds and default."""
    of_training, drawing = specs_of(TrainSettings), specs_of(DrawingSettings)[name]
    preview = of_training["clip_skip" if name == "clip_skip" else f"preview_{name}"]
    assert (preview.type, preview.bounds and preview.bounds.minimum) == (
        drawing.type,
        drawing.bounds and drawing.bounds.minimum,
    )
    if name in ("width", "height"):  # 0 stands for the training's own size there
        assert preview.bounds and drawing.bounds and preview.bounds.multiple_of == drawing.bounds.multiple_of
        return
    same = ("help", "default", "optional", "choices", "check", "largest")
    assert [getattr(preview, each) for each in same] == [getattr(drawing, each) for each in same]


@pytest.mark.parametrize("name", ["model", "vae", "family", "prediction_type", "zero_terminal_snr", "device"])
def test_the_base_model_is_named_alike(name: str) -> None:
    one, other = specs_of(TrainSettings)[name], specs_of(DrawingSettings)[name]
    assert dataclasses.replace(one, group="") == dataclasses.replace(other, group="")


# --- what a request has in all ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("most", "made"),
    [
        pytest.param(MOST_SETTINGS, lambda count: {f"n{number}": 1 for number in range(count)}, id="settings"),
        pytest.param(LONGEST_NAME, lambda count: {"n" * count: 1}, id="a name's letters"),
        pytest.param(LONGEST_TEXT, lambda count: {"text": "a" * count}, id="a text's letters"),
        pytest.param(MOST_ITEMS, lambda count: {"list": [1] * count}, id="items"),
        pytest.param(
            MOST_TEXT,
            lambda count: {"list": ["a" * 10_000] * (count // 10_000), "text": "a" * (count % 10_000)},
            id="all",
        ),
        pytest.param(LARGEST_NUMBER, lambda number: {"number": number}, id="a number"),
        pytest.param(LARGEST_NUMBER, lambda number: {"numbers": [-number]}, id="a number below 0"),
    ],
)
def test_a_request_as_a_whole_is_bounded(most: int, made: Callable[[int], dict[str, Any]]) -> None:
    check_sizes(made(most))
    with pytest.raises(UsageError):
        check_sizes(made(most + 1))


def test_the_bounds_of_a_request_are_those_that_were_decided_on() -> None:
    assert (MOST_SETTINGS, LONGEST_NAME, LONGEST_TEXT, MOST_ITEMS) == (300, 100, 20_000, 1000)
    assert (MOST_TEXT, LARGEST_NUMBER, LARGEST_REQUESTED_SEED) == (131_072, 10**9, 2**63 - 1)
