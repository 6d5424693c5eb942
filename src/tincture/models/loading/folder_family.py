"""Which family the model in a diffusers folder is of, told by its configurations without loading anything of it."""

from __future__ import annotations

from pathlib import Path

from tincture.errors import ModelError
from tincture.models.families import FAMILIES, Family
from tincture.models.loading.config_files import read_config

INDEX = "model_index.json"
KNOWN = "only Stable Diffusion 1, 2 and XL models can be used"


def family_of(folder: Path, chosen: str | None = None) -> Family:
    """The family of the model in ``folder``, told by its configurations; all its parts are there.

    Raises:
        ModelError: a part is missing, or it is of a family that is not known.
    """
    index = read_config(folder / INDEX)
    kind = index.get("_class_name", "model of another kind")
    if (index.get("unet") or [None, None])[1] != "UNet2DConditionModel":
        raise ModelError(f"The model folder {folder} holds a {kind}; {KNOWN}.")
    # A null entry, or [null, null], stands for a part that is left out.
    encoders = [part for part in ("text_encoder", "text_encoder_2") if (index.get(part) or [None])[0]]
    if encoders == ["text_encoder_2"]:
        raise ModelError(f"The model folder {folder} holds the refiner of Stable Diffusion XL; {KNOWN}.")
    first = ["unet", "vae", "scheduler", "text_encoder", "tokenizer"]
    _require(folder, first)
    unet, text = (read_config(folder / part / "config.json") for part in ("unet", "text_encoder"))
    if unet.get("addition_embed_type") == "text_time" or len(encoders) == 2:
        found = "sdxl"
    else:
        found = "sd2" if unet.get("use_linear_projection") or text.get("hidden_act") == "gelu" else "sd1"
    family = FAMILIES[chosen or found]
    parts = [name for spec in family.text_encoders for name in (spec.component, spec.tokenizer)]
    _require(folder, [*first[:3], *parts])
    return family


def _require(folder: Path, parts: list[str]) -> None:
    missing = [part for part in parts if not (folder / part).is_dir()]
    if missing:
        raise ModelError(f"The model folder {folder} has no {', '.join(missing)}; it needs {', '.join(parts)}.")
