from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.unit.formats.webui_gate import refusals
from tincture.adapters.files.inspection import inspect_file
from tincture.adapters.hypernetwork import Hypernetwork, create_hypernetwork
from tincture.errors import FileFormatError, TinctureError
from tincture.formats.hypernetwork_file import read_hypernetwork_file, write_hypernetwork_pt

GOLDEN = Path(__file__).parents[2] / "golden"
NAMES = ("plain-121", "relu-optim", "swish-ln-dropout")
DESCRIPTION = (
    "step",
    "name",
    "layer_structure",
    "activation_func",
    "is_layer_norm",
    "weight_initialization",
    "sd_checkpoint",
    "sd_checkpoint_name",
    "activate_output",
    "use_dropout",
    "dropout_structure",
    "last_layer_dropout",
    "optional_info",
)


def linear_state(width: int, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "linear.0.weight": torch.randn(2 * width, width, generator=generator),
        "linear.0.bias": torch.randn(2 * width, generator=generator),
        "linear.1.weight": torch.randn(width, 2 * width, generator=generator),
        "linear.1.bias": torch.randn(width, generator=generator),
    }


def minimal(width: int = 8) -> dict[Any, Any]:
    return {width: (linear_state(width, 1), linear_state(width, 2))}


# --- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_golden_outputs_are_reproduced(name: str) -> None:
    hypernetwork = Hypernetwork.load(GOLDEN / f"{name}.pt")
    io = load_file(GOLDEN / f"{name}.io.safetensors")
    compared = 0
    for key, expected in io.items():
        width, kind, *multiplier = key.split(".", 2)
        if kind == "in":
            continue
        actual = hypernetwork.transform(io[f"{width}.in"], float(multiplier[0]))["kv".index(kind)]
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)
        compared += 1
    assert compared == 4 * len(hypernetwork.sizes)


@pytest.mark.parametrize("name", NAMES)
def test_golden_files_round_trip(name: str, tmp_path: Path) -> None:
    Hypernetwork.load(GOLDEN / f"{name}.pt").save(tmp_path / "copy.pt")
    original = torch.load(GOLDEN / f"{name}.pt", weights_only=True)
    copy = torch.load(tmp_path / "copy.pt", weights_only=True)
    assert list(copy) == [*sorted(key for key in original if isinstance(key, int)), *DESCRIPTION]
    # The webui goes by the structure; ComfyUI by this alone, and then drops out while pictures are drawn.
    original["use_dropout"] = False
    assert {key: copy[key] for key in DESCRIPTION} == {key: original[key] for key in DESCRIPTION}
    for width in (key for key in original if isinstance(key, int)):
        assert isinstance(copy[width], tuple)
        for state, expected in zip(copy[width], original[width], strict=True):
            assert list(state) == list(expected)
            assert all(torch.equal(state[key], expected[key]) for key in expected)


def test_what_a_missing_key_means(tmp_path: Path) -> None:
    torch.save(minimal(), tmp_path / "bare.pt")
    hypernetwork = Hypernetwork.load(tmp_path / "bare.pt")
    assert hypernetwork.name == "bare"
    assert hypernetwork.step == 0
    assert hypernetwork.layer_structure == [1, 2, 1]
    assert hypernetwork.activation_func is None
    assert hypernetwork.weight_init == "Normal"
    assert hypernetwork.add_layer_norm is False
    assert hypernetwork.activate_output is True
    assert hypernetwork.dropout_structure == [0, 0, 0]


def test_activate_output_is_on_unless_a_file_says_otherwise(tmp_path: Path) -> None:
    content = {
        8: tuple(
            {key.replace("linear.1", "linear.2"): value for key, value in linear_state(8, seed).items()}
            for seed in (1, 2)
        ),
        "activation_func": "relu",
    }
    torch.save(content, tmp_path / "file.pt")
    x = torch.randn(1, 3, 8, generator=torch.Generator().manual_seed(0))
    k, _ = Hypernetwork.load(tmp_path / "file.pt").transform(x)
    assert (k - x).min() >= -1e-6
    torch.save(content | {"activate_output": False}, tmp_path / "file.pt")
    k, _ = Hypernetwork.load(tmp_path / "file.pt").transform(x)
    assert (k - x).min() < -0.1


