from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageOps

import tincture
from tests.unit.preprocessing.pictures import portrait, texture
from tests.unit.preprocessing.tiny import write_blip, write_wd
from tincture.errors import DataError, ModelError, StorageError, UsageError
from tincture.events import Event, Progressed
from tincture.preprocessing import pipeline
from tincture.preprocessing.pipeline import PreprocessResult, preprocess
from tincture.preprocessing.processes import Crashed

SMALL = {"width": 32, "height": 32, "workers": 1}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for number, name in enumerate(["a red fox.png", "b.jpg", "c.webp"]):
        texture(60 + 10 * number, 40, seed=number).save(folder / name)
    (folder / "b.txt").write_text("a bear")
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def crop(source: Path, out: Path, **options: Any) -> PreprocessResult:
    return preprocess(source, out, **{**SMALL, **options})


def files(folder: Path) -> dict[str, bytes]:
    """Everything but the report."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "preprocess-report.json"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def report(out: Path) -> Any:
    return json.loads((out / "preprocess-report.json").read_text(encoding="utf-8"))


class Watcher:
    """Notes what it is told, and sets an event when so many pictures are done."""

    def __init__(self, stop_at: int = -1) -> None:
        self.seen: list[tuple[str, int, int]] = []
        self.stop = threading.Event()
        self.stop_at = stop_at

    def on_event(self, event: Event) -> None:
        assert isinstance(event, Progressed)
        self.seen.append((event.stage, event.done, event.total))
        if event.stage == "cutting" and event.done == self.stop_at:
            self.stop.set()


class Namer:
    """Says the same of every picture, and counts them."""

    def __init__(self, text: str = "an animal") -> None:
        self.text, self.count = text, 0

    def __call__(self, pictures: Sequence[Image.Image]) -> list[str]:
        self.count += len(pictures)
        return [self.text for _ in pictures]


def test_a_folder_becomes_a_folder_of_crops(source: Path, out: Path) -> None:
    before = files(source)
    watcher = Watcher()
    result = tincture.preprocess(source, out, flip=True, callbacks=[watcher], **SMALL)
    assert set(files(out)) == {
        "00000-0-a red fox.png",
        "00000-1-a red fox.png",
        "00001-0-b.png",
        "00001-0-b.txt",
        "00001-1-b.png",
        "00001-1-b.txt",
        "00002-0-c.png",
        "00002-1-c.png",
    }
    assert files(out)["00001-1-b.txt"] == b"a bear"
    for path in out.glob("*.png"):
        with Image.open(path) as picture:
            assert (picture.size, picture.mode) == ((32, 32), "RGB")
    assert files(source) == before
    assert watcher.seen == [("cutting", done, 3) for done in (1, 2, 3)]
    assert (result.new, result.skipped, result.interrupted) == (3, (), False)
    assert result.counts["pictures"] == 6 and result.counts["captions"] == 2
    told = report(out)
    assert told["complete"] and told["counts"] == result.counts
    assert [entry["source"] for entry in told["sources"]] == ["a red fox.png", "b.jpg", "c.webp"]
    assert told["sources"][1]["crops"][0] == {
        "path": "00001-0-b.png",
        "size": [32, 32],
        "method": "fit",
        "box": [15.0, 0.0, 55.0, 40.0],
        "mirrored": False,
        "caption": "a bear",
    }


def test_processes_make_what_one_makes(source: Path, out: Path, tmp_path: Path) -> None:
    options = {"flip": True, "focal_crop": True, "focal_debug": True, "split": True}
    portrait(120, 60, 50, 0, 60).save(source / "face.png")
    crop(source, out, **options)
    crop(source, tmp_path / "other", **{**options, "workers": 2})
    assert files(out) == files(tmp_path / "other")
    one, other = report(out), report(tmp_path / "other")
    assert {**one, "seconds": 0} == {**other, "seconds": 0}
    assert one["face_detector"] == "haar"


def test_a_second_call_does_only_what_is_new_or_changed(source: Path, out: Path) -> None:
    crop(source, out)
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.*")}
    (out / "00001-0-b.txt").write_text("edited by hand")
    (out / "00002-0-c.png").unlink()
    texture(50, 50, seed=9).save(source / "a red fox.png")
    texture(50, 50, seed=8).save(source / "aa.png")
    result = crop(source, out)
    assert (result.new, result.counts["used"]) == (3, 4)
    after = {path.name: path.stat().st_mtime_ns for path in out.glob("*.*")}
    # numbers stay, also of those that sort behind a new one
    assert set(after) == {*before, "00003-0-aa.png"}
    changed = {name for name in before if before[name] != after[name]} - {"preprocess-report.json", "00001-0-b.txt"}
    assert changed == {"00000-0-a red fox.png", "00002-0-c.png"}
    assert (out / "00001-0-b.txt").read_text() == "edited by hand"
    assert crop(source, out).new == 0


def test_a_changed_caption_is_taken_over(source: Path, out: Path) -> None:
    crop(source, out)
    (source / "b.txt").write_text("a brown bear")
    (source / "c.caption").write_text("a cat")
    assert crop(source, out).new == 2
    assert files(out)["00001-0-b.txt"] == b"a brown bear"
    (source / "b.txt").unlink()
    crop(source, out)
    assert set(files(out)) == {"00000-0-a red fox.png", "00001-0-b.png", "00002-0-c.png", "00002-0-c.txt"}


def test_fewer_crops_leave_no_old_ones(source: Path, out: Path) -> None:
    texture(200, 40).save(source / "b.jpg")
    crop(source, out, split=True)
    assert len(list(out.glob("00001-*.png"))) > 3
    texture(50, 40).save(source / "b.jpg")
    crop(source, out, split=True)
    assert [path.name for path in out.glob("00001-*.png")] == ["00001-0-b.png"]


@pytest.mark.parametrize("captioned", [False, True])
def test_a_stopped_run_goes_on(source: Path, out: Path, tmp_path: Path, captioned: bool) -> None:
    for number in range(10):
        texture(40, 40, seed=20 + number).save(source / f"d{number}.png")
    options: dict[str, Any] = {"captioners": [Namer()], "caption_batch_size": 4} if captioned else {}
    watcher = Watcher(stop_at=5)
    stopped = crop(source, out, callbacks=[watcher], stop=watcher.stop, **options)
    assert stopped.interrupted and not report(out)["complete"]
    assert 5 <= stopped.counts["used"] < 13
    # what is there is whole
    named = {entry["path"] for record in report(out)["sources"] for entry in record["crops"]}
    assert {name for name in files(out) if name.endswith(".png")} == named
    done = crop(source, out, **options)
    assert not done.interrupted and done.new == 13 - stopped.counts["used"]
    crop(source, tmp_path / "whole", **options)
    assert files(out) == files(tmp_path / "whole")


def test_what_a_killed_run_left_is_swept_away(source: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    class Killer:
        def on_event(self, event: Event) -> None:
            raise Killed

    saves = []
    monkeypatch.setattr(pipeline.Ledger, "save", lambda self: saves.append(1) or (len(saves) == 1 and _write(self)))
    with pytest.raises(Killed):
        crop(source, out, callbacks=[Killer()], flip=True)
    monkeypatch.undo()
    assert len(files(out)) == 2 and not report(out)["sources"][0]["crops"]  # made, and not told
    (source / "a red fox.png").write_bytes(b"no picture any more")
    assert crop(source, out, flip=True).new == 2
    assert not list(out.glob("00000-*"))


def _write(ledger: pipeline.Ledger) -> None:
    ledger.report.write(ledger.destination)


def test_other_settings_are_refused_or_begin_anew(source: Path, out: Path) -> None:
    crop(source, out, flip=True, focal_crop=True, focal_debug=True)
    (out / "notes.txt").write_text("mine")
    before = files(out)
    with pytest.raises(
        UsageError, match=r"other settings \(another width, flip\).*give the setting overwrite to make them anew"
    ):
        crop(source, out, width=40, flip=False, focal_crop=True, focal_debug=True)
    assert files(out) == before
    crop(source, out, width=40, overwrite=True)
    expected = {"00000-0-a red fox.png", "00001-0-b.png", "00001-0-b.txt", "00002-0-c.png", "notes.txt"}
    assert set(files(out)) == expected
    with Image.open(out / "00002-0-c.png") as picture:
        assert picture.size == (40, 32)


def test_another_source_is_another_setting(
    source: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crop(source, out)
    source.rename(tmp_path / "moved")
    with pytest.raises(UsageError, match="another source"):
        crop(tmp_path / "moved", out)
    (tmp_path / "moved").rename(source)
    monkeypatch.chdir(tmp_path)
    assert preprocess("in", "out", **SMALL).new == 0  # spelled in another way


def test_overwriting_makes_everything_anew_even_where_the_report_is_damaged(source: Path, out: Path) -> None:
    crop(source, out)
    assert crop(source, out, overwrite=True).new == 3
    (out / "preprocess-report.json").write_text("{")
    with pytest.raises(UsageError, match="is damaged"):
        crop(source, out)
    assert crop(source, out, overwrite=True).new == 3


def test_a_destination_full_of_other_files_is_refused(source: Path, out: Path) -> None:
    out.mkdir()
    (out / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"is not empty \(holiday\.jpg\)"):
        crop(source, out)
    assert files(out) == {"holiday.jpg": b"mine"}
    crop(source, out, overwrite=True)
    assert files(out)["holiday.jpg"] == b"mine" and len(files(out)) == 5


def test_a_vanished_source_keeps_its_crops(source: Path, out: Path) -> None:
    crop(source, out)
    (source / "c.webp").unlink()
    with pytest.warns(UserWarning, match=r"no longer there keep their crops: c\.webp"):
        result = crop(source, out)
    assert (out / "00002-0-c.png").exists() and result.counts["pictures"] == 3


def test_every_bad_source_is_skipped_with_its_reason(source: Path, out: Path) -> None:
    (source / "empty.png").touch()
    (source / "torn.jpg").write_bytes((source / "b.jpg").read_bytes()[:600])
    (source / "text.webp").write_text("no picture")
    (source / "latin.txt").write_bytes("Käse".encode("latin-1"))
    texture(40, 40, 7).save(source / "latin.png")
    (source / "gone.png").symlink_to(source / "nowhere.png")
    result = crop(source, out)
    told = dict(result.skipped)
    assert result.counts["used"] == 3
    assert set(told) == {"empty.png", "torn.jpg", "text.webp", "latin.png", "gone.png"}
    assert told["empty.png"] == "is empty (0 bytes)"
    assert "damaged" in told["torn.jpg"]
    assert "latin.txt cannot be read" in told["latin.png"]
    assert {entry["source"]: entry["reason"] for entry in report(out)["skipped"]} == told
    # repaired, they are taken
    texture(40, 40, 5).save(source / "empty.png")
    (source / "latin.txt").write_text("Käse")
    result = crop(source, out)
    assert result.new == 2 and set(dict(result.skipped)) == {"torn.jpg", "text.webp", "gone.png"}
    # and what becomes bad loses its crops
    (source / "b.jpg").write_bytes(b"")
    assert "b.jpg" in dict(crop(source, out).skipped)
    assert not list(out.glob("00001-*"))


def test_nothing_usable_is_an_error_after_the_report(source: Path, out: Path) -> None:
    for path in source.iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"None of the pictures.*a red fox\.png: is not a picture"):
        crop(source, out)
    assert len(report(out)["skipped"]) == 3


def test_an_empty_or_absent_source_is_told(tmp_path: Path, out: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="There are no pictures in the folder"):
        crop(tmp_path / "empty", out)
    with pytest.raises(DataError, match="does not exist"):
        crop(tmp_path / "absent", out)
    assert not out.exists()


def test_a_crash_is_a_reason(source: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crashing(function: Any, jobs: Sequence[Any], processes: int, stop: Any) -> Any:
        return ((job, Crashed() if job.path.name == "b.jpg" else function(job)) for job in jobs)

    monkeypatch.setattr(pipeline, "run_jobs", crashing)
    ((name, reason),) = crop(source, out).skipped
    assert name == "b.jpg" and "ended the process" in reason


def test_a_destination_that_cannot_be_written_is_told_before_work(
    source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(self: Path, *args: Any, **kwargs: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", read_only)
    monkeypatch.setattr(pipeline, "run_jobs", lambda *_: pytest.fail("work was begun"))
    with pytest.raises(StorageError, match=r"cannot be written: Permission denied\. Choose another"):
        crop(source, out)


def test_a_full_disk_ends_the_run_and_what_was_done_stays(
    source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pipeline.cut

    def full(job: Any) -> Any:
        if job.path.name == "c.webp":
            raise StorageError("the disk is full")
        return whole(job)

    monkeypatch.setattr(pipeline, "cut", full)
    with pytest.raises(StorageError, match="the disk is full"):
        crop(source, out)
    monkeypatch.undo()
    assert report(out)["counts"]["used"] == 2
    assert crop(source, out).new == 1


@pytest.mark.parametrize(
    ("action", "bear", "others"),
    [
        ("copy", b"a bear", b"an animal, tag"),
        ("ignore", b"an animal, tag", b"an animal, tag"),
        ("prepend", b"a bear, an animal, tag", b"an animal, tag"),
        ("append", b"an animal, tag, a bear", b"an animal, tag"),
    ],
)
def test_models_describe_every_crop_that_needs_it(
    source: Path, out: Path, action: str, bear: bytes, others: bytes
) -> None:
    namers = [Namer(), Namer("tag")]
    result = crop(source, out, existing_captions=action, captioners=namers, flip=True, caption_batch_size=3)
    texts = {name: content for name, content in files(out).items() if name.endswith(".txt")}
    assert len(texts) == 6
    assert all(content == (bear if name.endswith("-b.txt") else others) for name, content in texts.items())
    assert [namer.count for namer in namers] == [4 if action == "copy" else 6] * 2
    assert result.counts["captions"] == 6 and result.new == 3
    assert crop(source, out, existing_captions=action, captioners=namers, flip=True, caption_batch_size=3).new == 0


@pytest.mark.parametrize("action", ["copy", "prepend", "append", "ignore"])
@pytest.mark.parametrize("by_metadata", [False, True])
@pytest.mark.filterwarnings("ignore:The metadata file .* does not name")
def test_a_caption_that_is_empty_on_purpose_stays_so(source: Path, out: Path, action: str, by_metadata: bool) -> None:
    """Else the crop's own name would be its caption in training."""
    before = crop(source, out, existing_captions=action)
    assert not list(out.glob("*-0-c.txt"))
    if by_metadata:
        (source / "metadata.jsonl").write_text('{"file_name": "c.webp", "text": ""}\n')
    else:
        (source / "c.txt").touch()
    kept = action != "ignore"
    result = crop(source, out, existing_captions=action)
    assert result.new == (1 if kept else 0)
    assert [path.read_bytes() for path in out.glob("*-0-c.txt")] == ([b""] if kept else [])
    assert result.counts["captions"] == before.counts["captions"] + kept
    assert crop(source, out, existing_captions=action).new == 0


