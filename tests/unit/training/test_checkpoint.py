from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.runs import equal
from tests.unit.training.test_trainer import KINDS, make_adapter, make_trainer
from tincture.errors import FileFormatError
from tincture.formats.files import atomic_torch_save
from tincture.models.stable_diffusion import StableDiffusion
from tincture.training.checkpoint import list_states, newest_state, restore_state, save_state, state_path

STATE = {"global_step": 3, "adapter": {}, "optimizer": {}}


def test_states_are_listed_newest_first_and_other_files_left_out(tmp_path: Path) -> None:
    for step in (9, 100, 20):
        state_path(tmp_path, step).touch()
    (tmp_path / "step-notes.pt").touch()
    (tmp_path / ".tincture-0.tmp").touch()
    assert [step for step, _ in list_states(tmp_path)] == [100, 20, 9]


def test_the_newest_readable_state_counts(tmp_path: Path) -> None:
    atomic_torch_save(STATE, state_path(tmp_path, 3))
    state_path(tmp_path, 5).write_bytes(b"torn")
    atomic_torch_save({"global_step": 7}, state_path(tmp_path, 7))
    with pytest.warns(UserWarning) as told:
        assert newest_state(tmp_path) == STATE
    assert [str(warning.message) for warning in told] == [
        f"{state_path(tmp_path, 7)} does not hold a training state. It was put aside as step-00000007.pt.damaged. The "
        "run goes on from step 3.",
        f"{state_path(tmp_path, 5)} cannot be read as a torch file; it is damaged, truncated or of another kind (pop "
        "from empty list). It was put aside as step-00000005.pt.damaged. The run goes on from step 3.",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "step-00000003.pt",
        "step-00000005.pt.damaged",
        "step-00000007.pt.damaged",
    ]
    assert newest_state(tmp_path) == STATE  # once is enough


def test_no_state_is_told_with_the_reasons(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"has no file step-NUMBER\.pt"):
        newest_state(tmp_path)
    atomic_torch_save([1], state_path(tmp_path, 7))
    with pytest.raises(FileFormatError, match=r"step-00000007\.pt does not hold a training state"):
        newest_state(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_trainer_gets_back_all_that_a_later_step_depends_on(
    kind: str, model: StableDiffusion, tmp_path: Path
) -> None:
    changes = {"optimizer": torch.optim.AdamW, "steps": 3}
    trained = make_trainer(model, make_adapter(kind, model), **changes)
    trained.run()
    save_state(trained, tmp_path)
    fresh = make_trainer(model, make_adapter(kind, model), **changes)
    restore_state(fresh, newest_state(tmp_path))
    assert (fresh.global_step, fresh.adapter.step) == (trained.global_step, trained.adapter.step) == (3, 3)
    assert equal(fresh.adapter.state_dict(), trained.adapter.state_dict())
    assert equal(fresh.optimizer.state_dict(), trained.optimizer.state_dict())
    assert fresh.optimizer.state_dict()["state"]
    assert fresh.window.state() == trained.window.state() != []


def test_the_gradient_scaler_goes_on(model: StableDiffusion, tmp_path: Path) -> None:
    trained = make_trainer(model, make_adapter("embedding", model), steps=1)
    trained.grad_scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    save_state(trained, tmp_path)
    fresh = make_trainer(model, make_adapter("embedding", model), steps=1)
    fresh.grad_scaler = torch.amp.GradScaler("cpu")
    restore_state(fresh, newest_state(tmp_path))
    assert fresh.grad_scaler.state_dict()["scale"] == 1024.0


def test_two_states_are_kept(model: StableDiffusion, tmp_path: Path) -> None:
    trainer = make_trainer(model, make_adapter("embedding", model))
    for step in (5, 7, 9):
        trainer.global_step = step
        assert save_state(trainer, tmp_path) == state_path(tmp_path, step)
    assert [step for step, _ in list_states(tmp_path)] == [9, 7]
