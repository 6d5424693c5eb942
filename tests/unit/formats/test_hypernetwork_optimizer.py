from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.unit.formats.webui_gate import refusals
from tincture.adapters.hypernetwork import Hypernetwork, create_hypernetwork
from tincture.errors import FileFormatError
from tincture.formats.files import short_hash
from tincture.formats.hypernetwork_optimizer import read_hypernetwork_optimizer, write_hypernetwork_optimizer

GOLDEN = Path(__file__).parents[2] / "golden"


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_saved_states_pass_the_webuis_gate(tmp_path: Path, suffix: str) -> None:
    hypernetwork = create_hypernetwork("h", [8, 16], [1, 2, 2, 1], "prelu", add_layer_norm=True)
    path = tmp_path / f"h{suffix}"
    hypernetwork.save(path)
    adamw = torch.optim.AdamW(hypernetwork.parameters())
    sum(p.square().sum() for p in hypernetwork.parameters()).backward()
    adamw.step()
    write_hypernetwork_optimizer(path, "AdamW", adamw.state_dict())
    sidecar = tmp_path / f"{path.name}.optim"
    assert refusals(sidecar) == []
    content = torch.load(sidecar, weights_only=True)
    assert sorted(content) == ["hash", "optimizer_name", "optimizer_state_dict"]
    assert content["hash"] == short_hash(path)


def test_golden_optimizer_state_is_bound_to_its_file() -> None:
    assert short_hash(GOLDEN / "relu-optim.pt") == "48bfe97484"
    found = read_hypernetwork_optimizer(GOLDEN / "relu-optim.pt")
    assert found is not None
    name, state = found
    assert name == "AdamW"
    hypernetwork = Hypernetwork.load(GOLDEN / "relu-optim.pt")
    adamw = torch.optim.AdamW(hypernetwork.parameters())
    adamw.load_state_dict(state)
    for parameter in hypernetwork.parameters():
        assert adamw.state[parameter]["exp_avg"].shape == parameter.shape


def test_optimizer_state_round_trips_and_is_dropped_when_the_file_changed(tmp_path: Path) -> None:
    hypernetwork = create_hypernetwork("h", [8])
    hypernetwork.save(tmp_path / "h.pt")
    assert read_hypernetwork_optimizer(tmp_path / "h.pt") is None
    adamw = torch.optim.AdamW(hypernetwork.parameters(), lr=0.25)
    sum(p.square().sum() for p in hypernetwork.parameters()).backward()
    adamw.step()
    write_hypernetwork_optimizer(tmp_path / "h.pt", "AdamW", adamw.state_dict())
    found = read_hypernetwork_optimizer(tmp_path / "h.pt")
    assert found is not None
    restored = torch.optim.AdamW(hypernetwork.parameters())
    restored.load_state_dict(found[1])
    assert restored.param_groups[0]["lr"] == 0.25
    for parameter in hypernetwork.parameters():
        assert torch.equal(restored.state[parameter]["exp_avg"], adamw.state[parameter]["exp_avg"])
    hypernetwork.step = 1
    hypernetwork.save(tmp_path / "h.pt")
    assert read_hypernetwork_optimizer(tmp_path / "h.pt") is None


@pytest.mark.parametrize("content", [[1], {"hash": "x"}, {"optimizer_state_dict": 3}])
def test_an_optimizer_file_without_a_state_is_refused(tmp_path: Path, content: object) -> None:
    create_hypernetwork("h", [8]).save(tmp_path / "h.pt")
    torch.save(content, tmp_path / "h.pt.optim")
    with pytest.raises(FileFormatError, match="holds no optimizer state"):
        read_hypernetwork_optimizer(tmp_path / "h.pt")
