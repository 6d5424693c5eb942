"""What a U-Net predicts, noise or v, and whether its last timestep is pure noise: read from what a file says of itself.

Sources of the conventions: the modelspec standard (``modelspec.prediction_type``, ``modelspec.architecture``); the
metadata of kohya's sd-scripts (``ss_v_parameterization``, ``ss_zero_terminal_snr``); marker tensors ``v_pred`` and
``ztsnr`` in checkpoints such as NoobAI's, which ComfyUI goes by; ``parameterization`` in the configuration of the
original repository, which the webui reads from a .yaml beside the checkpoint.
"""

from __future__ import annotations

import copy
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from tincture.errors import ModelError, UsageError
from tincture.models.loading.configs import SCHEDULER

EPSILON, V_PREDICTION = "epsilon", "v_prediction"
PREDICTION_TYPES = (EPSILON, V_PREDICTION)
_SPELLINGS = {
    "epsilon": EPSILON,
    "eps": EPSILON,
    "v": V_PREDICTION,
    "v-prediction": V_PREDICTION,
    "v_prediction": V_PREDICTION,
    "v_pred": V_PREDICTION,
    "vpred": V_PREDICTION,
    "velocity": V_PREDICTION,
}
_LONGEST_YAML = 2**20
# Halfway between a U-Net that returns the noise it is given and one that returns something else.
_LIKENESS_OF_NOISE = 0.5
_SIDE = 16  # of the latents of a trial


@dataclass(frozen=True)
class Prediction:
    """What a U-Net predicts.

    Attributes:
        prediction_type: ``epsilon`` or ``v_prediction``.
        zero_terminal_snr: whether the noise of the last timestep covers the picture wholly (Lin et al. 2023,
            arXiv:2305.08891).
        told_by: where that was found, in words.
    """

    prediction_type: str
    zero_terminal_snr: bool
    told_by: str

    def scheduler_config(self, base: Mapping[str, Any] = SCHEDULER) -> dict[str, Any]:
        """Of diffusers' DDPMScheduler, ``base`` being what is otherwise known of it."""
        spacing = "trailing" if self.zero_terminal_snr else base.get("timestep_spacing", "leading")
        return {
            **base,
            "prediction_type": self.prediction_type,
            "rescale_betas_zero_snr": self.zero_terminal_snr,
            "timestep_spacing": spacing,
        }


def find_prediction(path: Path, names: Container[str], metadata: Mapping[str, str]) -> Prediction | None:
    """What the file ``path`` says of its prediction; None when it says nothing.

    A .yaml beside it counts first, since somebody put it there; then marker tensors, then metadata.

    Args:
        path: the checkpoint.
        names: of its tensors.
        metadata: of a safetensors file.

    Raises:
        ModelError: the .yaml beside it cannot be read.
    """
    zero_terminal_snr = "ztsnr" in names or _is_true(metadata.get("ss_zero_terminal_snr"))
    for found, told_by in (
        (_in_yaml(path.with_suffix(".yaml")), path.with_suffix(".yaml").name),
        (V_PREDICTION if "v_pred" in names else None, "its marker v_pred"),
        (_in_metadata(metadata), "its metadata"),
    ):
        if found is not None:
            # Without v the last timestep could not be predicted: there, noise is all that the U-Net sees.
            return Prediction(found, zero_terminal_snr and found == V_PREDICTION, told_by)
    return None


def override(found: Prediction, prediction_type: str | None, zero_terminal_snr: bool | None) -> Prediction:
    """``found`` with what the user says instead; None leaves it.

    Raises:
        UsageError: zero terminal SNR for a model that predicts noise, or no such prediction type.
    """
    if prediction_type not in (None, *PREDICTION_TYPES):
        raise UsageError(f"The prediction type {prediction_type!r} is not known; give epsilon or v_prediction.")
    told_by = found.told_by if prediction_type is None else "as given"
    chosen = prediction_type or found.prediction_type
    keeps = found.zero_terminal_snr and chosen == V_PREDICTION
    zero = keeps if zero_terminal_snr is None else zero_terminal_snr
    if zero and chosen == EPSILON:
        raise UsageError(
            "Zero terminal SNR was given for a model that predicts noise (epsilon); it needs one that predicts v. "
            "Leave it out, or give --prediction-type v_prediction."
        )
    if zero != keeps and prediction_type is None:
        told_by = f"{told_by}, but the last timestep as given"
    return Prediction(chosen, zero, told_by)


def _in_metadata(metadata: Mapping[str, str]) -> str | None:
    stated = str(metadata.get("modelspec.prediction_type", "")).strip().lower()
    if stated in _SPELLINGS:
        return _SPELLINGS[stated]
    if "ss_v_parameterization" in metadata:
        return V_PREDICTION if _is_true(metadata["ss_v_parameterization"]) else EPSILON
    architecture = str(metadata.get("modelspec.architecture", "")).partition("/")[0]
    known = {"stable-diffusion-v2-768-v": V_PREDICTION, "stable-diffusion-v2-512": EPSILON}
    return known.get(architecture)


def _is_true(text: object) -> bool:
    return str(text).strip().lower() in ("true", "1")


def _in_yaml(path: Path) -> str | None:
    """What the original repositories' configuration says: ``parameterization`` (CompVis), scaling (Stability AI)."""
    try:
        if not path.is_file() or path.stat().st_size > _LONGEST_YAML:
            return None
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ModelError(f"{path}, which lies beside the model, cannot be read; repair it or move it away.") from error
    parameters = _inner(content, "model", "params")
    stated = _inner(parameters, "parameterization")
    scaling = _inner(parameters, "denoiser_config", "params", "scaling_config", "target")
    if isinstance(scaling, str):
        stated = "v" if scaling.endswith(".VScaling") else "eps"
    if stated is None and _inner(parameters, "unet_config") is not None:
        stated = "eps"  # the default of that repository
    return _SPELLINGS.get(stated.strip().lower()) if isinstance(stated, str) else None


def _inner(content: object, *keys: str) -> object:
    for key in keys:
        content = content.get(key) if isinstance(content, dict) else None
    return content


@torch.no_grad()
def probe(unet: Any, hidden_states: Tensor) -> Prediction:
    """Finds out what a U-Net predicts by asking it.

    At the last timestep its input is almost pure noise. If it predicts noise it gives that back; v is the picture
    instead (negative), which has nothing to do with the noise.

    Args:
        unet: a UNet2DConditionModel that is told nothing but the text.
        hidden_states: (1, tokens, width), of an empty prompt.
    """
    if unet.conv_in.weight.dtype == torch.float16 and unet.conv_in.weight.device.type == "cpu":
        unet = torch.nn.Module.to(copy.deepcopy(unet), torch.bfloat16)  # half precision takes minutes there
    weight = unet.conv_in.weight
    channels = unet.config.out_channels
    noise = torch.randn(1, channels, _SIDE, _SIDE, generator=torch.Generator().manual_seed(0))
    # One for inpainting is told that all is masked, and of an empty picture.
    mask = torch.cat([torch.ones(1, 1, _SIDE, _SIDE), torch.zeros(1, channels, _SIDE, _SIDE)], 1)
    given = noise if unet.config.in_channels == channels else torch.cat([noise, mask], 1)
    output = unet(given.to(weight), 999, encoder_hidden_states=hidden_states.to(weight), return_dict=False)[0]
    likeness = torch.nn.functional.cosine_similarity(output.float().cpu().flatten(), noise.flatten(), dim=0)
    found = EPSILON if float(likeness) > _LIKENESS_OF_NOISE else V_PREDICTION
    return Prediction(found, False, "a trial of its U-Net")
