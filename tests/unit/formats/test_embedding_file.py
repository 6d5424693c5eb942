from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.formats.webui_gate import refusals
from tincture.adapters.embedding import Embedding
from tincture.errors import FileFormatError, TinctureError, UsageError
from tincture.formats.embedding_optimizer import checksum, read_embedding_optimizer, write_embedding_optimizer

GOLDEN = Path(__file__).parents[2] / "golden"
CASES: list[dict[str, Any]] = json.loads((GOLDEN / "embeddings.json").read_text())
NAMES = [case["name"] for case in CASES]


def vectors(rows: int = 2, width: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


# --- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_golden_files_hold_what_they_should(case: dict[str, Any]) -> None:
    embedding = Embedding.load(GOLDEN / f"{case['name']}.pt")
    rows = embedding.vectors["clip_l"]
    assert (embedding.name, embedding.step, embedding.num_vectors) == (case["name"], case["step"], case["vectors"])
    assert tuple(rows.shape) == (case["vectors"], case["dim"])
    assert rows.flatten()[:4].tolist() == pytest.approx(case["first"])
    assert rows.double().sum().item() == pytest.approx(case["sum"], abs=1e-4)
    assert checksum(rows) == case["checksum"]
    assert (embedding.model_name, embedding.model_hash) == ("v1-5-pruned-emaonly", "6ce0161689")


@pytest.mark.parametrize("name", NAMES)
def test_golden_files_round_trip(name: str, tmp_path: Path) -> None:
    Embedding.load(GOLDEN / f"{name}.pt").save(tmp_path / "copy.pt")
    original = torch.load(GOLDEN / f"{name}.pt", weights_only=True)
    copy = torch.load(tmp_path / "copy.pt", weights_only=True)
    assert list(copy) == list(original)
    assert torch.equal(copy["string_to_param"].pop("*"), original["string_to_param"].pop("*"))
    assert copy == original


@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_2022_are_read(tmp_path: Path, zipped: bool) -> None:
    parameter = torch.nn.Parameter(vectors(3))
    content = {
        "string_to_token": {"*": torch.tensor(265)},
        "string_to_param": torch.nn.ParameterDict({"*": parameter}) if zipped else {"*": parameter},
    }
    torch.save(content, tmp_path / "old.pt", _use_new_zipfile_serialization=zipped)
    embedding = Embedding.load(tmp_path / "old.pt")
    assert torch.equal(embedding.vectors["clip_l"], vectors(3))
    assert (embedding.name, embedding.step, embedding.model_name) == ("old", 0, "")


@pytest.mark.parametrize(("width", "encoder"), [(768, "clip_l"), (1024, "clip_h"), (32, "clip_l")])
def test_the_width_tells_the_text_encoder(tmp_path: Path, width: int, encoder: str) -> None:
    torch.save({"string_to_param": {"*": vectors(1, width)}}, tmp_path / "file.pt")
    assert list(Embedding.load(tmp_path / "file.pt").vectors) == [encoder]


def test_a_single_row_and_half_precision_are_read(tmp_path: Path) -> None:
    torch.save({"string_to_param": {"other": vectors(1).half()[0]}}, tmp_path / "file.pt")
    rows = Embedding.load(tmp_path / "file.pt").vectors["clip_l"]
    assert rows.dtype == torch.float32
    assert torch.equal(rows, vectors(1).half().float())


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        {},
        {8: ({}, {})},
        {"string_to_param": None},
        {"string_to_param": {}},
        {"string_to_param": [vectors()]},
        {"string_to_param": {"*": "x"}},
        {"string_to_param": {"*": torch.zeros(2, 3, 4)}},
        {"string_to_param": {"*": torch.zeros(())}},
        {"string_to_param": {"*": torch.zeros(0, 8)}},
        {"string_to_param": {"*": torch.zeros(2, 8, dtype=torch.int64)}},
        {"string_to_param": {"*": torch.zeros(1).expand(1_000_000, 1_000_000)}},
        {"string_to_param": torch.nn.ParameterDict({})},
    ],
)
def test_what_is_no_embedding_is_refused_in_a_sentence(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "file.pt")
    with pytest.raises(FileFormatError, match=r"file\.pt") as error:
        Embedding.load(tmp_path / "file.pt")
    assert str(error.value).endswith(".")


