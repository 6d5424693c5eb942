"""Adapter files made into one file, which says what it was made of."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from tincture.adapters.files.conversion import (
    Conversion,
    make_conversion,
    plan_embedding,
    plan_hypernetwork,
)
from tincture.adapters.merging.merged_networks import Network, interpolated, require_one_family, stacked, summed
from tincture.adapters.merging.merged_vectors import Word, joined_vectors
from tincture.adapters.merging.pruning import added_effects, difference, effects_in_turn, narrowed, pruned
from tincture.errors import UsageError
from tincture.formats.contents import read_contents
from tincture.formats.embedding_file import read_embedding_file
from tincture.formats.files import refuse_taken, sha256_file
from tincture.formats.hypernetwork_file import HypernetworkFile, read_hypernetwork_file
from tincture.formats.hypernetwork_states import State
from tincture.formats.software import VERSION
from tincture.kinds.registry import find_kind
from tincture.settings.merging import is_name, source_file
from tincture.workspace import Workspace, clean_name

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_WAYS: dict[str, Callable[[Sequence[Network]], HypernetworkFile]] = {
    "interpolate": interpolated,
    "sum": summed,
    "stack": stacked,
}
MERGED = "merged"
"""Key of the provenance under which a file says what it was made of."""


@dataclass(frozen=True)
class Merge:
    """A merge that is possible, before the file is written.

    Attributes:
        conversion: writes it.
        report: what else is known of it: plain values.
    """

    conversion: Conversion
    report: dict[str, Any]


@dataclass(frozen=True)
class _Order:
    """What is asked for: files and weights, how, and what the new file is to say."""

    paths: Sequence[Path]
    weights: Sequence[float]
    method: str
    target: Path
    name: str
    stated: Mapping[str, str]

    def report(self, parts: Sequence[Word | Network], *, exact: bool) -> dict[str, Any]:
        """How it was made, and of what."""
        sources = [
            {
                "name": path.stem,
                "weight": part.weight,
                "sha256": sha256_file(path),
                "step": part.file.step,
                **{key: text for key in ("model_name", "model_hash") if (text := getattr(part.file, key))},
                **{key: text for key in ("author", "license") if (text := part.file.provenance.get(key))},
            }
            for part, path in zip(parts, self.paths, strict=True)
        ]
        return {"method": self.method, "exact": exact, "sources": sources}

    def described(self, parts: Sequence[Word | Network], report: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        """Fields of the new file: what all parts have in common, and how it was made."""
        common = {
            key: found.pop() if len(found := {part.file.provenance.get(key, "") for part in parts}) == 1 else ""
            for key in ("author", "license")
        }
        same_model = len({(part.file.model_name, part.file.model_hash) for part in parts}) == 1
        first = parts[0].file
        stated = {key: text for key, text in {**common, **self.stated}.items() if text}
        return {
            "name": self.name,
            "step": max(part.file.step for part in parts),
            "model_name": first.model_name if same_model else "",
            "model_hash": first.model_hash if same_model else "",
            "provenance": {**stated, "software": f"tincture {VERSION}", MERGED: {**report, **more}},
        }

    def lost(self, parts: Sequence[Word | Network]) -> list[str]:
        """What of the files is not in the new one, as sentences."""
        optimizers = [Path(f"{path}.optim") for path in dict.fromkeys(self.paths)]
        lost = [f"{path}, the optimizer's state, is not taken along." for path in optimizers if path.is_file()]
        models = {part.file.model_hash or part.file.model_name: part.file.model_name for part in parts}
        if len(models) > 1:
            lost.append(f"They were trained on different models: {', '.join(name or '?' for name in models.values())}.")
        return lost


def make_merge(merge: Merge) -> dict[str, Any]:
    """Writes what was planned, and returns plain values for JSON.

    Those of ``make_conversion``; ``method``, ``exact`` and ``sources`` (name, weight, hash, step, … of each); of
    hypernetworks ``widths``, ``layer_structure``, ``parameters`` and ``differences``: by context width, how far the
    effect on random contexts is off what was to be made.

    Raises:
        StorageError: a full disk, no permission.
    """
    return {**make_conversion(merge.conversion), **merge.report}


def plan_merge(
    sources: Sequence[tuple[str | os.PathLike[str], float]],
    out: str | os.PathLike[str],
    *,
    method: Literal["interpolate", "sum", "stack"],
    workspace: Workspace,
    layer_structure: Sequence[float] = (),
    sizes: Sequence[int] = (),
    precision: str = "fp32",
    name: str = "",
    author: str = "",
    license: str = "",
    overwrite: bool = False,
) -> Merge:
    """Reads the files, makes one of them, and measures how far its effect is off. Nothing is written.

    Args:
        sources: files or names of adapters in the workspace, all of one kind, each with its weight.
        out: the file to write; a name without folder and suffix is that of a new adapter in the workspace.
        method: ``interpolate`` (weighted sums of weights), ``sum`` (of effects), ``stack`` (one behind another).
        workspace: where names are looked up.
        layer_structure: of a smaller hypernetwork; empty: all units stay.
        sizes: context widths that stay; empty: all.
        precision: of a hypernetwork's numbers: fp32, bf16 or fp16.
        name, author, license, overwrite: as of ``plan_conversion``; the name is otherwise the file's.

    Raises:
        UsageError: they cannot be merged so, or the target is there already.
        FileFormatError: a file cannot be read.
    """
    paths, weights = [source_file(place, workspace) for place, _ in sources], [weight for _, weight in sources]
    kind = _kind_of(paths)
    target = _target(out, kind, paths[0], workspace)
    refuse_taken(target, overwrite)
    stated = {key: text for key, text in (("author", author), ("license", license)) if text}
    order = _Order(paths, weights, method, target, clean_name(name or target.stem), stated)
    if kind == "hypernetwork":
        return _merged_networks(order, layer_structure, sizes, precision)
    if layer_structure or sizes or precision != "fp32":
        raise UsageError(
            "These are embeddings; --layer-structure, --sizes and --precision are for hypernetworks, so leave them out."
        )
    return _merged_words(order)


def _kind_of(paths: Sequence[Path]) -> str:
    found = [(path, read_contents(path).kind) for path in paths]
    for path, kind in found:
        if kind not in ("embedding", "hypernetwork"):
            what = "a LoRA" if kind == "lora" else "the state of an optimizer"
            raise UsageError(f"{path} holds {what}, which cannot be merged; embeddings and hypernetworks can.")
        if kind != found[0][1]:
            raise UsageError(
                f"{found[0][0]} is {find_kind(found[0][1]).one} and {path} {find_kind(kind).one}; merge files of one "
                "kind, and name both in the prompt instead."
            )
    return found[0][1]


def _target(out: str | os.PathLike[str], kind: str, first: Path, workspace: Workspace) -> Path:
    """``out`` itself, or the file of a new adapter where it is a name."""
    if not is_name(os.fspath(out)):
        return Path(out)
    target = workspace.adapter_path(kind, os.fspath(out))
    two_encoders = kind == "embedding" and len(read_embedding_file(first).vectors) > 1
    return target.with_suffix(".safetensors") if two_encoders else target


# --- embeddings -------------------------------------------------------------------------------------------------------


def _merged_words(order: _Order) -> Merge:
    pairs = zip(order.paths, order.weights, strict=True)
    words = [Word(path.stem, weight, read_embedding_file(path)) for path, weight in pairs]
    report = order.report(words, exact=True)
    file = joined_vectors(words, behind=order.method == "stack")
    file = dataclasses.replace(file, **order.described(words, report))
    return Merge(plan_embedding(file, order.target, lost=order.lost(words)), report)


# --- hypernetworks ----------------------------------------------------------------------------------------------------


def _merged_networks(order: _Order, layer_structure: Sequence[float], sizes: Sequence[int], precision: str) -> Merge:
    pairs = zip(order.paths, order.weights, strict=True)
    networks = [Network(path.stem, weight, read_hypernetwork_file(path)) for path, weight in pairs]
    require_one_family(networks)
    file = _WAYS[order.method](networks)
    if sizes:
        file = narrowed(file, sizes)
    if layer_structure:
        file = pruned(file, layer_structure)
    file = _in_precision(file, precision)
    exact = not layer_structure and (order.method != "interpolate" or len(file.layer_structure) == 2)
    report = order.report(networks, exact=exact)
    wanted = effects_in_turn(networks) if order.method == "stack" else added_effects(networks)
    differences = difference(file, wanted)
    shape = {"widths": sorted(file.states), "layer_structure": list(file.layer_structure)}
    described = order.described(networks, report, **(shape if layer_structure or sizes else {}))
    words = " + ".join(f"{network.label}:{network.weight:g}" for network in networks)
    file = dataclasses.replace(file, **described, optional_info=f"{order.method} of {words}")
    states = [state for pair in file.states.values() for state in pair]
    count = sum(tensor.numel() for state in states for tensor in state.values())
    lost = [*order.lost(networks), *_left_out(networks, file)]
    traits = {**shape, "parameters": count, "differences": differences}
    return Merge(plan_hypernetwork(file, order.target, lost=lost), {**report, **traits})


def _in_precision(file: HypernetworkFile, precision: str) -> HypernetworkFile:
    dtype = _DTYPES[precision]
    states = {width: (_as(k, dtype), _as(v, dtype)) for width, (k, v) in file.states.items()}
    if not all(tensor.isfinite().all() for pair in states.values() for state in pair for tensor in state.values()):
        raise UsageError(
            f"The merged weights are too large for --precision {precision}; use smaller weights, bf16 or fp32."
        )
    return dataclasses.replace(file, states=states)


def _as(state: State, dtype: torch.dtype) -> State:
    return {name: tensor.to(dtype) for name, tensor in state.items()}


def _left_out(networks: Sequence[Network], file: HypernetworkFile) -> list[str]:
    gone = sorted({width for network in networks for width in network.file.states} - file.states.keys())
    lost = [f"Layers for the widths {', '.join(map(str, gone))} are left out."] if gone else []
    if any(any(network.dropout) for network in networks) and not any(file.dropout_structure or ()):
        lost.append("Its dropout, which acts only while it is trained, is left out.")
    return lost
