"""Where a BLIP model lies, and whether it is one that captions; nothing heavy is imported."""

from __future__ import annotations

import json
from pathlib import Path

from tincture.errors import ModelError
from tincture.preprocessing.model_files import find_model

PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt")
_WHAT = "a folder of a BLIP model with config.json"
_SMALL_FILES = ("config.json", "tokenizer*.json", "special_tokens_map.json", "vocab.txt", *PROCESSOR_FILES)
_EXAMPLE = "Salesforce/blip-image-captioning-base of the hub"
_ARCHITECTURE = "BlipForConditionalGeneration"


def find_blip(model: str) -> Path:
    """The folder that ``model`` means, a path or a model of the hub, which is fetched.

    Raises:
        ModelError: there is no such model, or none of BLIP that captions.
    """
    folder = find_model(model, [*_SMALL_FILES, "model*.safetensors", "model.safetensors.index.json"], _WHAT)
    _check_config(folder)
    if not list(folder.glob("model*.safetensors")) and not list(folder.glob("pytorch_model*.bin")):
        folder = find_model(model, [*_SMALL_FILES, "pytorch_model*.bin", "pytorch_model.bin.index.json"], _WHAT)
    # Without these files transformers makes a tokenizer that knows no word, and says nothing.
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise ModelError(f"The BLIP model in {folder} has no {' or '.join(TOKENIZER_FILES)}; copy it again.")
    return folder


def _check_config(folder: Path) -> None:
    path = folder / "config.json"
    if folder.is_file():
        raise ModelError(f"{folder} is a file; BLIP needs transformers' layout: give {_WHAT}, or {_EXAMPLE}.")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        kinds = config.get("architectures") or [config.get("model_type", "model of an unknown kind")]
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(
            f"{folder} holds no BLIP model: its config.json is missing or broken; give {_WHAT}, or {_EXAMPLE}."
        ) from error
    if config.get("model_type") != "blip" or kinds not in ([_ARCHITECTURE], ["blip"]):
        raise ModelError(
            f"{folder} holds a {', '.join(map(str, kinds))}; captions need a {_ARCHITECTURE}, such as {_EXAMPLE}."
        )
