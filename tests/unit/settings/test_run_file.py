"""Run files: what is written is read back, parts of one need not be complete, and what is none is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tincture.errors import UsageError
from tincture.settings.run_file import checked_part, written
from tincture.settings.toml import LARGEST, read_toml
from tincture.settings.train import TrainSettings

SOME = {"kind": "hypernetwork", "name": "ink", "data": ["a", "b:3"], "steps": 70, "learning_rate": "1e-5", "ema": "0.9"}


def test_what_is_written_is_what_is_other_than_usual_and_read_back(tmp_path: Path) -> None:
    settings = TrainSettings.from_dict({**SOME, "batch_size": 1})
    path = tmp_path / "ink.toml"
    path.write_text(written(settings))
    assert TrainSettings.from_toml(path) == settings
    assert "batch_size" not in path.read_text()
    assert set(read_toml(path)) == set(SOME)
    assert set(checked_part(read_toml(path))) == set(SOME)


def test_a_part_need_not_say_what_is_trained_and_is_checked() -> None:
    assert checked_part({"steps": 70, "clip_grad_value": 1}) == {"steps": 70, "clip_grad_value": "1"}
    with pytest.raises(UsageError, match=r"2 settings in a\.toml are not allowed") as caught:
        checked_part({"stepz": 70, "batch_size": 0}, "a.toml")
    assert "the nearest is steps" in str(caught.value) and "batch_size is 0" in str(caught.value)


def test_a_part_is_checked_for_the_kind_that_it_is_meant_for() -> None:
    values = {"attention_mask_weight": "0.5", "masks": "m"}
    assert checked_part(values, kind="embedding") == values
    with pytest.raises(UsageError, match="attention_mask_weight"):
        checked_part(values, kind="hypernetwork")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"steps 7", "not valid TOML: Expected '=' after a key in a key/value pair (at line 1, column 7)"),
        (b"steps = 7\nsteps = 8\n", "not valid TOML: Cannot overwrite a value"),
        (b"\xff\xfe", "not UTF-8 text"),
        (b"steps = " + b"9" * 5000, "too long or too deep"),
        (b"data = " + b"[" * 5000, "too long or too deep"),
        (b"#" * (LARGEST + 1), "larger than 1 MiB"),
    ],
    ids=["no_value", "twice", "no_text", "long_number", "deep_list", "large"],
)
def test_what_is_no_run_file_is_refused_by_its_name(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_toml(path, "mine.toml")
    assert str(caught.value).startswith("The run file 'mine.toml'") and said in str(caught.value)


@pytest.mark.parametrize("content", [b"\xef\xbb\xbfsteps = 7\n", b"steps = 7\r\n", b"steps = 7\rseed = 1\r"])
def test_every_way_to_end_lines_and_begin_files_is_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.toml").write_bytes(content)
    assert read_toml(tmp_path / "x.toml")["steps"] == 7
