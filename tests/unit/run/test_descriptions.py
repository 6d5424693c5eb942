"""Pictures without a caption are described by a model before the base model is loaded, and never again."""

from __future__ import annotations

import json
import shutil
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.runs import Bench, Recorder, csv_text, equal, last_state, trained, write_pictures
from tests.unit.preprocessing.tiny import write_blip, write_wd
from tincture import recipe
from tincture.data.captions import caption_for
from tincture.errors import DataError, ModelError, StorageError, TinctureError, UsageError
from tincture.events import ModelLoaded, Progressed
from tincture.preprocessing import describer_kinds
from tincture.run import components, descriptions
from tincture.run.descriptions import DESCRIBING, LOADING
from tincture.run.memory.estimate import MemoryEstimate, MemoryEstimator

CAPTIONED: dict[str, Any] = {"template": "style_filewords"}


@pytest.fixture(autouse=True)
def _no_describers(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("TINCTURE_CAPTIONER", "TINCTURE_TAGGER"):
        monkeypatch.delenv(variable, raising=False)
    # What is measured for a plan takes most of its time, and nothing of it is asked here.
    measured = MemoryEstimate(weights={}, trained=0, data=0, phases={"training": 1})
    monkeypatch.setattr(MemoryEstimator, "estimate", lambda self, settings: measured)


class Said:
    """Stands in for a model; remembers how many pictures it was asked for at a time."""

    def __init__(self, words: str = "a thing\nof") -> None:
        self.words, self.asked = words, list[int]()

    def __call__(self, pictures: Sequence[Image.Image]) -> list[str]:
        self.asked.append(len(pictures))
        return [f"{self.words} {picture.getpixel((0, 0))}" if self.words else "" for picture in pictures]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Said:
    model = Said()
    monkeypatch.setattr(descriptions, "load_models", lambda settings: [model])
    return model


def unusable(settings: object) -> Any:
    raise AssertionError("the model must not be loaded")


def tagged(bench: Bench, *without: int, **changes: Any) -> dict[str, Any]:
    """Settings of a run whose pictures of these numbers have no caption; a tagger is there."""
    for number in without:
        (bench.data / f"{number}.txt").unlink()
    folder = bench.workspace.root / "models" / "wd_tagger"
    if not folder.exists():
        write_wd(folder)
    return {**CAPTIONED, "caption_missing": "wd", **changes}


def record(result: recipe.RunResult) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((result.run_dir / "run.json").read_text())
    return found


def plan(bench: Bench, kind: str = "embedding", **changes: Any) -> dict[str, Any]:
    return recipe.plan(bench.settings(kind, **{**CAPTIONED, **changes}), bench.workspace, timing="none")


# --- what is trained -------------------------------------------------------------------------------------------------


def test_what_a_tagger_says_is_trained_as_if_a_person_had_written_it(new_bench: Callable[[str], Bench]) -> None:
    bench, by_hand = new_bench("described"), new_bench("by-hand")
    watcher = Recorder()
    result = bench.train("hypernetwork", callbacks=[watcher], **tagged(bench, 1, 3))
    said = record(result)["described"]
    assert len(said) == 2 and all(text.endswith("^_^") or "^_^" in text.split(", ") for text in said.values())
    for number in (1, 3):
        (by_hand.data / f"{number}.txt").write_text(said[descriptions._digest(by_hand.data / f"{number}.png")])
    other = by_hand.train("hypernetwork", **CAPTIONED)
    assert equal(trained(result.adapter_path), trained(other.adapter_path))
    assert csv_text(result.run_dir) == csv_text(other.run_dir)
    assert record(result)["data_hash"] == record(other)["data_hash"]
    assert sorted(path.name for path in bench.data.glob("*.txt")) == ["0.txt", "2.txt", "4.txt"]
    stages = [event for event in watcher.events if isinstance(event, Progressed | ModelLoaded)]
    at = [index for index, event in enumerate(stages) if getattr(event, "stage", "") == DESCRIBING]
    assert [stages[index].description for index in at][-1] == f"{DESCRIBING} 2 of 2"  # type: ignore[attr-defined]
    assert max(at) < next(index for index, event in enumerate(stages) if isinstance(event, ModelLoaded))
    assert LOADING in {getattr(event, "stage", "") for event in stages}


@pytest.mark.parametrize(
    ("kind", "written"), [("embedding", False), ("hypernetwork", True)], ids=["recorded", "written too"]
)
def test_a_resume_has_the_texts_and_needs_no_model(
    new_bench: Callable[[str], Bench], monkeypatch: pytest.MonkeyPatch, kind: str, written: bool
) -> None:
    whole_bench, bench = new_bench("whole"), new_bench("stopped")
    changes = {"write_captions": written, "batch_size": 2, "steps": 3}
    whole = whole_bench.train(kind, **tagged(whole_bench, 0, 1, 3, **changes))
    first = bench.train(kind, stop_after=1, **tagged(bench, 0, 1, 3, **changes))
    shutil.rmtree(bench.workspace.root / "models" / "wd_tagger")
    monkeypatch.setattr(descriptions, "load_models", unusable)
    monkeypatch.setattr(describer_kinds, "is_installed", lambda module: False)
    if written:
        (bench.data / "1.txt").unlink()  # the run has it all the same
    result = bench.resume(first.run_dir)
    assert equal(trained(result.adapter_path), trained(whole.adapter_path))
    assert csv_text(result.run_dir) == csv_text(whole.run_dir)
    assert equal(last_state(result.run_dir), last_state(whole.run_dir))


def test_a_resume_notices_a_caption_that_is_another_one_now(bench: Bench) -> None:
    first = bench.train("embedding", stop_after=1, **tagged(bench, 1))
    (bench.data / "1.txt").write_text("something else")
    with pytest.raises(DataError, match="have changed since the run began"):
        bench.resume(first.run_dir)


def test_the_model_is_gone_before_the_base_model_comes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    models: list[weakref.ref[Said]] = []

    def load(settings: object) -> list[Said]:
        model = Said()
        models.append(weakref.ref(model))
        return [model]

    gone: list[bool] = []
    load_base = components.load_base

    def load_base_then(*arguments: Any, **options: Any) -> Any:
        gone.append(models[0]() is None)
        return load_base(*arguments, **options)

    monkeypatch.setattr(descriptions, "load_models", load)
    monkeypatch.setattr(components, "load_base", load_base_then)
    bench.train("embedding", **tagged(bench, 1, steps=1))
    assert len(models) == 1 and gone[0]


def test_a_captioner_describes_too(bench: Bench) -> None:
    (bench.data / "1.txt").unlink()
    model = write_blip(bench.workspace.root / "private" / "tiny-blip")
    settings = {**CAPTIONED, "caption_missing": "blip", "caption_model": str(model)}
    result = bench.train("embedding", steps=1, **settings)
    assert len(record(result)["described"]) == 1
    assert record(result)["settings"]["caption_model"] == str(model)
    content = result.adapter_path.read_bytes()
    assert b"tiny-blip" in content and b"private" not in content  # which model, and not where it lies


def test_pictures_come_in_batches_each_content_once_and_what_cannot_be_read_is_left_out(
    bench: Bench, said: Said
) -> None:
    write_pictures(bench.data / "more", ["x"] * 9)
    for path in (bench.data / "more").glob("*.txt"):
        path.unlink()
    shutil.copy(bench.data / "more" / "8.png", bench.data / "more" / "9.png")
    (bench.data / "more" / "a.png").write_bytes(b"no picture")
    (bench.data / "more" / "b.png").symlink_to("nowhere")
    watcher = Recorder()
    settings = tagged(bench, recursive=True, steps=1)
    with pytest.warns(UserWarning, match="is skipped") as warned:
        result = bench.train("embedding", callbacks=[watcher], **settings)
    assert len([each for each in warned if "is skipped" in str(each.message)]) == 2
    assert sum(said.asked) == 9 and max(said.asked) <= 8
    texts = record(result)["described"]
    assert len(texts) == 9 and all(text.startswith("a thing of (") for text in texts.values())  # on one line
    progress = [(each.done, each.total) for each in watcher.of(Progressed) if each.stage == DESCRIBING]
    assert progress[0] == (0, 12) and progress[-1] == (12, 12)


def test_regularisation_pictures_and_those_for_validation_are_described(bench: Bench, said: Said) -> None:
    root = bench.workspace.root
    for name in ("known", "held"):
        write_pictures(root / name, ["x", "y"], side=24 if name == "known" else 32)
        (root / name / "0.txt").unlink()
    settings = tagged(bench, 2, prior_data=str(root / "known"), validation_data=str(root / "held"), steps=1)
    remarks = plan(bench, "hypernetwork", **settings)["remarks"]
    assert [remark for remark in remarks if "described by" in remark] == [
        "1 of 5 pictures has no caption: described by wd.",
        "1 of 2 pictures for validation has no caption: described by wd.",
        "1 of 2 pictures of prior_data has no caption: described by wd.",
    ]
    assert said.asked == []  # a plan asks nobody
    result = bench.train("hypernetwork", **settings)
    assert said.asked == [3] and len(record(result)["described"]) == 3


def test_pictures_that_the_model_is_to_draw_get_their_captions_by_that(bench: Bench) -> None:
    given = tagged(bench, 2, prior_prompt="a moon", prior_data=str(bench.workspace.root / "to-come"))
    found = descriptions.find_undescribed(bench.settings("hypernetwork", **given), ["[filewords]"], ["[filewords]"])
    assert [file.path.name for file in found] == ["2.png"]


def test_a_template_of_another_adapter_may_ask_for_captions(bench: Bench, said: Said) -> None:
    lines = bench.workspace.root / "plain.txt"
    lines.write_text("a [name]")
    joint = {"companions": "hypernetwork:ink:1e-4; template=style_filewords", "template": str(lines), "steps": 1}
    result = bench.train("embedding", **tagged(bench, 1, **joint))
    assert said.asked == [1] and len(record(result)["described"]) == 1


def test_a_name_in_which_words_are_asked_for_is_a_caption(bench: Bench, said: Said) -> None:
    (bench.data / "1.png").rename(bench.data / "1 blue star.png")
    settings = tagged(bench, 1, 2, word_regex="[a-z]+", steps=1)
    assert len(record(bench.train("embedding", **settings))["described"]) == 1
    assert "1 of 5 pictures has no caption" in " ".join(plan(bench, word_regex="[a-z]+")["remarks"])


def test_where_nothing_is_said_the_caption_is_empty_and_that_is_told(bench: Bench, said: Said) -> None:
    said.words = ""
    with pytest.warns(UserWarning, match=r"wd has nothing to say of 1\.png: the caption is empty\."):
        result = bench.train("embedding", **tagged(bench, 1, write_captions=True))
    assert list(record(result)["described"].values()) == [""]
    assert not (bench.data / "1.txt").exists()


# --- beside the pictures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "cp1252"])
def test_captions_are_written_beside_the_pictures_where_that_is_asked(bench: Bench, said: Said, encoding: str) -> None:
    said.words = "caf\N{LATIN SMALL LETTER E WITH ACUTE} \N{SNOWMAN}"
    for number in (0, 2, 4):
        path = bench.data / f"{number}.txt"
        path.write_bytes(path.read_text().encode(encoding))
    settings = tagged(bench, 1, 3, write_captions=True, caption_encoding=encoding, steps=1)
    result = bench.train("embedding", **settings)
    texts = [caption_for(bench.data / f"{number}.png", encoding=encoding) for number in (1, 3)]
    assert sorted(texts) == sorted(record(result)["described"].values())
    with pytest.warns(UserWarning, match="caption_missing is wd, but all pictures have captions; none is described"):
        bench.train("embedding", **{**settings, "steps": 2})
    assert said.asked == [2]


def test_no_file_is_written_over_and_none_becomes_that_of_another_picture(bench: Bench, said: Said) -> None:
    shutil.copy(bench.data / "1.png", bench.data / "0.webp")  # beside 0.png, whose caption is 0.txt
    shutil.copy(bench.data / "2.png", bench.data / "3.jpg")
    before = {path: path.read_bytes() for path in bench.data.iterdir() if path.name != "3.txt"}
    bench.train("embedding", **tagged(bench, 3, write_captions=True, steps=1))
    written = {path.name for path in bench.data.iterdir()} - {path.name for path in before}
    assert written == {"3.png.txt", "3.jpg.txt"}  # 0.txt serves 0.webp, as everywhere
    assert {path: path.read_bytes() for path in before} == before


def test_what_came_meanwhile_or_fails_is_told_and_the_run_goes_on(
    bench: Bench, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(path: Path, content: bytes) -> bool:
        if path.name == "1.txt":
            return False
        raise StorageError(f"{path} could not be written: the disk is full.")

    monkeypatch.setattr(descriptions, "write_new", write)
    with pytest.warns(UserWarning) as warned:
        result = bench.train("embedding", **tagged(bench, 1, 2, write_captions=True, steps=1))
    told = [str(each.message) for each in warned]
    assert len(told) == 2 and all("The run has it all the same" in each for each in told)
    assert "1.png is not written beside it: such a file has come meanwhile" in told[0]
    assert "2.txt could not be written: the disk is full" in told[1]
    assert len(record(result)["described"]) == 2


def test_nothing_is_written_where_a_link_leads_out(bench: Bench, said: Said, tmp_path: Path) -> None:
    outside = write_pictures(tmp_path / "outside", ["x"], side=24)
    (outside / "0.txt").unlink()
    (bench.data / "inner").symlink_to(outside)
    settings = tagged(bench, recursive=True, write_captions=True, steps=1)
    with pytest.warns(UserWarning, match="its folder is a link that leads out"):
        result = bench.train("embedding", **settings)
    assert [path.name for path in outside.iterdir()] == ["0.png"]
    assert len(record(result)["described"]) == 1


def test_a_folder_that_cannot_be_written_is_refused_before_anything_slow(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tagged(bench, 1, write_captions=True)
    monkeypatch.setattr(descriptions, "load_models", unusable)
    monkeypatch.setattr(components, "load_base", unusable)
    access = descriptions.os.access
    monkeypatch.setattr(descriptions.os, "access", lambda path, mode: Path(path) != bench.data and access(path, mode))
    for act in (lambda: bench.train("embedding", **settings), lambda: plan(bench, **settings)):
        with pytest.raises(UsageError, match=r"`write_captions` is on, but nothing can be written into .*pictures"):
            act()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"batch_size": 11, "flip": True}, r"`batch_size` is 11, but .* has 10 usable pictures"),
        ({"preview_sampler": "Klingon"}, "There is no sampler 'Klingon'"),
    ],
    ids=["batch size", "sampler"],
)
def test_what_is_wrong_is_told_before_pictures_are_described(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], told: str
) -> None:
    monkeypatch.setattr(descriptions, "load_models", unusable)
    with pytest.raises(UsageError, match=told):
        bench.train("embedding", **tagged(bench, 1, **changes))


