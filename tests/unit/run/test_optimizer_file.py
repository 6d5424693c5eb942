from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pytest
import torch

from tests.runs import Bench, equal, trained
from tincture.adapters.embedding import Embedding
from tincture.adapters.hypernetwork import Hypernetwork, create_hypernetwork
from tincture.formats.files import safe_torch_load
from tincture.run.optimizer_file import load_optimizer, save_optimizer
from tincture.settings.optimizers import averages_by_itself
from tincture.training.optimizer import create_optimizer, optimizer_names

KINDS = ("embedding", "hypernetwork")


@pytest.mark.parametrize("kind", KINDS)
def test_training_in_two_runs_equals_one_when_the_optimizers_state_is_kept(bench: Bench, kind: str) -> None:
    start = bench.path(kind).read_bytes()
    at_once = trained(bench.train(kind, steps=6).adapter_path)

    def in_two(keep: bool) -> dict[str, torch.Tensor]:
        bench.path(kind).write_bytes(start)
        bench.train(kind, steps=3, save_optimizer_state=keep)
        assert Path(f"{bench.path(kind)}.optim").exists() == keep
        return trained(bench.train(kind, steps=6).adapter_path)

    assert not equal(in_two(keep=False), at_once)
    assert equal(in_two(keep=True), at_once)


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_goes_on_from_a_copy_as_the_run_did(bench: Bench, kind: str) -> None:
    run = bench.train(kind, steps=6, save_every=3, save_optimizer_state=True)
    at_once = trained(run.adapter_path)
    (copy,) = run.run_dir.rglob("*-3.pt")
    for suffix in ("", ".optim"):
        shutil.copy(f"{copy}{suffix}", f"{bench.path(kind)}{suffix}")

    assert equal(trained(bench.train(kind, steps=6).adapter_path), at_once)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keep", [True, False])
def test_copies_have_a_sidecar_where_it_is_asked_for_and_lose_it_with_the_copy(
    bench: Bench, kind: str, keep: bool
) -> None:
    run = bench.train(kind, steps=4, save_every=1, keep_copies=2, save_optimizer_state=keep)
    copies = sorted(path.name for path in run.run_dir.rglob("*-?.pt"))
    sidecars = sorted(path.name for path in run.run_dir.rglob("*-?.pt.optim"))
    assert len(copies) == 2 and sidecars == [f"{name}.optim" for name in copies if keep]


@pytest.mark.parametrize("kind", KINDS)
def test_a_sidecar_of_an_older_file_is_not_used(bench: Bench, kind: str) -> None:
    bench.train(kind, steps=2, save_optimizer_state=True)
    old = shutil.copy(f"{bench.path(kind)}.optim", bench.workspace.root / "old.optim")
    bench.train(kind, steps=4)
    shutil.copy(old, f"{bench.path(kind)}.optim")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bench.train(kind, steps=5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_state_of_another_optimizer_is_left_alone_with_a_warning(bench: Bench, kind: str) -> None:
    bench.train(kind, steps=2, save_optimizer_state=True)
    with pytest.warns(UserWarning, match=r"\.pt\.optim holds the state of another optimizer"):
        bench.train(kind, steps=3, optimizer="SGD", weight_decay=0.0)


def test_an_embeddings_sidecar_is_written_for_adamw_alone(bench: Bench) -> None:
    with pytest.warns(UserWarning, match="AdamW's state only"):
        bench.train("embedding", steps=2, save_optimizer_state=True, optimizer="SGD")
    assert not Path(f"{bench.path('embedding')}.optim").exists()


def test_states_of_other_shapes_are_left_alone(bench: Bench) -> None:
    bench.train("embedding", steps=2, save_optimizer_state=True)
    adapter = Embedding.load(bench.path("embedding"))
    other = [torch.nn.Parameter(torch.zeros(5, 3))]
    optimizer = create_optimizer("AdamW", other, 0.1)
    with pytest.warns(UserWarning, match="another optimizer"):
        assert not load_optimizer(optimizer, adapter, bench.path("embedding"))
    assert optimizer.state_dict()["state"] == {}


def test_the_reference_reads_the_sidecar(bench: Bench) -> None:
    bench.train("hypernetwork", steps=2, save_optimizer_state=True)
    content = safe_torch_load(f"{bench.path('hypernetwork')}.optim")
    assert set(content) == {"optimizer_name", "hash", "optimizer_state_dict"}
    assert content["optimizer_name"] == "AdamW"


@pytest.mark.parametrize("name", [name for name in optimizer_names() if name != "Muon"])  # it takes matrices only
def test_every_optimizer_goes_on_from_its_sidecar_exactly(name: str, tmp_path: Path) -> None:
    def step(optimizer: torch.optim.Optimizer, network: Hypernetwork, at: int) -> None:
        torch.manual_seed(at)
        for parameter in network.parameters():
            parameter.grad = (parameter.detach() + at).cos()
        optimizer.step()

    path = tmp_path / "ink.pt"
    network = create_hypernetwork("ink", (4,), (1, 2, 1), "relu", add_layer_norm=True)
    optimizer = create_optimizer(name, network.parameters(), 0.01)
    averages = getattr(optimizer, "eval", lambda: None), getattr(optimizer, "train", lambda: None)
    for at in range(12):
        step(optimizer, network, at)
    averages[0]()
    network.save(path)
    save_optimizer(optimizer, network.parameters(), network, path)
    averages[1]()
    again = Hypernetwork.load(path)
    other = create_optimizer(name, again.parameters(), 0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_optimizer(other, again, path)
    for at in range(12, 15):
        step(optimizer, network, at)
        step(other, again, at)
    for one, two in zip(again.parameters(), network.parameters(), strict=True):
        # from averages and back costs the last bits
        torch.testing.assert_close(
            one, two, rtol=1e-3 if averages_by_itself(name) else 0, atol=1e-6 * averages_by_itself(name)
        )


def grouped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hypernetworks come in two groups, in another order than their parameters."""
    monkeypatch.setattr(
        Hypernetwork,
        "parameter_groups",
        lambda self: {"odd": self.parameters()[1::2], "even": self.parameters()[::2]},
    )


def test_a_sidecar_is_in_the_order_of_the_parameters_whatever_the_groups(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = bench.path("hypernetwork").read_bytes()
    bench.train("hypernetwork", steps=3, save_optimizer_state=True)
    plain = safe_torch_load(f"{bench.path('hypernetwork')}.optim")["optimizer_state_dict"]
    bench.path("hypernetwork").write_bytes(start)
    grouped(monkeypatch)
    bench.train("hypernetwork", steps=3, save_optimizer_state=True)
    content = safe_torch_load(f"{bench.path('hypernetwork')}.optim")["optimizer_state_dict"]
    assert list(content["state"]) == list(plain["state"])
    for number, state in plain["state"].items():
        assert equal(content["state"][number], state)
    assert [group["params"] for group in content["param_groups"]] == [plain["param_groups"][0]["params"]]


def test_a_run_in_groups_goes_on_from_a_sidecar_without_and_the_other_way_round(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = bench.path("hypernetwork").read_bytes()
    at_once = trained(bench.train("hypernetwork", steps=6).adapter_path)
    for first_in_groups in (False, True):
        bench.path("hypernetwork").write_bytes(start)
        for steps in (3, 6):
            with monkeypatch.context() as patched:
                if first_in_groups is (steps == 3):
                    grouped(patched)
                result = bench.train("hypernetwork", steps=steps, save_optimizer_state=True)
        assert equal(trained(result.adapter_path), at_once)
