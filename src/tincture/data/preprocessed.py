"""Folders of crops as preprocessing leaves them: which part is for validation, and what a crop was cut from.

With a part set aside, ``DST/train`` and ``DST/validation`` hold the crops, and ``DST/preprocess-report.json`` says so.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

REPORT = "preprocess-report.json"
TRAIN, VALIDATION, DEBUG = "train", "validation", "debug"
_CROP = re.compile(r"(\d{5,})-\d+-(.*)", re.DOTALL)


def sides_of(folder: Path) -> tuple[Path, Path] | None:
    """The folders of crops for training and for validation in ``folder``; None unless preprocessing made them there."""
    train, validation = folder / TRAIN, folder / VALIDATION
    return (train, validation) if train.is_dir() and validation.is_dir() and _has_sides(folder) else None


def is_for_validation(folder: Path) -> bool:
    """Whether ``folder`` is the part that preprocessing set aside."""
    real = Path(os.path.realpath(folder))
    return real.name == VALIDATION and _has_sides(real.parent)


def is_no_training_data(folder: Path) -> bool:
    """Whether preprocessing made ``folder`` for something else: for validation, or to show what drew the eye."""
    real = Path(os.path.realpath(folder))
    return is_for_validation(folder) or (real.name == DEBUG and (real.parent / REPORT).is_file())


def groups_of_sources(contents: Mapping[Path, str]) -> list[list[Path]]:
    """Pictures that show the same source, together, each picture in one group; in the order in which they came.

    Together are pictures of one content, crops of one source (by the report of the preprocessing, else by their
    names, as the webui writes them too: NUMBER-PART-NAME), the source itself, and crops of sources that the report
    calls near-duplicates.

    Args:
        contents: the sha256 of each picture's file.
    """
    reports: dict[Path, _Report] = {}
    roots: dict[Hashable, Hashable] = {}

    def root(key: Hashable) -> Hashable:
        while roots.setdefault(key, key) != key:
            key = roots[key]
        return key

    for path, content in contents.items():
        for key in (("content", content), *_origins(path, reports)):
            roots[root(key)] = root(_place(path))
    for report in reports.values():
        for first, second in report.alike:
            roots[root(first)] = root(second)
    groups: dict[Hashable, list[Path]] = {}
    for path in contents:
        groups.setdefault(root(_place(path)), []).append(path)
    return list(groups.values())


class _Report:
    """What the report in ``folder`` says of sources, as keys: ``sources`` by their numbers, pairs that are ``alike``.

    Where there is no report, or a damaged one, it says nothing.
    """

    def __init__(self, folder: Path) -> None:
        content = _read(folder)
        settings = content.get("settings")
        root = str(settings.get("source", "")).replace("\0", "") if isinstance(settings, dict) else ""

        def place(item: Mapping[str, Any], name: str) -> Hashable:
            return _place(Path(root or folder, str(item.get(name)).replace("\0", "")))

        self.sources = {str(item.get("index")): place(item, "source") for item in _items(content, "sources")}
        self.alike = [(place(item, "first"), place(item, "second")) for item in _items(content, "near_duplicates")]


def _origins(path: Path, reports: dict[Path, _Report]) -> Iterator[Hashable]:
    """What stands for the source that a picture was cut from, as far as that is known."""
    match = _CROP.fullmatch(path.stem)
    if match is None:
        return
    folder = Path(os.path.realpath(path.parent))
    yield "crops", str(folder), match[1], match[2]
    for place in (folder, folder.parent):
        if place not in reports:
            reports[place] = _Report(place)
        if (number := str(int(match[1]))) in reports[place].sources:
            yield reports[place].sources[number]


def _place(path: Path) -> Hashable:
    return "file", os.path.realpath(path)


def _has_sides(folder: Path) -> bool:
    """Whether a report lies there, and does not say that nothing was set aside. One that is damaged says nothing."""
    if not (folder / REPORT).is_file():
        return False
    settings = _read(folder).get("settings")
    return not isinstance(settings, dict) or bool(settings.get("validation_share", 1))


def _read(folder: Path) -> Mapping[str, Any]:
    try:
        report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return report if isinstance(report, dict) else {}


def _items(report: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
    items = report.get(name)
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
