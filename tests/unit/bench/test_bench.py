"""The benchmarks measure what they say; how fast anything is, no test asks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from bench import machine, report, run
from bench.embeddings import measure_database
from bench.floor import Floors
from bench.latents import make_encoder, measure_latents
from bench.material import make_workspace
from bench.measure import Case, Kind, count_encodings, measure_attention, measure_speed
from bench.peers import Peers

from tests.support import save_folder, tiny_model, tiny_sdxl, weights
from tincture.workspace import Workspace

pytestmark = pytest.mark.slow

KINDS: tuple[Kind, ...] = ("embedding", "hypernetwork")
PEERS = {"embedding": {"kohya", "kohya_cached", "diffusers", "webui"}, "hypernetwork": {"webui"}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_folder(tiny_model(), tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return make_workspace(tmp_path / "workspace", pictures=3)


def case(folder: str, kind: Kind, batch_size: int = 1) -> Case:
    return Case(folder, kind, 64, batch_size, rounds=2, steps=2, warmup=3)


@pytest.mark.parametrize("kind", KINDS)
def test_product_floors_and_peers_are_timed_in_every_round(folder: str, kind: Kind, workspace: Workspace) -> None:
    measured = measure_speed(case(folder, kind), workspace)
    assert len(measured["all_rounds"]) == 2
    for rates in measured["all_rounds"]:
        assert set(rates) == {"product", "floor", "floor_with_adapter", *PEERS[kind]}
        assert all(rate > 0 for rate in rates.values())
    ratios = sorted(rates["product"] / rates["floor"] for rates in measured["all_rounds"])
    assert measured["ratio"]["product/floor"] == {"median": sum(ratios) / 2, "min": ratios[0], "max": ratios[1]}
    assert 0 < measured["gflop_per_step"]["floor"] < measured["gflop_per_step"]["floor_with_adapter"]
    assert (measured["model"], measured["kind"]) == ("tiny", kind)


@pytest.mark.parametrize("kind", KINDS)
def test_every_picture_is_encoded_once(folder: str, kind: Kind, workspace: Workspace) -> None:
    counts = count_encodings(case(folder, kind), workspace, epochs=2)
    assert (counts["steps"], counts["encodings_per_picture"], counts["distinct_prompts"]) == (6, 1, 3)
    # An embedding changes between the epochs, and its prompts' encodings with it.
    assert counts["encodings_per_prompt"] == (2 if kind == "embedding" else 1)


def test_both_attentions_are_timed(folder: str, workspace: Workspace) -> None:
    measured = measure_attention(case(folder, "embedding"), workspace)
    assert [set(rates) for rates in measured["all_rounds"]] == [{"AttnProcessor", "AttnProcessor2_0"}] * 2


@pytest.mark.parametrize("kind", KINDS)
def test_floors_leave_the_model_as_it_was(kind: Kind) -> None:
    model = tiny_model()
    before = weights(model)
    for step in Floors(model, batch_size=2, size=64).of(kind).values():
        step()
        step()
    assert all(torch.equal(before[key], value) for key, value in weights(model).items())
    assert not any(parameter.grad is not None for parameter in model.unet.parameters())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.unet.modules())
    assert not any(module._forward_hooks for module in model.text_encoders[0].module.modules())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_peers_train_and_leave_the_model_as_it_was(
    kind: Kind, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, moved = tiny_model().to("cpu", dtype), []
    before, processors = weights(model), model.unet.attn_processors
    step_of = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW, *args: Any) -> Any:
        parameters = self.param_groups[0]["params"]
        old = [parameter.detach().clone() for parameter in parameters]
        answer = step_of(self, *args)
        moved.append(all(not torch.equal(*pair) for pair in zip(old, parameters, strict=True)))
        return answer

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    peers = Peers(model, batch_size=2, size=64).of(kind)
    assert set(peers) == PEERS[kind]
    for ready in peers.values():
        with ready() as train:
            train()
            train()
    assert moved == [True] * 2 * len(peers)
    assert all(torch.equal(before[key], value) for key, value in weights(model).items())
    assert not any(each.requires_grad or each.grad is not None for each in model.unet.parameters())
    assert model.unet.attn_processors == processors
    modules = [*model.unet.modules(), *model.text_encoders[0].module.modules()]
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in modules)


def test_peers_train_both_tables_of_a_model_with_two_text_encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    model, trained = tiny_sdxl(), []
    step = torch.optim.AdamW.step

    def noted(self: torch.optim.AdamW, *args: Any) -> Any:
        trained.append(len(self.param_groups[0]["params"]))
        return step(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    before = {key: value.clone() for key, value in weights(model).items()}
    peers = Peers(model, batch_size=2, size=64).of("embedding")
    assert set(peers) == {"kohya", "kohya_cached", "diffusers"} and Peers(model, 2, 64).of("hypernetwork") == {}
    for ready in peers.values():
        with ready() as train:
            train()
    assert trained == [2, 2, 2]
    assert all(torch.equal(before[key], value) for key, value in weights(model).items())
    tables = [encoder.table for encoder in model.text_encoders]
    assert not any(table._forward_hooks for table in tables)


@pytest.mark.parametrize("kind", KINDS)
def test_floors_bear_gradient_checkpointing(kind: Kind) -> None:
    model = tiny_model()
    model.enable_gradient_checkpointing()
    for step in Floors(model, batch_size=1, size=64).of(kind).values():
        step()


def test_picto_is_measured_with_both_adapters_at_two_batch_sizes() -> None:
    cases = run.picto_cases("picto", rounds=4, quick=False)
    assert {(case.kind, case.batch_size, case.size) for case in cases} == {(k, b, 64) for k in KINDS for b in (1, 8)}


def test_results_become_tables_between_the_marks(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "PICTO_PICTURES", 2)
    monkeypatch.setattr(run, "picto_cases", lambda model, rounds, quick: [Case(model, "embedding", 64, 2, 1, 1, 1)])
    results = json.loads(json.dumps(run.measure(["picto"], tmp_path, folder, rounds=1, quick=True)))
    assert results["machine"]["cpu"] == machine.cpu_name()
    doc = tmp_path / "doc.md"
    doc.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.write_doc(doc, [results])
    text = doc.read_text()
    assert text.startswith(f"before\n{report.BEGIN}\n") and text.endswith(f"{report.END}\nafter\n")
    assert "old" not in text
    rows = [line for line in text.splitlines() if line.startswith("| tiny 64×64 fp32 | embedding | 2 |")]
    assert len(rows) == 8  # speed, four peers, arithmetic, encodings, attention


def test_a_document_without_marks_is_left_alone(tmp_path: Path) -> None:
    doc = tmp_path / "doc.md"
    doc.write_text("text\n")
    with pytest.raises(ValueError, match="bench: begin"):
        report.write_doc(doc, [])
    assert doc.read_text() == "text\n"


def test_the_embedding_database_is_timed(tmp_path: Path) -> None:
    measured = measure_database(tiny_model(), tmp_path, files=3)
    assert measured["rescan"] > 0 and measured["read"] > 0


def test_latents_are_timed_with_and_without_a_cache(tmp_path: Path) -> None:
    results = measure_latents(make_encoder("picto"), tmp_path, count=2, size=(96, 64), rounds=2)
    assert set(results) == {"no cache", "cold", "warm", "warm/cold"}
    assert all(len(rounds) == 2 and min(rounds) > 0 for rounds in results.values())
    assert len(list(tmp_path.rglob("*.latents"))) == 4
