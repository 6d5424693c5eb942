"""Regularisation pictures: what they add to a step, what is refused, and that a resume is exact with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runs import Bench, csv_text, equal, last_state, trained, write_pictures
from tests.support import tiny_model
from tincture import recipe
from tincture.adapters.embedding import create_embedding
from tincture.errors import DataError, UsageError
from tincture.models.loading.load import load_model
from tincture.run.components import load_adapter, prepare
from tincture.run.data import load_data, load_template
from tincture.run.memory.estimate import TRAINING, MemoryEstimator
from tincture.run.prior_pictures import load_prior
from tincture.run.relocate import relocated
from tincture.settings.train import TrainSettings
from tincture.training.trainer import Trainer

CAPTIONS = ("purple, moon", "orange, star", "pink, heart")
SMALL: dict[str, Any] = {"steps": 4, "batch_size": 2, "log_every": 1}


def folder(bench: Bench, side: int = 16) -> Path:
    place = write_pictures(bench.workspace.root / "known", CAPTIONS, side)
    for number in range(len(CAPTIONS)):
        path = place / f"{number}.png"
        path.write_bytes(path.read_bytes() + bytes([number]))  # behind the picture's end: another content
    return place


def named(bench: Bench) -> str:
    """A template with whose prompts an embedding learns."""
    path = bench.workspace.root / "with-name.txt"
    path.write_text("[filewords] and [name]")
    return str(path)


def prior_settings(bench: Bench, kind: str, **changes: Any) -> dict[str, Any]:
    own = {"prior_template": named(bench)} if kind == "embedding" else {}
    return {**SMALL, "prior_data": str(folder(bench)), **own, **changes}


def trainer_of(bench: Bench, kind: str, **changes: Any) -> Trainer:
    settings = bench.settings(kind, **changes).resolved()
    adapter = load_adapter(kind, bench.path(kind), bench.path(kind).stem)
    return prepare(settings, bench.workspace, adapter, load_template(settings, bench.workspace), []).trainer


def gradients(trainer: Trainer) -> tuple[torch.Tensor, float]:
    with trainer._training():
        trainer.adapter.train(False)
        loss = trainer._accumulate_gradients().item()
        flat = [parameter.grad.flatten() for parameter in trainer.adapter.parameters() if parameter.grad is not None]
    return torch.cat(flat), loss


@pytest.mark.parametrize("kind", ["embedding", "hypernetwork"])
def test_a_step_adds_their_weighed_loss_and_gradient(bench: Bench, kind: str) -> None:
    """Three steps' gradients lie on a line in the weight; without pictures the line begins."""
    changes = prior_settings(bench, kind, gradient_accumulation_steps=2)
    made = [gradients(trainer_of(bench, kind, **changes, prior_weight=weight)) for weight in (1, 3)]
    plain = gradients(trainer_of(bench, kind, **SMALL, gradient_accumulation_steps=2))
    (one, loss_one), (three, loss_three), (none, loss_none) = *made, plain
    torch.testing.assert_close(three - none, 3 * (one - none), rtol=1e-3, atol=1e-6)
    assert loss_three - loss_none == pytest.approx(3 * (loss_one - loss_none), rel=1e-4)
    assert (one - none).abs().max() > 1e-6


