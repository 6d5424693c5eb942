"""Files made of files: their effects against those of the files they were made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support import tiny_model
from tincture.adapters.embedding import Embedding
from tincture.adapters.files.inspection import inspect_file
from tincture.adapters.hypernetwork import Hypernetwork
from tincture.adapters.merging.merged_files import make_merge, plan_merge
from tincture.errors import FileFormatError, UsageError
from tincture.formats.files import sha256_file
from tincture.formats.hypernetwork_file import read_hypernetwork_file
from tincture.models.sampling import generate
from tincture.settings.drawing import Drawing
from tincture.workspace import Workspace

GOLDEN = Path(__file__).parents[3] / "golden"
RELU: dict[str, Any] = {"layer_structure": (1, 2, 1), "activation_func": "relu"}


def made(path: Path, seed: int = 0, sizes: Sequence[int] = (32, 64), **options: Any) -> Hypernetwork:
    """A hypernetwork with weights and biases of some size, in a file."""
    network = Hypernetwork(path.stem, sizes, **{**RELU, **options}, seed=seed, step=100 * seed)
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.15, generator=generator)
    network.save(path)
    return network


def merged(tmp_path: Path, *sources: tuple[str, float], method: Any = "sum", **options: Any) -> Hypernetwork:
    files = [(tmp_path / f"{name}.pt", weight) for name, weight in sources]
    out = tmp_path / "merged.pt"
    report = make_merge(plan_merge(files, out, method=method, workspace=Workspace(tmp_path), overwrite=True, **options))
    assert report["path"] == str(out)
    return Hypernetwork.load(out)


def contexts(width: int) -> Tensor:
    return torch.randn(1, 30, width, generator=torch.Generator().manual_seed(width))


def added(network: Hypernetwork, x: Tensor, multiplier: float = 1.0) -> Tensor:
    return torch.stack(network.transform(x, multiplier)).detach() - x


def in_turn(networks: Sequence[tuple[Hypernetwork, float]], x: Tensor) -> Tensor:
    k = v = x
    for network, multiplier in networks:
        k, v = network.transform(k, multiplier)[0], network.transform(v, multiplier)[1]
    return torch.stack((k, v)).detach() - x


def close(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-4, atol=1e-5)


# --- hypernetworks ----------------------------------------------------------------------------------------------------


def test_a_mean_has_the_mean_of_all_weights(tmp_path: Path) -> None:
    one, other = made(tmp_path / "a.pt", 1, add_layer_norm=True), made(tmp_path / "b.pt", 2, add_layer_norm=True)
    mean = merged(tmp_path, ("a", 0.6), ("b", 0.4), method="interpolate")
    for name, tensor in mean.state_dict().items():
        assert torch.allclose(tensor, 0.6 * one.state_dict()[name] + 0.4 * other.state_dict()[name], atol=1e-7)
    assert mean.layer_structure == [1, 2, 1] and mean.add_layer_norm and mean.step == 200


@pytest.mark.parametrize(
    "options",
    [
        pytest.param([{"dropout_structure": (0, 0.3, 0)}, {}], id="one drops out"),
        pytest.param([{}, {"dropout_structure": (0, 0.3, 0)}], id="the other drops out"),
        pytest.param([{"dropout_structure": (0, 0.3, 0)}, {"dropout_structure": (0, 0.3, 0)}], id="both drop out"),
        pytest.param([{"activation_func": None}, {"activation_func": "linear"}], id="two names of no activation"),
        pytest.param(
            [{"add_layer_norm": True, "dropout_structure": (0, 0.3, 0)}, {"add_layer_norm": True}], id="norms"
        ),
    ],
)
def test_a_mean_of_layers_that_are_numbered_otherwise_is_the_same(
    tmp_path: Path, options: list[dict[str, Any]]
) -> None:
    networks = [made(tmp_path / f"{number}.pt", number, **own) for number, own in enumerate(options)]
    mean = merged(tmp_path, ("0", 0.6), ("1", 0.4), method="interpolate")
    one, other, found = (list(each.state_dict().values()) for each in (*networks, mean))
    assert len(one) == len(other) == len(found)
    for first, second, tensor in zip(one, other, found, strict=True):
        assert torch.allclose(tensor, 0.6 * first + 0.4 * second, atol=1e-7)


@pytest.mark.parametrize("weight", [1e300, -3e38])
def test_vectors_that_no_file_has_room_for_are_refused(tmp_path: Path, weight: float) -> None:
    Embedding("a", {"clip_l": torch.full((1, 4), 2.0)}).save(tmp_path / "a.pt")
    for method in ("interpolate", "stack", "sum"):
        with pytest.raises(UsageError, match="too large"):
            merged(tmp_path, ("a", weight), ("a", 1), method=method)
    assert not (tmp_path / "merged.pt").exists()


@pytest.mark.parametrize(
    "options",
    [
        pytest.param([{}, {}], id="one structure"),
        pytest.param([{}, {"layer_structure": (1, 0.5, 1)}], id="other widths"),
        pytest.param([{}, {"layer_structure": (1, 2, 2, 1)}], id="other lengths"),
        pytest.param([{}, {"activation_func": None}], id="one of them linear"),
        pytest.param(
            [{"activation_func": None}, {"activation_func": "linear", "layer_structure": (1, 1)}], id="linear"
        ),
        pytest.param([{"activate_output": True}, {}], id="activation behind the last layer"),
        pytest.param(
            [{"activation_func": "swish"}, {"activation_func": "hardswish"}], id="two names of one activation"
        ),
        pytest.param([{}, {"sizes": (64,)}], id="other contexts"),
        pytest.param([{"dropout_structure": (0, 0.3, 0)}, {}], id="dropout"),
    ],
)
def test_a_sum_and_a_stack_do_what_all_do_together(options: list[dict[str, Any]], tmp_path: Path) -> None:
    one, other = made(tmp_path / "a.pt", 1, **options[0]), made(tmp_path / "b.pt", 2, **options[1])
    both, behind = merged(tmp_path, ("a", 0.7), ("b", -0.4)), merged(tmp_path, ("a", 0.7), ("b", -0.4), method="stack")
    for width in (32, 64):
        x = contexts(width)
        assert close(added(both, x), added(one, x, 0.7) + added(other, x, -0.4))
        assert close(added(behind, x), in_turn([(one, 0.7), (other, -0.4)], x))
    assert not any(both.dropout_structure)


def test_tanh_adds_up_but_cannot_stand_behind_another(tmp_path: Path) -> None:
    one = made(tmp_path / "a.pt", 1, activation_func="tanh")
    other = made(tmp_path / "b.pt", 2, activation_func="tanh")
    both = merged(tmp_path, ("a", 1), ("b", 0.5))
    assert both.layer_structure == [1, 4, 1]
    assert close(added(both, contexts(32)), added(one, contexts(32)) + added(other, contexts(32), 0.5))
    with pytest.raises(UsageError, match=r"the activation tanh lets no number through.*`method` sum"):
        merged(tmp_path, ("a", 1), ("b", 1), method="stack")


@pytest.mark.parametrize("name", ["plain-121", "relu-optim", "swish-ln-dropout"])
@pytest.mark.parametrize("factor", [0.5, -2.0])
def test_a_strength_is_worked_into_files_of_the_webui(name: str, factor: float, tmp_path: Path) -> None:
    network = Hypernetwork.load(GOLDEN / f"{name}.pt")
    out = tmp_path / "scaled.pt"
    make_merge(plan_merge([(GOLDEN / f"{name}.pt", factor)], out, method="sum", workspace=Workspace(tmp_path)))
    scaled = Hypernetwork.load(out)
    for width in network.sizes:
        assert close(added(scaled, contexts(width)), added(network, contexts(width), factor))
    assert scaled.layer_structure == network.layer_structure  # the webui knows it
    assert "webui" in inspect_file(out)["read_by"]


@pytest.mark.parametrize("activation", ["relu", "tanh", "softmax"])
def test_a_strength_is_worked_in_behind_an_activation_too(activation: str, tmp_path: Path) -> None:
    network = made(tmp_path / "a.pt", 1, activation_func=activation, activate_output=True)
    scaled = merged(tmp_path, ("a", -0.5))
    assert close(added(scaled, contexts(32)), added(network, contexts(32), -0.5))


def test_pictures_with_one_merged_file_are_those_with_both(tmp_path: Path) -> None:
    model, drawing = tiny_model(), Drawing(steps=3, sampler="Euler")
    one, other = made(tmp_path / "a.pt", 1), made(tmp_path / "b.pt", 2)
    behind = merged(tmp_path, ("a", 0.8), ("b", 0.5), method="stack")

    def drawn() -> Tensor:
        return generate(model, ["moon"], drawing, seeds=[3]).float()

    plain = drawn()
    with one.attach(model, 0.8), other.attach(model, 0.5):
        wanted = drawn()
    with behind.attach(model):
        got = drawn()
    assert (got - wanted).abs().max() <= 1  # of 255, by rounding
    assert (plain - wanted).abs().max() > 5


def test_units_that_do_nothing_are_pruned_without_a_difference(tmp_path: Path) -> None:
    network = made(tmp_path / "a.pt", 1, sizes=(32,))
    for module in network.pairs[32]:
        with torch.no_grad():
            module.linear[0].weight[::2] = 0  # constant ones
            module.linear[2].weight[:, 1:16:2] = 0  # unheard ones
    network.save(tmp_path / "a.pt")
    smaller = merged(tmp_path, ("a", 1), layer_structure=(1, 0.75, 1))
    assert smaller.layer_structure == [1, 0.75, 1]
    assert close(added(smaller, contexts(32)), added(network, contexts(32)))


def test_equal_units_become_one(tmp_path: Path) -> None:
    network = made(tmp_path / "a.pt", 1)
    smaller = merged(tmp_path, ("a", 0.25), ("a", 0.75), layer_structure=(1, 2, 1))
    assert smaller.layer_structure == [1, 2, 1]
    assert close(added(smaller, contexts(64)), added(network, contexts(64)))


def test_pruning_says_how_far_it_is_off(tmp_path: Path) -> None:
    network = made(tmp_path / "a.pt", 1)
    out, wanted = tmp_path / "out.pt", []
    for factor in (1.5, 1, 0.5):
        plan = plan_merge(
            [(tmp_path / "a.pt", 1)],
            out,
            method="sum",
            workspace=Workspace(tmp_path),
            layer_structure=(1, factor, 1),
            overwrite=True,
        )
        found = make_merge(plan)
        smaller = Hypernetwork.load(out)
        x = torch.randn(1, 4000, 32, generator=torch.Generator().manual_seed(9))
        off = (added(smaller, x) - added(network, x)).norm() / added(network, x).norm()
        assert found["differences"][32] == pytest.approx(float(off), rel=0.1)
        assert not found["exact"]
        wanted.append(found["differences"][32])
    assert wanted == sorted(wanted) and wanted[0] > 0.05


def test_a_linear_one_becomes_the_nearest_of_a_rank(tmp_path: Path) -> None:
    network = made(tmp_path / "a.pt", 1, sizes=(32,), activation_func=None)
    smaller = merged(tmp_path, ("a", 1), layer_structure=(1, 0.25, 1))
    for module, less in zip(network.pairs[32], smaller.pairs[32], strict=True):
        matrix = (module.linear[1].weight @ module.linear[0].weight).detach()
        left, values, right = torch.linalg.svd(matrix)
        best = left[:, :8] * values[:8] @ right[:8]
        assert torch.allclose((less.linear[1].weight @ less.linear[0].weight).detach(), best, atol=1e-5)
    assert merged(tmp_path, ("a", 1), layer_structure=(1, 1)).layer_structure == [1, 1]
    assert close(added(merged(tmp_path, ("a", 1), layer_structure=(1, 1)), contexts(32)), added(network, contexts(32)))


def test_an_activation_behind_the_last_layer_stays_when_pruned(tmp_path: Path) -> None:
    network = made(tmp_path / "a.pt", 1, activate_output=True)
    smaller = merged(tmp_path, ("a", 1), layer_structure=(1, 2, 1), sizes=(32,))
    assert smaller.activate_output and smaller.sizes == [32]
    assert close(added(smaller, contexts(32)), added(network, contexts(32)))


@pytest.mark.parametrize(("precision", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_the_precision_of_the_numbers(precision: str, dtype: torch.dtype, tmp_path: Path) -> None:
    made(tmp_path / "a.pt", 1)
    merged(tmp_path, ("a", 1), precision=precision)
    states = read_hypernetwork_file(tmp_path / "merged.pt").states
    assert {tensor.dtype for tensor in states[32][0].values()} == {dtype}
    with pytest.raises(UsageError, match="too large for `precision` fp16"):
        merged(tmp_path, ("a", 1e6), precision="fp16")


def test_a_file_says_what_it_was_made_of(tmp_path: Path) -> None:
    for number, name in enumerate("ab", 1):
        network = made(tmp_path / f"{name}.pt", number)
        network.save(tmp_path / f"{name}.pt", model_name=f"m{number}", provenance={"author": "A", "license": name})
        (tmp_path / f"{name}.pt.optim").write_bytes(b"state")
    plan = plan_merge(
        [(tmp_path / "a.pt", 0.5), (tmp_path / "b.pt", 2)], "both", method="sum", workspace=Workspace(tmp_path)
    )
    report = make_merge(plan)
    path = tmp_path / "models" / "hypernetworks" / "both.pt"
    assert report["path"] == str(path) and not Path(f"{path}.optim").exists()
    found = inspect_file(path)
    assert (found["name"], found["step"], found["model_name"]) == ("both", 200, "")
    provenance = found["provenance"]
    assert provenance["author"] == "A" and "license" not in provenance
    first, second = provenance["merged"]["sources"]
    assert first == {
        "name": "a",
        "weight": 0.5,
        "sha256": sha256_file(tmp_path / "a.pt"),
        "step": 100,
        "model_name": "m1",
        "author": "A",
        "license": "a",
    }
    assert second["weight"] == 2 and provenance["merged"]["method"] == "sum"
    assert found["optional_info"] == "sum of a:0.5 + b:2"
    assert [sentence.split(",")[0] for sentence in report["lost"]] == [
        f"{tmp_path / 'a.pt.optim'}",
        f"{tmp_path / 'b.pt.optim'}",
        "They were trained on different models: m1",
    ]


@pytest.mark.parametrize(
    ("others", "method", "said"),
    [
        ({"layer_structure": (1, 3, 1)}, "interpolate", r"layer structures: 1, 2, 1 and 1, 3, 1"),
        (
            {"activation_func": "mish", "sizes": (32,)},
            "interpolate",
            r"widths: 32, 64 and 32; activations: relu and mish",
        ),
        ({"add_layer_norm": True}, "interpolate", "layer norms: without and with"),
        ({"activate_output": True}, "interpolate", "activation behind the last layer: no and yes"),
        ({"add_layer_norm": True}, "sum", "b has layer norms, which look at all units"),
        ({"activation_func": "mish"}, "sum", r"a and b have different activations \(relu, mish\)"),
        ({"activation_func": "softmax"}, "stack", "b has the activation softmax, which is not the same for each unit"),
    ],
)
def test_structures_that_do_not_go_together(others: dict[str, Any], method: str, said: str, tmp_path: Path) -> None:
    made(tmp_path / "a.pt", 1)
    made(tmp_path / "b.pt", 2, **others)
    with pytest.raises(UsageError, match=said):
        merged(tmp_path, ("a", 0.5), ("b", 0.5), method=method)
    assert not (tmp_path / "merged.pt").exists()


def test_families_do_not_go_together(tmp_path: Path) -> None:
    made(tmp_path / "a.pt", 1, sizes=(768,), layer_structure=(1, 1))
    made(tmp_path / "b.pt", 2, sizes=(1024,), layer_structure=(1, 1))
    with pytest.raises(UsageError, match=r"a is for Stable Diffusion 1, b is for Stable Diffusion 2"):
        merged(tmp_path, ("a", 1), ("b", 1))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"layer_structure": (1, 3, 1)}, "no smaller form of 1, 2, 1"),
        ({"layer_structure": (1, 1, 1, 1)}, "no smaller form"),
        ({"layer_structure": (2, 1)}, "the first and the last 1"),
        ({"sizes": (33,)}, "no layers for the width 33; keep some of 32, 64"),
    ],
)
def test_what_a_file_cannot_be_made_smaller_to(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    made(tmp_path / "a.pt", 1)
    with pytest.raises(UsageError, match=said):
        merged(tmp_path, ("a", 1), **options)


# --- embeddings -------------------------------------------------------------------------------------------------------


def embedding(path: Path, rows: Tensor, **more: Tensor) -> Tensor:
    Embedding(path.stem, {"clip_l": rows, **more}, step=len(rows)).save(path)
    return rows


def joined(tmp_path: Path, *sources: tuple[str, float], method: Any) -> Embedding:
    files = [(tmp_path / f"{name}.pt", weight) for name, weight in sources]
    make_merge(plan_merge(files, tmp_path / "out.pt", method=method, workspace=Workspace(tmp_path), overwrite=True))
    return Embedding.load(tmp_path / "out.pt")


def test_embeddings_are_interpolated_or_stand_behind_one_another(tmp_path: Path) -> None:
    a, b = embedding(tmp_path / "a.pt", torch.randn(2, 768)), embedding(tmp_path / "b.pt", torch.randn(2, 768))
    c = embedding(tmp_path / "c.pt", torch.randn(3, 768))
    assert torch.allclose(
        joined(tmp_path, ("a", 0.3), ("b", 0.7), method="interpolate").vectors["clip_l"], 0.3 * a + 0.7 * b, atol=1e-6
    )
    assert torch.allclose(joined(tmp_path, ("a", 1), ("b", -1), method="sum").vectors["clip_l"], a - b, atol=1e-6)
    behind = joined(tmp_path, ("a", 1), ("c", 1), method="stack")
    assert torch.equal(behind.vectors["clip_l"], torch.cat([a, c]))
    assert behind.provenance["merged"]["sources"][1]["name"] == "c"
    with pytest.raises(UsageError, match=r"a has 2 vectors and c has 3.*`method` stack"):
        joined(tmp_path, ("a", 0.5), ("c", 0.5), method="interpolate")


def test_what_embeddings_cannot_become(tmp_path: Path) -> None:
    embedding(tmp_path / "a.pt", torch.randn(40, 768))
    embedding(tmp_path / "b.pt", torch.randn(40, 1024))
    made(tmp_path / "c.pt")
    workspace = Workspace(tmp_path)
    with pytest.raises(UsageError, match="80 vectors, but a prompt has room for 75"):
        joined(tmp_path, ("a", 1), ("a", 1), method="stack")
    with pytest.raises(UsageError, match="different families"):
        joined(tmp_path, ("a", 1), ("b", 1), method="sum")
    with pytest.raises(UsageError, match=r"is an embedding and .* a hypernetwork"):
        plan_merge([(tmp_path / "a.pt", 1), (tmp_path / "c.pt", 1)], "x", method="sum", workspace=workspace)
    with pytest.raises(UsageError, match="`layer_structure`, `sizes` and `precision` are for hypernetworks"):
        plan_merge([(tmp_path / "a.pt", 0.5)], "x", method="sum", sizes=(768,), workspace=workspace)
    with pytest.raises(FileFormatError):
        plan_merge([(tmp_path / "none.pt", 0.5)], "x", method="sum", workspace=workspace)


def test_vectors_for_two_text_encoders(tmp_path: Path) -> None:
    folder = Workspace(tmp_path).embeddings
    folder.mkdir()
    for name in "ab":
        vectors = {"clip_l": torch.randn(1, 768), "clip_g": torch.randn(1, 1280)}
        Embedding(name, vectors).save(folder / f"{name}.safetensors")
    report = make_merge(plan_merge([("a", 0.5), ("b", 0.5)], "ab", method="interpolate", workspace=Workspace(tmp_path)))
    assert report["path"] == str(folder / "ab.safetensors")
    assert Embedding.load(report["path"]).vectors.keys() == {"clip_l", "clip_g"}