# --- what the plan says ----------------------------------------------------------------------------------------------


def test_a_plan_counts_the_pictures_without_a_caption(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptions, "load_models", unusable)
    assert not any("caption" in remark for remark in plan(bench)["remarks"])
    settings = tagged(bench, 1, 3)
    (bench.data / "3.png").rename(bench.data / "IMG_3.png")
    (bench.data / "4.txt").write_text(" \n")
    remarks = plan(bench, flip=True)["remarks"]
    assert (
        "2 of 5 pictures have no caption: the name of the file is used, such as ''; `caption_missing` describes them "
        "instead." in remarks
    )
    assert "The caption is empty of 4.png." in remarks
    assert "2 of 5 pictures have no caption: described by wd." in plan(bench, **settings)["remarks"]
    written = plan(bench, **settings, write_captions=True)["remarks"]
    assert "2 of 5 pictures have no caption: described by wd, and the text written beside them." in written
    assert plan(bench, **settings)["chosen_by_default"]["caption_model"].endswith("wd_tagger, which is found by itself")
    assert sorted(path.name for path in bench.data.glob("*.txt")) == ["0.txt", "2.txt", "4.txt"]


def test_where_captions_count_for_nothing_a_plan_says_so_only_if_some_are_asked_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descriptions, "load_models", unusable)
    settings = tagged(bench, 1, template="subject", steps=1)
    assert not any("caption" in remark for remark in plan(bench, template="subject")["remarks"])
    told = r"caption_missing is wd, but no line of the template 'subject' has \[filewords\]"
    assert any(
        "no line of the template 'subject' has [filewords]" in remark for remark in plan(bench, **settings)["remarks"]
    )
    with pytest.warns(UserWarning, match=told):
        bench.train("embedding", **settings)
    (bench.data / "1.txt").write_text("a star")
    all_have = "caption_missing is wd, but all pictures have captions; none is described."
    assert all_have in plan(bench, **tagged(bench))["remarks"]


