"""Writes a model as one file in the original key layout, for tests of loaders and for other programs.

    python tools/write_single_file.py picto picto.safetensors
    python tools/write_single_file.py FOLDER model.ckpt --half

Models of Stable Diffusion 1, 2 and XL, in whatever form Tincture loads them. A .safetensors says in its metadata what
the model predicts; a .ckpt is a torch file with the tensors under ``state_dict``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from tincture.errors import TinctureError
from tincture.formats.safetensors_file import modelspec
from tincture.models.loading.load import load_model
from tincture.models.stable_diffusion import StableDiffusion

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # when run as a program
from tools.original_layout import original_state_dict


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="picto, a checkpoint or a diffusers folder")
    parser.add_argument("out", type=Path, help="a .safetensors or .ckpt file")
    parser.add_argument("--half", action="store_true", help="write half precision")
    args = parser.parse_args()
    try:
        model = load_model(args.model)
    except TinctureError as error:
        print(error, file=sys.stderr)
        return 1
    write_single_file(model, args.out, torch.float16 if args.half else torch.float32)
    return 0


def write_single_file(model: StableDiffusion, path: Path, dtype: torch.dtype = torch.float32) -> None:
    """Writes ``model`` to ``path``, a .safetensors or .ckpt file, in ``dtype``."""
    state = {key: value.to("cpu", dtype, copy=True).contiguous() for key, value in state_of(model).items()}
    if path.suffix == ".safetensors":
        save_file(state, path, metadata_of(model))
    elif path.suffix == ".ckpt":
        torch.save({"global_step": 0, "state_dict": state}, path)
    else:
        raise ValueError(f"The file name {path.name} is not known; it must end in .safetensors or .ckpt.")


def state_of(model: StableDiffusion) -> dict[str, Tensor]:
    """Every weight of ``model`` under its original name."""
    encoders = [encoder.module for encoder in model.text_encoders]
    return original_state_dict(model.family.name, model.unet, model.vae, encoders)


def metadata_of(model: StableDiffusion) -> dict[str, str]:
    """What a safetensors file says of ``model``, by the modelspec standard."""
    return modelspec(
        architecture=model.family.modelspec[model.prediction_type],
        implementation="sgm",
        title=model.name,
        prediction_type="v" if model.prediction_type == "v_prediction" else "epsilon",
    )


if __name__ == "__main__":
    raise SystemExit(main())
