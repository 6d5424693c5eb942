from __future__ import annotations

from pathlib import Path

import pytest

from tincture.errors import FileFormatError
from tincture.formats.files import atomic_torch_save
from tincture.training.checkpoint import list_states, newest_state, state_path

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
    assert newest_state(tmp_path) == STATE


def test_no_state_is_told_with_the_reasons(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"has no file step-NUMBER\.pt"):
        newest_state(tmp_path)
    atomic_torch_save([1], state_path(tmp_path, 7))
    with pytest.raises(FileFormatError, match=r"step-00000007\.pt does not hold a training state"):
        newest_state(tmp_path)