def test_a_model_that_says_nothing_leaves_no_caption(source: Path, out: Path) -> None:
    crop(source, out, existing_captions="ignore", captioners=[Namer(" ")])
    assert not list(out.glob("*.txt"))
    assert crop(source, out, existing_captions="ignore", captioners=[Namer(" ")]).new == 0


def test_a_failing_model_leaves_only_what_is_whole(source: Path, out: Path) -> None:
    def failing(pictures: Sequence[Image.Image]) -> list[str]:
        raise ModelError("no memory")

    with pytest.raises(ModelError, match="no memory"):
        crop(source, out, captioners=[failing])
    assert set(files(out)) == {"00001-0-b.png", "00001-0-b.txt"}  # which had its caption
    assert crop(source, out, captioners=[Namer()]).new == 2


@pytest.mark.parametrize("setting", ["captioner", "tagger"])
def test_a_model_that_is_not_there_is_told_before_anything_is_written(
    source: Path, out: Path, tmp_path: Path, setting: str
) -> None:
    with pytest.raises(ModelError, match="no-such-folder"):
        crop(source, out, **{setting: str(tmp_path / "no-such-folder")})
    assert not out.exists()


def test_models_that_cannot_be_loaded_leave_no_crops_and_the_corrected_command_works(
    source: Path, out: Path, tmp_path: Path
) -> None:
    tagger = write_wd(tmp_path / "wd")
    whole = (tagger / "model.onnx").read_bytes()
    (tagger / "model.onnx").write_bytes(b"no network")
    with pytest.raises(ModelError, match="cannot be loaded"):
        crop(source, out, tagger=str(tagger), device="cpu")
    assert not files(out)
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "model.onnx").write_bytes(whole)
    (tmp_path / "good" / "selected_tags.csv").write_bytes((tagger / "selected_tags.csv").read_bytes())
    assert crop(source, out, tagger=str(tmp_path / "good"), device="cpu").new == 3