@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_2022_are_read(tmp_path: Path, zipped: bool) -> None:
    old = {
        width: tuple(
            {key.replace("linear.0", "linear1").replace("linear.1", "linear2"): value for key, value in state.items()}
            for state in pair
        )
        for width, pair in minimal().items()
    }
    torch.save(old | {"step": 5, "name": "old"}, tmp_path / "file.pt", _use_new_zipfile_serialization=zipped)
    hypernetwork = Hypernetwork.load(tmp_path / "file.pt")
    x = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    k, v = hypernetwork.transform(x, 0.5)
    for actual, state in zip((k, v), minimal()[8], strict=True):
        inner = x @ state["linear.0.weight"].T + state["linear.0.bias"]
        expected = x + 0.5 * (inner @ state["linear.1.weight"].T + state["linear.1.bias"])
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    assert (hypernetwork.step, hypernetwork.name) == (5, "old")


@pytest.mark.parametrize(
    ("last_layer_dropout", "expected"), [(True, [0, 0.3, 0.3, 0]), (False, [0, 0.3, 0, 0]), (None, [0, 0.3, 0, 0])]
)
def test_use_dropout_without_a_structure(
    tmp_path: Path, last_layer_dropout: bool | None, expected: list[float]
) -> None:
    create_hypernetwork("h", [8], [1, 2, 2, 1], dropout_structure=expected).save(tmp_path / "file.pt")
    content = torch.load(tmp_path / "file.pt", weights_only=True)
    del content["dropout_structure"], content["last_layer_dropout"]
    content["use_dropout"] = True
    if last_layer_dropout is not None:
        content["last_layer_dropout"] = last_layer_dropout
    torch.save(content, tmp_path / "file.pt")
    assert Hypernetwork.load(tmp_path / "file.pt").dropout_structure == expected


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_dropout_and_no_activation_are_written_as_comfyui_takes_them(suffix: str, tmp_path: Path) -> None:
    """The webui goes by the structure; ComfyUI drops out while drawing where it reads use_dropout."""
    made = create_hypernetwork("h", [8], [1, 2, 2, 1], dropout_structure=[0, 0.3, 0.1, 0])
    made.save(tmp_path / f"a.{suffix}")
    made.activation_func = None
    made.save(tmp_path / "a.pt")
    content = torch.load(tmp_path / "a.pt", weights_only=True)
    assert (content["use_dropout"], content["dropout_structure"]) == (False, [0, 0.3, 0.1, 0])
    assert content["activation_func"] == "linear"
    read = read_hypernetwork_file(tmp_path / f"a.{suffix}")
    assert (read.use_dropout, read.dropout_structure) == (False, (0, 0.3, 0.1, 0))
    assert Hypernetwork.load(tmp_path / f"a.{suffix}").dropout_structure == [0, 0.3, 0.1, 0]


def test_the_rule_of_2022_becomes_a_structure_when_it_is_written(tmp_path: Path) -> None:
    create_hypernetwork("h", [8], dropout_structure=[0, 0.3, 0]).save(tmp_path / "old.pt")
    old = torch.load(tmp_path / "old.pt", weights_only=True)
    old |= {"use_dropout": True, "dropout_structure": None, "last_layer_dropout": True}
    torch.save(old, tmp_path / "old.pt")
    write_hypernetwork_pt(tmp_path / "new.pt", read_hypernetwork_file(tmp_path / "old.pt"))
    content = torch.load(tmp_path / "new.pt", weights_only=True)
    assert (content["use_dropout"], content["dropout_structure"]) == (False, [0, 0.3, 0])
    assert Hypernetwork.load(tmp_path / "old.pt").dropout_structure == [0, 0.3, 0]


