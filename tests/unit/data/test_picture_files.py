from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from tincture.data.picture_files import PictureFacts, UnreadablePictureError, picture_facts, read_picture

LOSSLESS = ["png", "bmp", "tiff", "tga", "ppm", "gif"]
LOSSY = ["jpg", "webp", "avif", "jp2"]


def scene() -> Image.Image:
    """Left half red, right half blue, a green bar at the top."""
    picture = Image.new("RGB", (40, 24), "red")
    picture.paste((0, 0, 255), (20, 0, 40, 24))
    picture.paste((0, 255, 0), (0, 0, 40, 8))
    return picture


def difference(one: Image.Image, other: Image.Image) -> float:
    return float(np.abs(np.asarray(one, dtype=float) - np.asarray(other, dtype=float)).mean())


@pytest.mark.parametrize("ending", LOSSLESS + LOSSY)
def test_formats(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"scene.{ending}"
    scene().save(path)
    picture, alpha = read_picture(path)
    assert (picture.mode, picture.size, alpha) == ("RGB", (40, 24), None)
    assert difference(picture, scene()) <= (0 if ending in LOSSLESS else 12)


def test_the_content_counts_and_not_the_ending(tmp_path: Path) -> None:
    for name in ["scene.jpg", "scene", "scene.download"]:
        scene().save(tmp_path / name, format="png")
        assert difference(read_picture(tmp_path / name)[0], scene()) == 0


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, ending: str, orientation: int) -> None:
    # The pictures are stored turned, in the way that the orientation tag undoes.
    stored_by = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = scene().transpose(stored_by[orientation]) if orientation > 1 else scene()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = tmp_path / f"scene.{ending}"
    stored.save(path, exif=exif)
    picture, _ = read_picture(path)
    assert picture.size == (40, 24)
    assert difference(picture, scene()) < 12


def test_alpha_is_turned_with_the_picture(tmp_path: Path) -> None:
    stored = scene().transpose(Image.Transpose.ROTATE_90)
    alpha = Image.new("L", (40, 24), 255)
    alpha.paste(100, (0, 0, 10, 24))
    stored.putalpha(alpha.transpose(Image.Transpose.ROTATE_90))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    stored.save(tmp_path / "scene.png", exif=exif)
    picture, read = read_picture(tmp_path / "scene.png")
    assert read is not None
    assert read.size == picture.size
    assert difference(read, alpha) == 0


@pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff", b"\xff" * 40])
def test_broken_exif_does_not_spoil_a_good_picture(tmp_path: Path, exif: bytes) -> None:
    scene().save(tmp_path / "scene.jpg", exif=exif)
    assert difference(read_picture(tmp_path / "scene.jpg")[0], scene()) < 12


@pytest.mark.parametrize(
    ("ending", "dtype"), [("png", np.uint16), ("pgm", np.uint16), ("tiff", np.uint16), ("tiff", np.int32)]
)
def test_16_bit_grey_is_scaled_and_not_clipped(tmp_path: Path, ending: str, dtype: type) -> None:
    grey: np.ndarray = np.linspace(0, 65535, 256).round().astype(dtype).reshape(16, 16)
    Image.fromarray(grey).save(tmp_path / f"grey.{ending}")
    picture, _ = read_picture(tmp_path / f"grey.{ending}")
    assert np.array_equal(np.asarray(picture)[..., 1].ravel(), np.arange(256))


@pytest.mark.parametrize("white", [1.0, 255.0, 65535.0, 1e6])
def test_float_grey_is_scaled_by_its_range(tmp_path: Path, white: float) -> None:
    grey = np.linspace(0, white, 256, dtype=np.float32).reshape(16, 16)
    Image.fromarray(grey).save(tmp_path / "grey.tiff")
    assert np.array_equal(np.asarray(read_picture(tmp_path / "grey.tiff")[0])[..., 0].ravel(), np.arange(256))


def test_float_grey_with_nan_is_read(tmp_path: Path) -> None:
    Image.fromarray(np.array([[np.nan, 0.5], [1.0, -3.0]], dtype=np.float32)).save(tmp_path / "grey.tiff")
    assert np.asarray(read_picture(tmp_path / "grey.tiff")[0])[..., 0].tolist() == [[0, 128], [255, 0]]