def test_a_run_that_made_nothing_binds_nobody_and_what_it_left_is_swept_away(source: Path, out: Path) -> None:
    stop = threading.Event()
    stop.set()
    assert crop(source, out, stop=stop).interrupted
    (out / "00000-0-a red fox.png").write_bytes(b"left by a run that was killed")
    for name in ("a red fox.png", "b.jpg", "b.txt"):
        (source / name).unlink()
    assert crop(source, out, width=40).new == 1
    assert set(files(out)) == {"00000-0-c.png"}


def sides(out: Path) -> dict[str, str]:
    return {record["source"]: record["side"] for record in report(out)["sources"]}


def test_validation_never_sees_what_was_trained(source: Path, out: Path) -> None:
    for number in range(6):
        picture = texture(100, 40, seed=50 + number)
        picture.save(source / f"d{number}.png")
        ImageOps.mirror(picture).resize((150, 60)).save(source / f"e{number}.png")
    result = crop(source, out, flip=True, split=True, validation_share=0.4, callbacks=[(watcher := Watcher())])
    chosen = sides(out)
    assert list(chosen.values()).count("validation") == round(15 * 0.4)
    assert all(chosen[f"d{number}.png"] == chosen[f"e{number}.png"] for number in range(6))
    assert len([pair for pair in report(out)["near_duplicates"] if pair["mirrored"]]) == 6
    for name in files(out):
        side, _, crop_name = name.partition("/")
        index = int(crop_name.split("-")[0])
        assert side == report(out)["sources"][index]["side"]
    assert result.counts["training"] + result.counts["validation"] == 15
    assert {stage for stage, _, _ in watcher.seen} == {"looking", "cutting"}


