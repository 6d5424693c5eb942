"""Whatever keeps something by what the system says of a file notices that it is another file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tincture.formats.file_state import state_of


@pytest.mark.parametrize("way", ["in place", "moved there"])
def test_other_content_is_another_state_though_size_and_time_are_the_same(tmp_path: Path, way: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    os.utime(path, ns=(1, 1))
    before = state_of(path.stat())
    written = path if way == "in place" else tmp_path / "other"
    written.write_bytes(b"new")
    os.utime(written, ns=(1, 1))
    written.replace(path)

    after = state_of(path.stat())
    assert (after.size, after.written_ns) == (before.size, before.written_ns)
    assert after != before


def test_a_file_that_is_only_read_keeps_its_state(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    before = state_of(path.stat())
    path.read_bytes()
    assert state_of(path.stat()) == before
