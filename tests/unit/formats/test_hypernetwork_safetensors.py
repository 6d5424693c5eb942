"""The safetensors layout of hypernetworks, and conversion between it and the webui's ``.pt``."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from tests.unit.formats.webui_gate import refusals
from tincture.adapters.hypernetwork import Hypernetwork, create_hypernetwork
from tincture.errors import FileFormatError
from tincture.formats.hypernetwork_file import (
    HYPERNETWORK_WRITERS,
    HypernetworkFile,
    read_hypernetwork_file,
    write_hypernetwork_pt,
    write_hypernetwork_safetensors,
)
from tincture.formats.safetensors_file import read_safetensors, write_safetensors
from tincture.kinds.layer_structure import legacy_dropout_structure

GOLDEN = Path(__file__).parents[2] / "golden"
NAMES = ("plain-121", "relu-optim", "swish-ln-dropout")


def written(file: HypernetworkFile) -> HypernetworkFile:
    """What is read of ``file`` after it was written: the same, said so that ComfyUI understands it too."""
    dropout = file.dropout_structure
    if dropout is None and file.use_dropout:
        dropout = legacy_dropout_structure(file.layer_structure, file.last_layer_dropout)
    activation = file.activation_func or "linear"
    return dataclasses.replace(file, activation_func=activation, use_dropout=False, dropout_structure=dropout)


def assert_same(a: HypernetworkFile, b: HypernetworkFile) -> None:
    rest = ({**dataclasses.asdict(dataclasses.replace(file, states={}))} for file in (a, b))
    first, second = rest
    for key in ("layer_structure", "dropout_structure"):
        first[key], second[key] = (value and list(value) for value in (first[key], second[key]))
    assert first == second
    assert sorted(a.states) == sorted(b.states)
    for width in a.states:
        for state, expected in zip(a.states[width], b.states[width], strict=True):
            assert list(state) == list(expected)
            for key in expected:
                assert state[key].dtype == expected[key].dtype
                assert state[key].numpy(force=True).tobytes() == expected[key].numpy(force=True).tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_golden_files_convert_and_come_back_to_the_byte(name: str, tmp_path: Path) -> None:
    file = read_hypernetwork_file(GOLDEN / f"{name}.pt")
    file.provenance = {"software": "x", "settings": {"steps": 3, "rate": 1e-5}, "author": "A", "license": "CC0-1.0"}
    write_hypernetwork_pt(tmp_path / "a.pt", file)
    write_hypernetwork_safetensors(tmp_path / "b.safetensors", read_hypernetwork_file(tmp_path / "a.pt"))
    back = read_hypernetwork_file(tmp_path / "b.safetensors")
    assert_same(back, written(file))
    write_hypernetwork_pt(tmp_path / "c.pt", back)
    assert (tmp_path / "c.pt").read_bytes() == (tmp_path / "a.pt").read_bytes()


TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)


@st.composite
def files(draw: st.DrawFn) -> HypernetworkFile:
    structure = [1, *draw(st.lists(st.sampled_from([0.5, 1, 1.5, 2]), max_size=11)), 1]
    dtype = draw(st.sampled_from([torch.float16, torch.float32, torch.float64]))
    hypernetwork = create_hypernetwork(
        draw(TEXT.filter(bool)),
        draw(st.lists(st.sampled_from([2, 4, 768]), min_size=1, unique=True)) if len(structure) < 4 else [2],
        structure,
        draw(st.sampled_from([None, "linear", "relu", "prelu"])),
        "XavierNormal",
        draw(st.booleans()),
        seed=draw(st.integers(0, 9)),
    )
    states = {
        width: tuple({key: value.to(dtype) for key, value in module.state_dict().items()} for module in pair)
        for width, pair in hypernetwork.pairs.items()
    }
    return HypernetworkFile(
        states=states,  # type: ignore[arg-type]
        name=hypernetwork.name,
        step=draw(st.integers(0, 2**40)),
        layer_structure=structure,
        activation_func=hypernetwork.activation_func,
        add_layer_norm=hypernetwork.add_layer_norm,
        activate_output=draw(st.booleans()),
        use_dropout=draw(st.booleans()),
        dropout_structure=draw(st.none() | st.just([0.25] * len(structure))),
        last_layer_dropout=draw(st.booleans()),
        model_name=draw(TEXT),
        model_hash=draw(TEXT),
        optional_info=draw(st.none() | TEXT.filter(bool)),
        provenance=draw(st.dictionaries(TEXT, JSON, max_size=3)),
    )


@settings(max_examples=12, deadline=None)
@given(file=files(), kind=st.sampled_from(sorted(HYPERNETWORK_WRITERS)))
def test_whatever_is_written_is_read_back(file: HypernetworkFile, kind: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        HYPERNETWORK_WRITERS[kind](path, file)
        assert_same(read_hypernetwork_file(path), written(file))
        if kind == "pt":
            assert refusals(path) == []


def test_bfloat16_is_kept(tmp_path: Path) -> None:
    file = read_hypernetwork_file(GOLDEN / "plain-121.pt")
    file.states = {
        width: tuple({key: value.bfloat16() for key, value in state.items()} for state in pair)  # type: ignore[misc]
        for width, pair in file.states.items()
    }
    for kind, write in HYPERNETWORK_WRITERS.items():
        write(tmp_path / kind, file)
        back = read_hypernetwork_file(tmp_path / kind)
        for width, pair in file.states.items():
            for state, expected in zip(back.states[width], pair, strict=True):
                assert all(torch.equal(state[key], expected[key]) for key in expected)
                assert {value.dtype for value in state.values()} == {torch.bfloat16}
    assert {p.dtype for p in Hypernetwork.load(tmp_path / "safetensors").parameters()} == {torch.float32}


def test_metadata_follows_the_modelspec_standard(tmp_path: Path) -> None:
    provenance = {"software": "tincture 1", "data_hash": "ab", "author": "Ann", "license": "CC0-1.0"}
    create_hypernetwork("ink", [768, 320]).save(tmp_path / "h.safetensors", provenance=provenance, model_hash="0123")
    with safe_open(tmp_path / "h.safetensors", "pt") as file:
        assert "768.k.linear.0.weight" in file.keys()  # noqa: SIM118
        metadata = file.metadata()
    assert metadata["modelspec.sai_model_spec"] == "1.0.1"
    assert metadata["modelspec.architecture"] == "stable-diffusion-v1/hypernetwork"
    assert metadata["modelspec.implementation"] == "tincture"
    assert metadata["modelspec.title"] == "ink"
    assert metadata["modelspec.usage_hint"] == "<hypernet:ink:1>"
    assert (metadata["modelspec.author"], metadata["modelspec.license"]) == ("Ann", "CC0-1.0")
    assert json.loads(metadata["tincture.provenance"]) == provenance
    assert json.loads(metadata["tincture.hypernetwork"])["sd_checkpoint"] == "0123"


@pytest.mark.parametrize(("width", "family"), [(112, "v1"), (768, "v1"), (1024, "v2"), (2048, "xl-v1-base")])
def test_the_architecture_goes_by_the_text_width(tmp_path: Path, width: int, family: str) -> None:
    create_hypernetwork("h", [width], [1, 1 / width, 1]).save(tmp_path / "h.safetensors")
    _, metadata = read_safetensors(tmp_path / "h.safetensors")
    assert metadata["modelspec.architecture"] == f"stable-diffusion-{family}/hypernetwork"


def test_what_other_programs_put_into_the_metadata_is_kept(tmp_path: Path) -> None:
    create_hypernetwork("h", [8]).save(tmp_path / "h.safetensors", provenance={"author": "Ann", "seed": 1})
    tensors, metadata = read_safetensors(tmp_path / "h.safetensors")
    edited = metadata | {"modelspec.author": "Bob", "modelspec.tags": "ink, line", "rating": "5"}
    write_safetensors(tmp_path / "edited.safetensors", tensors, edited)
    file = read_hypernetwork_file(tmp_path / "edited.safetensors")
    assert file.provenance["author"] == "Bob"
    assert file.provenance["seed"] == 1
    write_hypernetwork_pt(tmp_path / "h.pt", file)
    write_hypernetwork_safetensors(tmp_path / "back.safetensors", read_hypernetwork_file(tmp_path / "h.pt"))
    _, back = read_safetensors(tmp_path / "back.safetensors")
    assert (back["modelspec.author"], back["modelspec.tags"], back["rating"]) == ("Bob", "ink, line", "5")
    assert_same(read_hypernetwork_file(tmp_path / "back.safetensors"), file)


def test_the_kind_is_told_by_content_not_by_name(tmp_path: Path) -> None:
    hypernetwork = create_hypernetwork("h", [8], weight_init="XavierNormal")
    hypernetwork.save(tmp_path / "h.safetensors")
    (tmp_path / "h.safetensors").rename(tmp_path / "h.pt")
    loaded = Hypernetwork.load(tmp_path / "h.pt")
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), hypernetwork.parameters(), strict=True))


STATE = {
    f"linear.{n}.{kind}": torch.zeros(8, 8)[: 8 if kind == "weight" else 1].squeeze(0)
    for n in (0, 1)
    for kind in ("weight", "bias")
}
DESCRIPTION = {"tincture.hypernetwork": '{"layer_structure": [1, 1, 1]}'}


def named(**changes: Any) -> dict[str, torch.Tensor]:
    tensors = {f"8.{role}.{key}": value.clone() for role in "kv" for key, value in STATE.items()} | changes
    return {key: value for key, value in tensors.items() if value is not None}


def test_the_layout_that_the_next_test_spoils_is_read(tmp_path: Path) -> None:
    save_file(named(), tmp_path / "file", DESCRIPTION)
    assert list(read_hypernetwork_file(tmp_path / "file").states[8][0]) == list(STATE)


@pytest.mark.parametrize(
    ("tensors", "metadata"),
    [
        (named(), None),
        (named(), {"tincture.hypernetwork": "[]"}),
        (named(), {"tincture.hypernetwork": "{"}),
        (named(), {"tincture.hypernetwork": "[" * 200_000}),
        (named(), {"tincture.hypernetwork": '{"layer_structure": [1, 1, NaN, 1]}'}),
        (named(), {"tincture.hypernetwork": '{"layer_structure": [1, 2, 1]}'}),
        (named(), {"tincture.hypernetwork": '{"layer_structure": [1, 1, 1], "step": 1.5}'}),
        ({}, DESCRIPTION),
        (named(other=torch.zeros(1)), DESCRIPTION),
        (named(**{"8.q.linear.0.weight": torch.zeros(8, 8)}), DESCRIPTION),
        ({key: value for key, value in named().items() if key.startswith("8.k")}, DESCRIPTION),
        (named(**{"8.v.linear.0.weight": None}), DESCRIPTION),
        (named(**{"8.v.linear.0.weight": torch.full((8, 8), float("nan"))}), DESCRIPTION),
        (named(**{"8.v.linear.0.weight": torch.zeros(8, 8, dtype=torch.int32)}), DESCRIPTION),
    ],
)
def test_what_is_no_hypernetwork_is_refused_in_a_sentence(
    tmp_path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None
) -> None:
    save_file(tensors, tmp_path / "file", metadata)
    with pytest.raises(FileFormatError, match="file") as error:
        read_hypernetwork_file(tmp_path / "file")
    assert str(error.value).endswith(".")
    assert len(str(error.value)) < 600 + len(str(tmp_path))