def test_16_bit_colour(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    path.write_bytes(deep_colour())
    assert np.asarray(read_picture(path)[0])[0].tolist() == [[255, 128, 0], [0, 1, 255]]


@pytest.mark.parametrize("ending", ["jpg", "tiff"])
def test_cmyk(tmp_path: Path, ending: str) -> None:
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / f"red.{ending}")
    assert difference(read_picture(tmp_path / f"red.{ending}")[0], Image.new("RGB", (16, 16), "red")) < 5


@pytest.mark.parametrize(("mode", "value"), [("1", 1), ("L", 255), ("YCbCr", (255, 128, 128))])
def test_other_modes_of_white(tmp_path: Path, mode: str, value: int | tuple[int, ...]) -> None:
    # Pillow before 13 cannot read the YCbCr that it writes without compression.
    how = {"compression": "jpeg"} if mode == "YCbCr" else {}
    Image.new(mode, (16, 16), value).save(tmp_path / "white.tiff", **how)
    picture, alpha = read_picture(tmp_path / "white.tiff")
    assert alpha is None
    assert difference(picture, Image.new("RGB", (16, 16), "white")) < 2


def test_palette_transparency_is_read_as_alpha(tmp_path: Path) -> None:
    palette = Image.new("P", (4, 2))
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    palette.putdata([0, 0, 1, 2] * 2)
    palette.save(tmp_path / "some.png", transparency=b"\xff\x80\x00")
    palette.save(tmp_path / "one.gif", transparency=1)
    picture, alpha = read_picture(tmp_path / "some.png")
    assert alpha is not None
    assert np.asarray(alpha)[0].tolist() == [255, 255, 128, 0]
    assert np.asarray(picture)[0].tolist() == [[255, 0, 0], [255, 0, 0], [0, 255, 0], [255, 255, 255]]
    _, alpha = read_picture(tmp_path / "one.gif")
    assert alpha is not None
    assert np.asarray(alpha)[0].tolist() == [255, 255, 0, 255]


@pytest.mark.parametrize("mode", ["1", "L", "I;16"])
def test_a_transparent_grey_is_read_as_alpha(tmp_path: Path, mode: str) -> None:
    grey = Image.new(mode, (4, 2))
    grey.paste(255, (2, 0, 4, 2))
    grey.save(tmp_path / "grey.png", transparency=0)
    picture, alpha = read_picture(tmp_path / "grey.png")
    assert alpha is not None
    assert (alpha.mode, np.asarray(alpha)[0].tolist()) == ("L", [0, 0, 255, 255])
    assert picture.getpixel((0, 0)) == (255, 255, 255)