def test_they_are_drawn_in_batches_of_their_own_with_prompts_and_draws_of_their_own(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_of(bench, "hypernetwork", **prior_settings(bench, "hypernetwork", gradient_accumulation_steps=2))
    made, seen = Trainer._micro_batch_loss, []

    def watched(self: Trainer, share: Any) -> torch.Tensor:
        prompts = [share.data.prompt(index, 0, share.first_slot + at) for at, index in enumerate(share.indices)]
        seen.append((share.data is self.data, len(share.indices), share.first_slot, share.weight, prompts))
        return made(self, share)

    monkeypatch.setattr(Trainer, "_micro_batch_loss", watched)
    gradients(trainer)
    learned, known = seen[:2], seen[2:]
    assert [each[0] for each in seen] == [True, True, False, False]
    assert sum(each[3] for each in learned) == sum(each[3] for each in known) == 1
    slots = [each[2] + at for each in seen for at in range(each[1])]
    assert slots == list(range(len(slots)))  # none is used twice in a step
    assert sorted(each[1] for each in known) == [1, 2]  # an epoch of three pictures
    for *_, prompts in known:
        assert all(any(caption in prompt for caption in CAPTIONS) for prompt in prompts)


def test_the_weight_may_follow_a_schedule_and_end(new_bench: Callable[[str], Bench]) -> None:
    """Where it is 0 the pictures are not even looked at: from the first step on it is a run without them."""
    bench = new_bench("with")
    settings = prior_settings(bench, "hypernetwork", prior_weight="0:4, 1", steps=4)
    without = new_bench("without").train("hypernetwork", **SMALL)
    assert equal(trained(bench.train("hypernetwork", **settings).adapter_path), trained(without.adapter_path))


@pytest.mark.parametrize("kind", ["embedding", "hypernetwork"])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(new_bench: Callable[[str], Bench], kind: str) -> None:
    changes = {"prior_weight": "2 -> 0.5", "latent_sampling_method": "random", "flip": True}
    whole_bench, stopped = new_bench("whole"), new_bench("stopped")
    whole = whole_bench.train(kind, **prior_settings(whole_bench, kind, **changes))
    first = stopped.train(kind, stop_after=2, **prior_settings(stopped, kind, **changes))
    for name in ("with-name.txt",) if kind == "embedding" else ():
        (stopped.workspace.root / name).write_text("something else with [name]")  # the run has its lines
    result = stopped.resume(first.run_dir)
    assert equal(trained(result.adapter_path), trained(whole.adapter_path))
    assert csv_text(result.run_dir) == csv_text(whole.run_dir)
    assert equal(last_state(result.run_dir), last_state(whole.run_dir))


@pytest.mark.parametrize("spoiled", ["0.txt", "1.png"])
def test_changed_pictures_or_captions_are_refused(bench: Bench, spoiled: str) -> None:
    first = bench.train("hypernetwork", stop_after=1, **prior_settings(bench, "hypernetwork"))
    path = bench.workspace.root / "known" / spoiled
    path.write_bytes((path.read_bytes() + b"!").replace(b"purple", b"yellow"))
    with pytest.raises(DataError, match=r"in .*pictures, .*known have changed since the run began"):
        bench.resume(first.run_dir)


def test_a_moved_workspace_has_them_where_they_are_now(bench: Bench, tmp_path: Path) -> None:
    record = {
        "root": str(tmp_path / "old"),
        "settings": {"data": str(tmp_path / "old/a"), "prior_data": [str(tmp_path / "old/known")]},
        "adapter_path": str(tmp_path / "old/embeddings/cat.pt"),
    }
    here = folder(bench)
    moved = relocated(record, bench.workspace.root / "runs", bench.workspace)
    assert moved["settings"]["prior_data"] == [str(here)]


def test_an_embedding_that_none_of_their_prompts_names_is_refused(bench: Bench) -> None:
    """Before anything slow, by plan and run; a caption that holds the name is enough."""
    changes = {**SMALL, "prior_data": str(folder(bench))}
    told = r"teach 'cat' nothing, since its name is in none of their prompts"
    for act in (
        lambda: bench.train("embedding", **changes),
        lambda: recipe.plan(bench.settings("embedding", **changes), bench.workspace, timing="none"),
    ):
        with pytest.raises(UsageError, match=told):
            act()
    (bench.workspace.root / "known" / "1.txt").write_text("a cat, blue")
    assert not bench.train("embedding", **changes).interrupted  # prompts without the name add no gradient


def test_a_name_within_another_word_is_none(bench: Bench) -> None:
    model = tiny_model()
    embedding = create_embedding("cat", model, 1, "moon")
    assert embedding.is_taught_by(["a star", "a Cat on a moon"], model)
    assert not embedding.is_taught_by(["category, star"], model)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"prior_weight": 0.5}, "prior_weight is '0.5', but prior_data is empty"),
        ({"prior_template": "none"}, "prior_template is 'none', but prior_data is empty"),
        ({"prior_data": "d", "prior_weight": "0:5, 0"}, "prior_weight is '0:5, 0', so that prior_data would not count"),
        ({"prior_data": "d", "prior_weight": "1:x"}, "prior_weight: In the schedule '1:x' segment 1"),
        ({"prior_data": ("d", " ")}, "prior_data is .* but must be a text that is not empty"),
    ],
)
def test_what_makes_no_sense_is_refused(bench: Bench, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        bench.settings("hypernetwork", **changes)


def test_a_folder_is_named_once(bench: Bench) -> None:
    with pytest.raises(UsageError, match="is named by `prior_data`, and for training or validation too"):
        bench.train("hypernetwork", prior_data=str(bench.data))


def test_the_plan_has_them(bench: Bench) -> None:
    settings = bench.settings("hypernetwork", **prior_settings(bench, "hypernetwork", prior_weight=0.5))
    plan = recipe.plan(settings, bench.workspace, timing="none")
    assert plan["prior"] == {
        "pictures": 3,
        "samples_per_epoch": 3,
        "weight": "0.5",
        "template": "[filewords]",
        "prompt": "purple, moon",
    }
    assert "prior" not in recipe.plan(bench.settings("hypernetwork", **SMALL), bench.workspace, timing="none")


def test_their_memory_counts(bench: Bench) -> None:
    """Their latents lie on the device, and larger ones make the largest batch."""
    changes = {"varsize": True, "batch_size": 2, "gradient_accumulation_steps": 1}

    def estimated(settings: TrainSettings) -> Any:
        model = load_model(settings.model, workspace=bench.workspace, device="cpu")
        adapter = load_adapter("hypernetwork", bench.path("hypernetwork"), "ink")
        prior = load_prior(settings, model, ["[filewords]"])
        dataset, lines = load_data(settings, model), load_template(settings, bench.workspace)
        return MemoryEstimator(model, adapter, dataset, lines, "cpu", None, prior).estimate(settings)

    plain = estimated(bench.settings("hypernetwork", **changes).resolved())
    beside = estimated(bench.settings("hypernetwork", **changes, prior_data=str(folder(bench, 64))).resolved())
    cells = (64 // 8) ** 2
    assert beside.data - plain.data >= 3 * cells * 3 * 4 * 4
    assert beside.phases[TRAINING] - beside.data > 1.4 * (plain.phases[TRAINING] - plain.data)
