"""Which adapter files are to become one, and how: one description for every front."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from tincture.errors import UsageError
from tincture.settings.checks import Each, at_least
from tincture.settings.conversion import FILE, FILES, SUFFIXES
from tincture.settings.fields import FieldSpec, setting, specs_of
from tincture.settings.paths import pasted_path
from tincture.settings.request import CheckedRequest
from tincture.workspace import Workspace

MERGING, SMALLER = "Merging", "Making it smaller"
_CLOSE = 1e-6


def is_name(text: str) -> bool:
    """Whether a file to read or write is given as an adapter's name: without a folder, and a suffix of its files."""
    path = Path(text)
    return len(path.parts) == 1 and path.suffix.lower() not in SUFFIXES


def source_file(place: str | os.PathLike[str], workspace: Workspace) -> Path:
    """The file at a path, or of the adapter of that name; UsageError names others."""
    path = Path(place)
    return workspace.find_named(os.fspath(place)) if is_name(os.fspath(place)) and not path.is_file() else path


class MergeSource(NamedTuple):
    """A file to be merged, by path or name, and its weight; None where none is given."""

    place: str
    weight: float | None

    @classmethod
    def parse(cls, text: str) -> MergeSource:
        """``A``, ``A:0.6`` or ``path/to/a.pt:-1``; UsageError for a weight that is not finite."""
        place, colon, number = text.strip().rpartition(":")
        try:
            weight = float(number) if colon and place else None
        except ValueError:
            weight = None
        if weight is None:
            return cls(pasted_path(text), None)
        if not math.isfinite(weight):
            raise UsageError(f"The weight of {place!r} is {number}, but must be a finite number, as in A:0.6.")
        return cls(pasted_path(place), weight)


@dataclass(frozen=True, kw_only=True)
class MergeRequest(CheckedRequest):
    """Adapter files to be made one; see ``adapters.merging.merged_files.plan_merge``.

    Raises:
        UsageError: naming every value that is not allowed, all in one message.
    """

    UNKNOWN: ClassVar[str] = "A merge has no option {name}; it has {known}"

    sources: tuple[str, ...] = setting(
        dataclasses.MISSING,
        FILES,
        "Embeddings or hypernetworks to merge, by name or path, each with its weight behind a colon if need be: A:0.6.",
        most_items=20,
    )
    out: str = setting(
        dataclasses.MISSING, FILES, "File to write, or a name for a new adapter in the workspace.", path=True
    )
    overwrite: bool = setting(False, FILES, "Replace OUT if it is there.")
    method: Literal["interpolate", "sum", "stack"] | None = setting(
        None,
        MERGING,
        "interpolate: weighted means, of one structure; sum: effects added up; stack: one behind the other, as several "
        "in a prompt; else interpolate, or sum where there is one file.",
    )
    layer_structure: tuple[float, ...] = setting(
        (),
        SMALLER,
        "For hypernetworks: layer structure with fewer units, such as 1,0.5,1; the strongest units stay.",
        Each(at_least(1e-6)),
        largest=1000,
        most_items=32,
    )
    sizes: tuple[int, ...] = setting(
        (),
        SMALLER,
        "For hypernetworks: context widths whose layers stay, such as 768; else all.",
        Each(at_least(1)),
        largest=8192,
        most_items=32,
    )
    precision: Literal["fp32", "bf16", "fp16"] = setting("fp32", FILE, "For hypernetworks: of the numbers in the file.")
    name: str = setting("", FILE, "Name of the new adapter; else that of its file.")
    author: str = setting("", FILE, "Who made it, to be told by the file.")
    license: str = setting("", FILE, "Its licence, such as CC-BY-4.0, to be told by the file.")

    @property
    def chosen_method(self) -> Literal["interpolate", "sum", "stack"]:
        """How they are merged where nothing is said of it."""
        return self.method or _usual(self.sources)

    def weighted(self) -> list[tuple[str, float]]:
        """The files, each with its weight: where none is given 1, and for means equal ones."""
        parsed = [MergeSource.parse(source) for source in self.sources]
        usual = 1 / len(parsed) if self.chosen_method == "interpolate" else 1.0
        return [(source.place, usual if source.weight is None else source.weight) for source in parsed]

    @classmethod
    def faults_between(cls, values: Mapping[str, Any], faulty: Collection[str]) -> list[str]:
        """What is wrong with the files and their weights."""
        if "out" not in faulty and not values.get("out", "x").strip():
            return ["out is empty; give a file or the name of the new adapter"]
        if "sources" in faulty or "sources" not in values:
            return []
        sources = values["sources"]
        if not sources:
            return ["sources has no file; give two or more to merge, or one to make weaker, stronger or smaller"]
        weights = [MergeSource.parse(source).weight for source in sources]
        given = [weight for weight in weights if weight is not None]
        method = values.get("method") or _usual(sources)
        if method == "interpolate" and given and len(given) < len(weights):
            return [
                "sources has files with a weight and others without; give one to each, as in A:0.6 B:0.4, or to none"
            ]
        if method == "interpolate" and given and abs(sum(given) - 1) > _CLOSE:
            total = f"{sum(given):g}"
            return [
                f"sources has weights that add up to {total}, but a mean needs 1 in all; give others, or method sum, "
                "which adds up effects at these strengths"
            ]
        changes = (values.get("layer_structure"), values.get("sizes"), values.get("precision", "fp32") != "fp32")
        if len(sources) == 1 and (weights[0] in (None, 1)) and not any(changes):
            return [
                "sources has one file at its own strength, so that nothing is to be done; give more files, a weight as "
                "in A:0.5, a smaller layer_structure, or some sizes"
            ]
        return []


def _usual(sources: Sequence[str]) -> Literal["interpolate", "sum", "stack"]:
    return "interpolate" if len(sources) > 1 else "sum"


MERGE_FIELDS: Mapping[str, FieldSpec] = specs_of(MergeRequest)