def test_widths_written_as_text_count(tmp_path: Path) -> None:
    torch.save({"8": list(minimal()[8])}, tmp_path / "file.pt")
    assert Hypernetwork.load(tmp_path / "file.pt").sizes == [8]


def test_the_order_of_layers_in_a_file_does_not_matter(tmp_path: Path) -> None:
    hypernetwork = create_hypernetwork("h", [8], [1] * 13)
    hypernetwork.save(tmp_path / "h.pt")
    content = torch.load(tmp_path / "h.pt", weights_only=True)
    content[8] = tuple(dict(sorted(state.items())) for state in content[8])
    torch.save(content, tmp_path / "shuffled.pt")
    k, _ = read_hypernetwork_file(tmp_path / "shuffled.pt").states[8]
    assert list(k) == list(hypernetwork.pairs[8][0].state_dict())


def test_half_precision_files_become_float32(tmp_path: Path) -> None:
    pair = tuple({key: value.half() for key, value in state.items()} for state in minimal()[8])
    torch.save({8: pair}, tmp_path / "file.pt")
    assert {p.dtype for p in Hypernetwork.load(tmp_path / "file.pt").parameters()} == {torch.float32}


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        {},
        {"string_to_param": {"*": torch.zeros(1, 8)}},
        {8: 5},
        {8: (linear_state(8),)},
        {8: (linear_state(8), [1])},
        {8: (linear_state(8), {"linear.0.weight": "x"})},
        {8: (linear_state(8), {3: torch.zeros(1)})},
        {8: (linear_state(8), {})},
        {8: (linear_state(8), linear_state(16))},
        {8: (linear_state(8), linear_state(8) | {"other": torch.zeros(2)})},
        {0: (linear_state(8), linear_state(8))},
        {-8: (linear_state(8), linear_state(8))},
        {16: (linear_state(8), linear_state(8))},
        minimal() | {"layer_structure": [1, 3, 1]},
        minimal() | {"layer_structure": [1, 1e12, 1]},
        minimal() | {"layer_structure": [1, float("nan"), 1]},
        minimal() | {"layer_structure": [1, 1e308, 1]},
        minimal() | {"layer_structure": [1] * 100_000},
        minimal() | {"layer_structure": "1,2,1"},
        minimal() | {"layer_structure": [1, "2", 1]},
        minimal() | {"layer_structure": [2, 2, 1]},
        minimal() | {"activation_func": "no-such"},
        minimal() | {"activation_func": "relu"},
        minimal() | {"activation_func": 3},
        minimal() | {"is_layer_norm": True},
        minimal() | {"step": "ten"},
        minimal() | {"step": True},
        minimal() | {"step": -1},
        minimal() | {"layer_structure": ["x"] * 100_000},
        minimal() | {"8": minimal()[8]},
        {8: (linear_state(8), linear_state(8) | {"linear.0.bias": torch.zeros(3)})},
        {8: (linear_state(8), linear_state(8) | {"linear.0.weight": torch.zeros(16, 8).to_sparse()})},
        {8: (linear_state(8), linear_state(8) | {"linear.0.weight": torch.zeros(16, 8, dtype=torch.int64)})},
        {8: (linear_state(8), linear_state(8) | {"linear.0.weight": torch.zeros(16, 8).to(torch.float8_e4m3fn)})},
        minimal() | {"dropout_structure": [0, 1.5, 0]},
        minimal() | {"dropout_structure": [0, 0]},
        minimal() | {"weight_initialization": "no-such"},
        {8: (linear_state(8), linear_state(8) | {"linear.0.weight": torch.zeros(1).expand(16, 8)})},
        {100_000: ({"linear.0.weight": torch.zeros(1).expand(100_000, 100_000)},) * 2, "layer_structure": [1, 1]},
    ],
)
def test_what_is_no_hypernetwork_is_refused_in_a_sentence(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "file.pt")
    with pytest.raises(FileFormatError, match=r"file\.pt") as error:
        Hypernetwork.load(tmp_path / "file.pt")
    assert str(error.value).endswith(".")
    assert "Traceback" not in str(error.value)
    assert len(str(error.value)) < 600 + len(str(tmp_path))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_weights_of_a_diverged_run_are_refused(tmp_path: Path, number: float) -> None:
    content = minimal()
    content[8][1]["linear.1.bias"][3] = number
    torch.save(content, tmp_path / "file.pt")
    with pytest.raises(FileFormatError, match=r"linear\.1\.bias' of width 8 holds NaN or infinite numbers"):
        read_hypernetwork_file(tmp_path / "file.pt")


