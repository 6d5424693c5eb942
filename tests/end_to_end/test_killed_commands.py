"""Killed at any moment, preprocess, create and convert leave whole files or none, and the same call makes it good."""

from __future__ import annotations

import os
import random
import signal
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.preprocessing.pictures import texture
from tincture.adapters.embedding import Embedding
from tincture.adapters.files.conversion import convert_file
from tincture.formats.temporary_file import TemporaryFile
from tincture.preprocessing.pipeline import preprocess
from tincture.preprocessing.report import REPORT
from tincture.run.create import create_hypernetwork
from tincture.workspace import Workspace

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are copied")
SEEDS = range(6)


def killed(act: Callable[[], object], seed: int, moves: int) -> bool:
    """Whether a copy of this process was killed over it: before or after one of so many files got its place."""
    drawn = random.Random(seed)
    at, before, half = drawn.randrange(moves), drawn.random() < 0.5, drawn.random() < 0.3
    child = os.fork()
    if child == 0:
        try:
            _die_at(at, before, half)
            act()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL)
    return status == signal.SIGKILL


def _die_at(at: int, before: bool, half: bool) -> None:
    move, count = TemporaryFile.move, [0]

    def deadly(self: TemporaryFile, target: Path, *, durably: bool) -> None:
        count[0] += 1
        dies = count[0] == at + 1
        if dies and before and half:
            self.file.flush()
            os.truncate(self.file.fileno(), os.fstat(self.file.fileno()).st_size // 2)
        if dies and before:
            os.kill(os.getpid(), signal.SIGKILL)
        move(self, target, durably=durably)
        if dies:
            os.kill(os.getpid(), signal.SIGKILL)

    TemporaryFile.move = deadly  # type: ignore[method-assign]


def contents(folder: Path) -> dict[str, bytes]:
    """All files but the report, whose times differ; a half-written one would be among them."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if path.name != REPORT}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(4):
        texture(60 + 10 * number, 40, seed=number).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"caption {number}")
    return folder


@pytest.mark.parametrize("seed", SEEDS)
def test_preprocessing_that_was_killed_is_made_good(tmp_path: Path, source: Path, seed: int) -> None:
    def crop(out: Path) -> None:
        preprocess(source, out, width=32, height=32, flip=True, workers=1)

    crop(tmp_path / "whole")
    whole = contents(tmp_path / "whole")
    for again in range(3):
        if not killed(lambda: crop(tmp_path / "out"), seed + 100 * again, 14):
            break
        there = contents(tmp_path / "out")
        made = {name: content for name, content in there.items() if not Path(name).name.startswith(".")}
        assert made.items() <= whole.items()
    crop(tmp_path / "out")
    assert contents(tmp_path / "out") == whole


@pytest.mark.parametrize("seed", SEEDS)
def test_what_creating_left_is_whole_or_nothing(tmp_path: Path, seed: int) -> None:
    def create(root: Path) -> Path:
        root.mkdir(exist_ok=True)
        return create_hypernetwork("ink", workspace=Workspace(root), sizes=[8], layer_structure=[1, 1], seed=3)

    whole = create(tmp_path / "whole").read_bytes()
    assert killed(lambda: create(tmp_path / "killed"), seed, 1)
    path = tmp_path / "killed" / "models" / "hypernetworks" / "ink.pt"
    if not path.exists():
        create(tmp_path / "killed")
    assert path.read_bytes() == whole
    assert [each.name for each in path.parent.iterdir()] == ["ink.pt"]


@pytest.mark.parametrize("target", ["cat.safetensors", "cat.png"])
@pytest.mark.parametrize("seed", SEEDS)
def test_what_converting_left_is_whole_or_nothing(tmp_path: Path, seed: int, target: str) -> None:
    import torch

    source = tmp_path / "source.pt"
    Embedding("cat", {"clip_l": torch.arange(16.0).reshape(2, 8)}).save(source)
    (tmp_path / "whole").mkdir()
    convert_file(source, tmp_path / "whole" / target)
    before = source.read_bytes()
    path = tmp_path / "killed" / target
    assert killed(lambda: convert_file(source, path), seed, 1)
    if not path.exists():
        convert_file(source, path)
    assert path.read_bytes() == (tmp_path / "whole" / target).read_bytes()
    assert [each.name for each in path.parent.iterdir()] == [target]
    assert source.read_bytes() == before
