"""Captions of many pictures in one file: metadata.jsonl or metadata.csv, as Hugging Face's "imagefolder" has them.

Every line (or row) has `file_name`, a path relative to the file's folder with / between its parts, and a caption in
`text` or `caption` (https://huggingface.co/docs/datasets/image_dataset#imagefolder).
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import IO, Any, AnyStr

CAPTION_KEYS = ("text", "caption")
MOST_FAULTS = 5
"""So many bad lines are told one by one."""
LONGEST_SHOWN = 100
"""So many characters of a name are told."""
MOST_READ_FAULTS = 1000
"""After so many bad lines the rest is not read: the file is none of these."""
LONGEST_LINE = 2**20
"""In bytes of JSON, or characters of CSV; far more than a caption has."""

Row = tuple[int, Any]


def read_metadata(folder: Path) -> tuple[dict[Path, str], list[str]]:
    """The captions by picture that the folder's metadata file gives, and sentences about what is wrong with it.

    Bad lines are told and passed over. metadata.jsonl goes before metadata.csv. A picture must lie in the folder, or in
    one inside it, and exist.
    """
    for name, rows in (("metadata.jsonl", _json_rows), ("metadata.csv", _csv_rows)):
        if os.path.isfile(folder / name):
            captions, faults = _collect(folder, rows(folder / name))
            more = f" and {len(faults) - MOST_FAULTS} more faults" if len(faults) > MOST_FAULTS else ""
            shown = "; ".join(faults[:MOST_FAULTS]) + more
            return captions, [f"In {folder / name}, {shown}; what is wrong is passed over."] if faults else []
    return {}, []


def _collect(folder: Path, rows: Iterator[Row]) -> tuple[dict[Path, str], list[str]]:
    captions: dict[Path, str] = {}
    faults: list[str] = []
    try:
        for line, row in rows:
            fault = _take(folder, row, captions)
            if fault:
                faults.append(f"line {line} {fault}")
            if len(faults) >= MOST_READ_FAULTS:
                raise ValueError("too many lines are wrong")
    # csv.Error: a zero byte, a field of more than 128 KiB
    except (OSError, ValueError, csv.Error) as error:
        faults.append(f"the rest cannot be read: {error}")
    return captions, faults


def _take(folder: Path, row: Any, captions: dict[Path, str]) -> str | None:
    """Adds the row to `captions`, or says what is wrong with it."""
    if not isinstance(row, dict):
        return row if isinstance(row, str) else 'is not an object like {"file_name": …, "text": …}'
    name = row.get("file_name")
    if not isinstance(name, str) or not name.strip():
        return "has no file_name"
    caption = next((row[key] for key in CAPTION_KEYS if isinstance(row.get(key), str)), None)
    if caption is None:
        return f"has no text or caption for {_shown(name)}"
    inner = PurePath(name)
    if inner.is_absolute() or inner.drive or inner.root or ".." in inner.parts:
        return f"names {_shown(name)}, which may lie outside the folder"
    path = folder / inner
    if not os.path.isfile(path):
        return f"names {_shown(name)}, which does not exist"
    if path in captions:
        return f"names {_shown(name)} again; the first counts"
    captions[path] = _encodable(caption)
    return None


def _shown(name: str) -> str:
    return repr(name if len(name) <= LONGEST_SHOWN else name[: LONGEST_SHOWN - 1] + "…")


def _json_rows(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        for number, line in enumerate(_lines(file), 1):
            if line.strip():
                yield number, _parsed(line)


def _lines(file: IO[AnyStr]) -> Iterator[AnyStr]:
    """The lines of a file; ValueError for one that no caption explains."""
    while line := file.readline(LONGEST_LINE + 1):
        if len(line) > LONGEST_LINE:
            raise ValueError(f"a line has more than {LONGEST_LINE:,} characters")
        yield line


def _parsed(line: bytes) -> Any:
    """What the line says; a text for what is wrong with it."""
    try:
        parsed = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return "is not UTF-8 text"
    # RecursionError: brackets within brackets within brackets
    except (ValueError, RecursionError):
        return "is not JSON"
    return None if isinstance(parsed, str) else parsed


def _csv_rows(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(_lines(file))
        for row in reader:
            yield reader.line_num, row


def _encodable(caption: str) -> str:
    """On one line, and without lone surrogates, which JSON can spell and no tokenizer takes."""
    text = caption.encode("utf-8", "replace").decode("utf-8")
    return " ".join(line.strip() for line in text.splitlines() if line.strip())
