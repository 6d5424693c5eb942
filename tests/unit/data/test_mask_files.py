from __future__ import annotations

from pathlib import Path

import pytest

from tincture.data.mask_files import MaskFinder
from tincture.errors import DataError


def test_masks_lie_beside_the_pictures_under_the_same_name(tmp_path: Path) -> None:
    for name in ["mask/a.png", "mask/b.jpg", "mask/b.webp", "mask/.c.png", "mask/d.png/x", "in/mask/a.png"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    finder = MaskFinder()

    def find(name: str) -> Path | None:
        return finder.find(tmp_path / name, tmp_path)

    assert find("a.jpg") == tmp_path / "mask" / "a.png"
    assert find("b.png") == tmp_path / "mask" / "b.jpg"
    assert find("in/a.png") == tmp_path / "in" / "mask" / "a.png"
    assert [find(name) for name in ("c.png", "d.png", "e.png", "other/a.png")] == [None] * 4


def test_a_folder_of_masks_has_the_pictures_inner_folders(tmp_path: Path) -> None:
    for name in ["m/a.png", "m/in/a.png", "m/in/z.png", "m/y.png", "data/mask/a.png"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    finder = MaskFinder(tmp_path / "m")
    data = tmp_path / "data"
    assert finder.find(data / "a.jpg", data) == tmp_path / "m" / "a.png"
    assert finder.unused() == [tmp_path / "m" / "y.png"]
    assert finder.find(data / "in" / "a.jpg", data) == tmp_path / "m" / "in" / "a.png"
    assert finder.unused() == [tmp_path / "m" / "in" / "z.png", tmp_path / "m" / "y.png"]


def test_a_folder_of_masks_may_have_folders_of_the_data_folders_names(tmp_path: Path) -> None:
    for name in ["m/a.png", "m/rex/a.png", "m/rex/in/b.png"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    finder, rex, dogs = MaskFinder(tmp_path / "m"), tmp_path / "rex", tmp_path / "dogs"
    assert finder.find(rex / "a.png", rex) == tmp_path / "m" / "rex" / "a.png"
    assert finder.find(rex / "in" / "b.png", rex) == tmp_path / "m" / "rex" / "in" / "b.png"
    assert finder.find(dogs / "a.png", dogs) == tmp_path / "m" / "a.png"


def test_a_missing_folder_of_masks_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ["missing", "file"]:
        with pytest.raises(DataError, match=rf"mask folder .*{name} does not exist, or is no folder"):
            MaskFinder(tmp_path / name)
