"""What changed since a run or a file was made, so that the same settings give another result: in sentences."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tincture.data.captions import load_template
from tincture.errors import TinctureError
from tincture.formats.software import VERSION
from tincture.models.loading.sources import find_source, short_hash
from tincture.workspace import Workspace

_PICTURES = {"data_hash": "pictures", "validation_hash": "validation pictures", "prior_hash": "regularisation pictures"}
PICTURE_FACTS = ("pictures", *_PICTURES)
"""Those of the facts for which pictures must be read."""
Facts = Mapping[str, Any]
"""What is known of a training by the names of a run's record; what is not known is left out, and not compared."""


def template_hash(lines: Sequence[str]) -> str:
    """SHA-256 (hexadecimal) of a template's lines."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def facts_of_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a run."""
    lines, noted = record.get("template_lines"), record.get("arithmetic")
    keys = ("model_hash", "pictures", "software", "libraries", *_PICTURES)
    found = {key: record[key] for key in keys if key in record}
    if isinstance(lines, list):
        found["template_hash"] = template_hash([str(line) for line in lines])
    if isinstance(noted, list) and noted and isinstance(noted[0], Mapping):
        found["arithmetic"] = dict(noted[0])
    return found


def facts_of_file(found: Mapping[str, Any]) -> dict[str, Any]:
    """Those of an adapter's file, by what ``inspect_file`` says of it."""
    made = found.get("provenance")
    made = made if isinstance(made, Mapping) else {}
    keys = ("pictures", "template_hash", "software", "libraries", *_PICTURES)
    hashed = {"model_hash": found["model_hash"]} if found.get("model_hash") else {}
    return {**hashed, **{key: made[key] for key in keys if key in made}}


def facts_here(settings: Mapping[str, Any], workspace: Workspace) -> dict[str, Any]:
    """Those of a training with such settings that begins now, as far as no picture has to be read for it.

    What is not there is left out; a model's hash is worked out once and remembered.
    """
    found: dict[str, Any] = {"software": f"tincture {VERSION}", "libraries": libraries()}
    with contextlib.suppress(TinctureError):
        if settings.get("template"):
            found["template_hash"] = template_hash(load_template(str(settings["template"]), workspace.templates))
    with contextlib.suppress(TinctureError):
        path = find_source(str(settings.get("model") or ""), workspace).path
        if path is not None:
            found["model_hash"] = short_hash(path)
    return found


def libraries() -> dict[str, str]:
    """Versions of what results depend on most."""
    return {name: importlib.metadata.version(name) for name in ("torch", "diffusers", "transformers")}


def changes(then: Facts, now: Facts) -> list[str]:
    """What is not the same now, in sentences."""
    return [*_of_model(then, now), *_of_pictures(then, now), *_of_template(then, now), *_of_software(then, now)]


def _differ(name: str, then: Facts, now: Facts) -> bool:
    return name in then and name in now and then[name] != now[name]


def _of_model(then: Facts, now: Facts) -> Iterator[str]:
    if _differ("model_hash", then, now):
        yield f"The base model is another one: its hash was {then['model_hash'] or 'none'}, and is {now['model_hash']}."


def _of_pictures(then: Facts, now: Facts) -> Iterator[str]:
    for name, what in _PICTURES.items():
        if not _differ(name, then, now):
            continue
        if name == "data_hash" and _differ("pictures", then, now):
            yield f"The pictures are others: there were {then['pictures']}, and there are {now['pictures']}."
        else:
            yield f"The {what}, their captions or masks have changed."


def _of_template(then: Facts, now: Facts) -> Iterator[str]:
    if _differ("template_hash", then, now):
        yield "The prompt template has other lines."


def _of_software(then: Facts, now: Facts) -> Iterator[str]:
    if _differ("software", then, now):
        yield f"It was made by {then['software']}; this is {now['software']}."
    for name, what in (("libraries", "Libraries have other versions"), ("arithmetic", "It was computed otherwise")):
        before, present = then.get(name), now.get(name)
        if isinstance(before, Mapping) and isinstance(present, Mapping):
            others = [f"{key} {before[key]}, now {present[key]}" for key in before if _differ(key, before, present)]
            if others:
                yield f"{what}: {'; '.join(others)}."