def test_a_golden_file_with_wrong_bytes_is_read_or_refused(tmp_path: Path) -> None:
    original = (GOLDEN / "gold-one.pt").read_bytes()
    generator = torch.Generator().manual_seed(0)
    refused = 0
    for _ in range(150):
        content = bytearray(original)
        position, change = (
            int(torch.randint(1500, (1,), generator=generator)),
            torch.randint(1, 256, (1,), generator=generator),
        )
        content[position] ^= int(change)
        (tmp_path / "file.pt").write_bytes(content)
        try:
            Embedding.load(tmp_path / "file.pt")
        except TinctureError:
            refused += 1
    assert refused > 20


# --- writing ----------------------------------------------------------------------------------------------------------


def test_saved_files_pass_the_webuis_gate(tmp_path: Path) -> None:
    embedding = Embedding("e", {"clip_l": vectors()})
    embedding.save(tmp_path / "e.pt", model_name="m", model_hash="0123456789", provenance={"settings": {"a": [1]}})
    adamw = torch.optim.AdamW(embedding.parameters())
    embedding.parameters()[0].square().sum().backward()
    adamw.step()
    write_embedding_optimizer(tmp_path / "e.pt", embedding.vectors["clip_l"], adamw.state_dict())
    assert refusals(tmp_path / "e.pt") == []
    assert refusals(tmp_path / "e.pt.optim") == []


def test_a_saved_file_holds_plain_values(tmp_path: Path) -> None:
    Embedding("e", {"clip_l": vectors()}, step=3).save(tmp_path / "e.pt")
    content = torch.load(tmp_path / "e.pt", weights_only=True)
    saved = content.pop("string_to_param")["*"]
    assert type(saved) is torch.Tensor
    assert saved.untyped_storage().nbytes() == 2 * 8 * 4
    assert content == {
        "string_to_token": {"*": 265},
        "name": "e",
        "step": 3,
        "sd_checkpoint": None,
        "sd_checkpoint_name": None,
    }


def test_every_trait_survives_a_round_trip(tmp_path: Path) -> None:
    embedding = Embedding("some name", {"clip_l": vectors()}, step=7)
    embedding.save(tmp_path / "e.pt", model_name="model", model_hash="0123456789", provenance={"seed": 1})
    loaded = Embedding.load(tmp_path / "e.pt")
    assert torch.equal(loaded.vectors["clip_l"], embedding.vectors["clip_l"])
    assert (loaded.name, loaded.step) == ("some name", 7)
    assert (loaded.model_name, loaded.model_hash, loaded.provenance) == ("model", "0123456789", {"seed": 1})


def test_two_text_encoders_do_not_fit_into_a_pt_file(tmp_path: Path) -> None:
    embedding = Embedding("e", {"clip_l": vectors(1, 768), "clip_g": vectors(1, 1280)})
    with pytest.raises(UsageError, match="clip_l, clip_g"):
        embedding.save(tmp_path / "e.pt")
    assert list(tmp_path.iterdir()) == []


# --- the optimizer's state --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_golden_optimizer_state_is_bound_to_its_vectors(name: str) -> None:
    embedding = Embedding.load(GOLDEN / f"{name}.pt")
    state = read_embedding_optimizer(GOLDEN / f"{name}.pt", embedding.vectors["clip_l"])
    assert state is not None
    adamw = torch.optim.AdamW(embedding.parameters())
    adamw.load_state_dict(state)
    assert adamw.state[embedding.parameters()[0]]["exp_avg"].shape == embedding.vectors["clip_l"].shape


def test_optimizer_state_round_trips_and_is_dropped_when_the_vectors_changed(tmp_path: Path) -> None:
    path = tmp_path / "e.pt"
    assert read_embedding_optimizer(path, vectors()) is None
    write_embedding_optimizer(path, vectors(), {"state": {0: {"exp_avg": vectors(seed=1)}}, "param_groups": []})
    state = read_embedding_optimizer(path, vectors())
    assert state is not None
    assert torch.equal(state["state"][0]["exp_avg"], vectors(seed=1))
    assert read_embedding_optimizer(path, vectors(seed=2)) is None


@pytest.mark.parametrize("content", [[1], {"hash": "x"}, {"optimizer_state_dict": 3}])
def test_an_optimizer_file_without_a_state_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "e.pt.optim")
    with pytest.raises(FileFormatError, match="holds no optimizer state"):
        read_embedding_optimizer(tmp_path / "e.pt", vectors())


def test_the_checksum_cuts_towards_zero() -> None:
    # 0.019 and -0.019 times 100 are both cut to +-1: r = 997, then 997 * 281 XOR -997, low 16 bits
    expected = ((997 * 281) ^ -997) & 0xFFFF
    assert checksum(torch.tensor([[0.019, -0.019]])) == f"{expected:04x}"
