from __future__ import annotations

import base64
import io
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.unit.formats.test_hidden_pixels import decoded
from tincture.errors import FileFormatError, UsageError
from tincture.formats.embedding_content import EmbeddingFile
from tincture.formats.embedding_picture import is_picture, parse_picture, write_embedding_png, write_embedding_webp

GOLDEN = Path(__file__).parents[2] / "golden"
VECTORS = torch.randn(3, 24, generator=torch.Generator().manual_seed(0))
FILE = EmbeddingFile({"clip_l": VECTORS}, "ferry", 12, "model", "0123456789", {"author": "A"})


def photo(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def saved(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def with_text(text: str | bytes, **how: Any) -> bytes:
    info = PngInfo()
    if how.pop("international", False):
        info.add_itxt("sd-ti-embedding", str(text), **how)
    else:
        info.add_text("sd-ti-embedding", text, **how)
    return saved(photo(8, 8), pnginfo=info)


def with_json(text: bytes) -> bytes:
    return with_text(base64.b64encode(text).decode())


def as_json(vectors: object, **others: object) -> bytes:
    return json.dumps({"string_to_param": {"*": {"TORCHTENSOR": vectors}}, **others}).encode()


# --- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gold-one", "gold-three"])
def test_both_carriers_of_a_golden_picture_hold_the_same(name: str) -> None:
    original = torch.load(GOLDEN / f"{name}.pt", weights_only=True)
    for kind in ("text-and-pixels", "pixels-only"):
        file = parse_picture("x.png", (GOLDEN / f"{name}.{kind}.png").read_bytes())
        assert torch.equal(file.vectors["clip_l"], original["string_to_param"]["*"])
        assert file.model_hash == original["sd_checkpoint"]


@pytest.mark.parametrize(
    "how", [{}, {"zip": True}, {"international": True}, {"international": True, "zip": True, "lang": "de", "tkey": "x"}]
)
def test_every_kind_of_text_chunk_is_read(how: dict[str, Any]) -> None:
    content = with_text(base64.b64encode(as_json([[1.5, -2.0]], name="n")).decode(), **how)
    file = parse_picture("x.png", content)
    assert file.vectors["clip_l"].tolist() == [[1.5, -2.0]]
    assert file.name == "n"


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_pictures_that_were_saved_again_without_loss_are_read(mode: str, kind: str) -> None:
    picture = Image.open(GOLDEN / "gold-one.text-and-pixels.png").convert(mode)
    file = parse_picture("x", saved(picture, kind, lossless=True, exact=True))
    assert (file.name, file.step) == ("gold-one", 777)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (saved(photo(64, 64)), "without an embedding"),
        (saved(photo(64, 64), "WEBP"), "without an embedding"),
        (saved(Image.new("RGB", (64, 64))), "without an embedding"),
        (saved(photo(64, 64))[:2000], "damaged or truncated picture"),
        (b"\x89PNG\r\n\x1a\n", "damaged or truncated picture"),
        (b"RIFF\0\0\0\0WEBP", "damaged or truncated picture"),
        ((GOLDEN / "gold-one.text-and-pixels.png").read_bytes()[:20_000], "is damaged"),
        (with_text("!!!"), "is damaged"),
        (with_text("a" * 9), "is damaged"),
        (with_json(b"{" * 9), "is damaged"),
        (with_json(b"[" * 900_000), "is damaged"),
        (with_json(b"[]"), "type list"),
        (with_json(as_json([[1.0, 2.0], [3.0]])), "is damaged"),
        (with_json(as_json([["a"]])), "is damaged"),
        (with_json(as_json({"a": 1})), "is damaged"),
        (with_json(as_json([[10**400]])), "is damaged"),
        (with_json(b"9" * 5000), "is damaged"),
        (with_json(as_json([[float("nan")]])), "NaN or infinite"),
        (with_json(as_json([[1e39]])), "NaN or infinite"),
        (with_json(as_json([])), "vectors of the shape"),
        (with_json(as_json([[[1.0]]])), "vectors of the shape"),
        (with_text("a" * 12_000_000), "is refused"),
    ],
)
def test_what_holds_no_embedding_is_refused_in_a_sentence(content: bytes, words: str) -> None:
    assert is_picture(content)
    with pytest.raises(FileFormatError, match=words) as error:
        parse_picture("folder/x.png", content)
    assert str(error.value).startswith("folder/x.png")
    assert str(error.value).endswith(".")
    assert "object at 0x" not in str(error.value)


