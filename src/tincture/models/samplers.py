"""Samplers by the webui's names, as plain values: lists and forms need them where torch is not loaded."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from tincture.errors import UsageError

# What the reference's k-diffusion samplers walk through: steps evenly spread from the last timestep to the first.
_EVEN = {"timestep_spacing": "linspace", "steps_offset": 0}
# What Stable Diffusion's own DDIM and PLMS walk through.
_LEADING = {"timestep_spacing": "leading", "steps_offset": 1, "set_alpha_to_one": False}
_KARRAS = {**_EVEN, "use_karras_sigmas": True}
_SDE = {"algorithm_type": "sde-dpmsolver++"}

# By the webui's names: diffusers' class, and what differs from the model's own scheduler configuration.
SAMPLERS: Mapping[str, tuple[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "Euler": ("EulerDiscreteScheduler", _EVEN),
        "Euler a": ("EulerAncestralDiscreteScheduler", _EVEN),
        "Heun": ("HeunDiscreteScheduler", _EVEN),
        "DPM2": ("KDPM2DiscreteScheduler", _EVEN),
        "DPM2 a": ("KDPM2AncestralDiscreteScheduler", _EVEN),
        "DPM++ 2M": ("DPMSolverMultistepScheduler", _EVEN),
        "DPM++ 2M Karras": ("DPMSolverMultistepScheduler", _KARRAS),
        "DPM++ 2M SDE": ("DPMSolverMultistepScheduler", {**_EVEN, **_SDE}),
        "DPM++ 2M SDE Karras": ("DPMSolverMultistepScheduler", {**_KARRAS, **_SDE}),
        "DDIM": ("DDIMScheduler", _LEADING),
        "PLMS": ("PNDMScheduler", {**_LEADING, "skip_prk_steps": True}),
        "UniPC": ("UniPCMultistepScheduler", _EVEN),
        "LCM": ("LCMScheduler", {}),
    }
)


def require_sampler(sampler: str) -> None:
    """UsageError for a name that is not known, with the likely one."""
    if sampler not in SAMPLERS:
        near = difflib.get_close_matches(sampler, SAMPLERS, n=1, cutoff=0)[0]
        raise UsageError(f"There is no sampler {sampler!r}; did you mean {near!r}? Known: {', '.join(SAMPLERS)}.")


def require_samplers(*samplers: str) -> None:
    """UsageError for names of settings that are not known."""
    for sampler in samplers:
        if sampler not in SAMPLERS:
            raise UsageError(f"There is no sampler {sampler!r}; known are {', '.join(SAMPLERS)}.")
