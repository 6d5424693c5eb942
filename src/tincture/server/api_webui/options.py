"""The webui's options: those that act here, those that would change a picture, and all others, which change nothing.

A client sends what it got from ``GET options`` back, or sets what only the webui has: extensions bring options of their
own, so that nobody knows all names. What changes nothing is taken, and a remark says so.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping
from typing import Any

from tincture.errors import shortened

MODEL = "sd_model_checkpoint"
ACTING = (MODEL, "sd_vae", "CLIP_stop_at_last_layers")
"""Options that act on a picture; ``override_settings`` may have them."""
TRAINING: Mapping[str, str] = types.MappingProxyType(
    {"training_enable_tensorboard": "tensorboard", "save_optimizer_state": "save_optimizer_state"}
)
"""Options that act on the trainings below /sdapi/v1, all truth values → the settings of a training that they are."""
HARMLESS: Mapping[str, tuple[Any, ...]] = types.MappingProxyType(
    {
        "eta_noise_seed_delta": (0,),
        "eta_ancestral": (1,),
        "eta_ddim": (0,),
        "ddim_discretize": ("uniform",),
        "s_churn": (0,),
        "s_tmin": (0,),
        "s_tmax": (0,),
        "s_noise": (1,),
        "s_min_uncond": (0,),
        "sigma_min": (0,),
        "sigma_max": (0,),
        "rho": (0,),
        "k_sched_type": ("Automatic",),
        "always_discard_next_to_last_sigma": (False,),
        "sgm_noise_multiplier": (False,),
        "sd_noise_schedule": ("Default",),
        "skip_early_cond": (0,),
        "uni_pc_variant": ("bh1",),
        "uni_pc_skip_type": ("time_uniform",),
        "tiling": (False,),
        "token_merging_ratio": (0,),
        "face_restoration": (False,),
        "sd_hypernetwork": ("None", ""),
        "sd_lora": ("None", ""),
        "samples_format": ("png",),
    }
)
"""Options that would change a picture, or the file it is in, and the values with which they don't."""
_SURELY_MEANT = 0.85


NO_VAE = ("", "Automatic", "auto", "None")
"""Values of ``sd_vae`` that stand for the model's own."""


def is_left(name: str, value: Any, present: Mapping[str, Any]) -> bool:
    """Whether an option is given as it is, which is always allowed; so is null.

    Args:
        present: the options that there are.
    """
    if value is None or (name in present and is_among(value, (present[name],))):
        return True
    return is_among(value, HARMLESS.get(name, ())) or (name == "sd_vae" and value in NO_VAE)


def is_among(value: Any, values: tuple[Any, ...]) -> bool:
    """Whether ``value`` is one of these; numbers and truth values also as texts: ``"0"``, ``"false"``."""
    texts = [str(one).casefold() for one in values if not isinstance(one, str)]
    return value in values or (isinstance(value, str) and value.casefold() in texts)


def whole(value: Any) -> Any:
    """A whole number as clients send it: 2 for 2.0 and "2"; another value as it is."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def truth(value: Any) -> Any:
    """A truth value as clients send it: True for 1 and "true"; another value as it is."""
    text = str(value).casefold()
    return text in ("true", "1", "1.0") if text in ("true", "false", "0", "1", "0.0", "1.0") else value


def refused(name: str, value: Any, *, before: str = "") -> str:
    """Why an option that would change a picture cannot be taken, behind ``before``; empty for one that can."""
    if name in HARMLESS:
        return f"{before}{name} is {shortened(value)}, which is not done here"
    near = difflib.get_close_matches(name, ACTING, n=1, cutoff=_SURELY_MEANT)
    return f"{before}it is no option, the nearest is {near[0]}" if near and name not in ACTING else ""


def remark(names: list[str]) -> list[str]:
    """A sentence that options change nothing; none where there are none."""
    shown = ", ".join(shortened(name) for name in names[:10]) + (" and others" if len(names) > 10 else "")
    verb = "changes" if len(names) == 1 else "change"
    return [f"{shown} {verb} nothing on this server."] if names else []
