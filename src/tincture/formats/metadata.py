"""Provenance in the metadata of a safetensors file.

What the modelspec standard has a key for (author, licence, description, date) stands there, where other programs show
it and people edit it. The whole provenance stands as JSON under ``tincture.provenance``. Metadata that other programs
wrote is kept under its own keys.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from tincture.formats.integrity import CHECKSUM
from tincture.formats.safetensors_file import modelspec

_PROVENANCE = "tincture.provenance"
# What provenance and the modelspec standard both have a place for.
_SHARED_KEYS = ("author", "license", "description", "date")
# What every file's metadata is given anew.
_COMPUTED_KEYS = ("sai_model_spec", "architecture", "implementation", "title", "usage_hint", "hash_sha256")
# Levels of lists and dicts; settings of a run have three.
_DEEPEST = 50


def metadata_of(
    provenance: Mapping[str, Any], *, architecture: str, implementation: str, title: str, usage_hint: str
) -> dict[str, str]:
    """Metadata of a new file: the modelspec keys, the provenance, and what other programs had written.

    Args:
        provenance: JSON values; texts under ``author``, ``license``, ``description`` and ``date`` go into the modelspec
            keys of the same name, the texts of the dict under ``metadata`` stand under their own keys.
        architecture: see ``modelspec``, as are the others.
        implementation: whose names the tensors have.
        title: the adapter's name.
        usage_hint: how a prompt calls the adapter.
    """
    foreign = provenance.get("metadata")
    foreign_texts = (
        {key: text for key, text in foreign.items() if isinstance(text, str)} if isinstance(foreign, dict) else {}
    )
    shared = {key: text for key in _SHARED_KEYS if isinstance(text := provenance.get(key), str)}
    spec = modelspec(
        architecture=architecture, implementation=implementation, title=title, usage_hint=usage_hint, **shared
    )
    own = {_PROVENANCE: json.dumps(provenance, sort_keys=True)} if provenance else {}
    return {**foreign_texts, **spec, **own}


def provenance_of(metadata: Mapping[str, str], known: Iterable[str] = ()) -> dict[str, Any]:
    """The provenance in the metadata of a file, ours or another program's; ``known`` keys are left out."""
    provenance = json_object(metadata.get(_PROVENANCE))
    provenance |= {key: metadata[f"modelspec.{key}"] for key in _SHARED_KEYS if f"modelspec.{key}" in metadata}
    own = {f"modelspec.{key}" for key in (*_SHARED_KEYS, *_COMPUTED_KEYS)} | {_PROVENANCE, CHECKSUM, *known}
    foreign = {key: text for key, text in metadata.items() if key not in own}
    return provenance | ({"metadata": foreign} if foreign else {})


def json_object(text: object) -> dict[str, Any]:
    """The object in the JSON ``text``; an empty one where there is none, or one that other programs could not read."""
    try:
        value = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) and _is_portable(value, _DEEPEST) else {}


def _is_portable(value: object, levels: int) -> bool:
    """Whether strict JSON in UTF-8 can hold ``value``: no NaN, no half of a surrogate pair, no endless nesting."""
    if isinstance(value, str):
        return _is_utf8(value)
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict | list):
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        return levels > 0 and all(_is_portable(part, levels - 1) for part in parts)
    return True


def text_of(value: object) -> str:
    """``value`` where it is a text that UTF-8 can hold, which half of a surrogate pair is not; else an empty one."""
    return value if isinstance(value, str) and _is_utf8(value) else ""


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
