"""Which pictures are trained and which validate: all of one source on one side, and nothing by accident."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.runs import Bench, Recorder, write_pictures
from tincture import recipe
from tincture.data.preprocessed import groups_of_sources
from tincture.errors import DataError, UsageError
from tincture.events import Validated
from tincture.models.loading.load import load_model
from tincture.preprocessing.pipeline import preprocess
from tincture.run.split import find_folders, load_sides
from tincture.settings.train import TrainSettings
from tincture.webui.translation import count_pictures


def noise(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def settings_of(data: object, **changes: Any) -> TrainSettings:
    small = {"kind": "embedding", "name": "cat", "width": 16, "height": 16}
    return TrainSettings.from_dict({**small, "data": data if isinstance(data, list) else str(data), **changes})


def sides_of(data: object, **changes: Any) -> tuple[list[Path], list[Path], list[str]]:
    """Paths of the samples of each side, and what is remarked."""
    sides = load_sides(settings_of(data, **changes), load_model("picto"))
    validation = [] if sides.validation is None else [sample.path for sample in sides.validation]
    return [sample.path for sample in sides.training], validation, sides.training.remarks


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven sources in crops of one to three parts, each mirrored too, and a copy of one crop under another name."""
    folder = tmp_path_factory.mktemp("crops")
    for source in range(7):
        for part in range(2 * (1 + source % 3)):
            noise(folder / f"{source:05}-{part}-photo {source}.png", 10 * source + part)
    (folder / "copy.png").write_bytes((folder / "00003-0-photo 3.png").read_bytes())
    return folder


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.99])
@pytest.mark.parametrize("flip", [False, True])
def test_a_source_is_on_one_side_whatever_the_seed(crops: Path, share: float, flip: bool) -> None:
    every = sorted(crops.glob("*.png"))
    contents = {path: str(path.read_bytes()) for path in every}
    groups = [set(group) for group in groups_of_sources(contents)]
    assert len(groups) == 7
    drawn = set()
    for seed in range(12):
        training, validation, _ = sides_of(crops, validation_share=share, seed=seed, flip=flip)
        assert training and validation
        assert set(training).isdisjoint(validation)
        assert sorted(set(training) | set(validation)) == every
        assert len(training) == len(set(training)) * (2 if flip else 1)
        assert len(validation) == len(set(validation)), "a mirrored copy says nothing new"
        assert all(group <= set(training) or group <= set(validation) for group in groups)
        drawn.add(frozenset(validation))
    assert len(drawn) > 1


