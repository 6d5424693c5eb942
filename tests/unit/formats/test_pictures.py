"""Pictures are of the formats that Pillow reads by itself, whatever their files are called."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, UnidentifiedImageError

from tincture.data.picture_files import UnreadablePictureError, picture_facts, read_picture
from tincture.formats.pictures import PICTURE_FORMATS, open_picture, readable

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\n0 0 20 20 rectfill\n%%EOF\n"
GHOSTSCRIPT = '#!/bin/sh\ntouch "$STARTED"\nexit 1\n'


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is there once ghostscript was started."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "gs").write_text(GHOSTSCRIPT)
    (programs / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("STARTED", str(tmp_path / "started"))
    return tmp_path / "started"


@pytest.mark.parametrize("ending", ["png", "jpg", "eps"])
def test_no_picture_starts_another_program(tmp_path: Path, started: Path, ending: str) -> None:
    path = tmp_path / f"picture.{ending}"
    path.write_bytes(EPS)
    for read in (read_picture, picture_facts):
        with pytest.raises(UnreadablePictureError, match="is not a picture of a known format"):
            read(path)
    with pytest.raises(UnidentifiedImageError):
        open_picture(io.BytesIO(EPS)).load()
    assert not started.exists()


@pytest.mark.parametrize("name", readable())
def test_what_is_allowed_is_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / "picture"
    modes = {"PCX": "RGB", "ICNS": "RGBA"}
    if name == "PSD":
        path.write_bytes(
            b"8BPS\0\1" + bytes(6) + b"\0\3" + b"\0\0\0\x40" * 2 + b"\0\x08\0\3" + bytes(14) + b"\xff" * (3 * 64 * 64)
        )
    elif name == "QOI":
        path.write_bytes(
            b"qoif" + b"\0\0\0\x40" * 2 + b"\3\0" + b"\xfe\xff\0\0" + b"\xfd" * 66 + b"\xc0" * 100 + bytes(8)
        )
    else:
        Image.new(modes.get(name, "RGB"), (64, 64), "red").save(path, "JPEG" if name == "MPO" else name)
    picture, _ = read_picture(path)
    assert picture.size[0] >= 64


@pytest.mark.parametrize("name", ["XBM", "SPIDER", "IM", "MSP", "BLP"])
def test_what_hardly_anybody_has_is_not_read(tmp_path: Path, name: str) -> None:
    assert name not in PICTURE_FORMATS
    mode = {"SPIDER": "F", "IM": "RGB", "BLP": "P"}.get(name, "1")
    made = io.BytesIO()  # not a file: SPIDER's writer takes the ending of a file for its own from then on
    Image.new(mode, (64, 64)).save(made, name)
    (tmp_path / "picture.png").write_bytes(made.getvalue())
    with pytest.raises(UnreadablePictureError, match="is not a picture of a known format"):
        read_picture(tmp_path / "picture.png")


def test_fewer_formats_can_be_asked_for_and_no_others(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "picture.bmp")
    with open_picture(tmp_path / "picture.bmp") as picture:
        assert picture.format == "BMP"
    for formats in (("PNG", "WEBP"), ("EPS",), ("no such",)):
        with pytest.raises(UnidentifiedImageError):
            open_picture(tmp_path / "picture.bmp", formats)


def test_a_library_in_the_servers_process_reads_no_others_either(started: Path) -> None:
    """Gradio opens what the page sends by its own code."""
    code = (
        "import io, sys\nfrom PIL import Image\nfrom tincture.formats.pictures import forget_other_formats\n"
        "forget_other_formats()\n"
        "made = io.BytesIO()\nImage.new('RGB', (8, 8)).save(made, 'TIFF')\nassert Image.open(made).size == (8, 8)\n"
        "try:\n    Image.open(io.BytesIO(sys.stdin.buffer.read())).load()\n"
        "except Image.UnidentifiedImageError:\n    print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], input=EPS, stdout=subprocess.PIPE, check=True)
    assert done.stdout == b"refused\n"
    assert not started.exists()