def test_recompressed_pixels_are_refused(tmp_path: Path) -> None:
    picture = Image.open(GOLDEN / "gold-one.pixels-only.png")
    with pytest.raises(FileFormatError, match=r"without an embedding|is damaged"):
        parse_picture("x.webp", saved(picture, "WEBP", quality=90))


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"\xff\xd8\xff\xe0", b"RIFF\0\0\0\0WAVE"])
def test_other_files_are_no_pictures(content: bytes) -> None:
    assert not is_picture(content)


# --- writing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(256, 256), (300, 260), (256, 400)])
def test_an_independent_decoder_finds_both_carriers(tmp_path: Path, size: tuple[int, int]) -> None:
    write_embedding_png(tmp_path / "x.png", FILE, photo(*size))
    with Image.open(tmp_path / "x.png") as picture:
        text = base64.b64decode(picture.info["sd-ti-embedding"])
        pixels = np.asarray(picture.convert("RGB"))
    hidden = zlib.decompressobj().decompress(decoded(pixels))
    assert hidden == text
    content = json.loads(hidden)
    assert torch.equal(torch.tensor(content["string_to_param"]["*"]["TORCHTENSOR"]), VECTORS)
    assert content["string_to_token"] == {"*": 265}
    assert (content["name"], content["step"], content["sd_checkpoint"]) == ("ferry", 12, "0123456789")
    assert pixels.shape[0] == size[1]


def test_a_webp_holds_the_same_pixels(tmp_path: Path) -> None:
    write_embedding_png(tmp_path / "x.png", FILE, photo(300, 300))
    write_embedding_webp(tmp_path / "x.webp", FILE, photo(300, 300))
    with Image.open(tmp_path / "x.png") as png, Image.open(tmp_path / "x.webp") as webp:
        assert webp.format == "WEBP"
        assert np.array_equal(np.asarray(png.convert("RGB")), np.asarray(webp.convert("RGB")))


@pytest.mark.parametrize("write", [write_embedding_png, write_embedding_webp])
@pytest.mark.parametrize("vectors", [torch.zeros(1, 2), torch.full((75, 768), 1 / 3), torch.tensor([[3e38, -1e-45]])])
def test_odd_vectors_survive(tmp_path: Path, write: Any, vectors: torch.Tensor) -> None:
    write(tmp_path / "x", EmbeddingFile({"clip_l": vectors}, "x"))
    assert torch.equal(parse_picture("x", (tmp_path / "x").read_bytes()).vectors["clip_l"], vectors)


def test_numbers_take_no_more_digits_than_they_need(tmp_path: Path) -> None:
    write_embedding_png(tmp_path / "x.png", EmbeddingFile({"clip_l": torch.tensor([[0.1, 1 / 3]])}, "x"))
    with Image.open(tmp_path / "x.png") as picture:
        assert b"[[0.1, 0.33333334]]" in base64.b64decode(picture.info["sd-ti-embedding"])


@pytest.mark.parametrize("write", [write_embedding_png, write_embedding_webp])
@pytest.mark.parametrize("shape", [(1000, 768), (12_000, 2)])
def test_more_than_readers_take_is_not_written(tmp_path: Path, write: Any, shape: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match="more than fit into a picture"):
        write(tmp_path / "x", EmbeddingFile({"clip_l": torch.ones(shape) / 3}, "x"))
    assert not (tmp_path / "x").exists()
