from __future__ import annotations

import os
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from tests.unit.preprocessing.pictures import portrait, texture
from tincture.errors import StorageError
from tincture.preprocessing import cutting
from tincture.preprocessing.cut_jobs import Cut, CutJob, CutRules, Probed, Skipped, SplitRules, Unchanged
from tincture.preprocessing.cutting import cut, plan_crops, probe
from tincture.preprocessing.focal import FocalWeights
from tincture.preprocessing.geometry import MulticropRules, centre_box

SQUARE = CutRules((64, 64))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path


def job(folder: Path, picture: Image.Image | None = None, rules: CutRules = SQUARE, name: str = "fox.png") -> CutJob:
    path = folder / "in" / name
    if picture:
        picture.save(path)
    return CutJob(path, folder / "out", "00007", path.stem, rules)


def made(outcome: object) -> Cut:
    assert isinstance(outcome, Cut), outcome
    return outcome


def difference(one: Image.Image, other: Image.Image) -> float:
    return float(np.abs(np.asarray(one, dtype=float) - np.asarray(other, dtype=float)).mean())


def opened(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.copy()


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder / "out").as_posix() for path in (folder / "out").rglob("*") if path.is_file())


@pytest.mark.parametrize("size", [(200, 100), (100, 200), (64, 64), (640, 64), (33, 47)])
def test_a_picture_is_covered_and_cut_around_its_middle(folder: Path, size: tuple[int, int]) -> None:
    picture = texture(*size)
    done = made(cut(job(folder, picture)))
    assert names(folder) == ["00007-0-fox.png"]
    crop = opened(folder / "out" / "00007-0-fox.png")
    assert (crop.mode, crop.size, done.size) == ("RGB", (64, 64), size)
    assert difference(crop, ImageOps.fit(picture, (64, 64), Image.Resampling.LANCZOS)) < 1.5
    assert (done.files[0].crop.method, done.files[0].crop.box) == ("fit", centre_box(size, (64, 64)))


def test_mirrored_copies_come_directly_after(folder: Path) -> None:
    rules = CutRules((64, 64), split=SplitRules(), flip=True)
    done = made(cut(job(folder, texture(256, 64), rules)))
    assert [file.path.name for file in done.files] == [f"00007-{number}-fox.png" for number in range(10)]
    assert [file.mirrored for file in done.files] == [False, True] * 5
    for one, other in zip(done.files[::2], done.files[1::2], strict=True):
        assert difference(ImageOps.mirror(opened(one.path)), opened(other.path)) == 0
        assert one.crop == other.crop


def test_tiles_show_their_part_of_the_picture(folder: Path) -> None:
    picture = texture(256, 64)
    done = made(cut(job(folder, picture, CutRules((64, 64), split=SplitRules()))))
    assert [file.crop.box for file in done.files] == [(x, 0, x + 64, 64) for x in (0, 48, 96, 144, 192)]
    for file in done.files:
        assert difference(opened(file.path), picture.crop(tuple(map(int, file.crop.box)))) == 0


def test_every_method_that_is_asked_for_adds_its_crops() -> None:
    rules = CutRules(
        (64, 64), SplitRules(), FocalWeights(), multicrop=MulticropRules(64, 256, 1, 99999), keep_original=True
    )
    assert [crop.method for crop in plan_crops((100, 300), rules)] == ["split"] * 4 + ["focal", "multicrop", "original"]
    # nothing to choose, nothing to split
    assert [crop.method for crop in plan_crops((100, 100), replace(rules, keep_original=False))] == ["fit", "multicrop"]
    assert [crop.method for crop in plan_crops((100, 120), CutRules((64, 64), SplitRules()))] == ["fit"]
    assert [crop.method for crop in plan_crops((100, 120), CutRules((64, 64), keep_original=True))] == ["original"]
    # a picture that is square as the crop is not, has room
    assert plan_crops((100, 100), CutRules((64, 128), focal=FocalWeights()))[0].method == "focal"


def test_an_original_keeps_size_and_pixels(folder: Path) -> None:
    picture = texture(75, 41)
    made(cut(job(folder, picture, CutRules((64, 64), keep_original=True))))
    assert difference(opened(folder / "out" / "00007-0-fox.png"), picture) == 0


def test_multicrop_without_a_fitting_size_skips(folder: Path) -> None:
    outcome = cut(job(folder, texture(500, 50), CutRules((64, 64), multicrop=MulticropRules())))
    assert outcome == Skipped("is 500×50, for which multicrop has no size within its threshold")
    assert not (folder / "out").exists()