def test_a_transparent_16_bit_colour_does_not_spoil_the_picture(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    path.write_bytes(deep_colour(transparent=struct.pack(">3H", 65535, 32768, 0)))
    picture, _ = read_picture(path)
    assert picture.size == (2, 2)


def test_a_palette_with_alpha(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (255, 0, 0, 128)).convert("PA").save(tmp_path / "palette.tiff")
    picture, alpha = read_picture(tmp_path / "palette.tiff")
    assert picture.getpixel((0, 0)) == (255, 0, 0)
    assert alpha is not None
    assert alpha.getpixel((0, 0)) == 128


def test_the_lab_colours_of_a_tiff(tmp_path: Path) -> None:
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    rose = Image.new("RGB", (8, 8), (200, 40, 90))
    stored = ImageCms.profileToProfile(rose, srgb, lab, outputMode="LAB")
    assert stored is not None
    stored.save(tmp_path / "rose.tiff")
    assert difference(read_picture(tmp_path / "rose.tiff")[0], rose) < 2


# --- HEIC ------------------------------------------------------------------------------------------------------------


def heic(path: Path, picture: Image.Image, **options: object) -> Path:
    pillow_heif.from_pillow(picture).save(path, quality=95, **options)
    return path


@pytest.mark.parametrize("name", ["scene.heic", "scene.HEIF", "scene.jpg", "scene"])
def test_heic(tmp_path: Path, name: str) -> None:
    picture, alpha = read_picture(heic(tmp_path / name, scene()))
    assert (picture.mode, picture.size, alpha) == ("RGB", (40, 24), None)
    assert difference(picture, scene()) < 12


def test_heic_with_alpha(tmp_path: Path) -> None:
    rgba = scene().convert("RGBA")
    rgba.putalpha(Image.linear_gradient("L").resize(rgba.size))
    _, alpha = read_picture(heic(tmp_path / "scene.heic", rgba))
    assert alpha is not None
    assert difference(alpha, rgba.getchannel("A")) < 3


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_heic_turned_by_exif(tmp_path: Path, orientation: int) -> None:
    turned = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored = scene().transpose(turned[orientation])
    picture, _ = read_picture(heic(tmp_path / "scene.heic", stored, exif=exif.tobytes()))
    assert picture.size == (40, 24)
    assert difference(picture, scene()) < 12
    assert picture_facts(tmp_path / "scene.heic").size == (40, 24)


def test_reading_heic_leaves_pillow_as_it_was(tmp_path: Path) -> None:
    path = heic(tmp_path / "scene.heic", scene())
    read_picture(path)
    with pytest.raises(UnidentifiedImageError):
        Image.open(path)


def test_heic_without_its_extra_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = heic(tmp_path / "scene.heic", scene())
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(UnreadablePictureError, match=r"is a HEIC picture, .*pip install 'tincture\[heic\]'"):
        read_picture(path)


def test_a_cut_off_or_damaged_heic_is_unreadable(tmp_path: Path) -> None:
    content = heic(tmp_path / "scene.heic", scene().resize((200, 200))).read_bytes()
    for part in (12, 40, len(content) // 2, len(content) - 1):
        (tmp_path / "cut.heic").write_bytes(content[:part])
        with pytest.raises(UnreadablePictureError):
            read_picture(tmp_path / "cut.heic")


def test_a_heic_of_too_many_pixels_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = heic(tmp_path / "scene.heic", scene())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 24 // 2)
    assert read_picture(path)[0].size == (40, 24)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 24 // 2 - 1)
    with pytest.raises(UnreadablePictureError, match="too many pixels"):
        read_picture(path)


# --- transparency ----------------------------------------------------------------------------------------------------


def test_a_transparent_colour_is_read_as_alpha(tmp_path: Path) -> None:
    scene().save(tmp_path / "scene.png", transparency=(0, 255, 0))
    _, alpha = read_picture(tmp_path / "scene.png")
    assert alpha is not None
    assert np.asarray(alpha)[:, 0].tolist() == [0] * 8 + [255] * 16


def test_colours_are_kept_behind_partly_transparent_pixels_and_white_behind_fully_transparent_ones(
    tmp_path: Path,
) -> None:
    pixels = np.array([[[255, 0, 0, 255], [200, 10, 0, 128], [0, 9, 0, 1], [0, 99, 0, 0]]], dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "scene.png")
    picture, alpha = read_picture(tmp_path / "scene.png")
    assert np.asarray(picture)[0].tolist() == [[255, 0, 0], [200, 10, 0], [0, 9, 0], [255, 255, 255]]
    assert alpha is not None
    assert np.asarray(alpha)[0].tolist() == [255, 128, 1, 0]


def test_grey_with_alpha(tmp_path: Path) -> None:
    Image.new("LA", (2, 2), (90, 7)).save(tmp_path / "grey.png")
    picture, alpha = read_picture(tmp_path / "grey.png")
    assert alpha is not None
    assert (picture.getpixel((0, 0)), alpha.getpixel((0, 0))) == ((90, 90, 90), 7)


@pytest.mark.parametrize("ending", ["gif", "webp", "png", "tiff", "avif"])
def test_the_first_frame_of_an_animation(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"moving.{ending}"
    scene().save(path, save_all=True, append_images=[Image.new("RGB", (40, 24), "black")])
    assert difference(read_picture(path)[0], scene()) <= (12 if ending in LOSSY else 0)


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "bmp", "tiff", "gif", "ppm", "tga", "avif"])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.6, 0.9])
def test_cut_off_pictures_are_unreadable(tmp_path: Path, ending: str, part: float) -> None:
    path = tmp_path / f"noise.{ending}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(UnreadablePictureError):
        read_picture(path)


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "bmp", "tiff", "gif", "tga", "avif", "ico"])
def test_damaged_pictures_never_raise_anything_else(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"noise.{ending}"
    rng = np.random.default_rng(1)
    Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    content = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    for _ in range(40):
        damaged = content.copy()
        # Mostly in the header, where the decoders are most easily led astray.
        damaged[rng.integers(0, min(200, len(damaged)), 6)] = rng.integers(0, 256, 6)
        path.write_bytes(damaged.tobytes())
        try:
            picture, _ = read_picture(path)
        except UnreadablePictureError as error:
            assert str(error)
        else:
            assert picture.mode == "RGB"


def test_a_decompression_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10**6))))
    with pytest.raises(UnreadablePictureError, match="too many pixels"):
        read_picture(path)


