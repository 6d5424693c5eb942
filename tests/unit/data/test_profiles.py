from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from tincture.data.picture_files import read_picture

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
# Primaries with the names of red and blue exchanged: what such a picture calls red is blue.
EXCHANGED = SRGB.replace(b"rXYZ", b"tXYZ").replace(b"bXYZ", b"rXYZ").replace(b"tXYZ", b"bXYZ")


def inks() -> bytes:
    """A profile of a printer whose inks are grey: the first as dark as the paper's half, the others unseen.

    Written after ICC.1:2001-04, sections 6.1 to 6.3 and 6.5.9 (lut8Type).
    """
    table = bytes(range(256))
    cells = b"".join(bytes([128 if cell >= 8 else 255, 128, 128]) for cell in range(16))
    matrix = struct.pack(">9i", *(65536 * (place % 4 == 0) for place in range(9)))
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + matrix + table * 4 + cells + table * 3
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    tags = [(b"wtpt", white), (b"A2B0", lut + bytes(-len(lut) % 4))]
    offset, entries = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags))
    for name, data in tags:
        entries += name + struct.pack(">II", offset, len(data))
        offset += len(data)
    head = struct.pack(">I4sI4s4s4s12s4s", offset, b"lcms", 0x02400000, b"prtr", b"CMYK", b"Lab ", bytes(12), b"acsp")
    head += bytes(128 - 60 - len(head) + 28) + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + entries + b"".join(data for _, data in tags)


def colour(path: Path) -> tuple[int, ...]:
    picture, _ = read_picture(path)
    assert picture.mode == "RGB"
    pixel = picture.getpixel((3, 3))
    assert isinstance(pixel, tuple)
    return pixel


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colours_of_a_profile_become_those_of_srgb(tmp_path: Path, mode: str) -> None:
    plain = Image.new("RGB", (8, 8), (250, 20, 10))
    red = plain.quantize(2) if mode == "P" else plain.convert(mode)
    red.save(tmp_path / "red.png", icc_profile=EXCHANGED)
    assert np.abs(np.subtract(colour(tmp_path / "red.png"), (10, 20, 250))).max() <= 3
    if mode == "RGBA":
        assert read_picture(tmp_path / "red.png")[1] is not None


def test_inks_become_colours_by_their_profile(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (255, 0, 0, 0)).save(tmp_path / "cyan.tiff", icc_profile=inks())
    assert np.abs(np.subtract(colour(tmp_path / "cyan.tiff"), 119)).max() <= 3  # lightness 50, and no cyan
    Image.new("CMYK", (8, 8), (255, 0, 0, 0)).save(tmp_path / "plain.tiff")
    assert colour(tmp_path / "plain.tiff") == (0, 255, 255)


def test_srgb_stays_as_it_is_to_the_bit(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png", icc_profile=SRGB)
    assert np.array_equal(np.asarray(read_picture(tmp_path / "noise.png")[0]), pixels)


@pytest.mark.parametrize(
    "profile",
    [b"no profile", SRGB[:200], SRGB.replace(b"RGB XYZ ", b"CMYKXYZ "), SRGB.replace(b"RGB XYZ ", b"GRAYXYZ "), inks()],
    ids=["words", "cut off", "of inks", "of greys", "of a printer"],
)
def test_a_profile_that_does_not_serve_counts_as_none(tmp_path: Path, profile: bytes) -> None:
    Image.new("RGB", (8, 8), (250, 20, 10)).save(tmp_path / "red.png", icc_profile=profile)
    assert colour(tmp_path / "red.png") == (250, 20, 10)


def test_nothing_is_written_on_that_no_longer_fits(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8)).save(tmp_path / "a.jpg", icc_profile=inks(), comment=b"mine")
    picture, _ = read_picture(tmp_path / "a.jpg")
    picture.resize((4, 4)).save(tmp_path / "crop.png")
    with Image.open(tmp_path / "crop.png") as crop:
        assert not crop.info