def test_sides_stay_when_pictures_are_added_or_the_run_is_stopped(source: Path, out: Path) -> None:
    options: dict[str, Any] = {"validation_share": 0.34, "seed": 3}
    watcher = Watcher(stop_at=1)
    crop(source, out, callbacks=[watcher], stop=watcher.stop, **options)
    before = sides(out)
    for number in range(9):
        texture(40, 40, seed=30 + number).save(source / f"0{number}.png")
    crop(source, out, **options)
    after = sides(out)
    assert {name: after[name] for name in before} == before
    assert list(after.values()).count("validation") == 4
    assert crop(source, out, **options).new == 0


def test_a_copy_that_ties_both_sides_is_told(source: Path, out: Path) -> None:
    crop(source, out, validation_share=0.34, near_duplicate_bits=0)
    on_side = {side: name for name, side in sides(out).items()}
    trained, validated = source / on_side["train"], source / on_side["validation"]
    validated.write_bytes(trained.read_bytes())
    with pytest.warns(UserWarning, match="Near-duplicates are on both sides"):
        crop(source, out, validation_share=0.34, near_duplicate_bits=0)
    assert any("on both sides" in remark for remark in report(out)["remarks"])


def test_an_unreadable_picture_has_no_side(source: Path, out: Path) -> None:
    (source / "bad.png").write_text("no picture")
    result = crop(source, out, validation_share=0.34)
    assert dict(result.skipped) == {"bad.png": "is not a picture of a known format"}
    assert sides(out)["bad.png"] == ""


