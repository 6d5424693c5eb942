import base64
import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from tools import drawings
from tools.drawings import BACKGROUNDS, OFFSETS, Package, Scene

from tests.unit.tools.stand_ins import icons

pytest.importorskip("resvg_py", reason="resvg-py renders the drawings: pip install 'tincture[dev]'")


@pytest.fixture
def sets() -> dict[str, dict[str, str]]:
    return {style: drawings.svgs(icons(style)) for style in ("noto", "fluent")}


def box(picture: np.ndarray, background: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what is not background."""
    found = np.abs(picture.astype(int) - background).max(axis=2) > 40
    rows, columns = np.flatnonzero(found.any(axis=1)), np.flatnonzero(found.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def test_every_tenth_common_name_is_held_out_and_none_is_both() -> None:
    sets = [{f"thing-{i:03}": "" for i in range(i_from, 100)} for i_from in (0, 20)]
    split = drawings.split(sets)
    assert split.held_out == tuple(f"thing-{i:03}" for i in range(29, 100, 10))
    assert not set(split.seen) & set(split.held_out)
    assert split.all == tuple(f"thing-{i:03}" for i in range(20, 100))


@pytest.mark.parametrize(
    "name", ["hand-medium-dark", "two-oclock", "man-running", "a-cat-with-joy", "japanese-here-button", "keycap-1"]
)
def test_names_of_variants_are_not_subjects(name: str) -> None:
    assert not drawings.plain_name(name)
    assert drawings.plain_name("cat-face") and drawings.plain_name("man")


def test_a_caption_says_all_that_a_scene_is() -> None:
    scene = Scene("cat-face", "noto", "small", "on the left", "navy")
    assert drawings.caption(scene) == "a cat face, noto style, small, on the left, navy background"
    assert drawings.caption(scene, ["style", "background"]) == "a cat face, small, on the left"
    assert drawings.caption(scene, ["style", "size", "position"], "sks") == "a sks, navy background"


@pytest.mark.parametrize("position", list(OFFSETS))
def test_a_small_drawing_stands_where_its_scene_says(position: str, sets: dict[str, dict[str, str]]) -> None:
    scene = Scene("thing-a", "fluent", "small", position, "sky")
    left, top, right, bottom = box(drawings.draw(scene, sets["fluent"]["thing-a"]), BACKGROUNDS["sky"])
    x, y = OFFSETS[position]
    assert abs(left - x - 2.5) <= 1 and abs(top - y - 2.5) <= 1
    assert 33 <= right - left <= 37 and 33 <= bottom - top <= 37


def test_a_large_drawing_fills_the_center(sets: dict[str, dict[str, str]]) -> None:
    picture = drawings.draw(Scene("thing-b", "noto", "large", "in the center", "white"), sets["noto"]["thing-b"])
    assert picture.shape == (64, 64, 3)
    left, top, right, bottom = box(picture, BACKGROUNDS["white"])
    assert 46 <= right - left <= 51 and abs(left - (64 - right)) <= 1 and abs(top - (64 - bottom)) <= 1


def test_what_lies_outside_the_picture_is_cut_off(sets: dict[str, dict[str, str]]) -> None:
    drawn = drawings.render(sets["fluent"]["thing-a"], 40)
    picture = drawings.compose(drawn, (-20, 50), (255, 255, 255))
    left, top, right, bottom = box(picture, (255, 255, 255))
    assert (left, bottom) == (0, 64) and right <= 18 and top >= 52


def test_a_set_is_read_from_the_package_that_was_asked_for_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = json.dumps(icons("noto")).encode()
    packed = tmp_path / "npm" / "set-1.0.0.tgz"
    packed.parent.mkdir()
    with tarfile.open(packed, "w:gz") as archive:
        member = tarfile.TarInfo("package/icons.json")
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text))
    digest = base64.b64encode(hashlib.sha512(packed.read_bytes()).digest()).decode()
    monkeypatch.setitem(drawings.PACKAGES, "noto", Package("set", "1.0.0", "MIT", "sha512-" + digest))
    assert "thing-a" in drawings.read_set(tmp_path, "noto")
    packed.write_bytes(packed.read_bytes() + b"more")
    with pytest.raises(drawings.DrawingsError, match="integrity"):
        drawings.read_set(tmp_path, "noto")
    packed.unlink()
    with pytest.raises(drawings.DrawingsError, match=r"drawings\.py fetch"):
        drawings.read_set(tmp_path, "noto")