def test_a_golden_file_with_wrong_bytes_is_read_or_refused(tmp_path: Path) -> None:
    original = (GOLDEN / "relu-optim.pt").read_bytes()
    generator = torch.Generator().manual_seed(0)
    refused = 0
    for _ in range(150):
        content = bytearray(original)
        # the first bytes hold the pickle, where a change can do most
        content[int(torch.randint(4000, (1,), generator=generator))] ^= int(
            torch.randint(1, 256, (1,), generator=generator)
        )
        (tmp_path / "file.pt").write_bytes(content)
        try:
            Hypernetwork.load(tmp_path / "file.pt")
        except TinctureError:
            refused += 1
    assert refused > 20


# --- writing ----------------------------------------------------------------------------------------------------------


def test_saved_files_pass_the_webuis_gate(tmp_path: Path) -> None:
    hypernetwork = create_hypernetwork("h", [8, 16], [1, 2, 2, 1], "prelu", add_layer_norm=True)
    hypernetwork.save(tmp_path / "h.pt", model_name="m", provenance={"seed": 1, "settings": {"a": [1.5, None]}})
    assert refusals(tmp_path / "h.pt") == []


def comfyui_context_k(path: Path, x: torch.Tensor, strength: float) -> torch.Tensor:
    """What ComfyUI makes of the K context ``x``, by its documented rules for these files."""
    content = torch.load(path, weights_only=True)
    activation = {"linear": nn.Identity, "relu": nn.ReLU, "mish": nn.Mish}[content.get("activation_func") or "linear"]
    (width,) = (key for key in content if isinstance(key, int) or key.isdecimal())
    assert int(width) == x.shape[-1]
    state = content[width][0]
    assert content[width][1].keys() == state.keys()
    linears = [key.removesuffix(".weight") for key, tensor in state.items() if tensor.ndim == 2]
    y = x
    for index, name in enumerate(linears):
        y = nn.functional.linear(y, state[f"{name}.weight"], state[f"{name}.bias"])
        if index < len(linears) - 1 or content["activate_output"]:
            y = activation()(y)
        if content["is_layer_norm"]:
            norm = f"linear.{int(name.split('.')[1]) + (1 if activation is nn.Identity else 2)}"
            y = nn.functional.layer_norm(y, y.shape[-1:], state[f"{norm}.weight"], state[f"{norm}.bias"])
    return x + strength * y


@pytest.mark.parametrize("activation", [None, "relu", "mish"])
@pytest.mark.parametrize("add_layer_norm", [False, True])
def test_comfyui_makes_the_same_of_a_saved_file(tmp_path: Path, activation: str | None, add_layer_norm: bool) -> None:
    hypernetwork = create_hypernetwork(
        "h", [8], [1, 2, 1.5, 1], activation, "XavierNormal", add_layer_norm, activate_output=True
    )
    hypernetwork.save(tmp_path / "h.pt")
    x = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    k, _ = hypernetwork.transform(x, 0.6)
    torch.testing.assert_close(comfyui_context_k(tmp_path / "h.pt", x, 0.6), k)


