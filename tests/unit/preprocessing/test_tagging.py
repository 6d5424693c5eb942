from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.unit.preprocessing.tiny import deepdanbooru_weights, write_wd
from tincture.errors import ModelError, UsageError
from tincture.preprocessing.tagging import load_tagger

COLORS = [Image.new("RGB", (50, 40), color) for color in ("blue", "lime", "red")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_wd(tmp_path_factory.mktemp("wd"))


@pytest.fixture
def deepdanbooru(tmp_path: Path) -> Path:
    path = tmp_path / "model-resnet_custom_v3.pt"
    torch.save(deepdanbooru_weights(["long_hair", "fox_(animal)", "sky", "tree", "rating:safe"], seed=2), path)
    return path


def test_tags_of_pictures(folder: Path) -> None:
    tags = load_tagger(str(folder), device="cpu")(COLORS)
    assert tags == ["blue theme, ^_^", r"green theme \(colour\), ^_^", "red theme, ^_^"]


def test_options(folder: Path) -> None:
    def tags(**options: Any) -> str:
        return load_tagger(str(folder), device="cpu", **options)(COLORS[1:2])[0]

    assert tags(threshold=0.5) == r"green theme \(colour\)"
    assert tags(threshold=0.99) == ""
    assert tags(character_threshold=0.7) == r"green theme \(colour\), some one, ^_^"
    assert tags(replace_underscores=False, escape_brackets=False, order="alphabet") == "^_^, green_theme_(colour)"
    assert tags(exclude=["green theme (colour)"]) == "^_^"


def test_files_as_comfyui_keeps_them(tmp_path: Path) -> None:
    write_wd(tmp_path, model="wd-v1-4.onnx", labels="wd-v1-4.csv")
    assert load_tagger(str(tmp_path / "wd-v1-4.onnx"), device="cpu")(COLORS[:1]) == ["blue theme, ^_^"]


def test_the_table_may_lie_beside_the_file_that_is_given(folder: Path) -> None:
    assert load_tagger(str(folder / "model.onnx"), device="cpu")(COLORS[:1]) == ["blue theme, ^_^"]


def test_deepdanbooru_by_its_file_or_its_folder(deepdanbooru: Path) -> None:
    everything = {"fox \\(animal\\)", "long hair", "sky", "tree"}
    for place in (deepdanbooru, deepdanbooru.parent):
        (tags,) = load_tagger(str(place), threshold=0.001, device="cpu")(COLORS[:1])
        assert set(tags.split(", ")) == everything
    (usual,) = load_tagger(str(deepdanbooru), device="cpu")(COLORS[:1])
    assert usual == load_tagger(str(deepdanbooru), threshold=0.5, device="cpu")(COLORS[:1])[0]
    assert set() < set(usual.split(", ")) < everything


def test_deepdanbooru_knows_no_characters(deepdanbooru: Path) -> None:
    with pytest.raises(UsageError, match="takes no threshold for them"):
        load_tagger(str(deepdanbooru), character_threshold=0.5)


def test_names_that_are_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"There is no 'wd14' here; give a folder with model\.onnx"):
        load_tagger("wd14")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    with pytest.raises(ModelError, match="There is no 'models/wd14' here"):
        load_tagger("models/wd14")


def test_folders_that_are_no_tagger(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no model\.onnx; give a folder"):
        load_tagger(str(tmp_path))
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(ModelError, match=r"has no selected_tags\.csv beside it"):
        load_tagger(str(tmp_path))
    with pytest.raises(ModelError, match=r"notes\.txt is no tagger"):
        (tmp_path / "notes.txt").write_text("")
        load_tagger(str(tmp_path / "notes.txt"))


def test_a_project_of_the_original_deepdanbooru(tmp_path: Path) -> None:
    (tmp_path / "project.json").write_text("{}")
    with pytest.raises(ModelError, match=r"TensorFlow and is not supported; give .*that the webui uses"):
        load_tagger(str(tmp_path))


def test_a_threshold_that_is_no_probability(folder: Path) -> None:
    with pytest.raises(UsageError, match="threshold of tags is 35"):
        load_tagger(str(folder), threshold=35)