def test_a_focal_crop_holds_the_face_and_can_be_explained(folder: Path) -> None:
    rules = CutRules((128, 128), focal=FocalWeights(), detector="haar")
    wanted = replace(job(folder, portrait(900, 300, 650, 50, 200), rules), debug=folder / "out" / "debug" / "fox.jpg")
    done = made(cut(wanted))
    left, top, right, bottom = done.files[0].crop.box
    assert (top, bottom, right - left) == pytest.approx((0, 300, 300))
    assert left < 690 and right > 810
    drawn = np.asarray(opened(folder / "out" / "debug" / "fox.jpg").convert("RGB")).astype(int)
    assert (np.abs(drawn - (255, 48, 48)).sum(axis=2) < 120).any()  # the face


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tiff"])
def test_pictures_are_upright(folder: Path, ending: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    upright = texture(96, 160)
    upright.transpose(Image.Transpose.ROTATE_90).save(folder / "in" / f"fox.{ending}", exif=exif)
    done = made(cut(job(folder, rules=CutRules((96, 160)), name=f"fox.{ending}")))
    assert done.size == (96, 160)
    assert difference(opened(done.files[0].path), upright) < 6


def test_a_large_jpeg_gives_the_crop_that_the_whole_picture_gives(folder: Path) -> None:
    texture(1600, 1200).save(folder / "in" / "fox.jpg", quality=95)
    done = made(cut(job(folder, rules=CutRules((128, 128), split=SplitRules(), flip=False), name="fox.jpg")))
    whole = ImageOps.fit(opened(folder / "in" / "fox.jpg"), (128, 128), Image.Resampling.LANCZOS)
    assert difference(opened(done.files[0].path), whole) < 1
    assert done.size == (1600, 1200)


def test_alpha_is_kept_on_wish_only(folder: Path) -> None:
    picture = texture(128, 64)
    alpha = Image.linear_gradient("L").resize((128, 64))
    picture.putalpha(alpha)
    made(cut(job(folder, picture)))
    assert opened(folder / "out" / "00007-0-fox.png").mode == "RGB"
    made(cut(job(folder, picture, CutRules((64, 64), keep_alpha=True, flip=True))))
    for number in (0, 1):
        crop = opened(folder / "out" / f"00007-{number}-fox.png")
        assert crop.mode == "RGBA"
        assert difference(crop.getchannel("A"), alpha.crop((32, 0, 96, 64))) < 1


def test_masks_are_cut_like_their_pictures(folder: Path) -> None:
    mask = Image.new("L", (256, 64), 0)
    mask.paste(255, (150, 10, 250, 60))
    (folder / "in" / "mask").mkdir()
    mask.resize((128, 32)).save(folder / "in" / "mask" / "fox.png")
    rules = CutRules((64, 64), split=SplitRules(), flip=True)
    wanted = replace(job(folder, texture(256, 64), rules), mask=folder / "in" / "mask" / "fox.png")
    done = made(cut(wanted))
    assert done.notes == tuple(f"has nothing of its mask in crop {number}, which is left out" for number in (1, 2))
    assert [file.path.name for file in done.files] == [f"00007-{number}-fox.png" for number in range(6)]
    for file in done.files:
        expected = mask.crop(tuple(map(int, file.crop.box)))
        expected = ImageOps.mirror(expected) if file.mirrored else expected
        assert difference(opened(file.path.parent / "mask" / file.path.name), expected) < 6


@pytest.mark.parametrize(
    ("size", "colour", "told"),
    [((64, 64), "white", "of other proportions"), ((128, 64), "black", "nothing of the picture would be learned")],
)
def test_a_mask_that_cannot_serve_is_told(folder: Path, size: tuple[int, int], colour: str, told: str) -> None:
    (folder / "in" / "mask").mkdir()
    Image.new("L", size, colour).save(folder / "in" / "mask" / "fox.png")
    outcome = cut(replace(job(folder, texture(128, 64)), mask=folder / "in" / "mask" / "fox.png"))
    assert isinstance(outcome, Skipped) and told in outcome.reason


def test_notes_say_what_is_odd(folder: Path) -> None:
    frames = [texture(50, 40, seed) for seed in range(3)]
    frames[0].save(folder / "in" / "fox.gif", save_all=True, append_images=frames[1:])
    done = made(cut(job(folder, name="fox.gif")))
    assert done.notes == (
        "has 3 frames, of which only the first is used",
        "is 50×40, so that a crop is enlarged 1.6 times",
    )
    assert made(cut(job(folder, texture(64, 64)))).notes == ()


def test_captions_stand_beside_the_crops(folder: Path) -> None:
    wanted = replace(job(folder, texture(80, 64), CutRules((64, 64), flip=True)), existing="ein Fuchs, ümlaut")
    made(cut(wanted))
    assert not list((folder / "out").glob("*.txt"))
    made(cut(replace(wanted, write_captions=True)))
    texts = [path.read_text(encoding="utf-8") for path in (folder / "out").glob("*.txt")]
    assert texts == ["ein Fuchs, ümlaut"] * 2


def test_what_has_not_changed_is_not_cut_again(folder: Path) -> None:
    wanted = job(folder, texture(80, 64))
    known = replace(wanted, known=made(cut(wanted)).fingerprint)
    os.utime(wanted.path, (1, 1))
    assert cut(known) == Unchanged()
    assert isinstance(cut(replace(known, existing="a fox")), Cut)
    Image.new("L", (80, 64), 255).save(folder / "mask.png")
    assert isinstance(cut(replace(known, mask=folder / "mask.png")), Cut)
    texture(80, 64, seed=1).save(wanted.path)
    assert isinstance(cut(known), Cut)


def bomb(path: Path) -> None:
    """A PNG head that claims 40,000 x 40,000 pixels."""
    Image.new("L", (8, 8)).save(path, format="png")
    content = bytearray(path.read_bytes())
    content[16:24] = (40000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    path.write_bytes(content)


@pytest.mark.parametrize("kind", ["empty", "cut off", "text", "bomb", "missing", "folder"])
def test_what_is_no_picture_is_skipped_with_the_reason(folder: Path, kind: str) -> None:
    path = folder / "in" / "fox.png"
    match kind:
        case "empty":
            path.touch()
        case "cut off":
            texture(80, 64).save(path)
            path.write_bytes(path.read_bytes()[:3000])
        case "text":
            path.write_text("not a picture")
        case "bomb":
            bomb(path)
        case "folder":
            path.mkdir()
    told = {
        "empty": "is empty (0 bytes)",
        "cut off": "damaged",
        "text": "not a picture of a known format",
        "bomb": "too many pixels",
        "missing": "No such file",
        "folder": "Is a directory",
    }[kind]
    for outcome in (cut(job(folder)), probe(path)):
        assert isinstance(outcome, Skipped)
        assert told in outcome.reason
    assert not (folder / "out").exists()


def test_a_picture_of_100_megapixels_is_cut(folder: Path) -> None:
    Image.new("L", (12500, 8000), 200).save(folder / "in" / "fox.png", compress_level=1)
    done = made(cut(job(folder)))
    assert done.size == (12500, 8000)
    assert opened(done.files[0].path).getextrema() == ((200, 200),) * 3


def test_a_link_in_the_way_is_replaced_and_not_followed(folder: Path) -> None:
    wanted = replace(job(folder, texture(80, 64)), existing="a fox", write_captions=True)
    before = wanted.path.read_bytes()
    caption = folder / "in" / "fox.txt"
    caption.write_text("mine")
    (folder / "out").mkdir()
    (folder / "out" / "00007-0-fox.png").symlink_to(wanted.path)
    (folder / "out" / "00007-0-fox.txt").symlink_to(caption)
    made(cut(wanted))
    assert (wanted.path.read_bytes(), caption.read_text()) == (before, "mine")
    assert not any(path.is_symlink() for path in (folder / "out").iterdir())


def test_a_full_disk_leaves_nothing_half_done(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = replace(
        job(folder, texture(256, 64), CutRules((64, 64), split=SplitRules())), existing="x", write_captions=True
    )
    write, written = cutting.write_picture, []

    def write_some(path: Path, picture: Image.Image) -> None:
        if len(written) == 3:
            raise StorageError("the disk is full")
        written.append(path)
        write(path, picture)

    monkeypatch.setattr(cutting, "write_picture", write_some)
    with pytest.raises(StorageError):
        cut(wanted)
    assert len(written) == 3
    assert names(folder) == []


def test_looking_tells_content_and_likeness(folder: Path) -> None:
    wanted = job(folder, texture(80, 64))
    probed = probe(wanted.path)
    assert isinstance(probed, Probed)
    assert probed.thumbnail == made(cut(wanted)).thumbnail
    assert len(probed.digest) == 64