def test_the_share_depends_on_contents_and_seed_alone(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for number in range(9):
        noise(one / f"{number}.png", number)
        noise(other / f"{'kdbzaqwmy'[number]}.png", number)
    for seed in range(4):
        found = [sides_of(folder, validation_share=0.3, seed=seed)[1] for folder in (one, other)]
        assert {path.read_bytes() for path in found[0]} == {path.read_bytes() for path in found[1]}
        assert len(found[0]) == 3


def test_one_source_alone_cannot_be_shared(tmp_path: Path) -> None:
    for part in range(4):
        noise(tmp_path / f"00000-{part}-a.png", part)
    with pytest.raises(UsageError, match="all come from one source, so that none could be set aside"):
        sides_of(tmp_path, validation_share=0.5)


def test_folders_of_their_own(tmp_path: Path) -> None:
    trained = [noise(tmp_path / "data" / f"{number}.png", number) for number in range(3)]
    apart = [noise(tmp_path / name / "a.png", 5 + number) for number, name in enumerate(("one", "two"))]
    names = [str(path.parent) for path in apart]
    training, validation, remarks = sides_of(tmp_path / "data", validation_data=names, flip=True)
    assert (training[::2], validation, remarks) == (trained, apart, [])
    # The same, where the data are a folder around it: what validates is not trained.
    training, validation, _ = sides_of(tmp_path, validation_data=names[0], recursive=True)
    assert (sorted(training), validation) == (sorted([*trained, apart[1]]), apart[:1])


def test_what_is_on_both_sides_is_told_or_refused(tmp_path: Path) -> None:
    noise(tmp_path / "data" / "a.png", 1)
    noise(tmp_path / "apart" / "b.png", 1)
    noise(tmp_path / "apart" / "c.png", 2)
    _, validation, remarks = sides_of(tmp_path / "data", validation_data=str(tmp_path / "apart"))
    assert len(validation) == 2
    assert remarks == ["For validation, but trained too, as files of the same content: b.png."]
    with pytest.raises(UsageError, match=r"data is for training and for validation too; name it once"):
        sides_of(tmp_path / "data", validation_data=f"{tmp_path}/apart/../data")
    (tmp_path / "around").mkdir()
    (tmp_path / "around" / "link").symlink_to(tmp_path / "apart")
    with pytest.raises(DataError, match="There is no picture left to train"):
        sides_of(tmp_path / "apart", recursive=True, validation_data=str(tmp_path / "around"))


def test_a_folder_for_validation_without_pictures(tmp_path: Path) -> None:
    noise(tmp_path / "data" / "a.png", 1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no picture for validation in .*empty that can be used"):
        sides_of(tmp_path / "data", validation_data=str(tmp_path / "empty"))


# --- what preprocessing set aside ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("preprocessed")
    for number in range(6):
        noise(root / "photos" / f"{number}.png", number)
    preprocess(root / "photos", root / "crops", width=16, height=16, validation_share=0.34, workers=1, flip=True)
    return root / "crops"


def test_a_part_set_aside_is_found_by_itself(made: Path) -> None:
    training, validation, remarks = sides_of(made)
    assert {path.parent for path in training} == {made / "train"}
    assert {path.parent for path in validation} == {made / "validation"}
    assert (len(training), len(validation)) == (8, 4)
    said = f"Preprocessing has set a part of {made} aside: {made / 'train'} is trained, {made / 'validation'} is for "
    assert remarks == [f"{said}validation."]
    assert count_pictures(made) == 8


@pytest.mark.parametrize("name", ["with repeats", "recursive", "in another folder's name"])
def test_however_the_folder_is_named(made: Path, tmp_path: Path, name: str) -> None:
    if name == "recursive":
        training, validation, _ = sides_of(made, recursive=True)
        assert (len(training), len(validation)) == (8, 4)
        return
    if name == "with repeats":
        folders = find_folders(settings_of(f"{made}:3"))
    else:
        shutil.copytree(made, tmp_path / "10_rex")
        made = tmp_path / "10_rex"
        folders = find_folders(settings_of(tmp_path / "10_rex", folder_repeats=True))
    (source,) = folders.training
    assert (source.folder.resolve(), source.repeats) == (made / "train", 3 if name == "with repeats" else 10)
    assert folders.validation[0].folder.resolve() == made / "validation"


def test_a_folder_around_it_leaves_validation_out(made: Path) -> None:
    training, validation, remarks = sides_of(made.parent, recursive=True)
    assert not validation
    assert {path.parent.name for path in training} == {"photos", "train"}
    assert any("set aside for validation; its pictures are left out" in remark for remark in remarks)


def test_naming_the_part_itself_trains_it_and_says_so(made: Path) -> None:
    training, validation, remarks = sides_of(made / "validation")
    assert (len(training), validation) == (4, [])
    assert remarks == [
        f"{made / 'validation'} is what preprocessing set aside for validation; it is trained, since it is named."
    ]


def test_other_pictures_may_validate(made: Path, tmp_path: Path) -> None:
    other = noise(tmp_path / "other" / "x.png", 77)
    training, validation, remarks = sides_of(made, validation_data=str(other.parent))
    assert (len(training), validation) == (8, [other])
    assert f"{made / 'validation'} is left out, since {other.parent} is measured" in remarks[0]
    training, validation, _ = sides_of(other.parent, validation_data=str(made))
    assert (training, {path.parent for path in validation}) == ([other], {made / "validation"})


def test_without_measurements_it_is_left_out(made: Path) -> None:
    training, validation, remarks = sides_of(made, validation_every=0)
    assert (len(training), validation) == (8, [])
    assert "is left out, since validation_every is 0" in remarks[0]


def test_contradictions_with_folders_are_named_together(made: Path) -> None:
    with pytest.raises(UsageError) as caught:
        find_folders(settings_of([str(made), str(made / "validation")], validation_share=0.2))
    assert "has set a part of" in str(caught.value) and "leave the share out" in str(caught.value)
    assert "is for training and for validation too" in str(caught.value)


def test_patience_wants_pictures(made: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "plain")
    with pytest.raises(UsageError, match=r"early.stopping.patience.* is 3, but there are no pictures for validation"):
        find_folders(settings_of(tmp_path / "plain", early_stopping_patience=3))
    assert find_folders(settings_of(made, early_stopping_patience=3)).are_validated
    assert find_folders(settings_of(tmp_path / "plain", early_stopping_patience=3, validation_share=0.2)).are_validated


def test_a_run_on_it_trains_one_part_and_measures_the_other(bench: Bench, made: Path) -> None:
    recorder = Recorder()
    with pytest.warns(UserWarning, match="Preprocessing has set a part of"):
        result = bench.train("embedding", data=str(made), callbacks=[recorder], steps=2)
    assert [each.global_step for each in recorder.of(Validated)] == [0, 2]
    record = json.loads((result.run_dir / "run.json").read_text())
    assert record["settings"]["data"] in ([str(made)], str(made)) and record["validation_hash"]
    plan = recipe.plan(bench.settings("embedding", data=str(made), steps=9), bench.workspace)
    assert (plan["pictures"], plan["validation"]["pictures"]) == (8, 4)
