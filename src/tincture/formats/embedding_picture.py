"""Embeddings in pictures: the webui's text chunk and pixels.

Both hold JSON of the dict that the webui's ``.pt`` holds, a tensor as {"TORCHTENSOR": nested lists}:

- the text chunk ``sd-ti-embedding`` of a PNG holds it in base64;
- the pixels of a PNG or lossless WebP hold it compressed by zlib, see ``hidden_pixels``.

One of them is enough to read it.
"""

from __future__ import annotations

import base64
import io
import json
import os
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from tincture.errors import FileFormatError, UsageError
from tincture.formats.embedding_card import draw_card
from tincture.formats.embedding_content import EmbeddingFile, embedding_of, webui_content
from tincture.formats.files import write_atomically
from tincture.formats.hidden_pixels import find_bytes, hide_bytes
from tincture.formats.pictures import open_picture

_CHUNK = "sd-ti-embedding"
_TENSOR = "TORCHTENSOR"
_PNG = b"\x89PNG\r\n\x1a\n"
_TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
# A hundred vectors fit, and a picture of 4096 x 4096. What is larger was made to fill the memory.
_LONGEST_JSON = 4 * 2**20
_MOST_BRACKETS = 10_000  # one opens each vector, some more the dicts around them
_MOST_PIXELS = 18_000_000
_MOST_CHUNKS = 100_000


# --- reading ----------------------------------------------------------------------------------------------------------


def is_picture(content: bytes) -> bool:
    """Whether ``content`` is a PNG or WebP file, by its first bytes."""
    return content.startswith(_PNG) or (content.startswith(b"RIFF") and content[8:12] == b"WEBP")


def parse_picture(path: str | os.PathLike[str], content: bytes) -> EmbeddingFile:
    """The embedding in ``content``, the bytes of the PNG or WebP file ``path``.

    Raises:
        FileFormatError: there is none, it is damaged, or ``path`` is a ``NAME.preview.png``, which never is one.
    """
    if Path(path).stem.lower().endswith(".preview"):
        raise FileFormatError(f"{os.fspath(path)} is no embedding but the preview picture of one.")
    chunk = _text_chunk(path, content) if content.startswith(_PNG) else None
    text = _from_pixels(path, content) if chunk is None else _from_chunk(path, chunk)
    if text.count(b"[") + text.count(b"{") > _MOST_BRACKETS:
        raise _damaged(path)
    try:
        found = json.loads(text, object_hook=_tensors)
    except (ValueError, TypeError, OverflowError, RuntimeError) as error:
        raise _damaged(path) from error
    return embedding_of(path, found)


def _text_chunk(path: str | os.PathLike[str], content: bytes) -> bytes | None:
    """The text under our keyword, by reading chunk after chunk: Pillow would unpack whatever else there is."""
    for kind, body, checksum in _png_chunks(path, content):
        keyword, _, rest = body[: len(_CHUNK) + 1].partition(b"\0")
        if kind not in _TEXT_CHUNKS or keyword != _CHUNK.encode() or rest:
            continue
        if zlib.crc32(kind + body) != checksum:
            raise _damaged(path)
        text = body[len(_CHUNK) + 1 :]
        if kind == b"tEXt":
            return text
        compressed = kind == b"zTXt" or text[:1] == b"\1"
        # iTXt: compressed or not, method, language, translated keyword; zTXt: method
        text = text[2:].split(b"\0", 2)[-1] if kind == b"iTXt" else text[1:]
        return _inflated(path, text) if compressed else text
    return None