def test_near_duplicates_are_reported_or_not(source: Path, out: Path) -> None:
    texture(120, 80, seed=0).save(source / "again.png")
    assert crop(source, out).counts["near_duplicates"] == 1
    (pair,) = report(out)["near_duplicates"]
    assert {pair["first"], pair["second"]} == {"a red fox.png", "again.png"}
    assert crop(source, out, near_duplicates=False, overwrite=True).counts["near_duplicates"] == 0


def test_inner_folders_metadata_and_masks_come_along(source: Path, out: Path) -> None:
    (source / "deep" / "mask").mkdir(parents=True)
    texture(64, 32, 9).save(source / "deep" / "a red fox.png")
    Image.new("L", (64, 32), 255).save(source / "deep" / "mask" / "a red fox.png")
    (source / "deep" / "metadata.jsonl").write_text('{"file_name": "a red fox.png", "text": "deep"}\n')
    assert crop(source, out).counts["used"] == 3
    crop(source, out, recursive=True, overwrite=True)
    assert {"00003-0-a red fox.png", "mask/00003-0-a red fox.png"} <= set(files(out))
    assert files(out)["00003-0-a red fox.txt"] == b"deep"
    (source / "deep" / "mask" / "a red fox.png").unlink()
    crop(source, out, recursive=True)
    assert "mask/00003-0-a red fox.png" not in files(out)
    assert report(out)["sources"][3]["source"] == "deep/a red fox.png"


