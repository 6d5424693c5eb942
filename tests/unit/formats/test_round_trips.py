"""What is written comes back, whatever it holds: optimizer states and LoRA files."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runs import equal
from tests.unit.formats.webui_gate import refusals
from tincture.formats.checked_file import write_checked
from tincture.formats.embedding_content import EmbeddingFile
from tincture.formats.embedding_file import (
    write_embedding_bin,
    write_embedding_diffusers,
    write_embedding_kohya,
    write_embedding_pt,
    write_embedding_sdxl,
)
from tincture.formats.embedding_optimizer import read_embedding_optimizer, write_embedding_optimizer
from tincture.formats.hypernetwork_file import (
    HypernetworkFile,
    write_hypernetwork_pt,
    write_hypernetwork_safetensors,
)
from tincture.formats.hypernetwork_optimizer import read_hypernetwork_optimizer, write_hypernetwork_optimizer
from tincture.formats.lora_file import LowRank, describe_lora, write_lora_file
from tincture.formats.safetensors_file import read_safetensors, write_safetensors

NUMBERS = st.floats(allow_nan=False, width=32)
SIDES = st.integers(1, 5)


@st.composite
def tensors(draw: st.DrawFn, *shape: int) -> torch.Tensor:
    count = torch.Size(shape).numel()
    return torch.tensor(draw(st.lists(NUMBERS, min_size=count, max_size=count))).reshape(shape)


@st.composite
def states(draw: st.DrawFn) -> dict[str, Any]:
    """As ``Optimizer.state_dict`` gives them: tensors, numbers, texts, switches and None."""
    options = st.one_of(NUMBERS, st.booleans(), st.none(), st.integers(-(2**40), 2**40), st.text(max_size=5))
    each = st.fixed_dictionaries({"step": tensors(), "exp_avg": tensors(draw(SIDES), draw(SIDES)), "other": options})
    count = draw(st.integers(0, 3))
    state = {index: draw(each) for index in range(count)}
    group = {"lr": draw(NUMBERS), "betas": (draw(NUMBERS), 0.99), "params": list(range(count))}
    return {"state": state, "param_groups": [group]}


@given(state=states(), vectors=tensors(2, 3))
@settings(max_examples=20, deadline=None)
def test_an_embeddings_optimizer_state_comes_back(state: dict[str, Any], vectors: torch.Tensor) -> None:
    vectors = vectors.nan_to_num(posinf=1, neginf=-1).clamp(-1e6, 1e6)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "e.pt"
        write_embedding_optimizer(path, vectors, state)
        assert refusals(Path(f"{path}.optim")) == []
        assert equal(read_embedding_optimizer(path, vectors), state)
        assert read_embedding_optimizer(path, vectors + 1) is None


@given(state=states(), name=st.text(max_size=9), content=st.binary(min_size=1, max_size=20))
@settings(max_examples=20, deadline=None)
def test_a_hypernetworks_optimizer_state_comes_back(state: dict[str, Any], name: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "h.pt"
        path.write_bytes(content)
        write_hypernetwork_optimizer(path, name, state)
        assert refusals(Path(f"{path}.optim")) == []
        assert equal(read_hypernetwork_optimizer(path), (name, state))
        path.write_bytes(content + b"0")
        assert read_hypernetwork_optimizer(path) is None


@given(rank=SIDES, outputs=SIDES, inputs=SIDES, data=st.data())
@settings(max_examples=20, deadline=None)
def test_a_lora_holds_the_products_it_was_given(rank: int, outputs: int, inputs: int, data: st.DataObject) -> None:
    small = st.integers(-8, 8)

    def matrix(rows: int, columns: int) -> torch.Tensor:
        count = rows * columns
        return torch.tensor(data.draw(st.lists(small, min_size=count, max_size=count))).double().reshape(rows, columns)

    change = LowRank(matrix(outputs, rank), matrix(rank, inputs))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "l.safetensors"
        write_lora_file(path, {"down.attn1.to_k": change}, {}, {})
        read, _ = read_safetensors(path)
    described = describe_lora(path, read)
    (layer,) = described.ranks
    assert (described.layout, described.ranks[layer], described.has_biases) == ("kohya", rank, False)
    product = read[f"{layer}.lora_up.weight"].double() @ read[f"{layer}.lora_down.weight"].double()
    scale = read[f"{layer}.alpha"].item() / rank
    assert (product * scale).numpy() == pytest.approx((change.up @ change.down).numpy(), rel=1e-2, abs=1e-2)


def embedding(**vectors: torch.Tensor) -> EmbeddingFile:
    return EmbeddingFile(vectors, "e")


def network(tensor: torch.Tensor) -> HypernetworkFile:
    states = {"linear.0.weight": tensor, "linear.0.bias": tensor[0]}
    return HypernetworkFile({4: (states, states)}, "h", layer_structure=(1, 1))


WRITERS: dict[str, Callable[[Path, torch.Tensor], None]] = {
    "embedding.pt": lambda path, tensor: write_embedding_pt(path, embedding(clip_l=tensor)),
    "embedding.bin": lambda path, tensor: write_embedding_bin(path, embedding(clip_l=tensor)),
    "diffusers": lambda path, tensor: write_embedding_diffusers(path, embedding(clip_l=tensor)),
    "kohya": lambda path, tensor: write_embedding_kohya(path, embedding(clip_l=tensor)),
    "sdxl": lambda path, tensor: write_embedding_sdxl(path, embedding(clip_l=tensor, clip_g=tensor)),
    "hypernetwork.pt": lambda path, tensor: write_hypernetwork_pt(path, network(tensor)),
    "hypernetwork.safetensors": lambda path, tensor: write_hypernetwork_safetensors(path, network(tensor)),
    "lora": lambda path, tensor: write_lora_file(path, {"down.attn1.to_k": LowRank(tensor, tensor.T)}, {}, {}),
    "plain": lambda path, tensor: write_safetensors(path, {"a": tensor, "b": tensor}, {}),
    "checked": lambda path, tensor: write_checked(path, {"a": tensor, "b": tensor}, {}),
}


@pytest.mark.parametrize("part", [(slice(1, 5), slice(None)), (slice(None), slice(3, 7))], ids=["rows", "columns"])
@pytest.mark.parametrize("writer", WRITERS)
def test_a_view_is_written_as_its_own_numbers_alone(writer: str, part: tuple[slice, slice], tmp_path: Path) -> None:
    """What lies beside it does not get into the file, and nothing is refused because it shares its memory."""
    view = torch.arange(4000.0 * 4).reshape((-1, 4) if part[1] == slice(None) else (4, -1))[part]
    WRITERS[writer](tmp_path / "own", view.clone())
    WRITERS[writer](tmp_path / "view", view)
    assert (tmp_path / "view").read_bytes() == (tmp_path / "own").read_bytes()