def _png_chunks(path: str | os.PathLike[str], content: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """Type, body and CRC-32 of each."""
    position = len(_PNG)
    for _ in range(_MOST_CHUNKS):
        length = int.from_bytes(content[position : position + 4])
        kind = content[position + 4 : position + 8]
        if not kind:
            return
        end = position + 8 + length
        yield kind, content[position + 8 : end], int.from_bytes(content[end : end + 4])
        position = end + 4
    raise FileFormatError(f"{os.fspath(path)} is refused: it has more than {_MOST_CHUNKS} parts, which no picture has.")


def _from_chunk(path: str | os.PathLike[str], chunk: bytes) -> bytes:
    if len(chunk) > _LONGEST_JSON * 4 // 3:
        raise _too_large(path)
    try:
        return base64.b64decode(chunk, validate=True)
    except ValueError as error:
        raise _damaged(path) from error


def _from_pixels(path: str | os.PathLike[str], content: bytes) -> bytes:
    compressed = find_bytes(_pixels(path, content))
    if compressed is None:
        raise FileFormatError(
            f"{os.fspath(path)} is a picture without an embedding; programs that resize or recompress a picture "
            f"destroy it."
        )
    return _inflated(path, compressed)


def _pixels(path: str | os.PathLike[str], content: bytes) -> NDArray[np.uint8]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of sizes that are checked here
            with open_picture(io.BytesIO(content), ("PNG", "WEBP")) as picture:
                if picture.width * picture.height > _MOST_PIXELS:
                    raise _too_large(path)
                return np.asarray(picture.convert("RGB"))
    except FileFormatError:
        raise
    # Pillow's decoders raise whatever comes up in a damaged file: struct.error, SyntaxError, IndexError, ...
    except Exception as error:
        # Pillow's words about a picture it cannot identify tell nothing but an address in memory.
        reason = "" if isinstance(error, UnidentifiedImageError) else f" ({str(error).rstrip('.')})"
        raise FileFormatError(f"{os.fspath(path)} is a damaged or truncated picture{reason}.") from error


def _inflated(path: str | os.PathLike[str], compressed: bytes) -> bytes:
    decompressor = zlib.decompressobj()
    try:
        text = decompressor.decompress(compressed, _LONGEST_JSON)
    except zlib.error as error:
        raise _damaged(path) from error
    if decompressor.unconsumed_tail:
        raise _too_large(path)
    if not decompressor.eof:  # where its checksum stands
        raise _damaged(path)
    return text


def _tensors(entry: dict[str, Any]) -> dict[str, Any] | Tensor:
    return torch.tensor(entry[_TENSOR], dtype=torch.float32) if _TENSOR in entry else entry


def _damaged(path: str | os.PathLike[str]) -> FileFormatError:
    return FileFormatError(f"{os.fspath(path)}: the embedding in the picture is damaged; use the original picture.")


def _too_large(path: str | os.PathLike[str]) -> FileFormatError:
    return FileFormatError(
        f"{os.fspath(path)} is refused: a picture with an embedding has at most {_MOST_PIXELS // 10**6} million pixels "
        f"and {_LONGEST_JSON // 2**20} MiB of text."
    )


# --- writing ----------------------------------------------------------------------------------------------------------


def write_embedding_png(path: str | os.PathLike[str], file: EmbeddingFile, picture: Image.Image | None = None) -> None:
    """Writes a captioned picture card as PNG, with the embedding in a text chunk and in the pixels.

    Args:
        path: the file.
        file: the embedding.
        picture: what to draw the caption on; None for a pattern made from the vectors. See ``draw_card``.

    Raises:
        UsageError: vectors for more than one text encoder, or more than a picture holds.
        StorageError: a full disk, no permission.
    """
    text = _json(file)
    info = PngInfo()
    info.add_text(_CHUNK, base64.b64encode(text).decode())
    card = _card_with_pixels(file, picture, text)
    write_atomically(path, lambda stream: card.save(stream, "PNG", pnginfo=info))


def write_embedding_webp(path: str | os.PathLike[str], file: EmbeddingFile, picture: Image.Image | None = None) -> None:
    """Writes a captioned picture card as lossless WebP, with the embedding in the pixels.

    Args and Raises: see ``write_embedding_png``.
    """
    card = _card_with_pixels(file, picture, _json(file))
    write_atomically(path, lambda stream: card.save(stream, "WEBP", lossless=True, exact=True))


def _json(file: EmbeddingFile) -> bytes:
    content = webui_content(file)
    (vectors,) = content["string_to_param"].values()
    content["string_to_param"] = {"*": {_TENSOR: _short_numbers(vectors)}}
    text = json.dumps(content).encode()
    if len(text) > _LONGEST_JSON or text.count(b"[") + text.count(b"{") > _MOST_BRACKETS:
        raise UsageError(
            f"Embedding {file.name!r} has {len(vectors)} vectors of width {vectors.shape[1]}, more than fit into a "
            f"picture of {_LONGEST_JSON // 2**20} MiB of text; choose another format."
        )
    return text


def _short_numbers(vectors: Tensor) -> list[list[float]]:
    """Numbers with as few digits as give the same float32 again: half the size of what a float64 needs."""
    values = vectors.numpy()
    short = np.array([float(str(value)) for value in values.ravel()]).reshape(values.shape)
    exact: list[list[float]] = np.where(short.astype(np.float32) == values, short, values).tolist()
    return exact


def _card_with_pixels(file: EmbeddingFile, picture: Image.Image | None, text: bytes) -> Image.Image:
    (vectors,) = file.vectors.values()
    first = vectors[0].abs().float().cpu().numpy()
    card = draw_card(file, picture)
    return Image.fromarray(hide_bytes(np.asarray(card), zlib.compress(text, 9), first / max(first.max(), 1e-12)))