def test_a_text_bomb_is_refused(tmp_path: Path) -> None:
    scene().save(tmp_path / "bomb.png")
    content = (tmp_path / "bomb.png").read_bytes()
    bomb = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(50 * 2**20)))
    (tmp_path / "bomb.png").write_bytes(content[:33] + bomb + content[33:])
    with pytest.raises(UnreadablePictureError):
        read_picture(tmp_path / "bomb.png")


def test_a_large_picture_as_cameras_make_them_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    scene().save(tmp_path / "scene.png")
    assert read_picture(tmp_path / "scene.png")[0].size == (40, 24)


def test_reasons_follow_the_name_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(UnreadablePictureError, match=r"^is not a picture of a known format$"):
        read_picture(tmp_path / "text.png")
    with pytest.raises(UnreadablePictureError, match=r"^No such file or directory$"):
        read_picture(tmp_path / "missing.png")


def deep_colour(transparent: bytes = b"") -> bytes:
    """A PNG of 16 bits per colour: an orange and a blue pixel, twice."""
    rows = b"".join(b"\0" + struct.pack(">6H", 65535, 32768, 0, 0, 256, 65535) for _ in range(2))
    chunks = [
        chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)),
        chunk(b"tRNS", transparent) if transparent else b"",
        chunk(b"IDAT", zlib.compress(rows)),
        chunk(b"IEND"),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("ending", [*LOSSLESS, *LOSSY, "heic"])
def test_a_picture_outlives_its_file(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"scene.{ending}"
    heic(path, scene()) if ending == "heic" else scene().save(path)
    picture, _ = read_picture(path)
    path.unlink()
    assert difference(picture.resize((20, 12)).resize((40, 24)), scene()) < 25
    assert picture.copy().getpixel((5, 20)) == picture.getpixel((5, 20))


@pytest.mark.parametrize("kind", ["png", "jpg", "deep"])
def test_memory_is_bounded_by_the_number_of_pixels(tmp_path: Path, kind: str) -> None:
    side, path = 3000, tmp_path / ("a.jpg" if kind == "jpg" else "a.png")
    Image.new("I;16" if kind == "deep" else "RGB" if kind == "jpg" else "RGBA", (side, side), 9).save(path)
    code = (
        "import resource, sys, pathlib\n"
        "from tincture.data.picture_files import read_picture\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak(); read_picture(pathlib.Path(sys.argv[1])); print(peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    scale = 1 if sys.platform == "darwin" else 1024
    assert int(done.stdout) * scale < 12 * side * side + 16 * 2**20


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_jpeg_comes_smaller_but_never_below_what_is_enough(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    scene().resize((800, 480)).save(tmp_path / "scene.jpg", exif=exif)
    wide = orientation in (1, 3)
    whole, _ = read_picture(tmp_path / "scene.jpg")
    small, _ = read_picture(tmp_path / "scene.jpg", (150, 100) if wide else (100, 150))
    assert small.size == ((200, 120) if wide else (120, 200))
    assert difference(small, whole.resize(small.size, Image.Resampling.BOX)) < 3
    assert read_picture(tmp_path / "scene.jpg", (500, 500))[0].size == whole.size


@pytest.mark.parametrize("ending", ["png", "webp", "tiff"])
def test_other_formats_come_whole(tmp_path: Path, ending: str) -> None:
    scene().save(tmp_path / f"scene.{ending}")
    assert read_picture(tmp_path / f"scene.{ending}", (5, 3))[0].size == (40, 24)


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tiff"])
def test_the_size_is_told_without_the_pixels(tmp_path: Path, ending: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    path = tmp_path / f"scene.{ending}"
    scene().save(path, exif=exif)
    assert picture_facts(path) == PictureFacts((24, 40), 1)
    path.write_bytes(path.read_bytes()[:-20])
    assert ending == "webp" or picture_facts(path).size == (24, 40)


@pytest.mark.parametrize("ending", ["gif", "webp", "png", "tiff"])
def test_frames_are_counted(tmp_path: Path, ending: str) -> None:
    frames = [scene(), Image.new("RGB", (40, 24), "white")]
    frames[0].save(tmp_path / f"moving.{ending}", save_all=True, append_images=frames[1:])
    assert picture_facts(tmp_path / f"moving.{ending}") == PictureFacts((40, 24), 2)


def test_facts_of_what_is_no_picture_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(UnreadablePictureError, match="not a picture of a known format"):
        picture_facts(tmp_path / "text.png")