def test_every_trait_survives_a_round_trip(tmp_path: Path) -> None:
    hypernetwork = create_hypernetwork(
        "some name",
        [16, 8],
        [1, 1.5, 2, 1],
        "mish",
        "KaimingUniform",
        add_layer_norm=True,
        activate_output=True,
        dropout_structure=[0, 0.1, 0.2, 0.3],
        seed=4,
    )
    hypernetwork.step = 42
    hypernetwork.optional_info = "a note"
    hypernetwork.save(tmp_path / "h.pt", model_name="model", model_hash="0123456789", provenance={"seed": 1})
    loaded = Hypernetwork.load(tmp_path / "h.pt")
    assert sorted(loaded.sizes) == [8, 16]
    for trait in (
        "name",
        "step",
        "layer_structure",
        "activation_func",
        "weight_init",
        "add_layer_norm",
        "activate_output",
        "dropout_structure",
        "optional_info",
    ):
        assert getattr(loaded, trait) == getattr(hypernetwork, trait), trait
    assert (loaded.model_name, loaded.model_hash, loaded.provenance) == ("model", "0123456789", {"seed": 1})
    x = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(0))
    for a, b in zip(loaded.transform(x, 0.7), hypernetwork.transform(x, 0.7), strict=True):
        assert torch.equal(a, b)


def test_saving_again_keeps_what_is_known_of_the_model(tmp_path: Path) -> None:
    Hypernetwork.load(GOLDEN / "plain-121.pt").save(tmp_path / "copy.pt")
    file = read_hypernetwork_file(tmp_path / "copy.pt")
    assert (file.model_name, file.model_hash) == ("v1-5-pruned-emaonly", "6ce0161689")


def test_saving_does_not_change_the_global_random_state(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    Hypernetwork.load(GOLDEN / "plain-121.pt").save(tmp_path / "copy.pt")
    assert torch.equal(torch.get_rng_state(), before)


# --- of an extension of the webui -------------------------------------------------------------------------------------

BLOCKS = {"linear.0.linear.0.weight": torch.ones(4, 4), "linear.0.linear.0.bias": torch.ones(4)}
STRETCHED = {"linear.0.upsample_layer.weight": torch.ones(4, 4), **BLOCKS}


@pytest.mark.parametrize(
    ("state", "keys", "word"),
    [
        (BLOCKS, {"skip_connection": True, "upsample_linear": None}, "skip_connection"),
        (STRETCHED, {"skip_connection": False, "upsample_linear": "Linear"}, "upsample_linear"),
        (BLOCKS, {}, "skip_connection"),
    ],
)
def test_residual_hypernetworks_are_named(
    state: dict[str, torch.Tensor], keys: dict[str, object], word: str, tmp_path: Path
) -> None:
    torch.save({4: (state, state), "layer_structure": [1, 1], **keys}, tmp_path / "a.pt")
    for reader in (Hypernetwork.load, inspect_file):
        with pytest.raises(FileFormatError, match=rf"is a residual hypernetwork \({word}\), as the extension"):
            reader(tmp_path / "a.pt")


def test_what_the_extension_makes_without_residual_blocks_is_read(tmp_path: Path) -> None:
    state = {"linear.0.weight": torch.ones(4, 4), "linear.0.bias": torch.ones(4)}
    keys = {"layer_structure": [1, 1], "skip_connection": False, "upsample_linear": None}
    torch.save({4: (state, state), **keys}, tmp_path / "a.pt")
    assert Hypernetwork.load(tmp_path / "a.pt").sizes == [4]


def test_layers_that_the_description_does_not_ask_for_are_named_in_one_line(tmp_path: Path) -> None:
    """A dropout takes a number of the layers' names."""
    torch.save(minimal() | {"dropout_structure": [0, 0.3, 0]}, tmp_path / "a.pt")
    with pytest.raises(FileFormatError) as error:
        Hypernetwork.load(tmp_path / "a.pt")
    assert str(error.value).endswith("its weights do not fit its description, for example linear.2.weight.")
    assert "\n" not in str(error.value)
