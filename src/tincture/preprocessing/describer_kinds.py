"""The kinds of models that describe pictures: where each is found by itself, and what one lacks to be used.

Nothing heavy is imported, and nothing is fetched.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from tincture.errors import TinctureError
from tincture.preprocessing.blip_files import find_blip
from tincture.preprocessing.model_files import is_of_hub
from tincture.preprocessing.tagger_files import find_tagger
from tincture.workspace import Workspace

Kind = Literal["blip", "wd", "deepdanbooru"]
Role = Literal["captioner", "tagger"]
CAPTIONER_VARIABLE, TAGGER_VARIABLE = "TINCTURE_CAPTIONER", "TINCTURE_TAGGER"
ROLES: Mapping[Kind, Role] = MappingProxyType({"blip": "captioner", "wd": "tagger", "deepdanbooru": "tagger"})
NEEDS_ONNX = "Tags by this model need onnxruntime, which is not installed: pip install 'tincture[tag]'."
# Folders in the workspace's models, the first two as the webui has them, and what tells that there is a model.
_FOLDERS: Mapping[Kind, tuple[str, str]] = MappingProxyType(
    {"blip": ("BLIP", "config.json"), "deepdanbooru": ("torch_deepdanbooru", "*.pt"), "wd": ("wd_tagger", "*.onnx")}
)
_WHERE: Mapping[Kind, str] = MappingProxyType(
    {
        "blip": "no BLIP model: put one in transformers' layout (such as Salesforce/blip-image-captioning-base) into "
        "models/BLIP in the workspace",
        "deepdanbooru": "no tagger: put DeepDanbooru's model-resnet_custom_v3.pt into models/torch_deepdanbooru in the "
        "workspace",
        "wd": "no tagger of the WD14 family: put one (model.onnx and selected_tags.csv, such as those of "
        "SmilingWolf/wd-vit-tagger-v3) into models/wd_tagger in the workspace",
    }
)
_VARIABLES: Mapping[Role, str] = MappingProxyType({"captioner": CAPTIONER_VARIABLE, "tagger": TAGGER_VARIABLE})


def find_describers(workspace: Workspace) -> dict[str, str]:
    """``captioner`` and ``tagger`` where one is known: by the environment, or in the workspace's folders."""
    found: dict[str, str] = {}
    for role, variable in _VARIABLES.items():
        there = [_in_workspace(kind, workspace) for kind in _FOLDERS if ROLES[kind] == role]
        model = next(filter(None, [os.environ.get(variable, ""), *there]), "")
        if model:
            found[role] = model
    return found


def find_describer(kind: Kind, workspace: Workspace) -> str:
    """The model of a kind that is found by itself, as ``find_describers`` finds one; empty where there is none."""
    named = os.environ.get(_VARIABLES[ROLES[kind]], "")
    return named if named and kind_of(ROLES[kind], named) in ("", kind) else _in_workspace(kind, workspace)


def _in_workspace(kind: Kind, workspace: Workspace) -> str:
    name, pattern = _FOLDERS[kind]
    folder = workspace.root / "models" / name
    return str(folder) if any(folder.glob(pattern)) else ""


def missing_describer(role: str, asked: str) -> str:
    """That there is no captioner, or no tagger, and where to put one; ``asked`` is what took it for granted."""
    if role == "captioner":
        return f"{asked}, but there is {_WHERE['blip']}, or name one by the variable {CAPTIONER_VARIABLE}."
    return (
        f"{asked}, but there is {_WHERE['deepdanbooru']}, or name it, or a WD14 tagger, by the variable "
        f"{TAGGER_VARIABLE}."
    )


def missing_kind(kind: Kind, asked: str, flag: str) -> str:
    """The same of one kind, which ``flag`` may name too."""
    return f"{asked}, but there is {_WHERE[kind]}, or name one by {flag} or by the variable {_VARIABLES[ROLES[kind]]}."


def fault_of(role: str, model: str) -> str:
    """A sentence about what a captioner or tagger lacks; empty where it can be used, or would be fetched."""
    if is_of_hub(model):
        return "" if role == "captioner" else _without_onnx()
    try:
        if role == "captioner":
            find_blip(model)
            return ""
        _, labels = find_tagger(model)
    except TinctureError as error:
        return error.sentence
    return _without_onnx() if labels else ""


def kind_of(role: Role, model: str) -> Kind | Literal[""]:
    """What kind of describer a model is; empty where it is none, or not there."""
    if role == "captioner":
        return "blip"
    if is_of_hub(model):
        return "wd"  # DeepDanbooru's file is on no hub in the form that is read
    try:
        _, labels = find_tagger(model)
    except TinctureError:
        return ""
    return "wd" if labels else "deepdanbooru"


def is_installed(module: str) -> bool:
    """Whether a module could be imported; it is not."""
    return importlib.util.find_spec(module) is not None


def _without_onnx() -> str:
    return "" if is_installed("onnxruntime") else NEEDS_ONNX


def shown(model: str) -> str:
    """A model's place by its last name, since the rest is nobody's business; an id of the hub as it is."""
    return model if is_of_hub(model) else Path(model).name