def test_a_missing_detector_is_said_aloud_and_reported(source: Path, out: Path) -> None:
    with (
        pytest.warns(UserWarning, match="YuNet finds no file"),
        pytest.warns(UserWarning, match="Haar cascades instead"),
    ):
        crop(source, out, focal_crop=True, yunet_model="absent.onnx")
    told = report(out)
    assert told["face_detector"] == "haar"
    assert any("YuNet" in remark for remark in told["remarks"])


def test_names_of_any_kind_survive(source: Path, out: Path) -> None:
    names = ["лиса 狐 🦊.png", "x" * 240 + ".png", "line\nbreak.png", "quote'\".png", os.fsdecode(b"latin\xe4.png")]
    for number, name in enumerate(names):
        texture(40, 40, seed=40 + number).save(source / name, format="png")
    result = crop(source, out)
    assert result.counts["used"] == 8 and not result.skipped
    assert len(list(out.glob("*.png"))) == 8
    assert crop(source, out).new == 0


def test_captioner_and_tagger_are_loaded_from_folders(source: Path, out: Path, tmp_path: Path) -> None:
    blip, wd = write_blip(tmp_path / "blip"), write_wd(tmp_path / "wd")
    with_both = crop(source, out, captioner=str(blip), tagger=str(wd), tag_threshold=0.0, device="cpu")
    assert with_both.counts["captions"] == 3
    assert files(out)["00001-0-b.txt"] == b"a bear"
    assert b", " in files(out)["00002-0-c.txt"]


def test_two_runs_at_once_are_refused(source: Path, out: Path) -> None:
    class Second:
        def on_event(self, event: Event) -> None:
            with pytest.raises(UsageError, match="Another run is writing to"):
                crop(source, out)

    assert crop(source, out, callbacks=[Second()]).new == 3
    assert crop(source, out).new == 0


def test_a_wrong_setting_costs_no_crops(source: Path, out: Path) -> None:
    crop(source, out)
    before = files(out)
    with pytest.raises(UsageError, match="YuNet"):
        crop(source, out, focal_crop=True, face_detector="yunet", overwrite=True)
    assert files(out) == before


def test_a_changed_source_that_was_not_described_again_has_no_crops(source: Path, out: Path) -> None:
    def failing(pictures: Sequence[Image.Image]) -> list[str]:
        raise ModelError("no memory")

    crop(source, out, captioners=[Namer()], flip=True)
    texture(50, 50, seed=9).save(source / "c.webp")
    with pytest.raises(ModelError):
        crop(source, out, captioners=[failing], flip=True)
    named = {entry["path"] for record in report(out)["sources"] for entry in record["crops"]}
    assert {name for name in files(out) if name.endswith(".png")} == named
    assert not list(out.glob("00002-*"))
    assert crop(source, out, captioners=[Namer()], flip=True).new == 1
