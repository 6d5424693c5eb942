"""The webui's ``parameters`` text of a PNG: how a picture was made, for people and for programs to read back.

    a small cyan dotted moon
    Negative prompt: blurry
    Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 64x64, Model hash: 0123456789, Model: picto

The settings stand in the last line as ``key: value`` pairs; a value with a comma, a colon, a quote or a
line break is a JSON string.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tincture.errors import FileFormatError
from tincture.formats.files import read_bytes, write_atomically
from tincture.formats.pictures import open_picture
from tincture.settings.drawing import CompleteDrawing

CHUNK = "parameters"
NEGATIVE = "Negative prompt:"
_LARGEST_FILE = 64 * 2**20
# What is taken is not given back (*+), so that no text, however made, takes longer than its length explains.
_PAIR = re.compile(r'\s*+(?P<key>[\w./-][\w ./-]*+):\s*+(?P<value>"(?:[^"\\]|\\.)*+"|[^,]*+)\s*+(?:,|$)')


@dataclass(frozen=True)
class PictureParameters:
    """What a ``parameters`` text says; ``settings`` by the webui's names, every value as text."""

    prompt: str
    negative_prompt: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)


def parameters_text(
    prompt: str,
    drawing: CompleteDrawing,
    *,
    seed: int,
    model_name: str = "",
    model_hash: str = "",
    extra: Mapping[str, object] | None = None,
) -> str:
    """The text of one picture.

    Args:
        prompt: with its ``<hypernet:…>`` tags, as the user wrote it.
        drawing: an empty negative prompt and a clip skip of 1 are left out.
        seed: of the picture.
        model_name: left out when empty.
        model_hash: first 10 hex digits; left out when empty.
        extra: further settings, for example ``{"Hypernet": "outline", "Hypernet strength": 0.8}``.
    """
    settings: dict[str, object] = {
        "Steps": drawing.steps,
        "Sampler": drawing.sampler,
        "CFG scale": drawing.guidance_scale,
        "Seed": seed,
        "Size": f"{drawing.width}x{drawing.height}",
        "Model hash": model_hash or None,
        "Model": model_name or None,
        "Clip skip": drawing.clip_skip if drawing.clip_skip > 1 else None,
        **(extra or {}),
    }
    lines = [prompt] + ([f"{NEGATIVE} {drawing.negative_prompt}"] if drawing.negative_prompt else [])
    lines.append(", ".join(f"{key}: {_quoted(value)}" for key, value in settings.items() if value is not None))
    return "\n".join(lines)


def _quoted(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = str(value)
    plain = not re.search(r'[,:\n"]', text) and text == text.strip()
    return text if plain else json.dumps(text, ensure_ascii=False)


def read_parameters(path: Path | str) -> PictureParameters | None:
    """The ``parameters`` of the PNG or WebP file ``path``; None where it is no such picture or has none.

    Raises:
        FileFormatError: there is no such file, or it is larger than 64 MiB.
        StorageError: the system refuses to read it.
    """
    content = read_bytes(path, most=_LARGEST_FILE)
    try:
        with open_picture(io.BytesIO(content), ("PNG", "WEBP")) as picture:
            text = picture.info.get(CHUNK)
    # Pillow raises whatever comes up in a damaged file: struct.error, SyntaxError, ValueError, ...
    except Exception:
        return None
    return parse_parameters(text) if isinstance(text, str) and text.strip() else None


def picture_texts(content: bytes) -> dict[str, str]:
    """All texts of a PNG or WebP file, by their names; ``parameters`` is one of them.

    Args:
        content: the file.

    Raises:
        FileFormatError: it is no such picture, or damaged.
    """
    try:
        with open_picture(io.BytesIO(content), ("PNG", "WEBP")) as picture:
            return {str(name): text for name, text in picture.info.items() if isinstance(text, str)}
    # Pillow raises whatever comes up in a damaged file: struct.error, SyntaxError, ValueError, ...
    except Exception as error:
        raise FileFormatError(
            "This is no PNG or WebP picture, or a damaged one; give the file as it was made."
        ) from error


def parse_parameters(text: str) -> PictureParameters:
    """Reads a ``parameters`` text back; one whose last line holds no settings is all prompt."""
    *lines, last = text.strip().split("\n")
    settings = _settings(last)
    if not settings:
        lines, settings = [*lines, last], {}
    start = next((n for n, line in enumerate(lines) if line.startswith(NEGATIVE)), len(lines))
    negative_prompt = "\n".join(lines[start:])[len(NEGATIVE) :]
    return PictureParameters("\n".join(lines[:start]).strip(), negative_prompt.strip(), settings)


def _settings(line: str) -> dict[str, str]:
    """The pairs of a settings line; empty when ``line`` is not one, such as a prompt that has a colon in it."""
    settings: dict[str, str] = {}
    position = 0
    while position < len(line):
        pair = _PAIR.match(line, position)
        if pair is None:
            return {}
        settings[pair["key"].strip()] = _unquoted(pair["value"].strip())
        position = pair.end()
    return settings if "Steps" in settings else {}


def _unquoted(value: str) -> str:
    if not value.startswith('"'):
        return value
    try:
        return str(json.loads(value))
    except ValueError:
        return value


def save_png(picture: NDArray[np.uint8], path: Path | str, text: str = "") -> None:
    """Writes ``picture`` (height, width, 3) as PNG with ``text`` in its ``parameters`` chunk, whole or not at all.

    Raises:
        StorageError: the file cannot be written.
    """
    info = PngInfo()
    if text:
        info.add_text(CHUNK, text)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", pnginfo=info)

    def write(stream: BinaryIO) -> None:
        stream.write(buffer.getvalue())

    write_atomically(Path(path), write)