# --- what is refused -------------------------------------------------------------------------------------------------


def refusal(bench: Bench, **changes: Any) -> TinctureError:
    found = []
    for act in (
        lambda: recipe.train(bench.settings("embedding", **changes), bench.workspace),
        lambda: recipe.plan(bench.settings("embedding", **changes), bench.workspace),
    ):
        with pytest.raises(TinctureError) as error:
            act()
        found.append(error.value)
    assert found[0].sentence == found[1].sentence
    return found[0]


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("blip", "there is no BLIP model: put one in transformers' layout"),
        ("wd", "there is no tagger of the WD14 family: put one (model.onnx and selected_tags.csv"),
        ("deepdanbooru", "there is no tagger: put DeepDanbooru's model-resnet_custom_v3.pt into"),
    ],
)
def test_a_kind_of_which_there_is_no_model_is_refused(bench: Bench, kind: str, told: str) -> None:
    sentence = refusal(bench, caption_missing=kind).sentence
    assert f"--caption-missing is {kind}, but {told}" in sentence and "--caption-model" in sentence


def test_a_model_that_is_of_another_kind_or_broken_is_refused(bench: Bench) -> None:
    tagged(bench)
    folder = bench.workspace.root / "models" / "wd_tagger"
    told = refusal(bench, caption_missing="deepdanbooru", caption_model=str(folder)).sentence
    assert f"--caption-missing is deepdanbooru, but {folder} is a model for --caption-missing wd" in told
    told = refusal(bench, caption_missing="blip", caption_model=str(folder)).sentence
    assert "--caption-missing is blip, for which" in told and "holds no BLIP model" in told
    told = refusal(bench, caption_missing="wd", caption_model="nix").sentence
    assert "There is no 'nix' here; give a folder with model.onnx" in told


def test_a_package_that_is_not_installed_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    tagged(bench)
    monkeypatch.setattr(describer_kinds, "is_installed", lambda module: module != "onnxruntime")
    error = refusal(bench, caption_missing="wd")
    assert isinstance(error, ModelError) and "pip install 'tincture[tag]'" in error.sentence


def test_all_that_is_not_there_is_told_in_one_message(bench: Bench) -> None:
    changes = {"data": "nowhere", "template": "nix", "caption_missing": "blip"}
    told = refusal(bench, **changes).sentence
    for each in ("folder nowhere does not exist", "There is no template 'nix'", "--caption-missing is blip, but"):
        assert each in told


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"caption_model": "m"}, "caption_model is 'm', but caption_missing is none"),
        ({"write_captions": True}, "write_captions is on, but caption_missing is none"),
        ({"caption_missing": "clip"}, "caption_missing is 'clip', but must be none, blip, wd or deepdanbooru"),
    ],
)
def test_what_makes_no_sense_is_refused_together(bench: Bench, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        bench.settings("embedding", **changes)
    with pytest.raises(UsageError, match=rf"(?s)2 settings are not allowed.*{told}"):
        bench.settings("embedding", **changes, steps=0)
