"""From a request of the webui's txt2img to a drawing of ours, and back to what its clients expect."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from tincture.errors import UsageError, shortened
from tincture.formats.picture_text import parse_parameters
from tincture.models.samplers import SAMPLERS
from tincture.randomness import LARGEST_REQUESTED_SEED
from tincture.server.api_webui import options
from tincture.server.api_webui.schemas import Txt2ImgRequest
from tincture.server.errors import TooMuchError

DEFAULT_SAMPLER = "Euler a"
SEEDS_BY_CHANCE = 2**32
HARMLESS: Mapping[str, tuple[Any, ...]] = {
    "enable_hr": (False,),
    "subseed_strength": (0,),
    "seed_resize_from_h": (0, -1),
    "seed_resize_from_w": (0, -1),
    "restore_faces": (False,),
    "tiling": (False,),
    "styles": ([], ""),
    "eta": (0, 1),
    "s_churn": (0,),
    "s_noise": (1,),
    "script_name": ("", "None"),
    "refiner_checkpoint": ("", "None"),
    "disable_extra_networks": (False,),
}
"""Fields of the webui's that would change a picture, and the values with which they don't; so does None."""
SAVED = "samples_save"
"""In ``override_settings``, False has the pictures deleted once they are sent."""
EARLIER_SAMPLERS: Mapping[str, str] = {
    "k_euler": "Euler",
    "k_euler_a": "Euler a",
    "k_euler_ancestral": "Euler a",
    "k_heun": "Heun",
    "k_dpm_2": "DPM2",
    "k_dpm_2_a": "DPM2 a",
    "k_dpm_2_ancestral": "DPM2 a",
    "k_dpmpp_2m": "DPM++ 2M",
    "k_dpmpp_2m_ka": "DPM++ 2M Karras",
    "k_dpmpp_2m_sde": "DPM++ 2M SDE",
    "k_dpmpp_2m_sde_ka": "DPM++ 2M SDE Karras",
    "k_lcm": "LCM",
}
"""Names by which clients of earlier years, and those of other programs, call samplers."""
SCHEDULERS: Mapping[str, str] = {"automatic": "Automatic", "karras": "Karras"}


def drawing_of(request: Txt2ImgRequest, *, most: int, present: Mapping[str, Any], remarks: list[str]) -> dict[str, Any]:
    """What ``Service.draw`` takes, but the model where ``override_settings`` names none.

    Args:
        most: pictures that may be drawn.
        present: the options that there are, which ``override_settings`` may always have as they are.
        remarks: gets a sentence about overrides that change nothing.

    Raises:
        UsageError: naming everything that this server cannot do.
        TooMuchError: more pictures than may be drawn.
    """
    given = request.override_settings or {}
    overrides = {name: value for name, value in given.items() if not options.is_left(name, value, present)}
    faults = [*_unknown_features(request.model_extra or {}), *_override_faults(overrides)]
    if faults:
        raise UsageError(f"This server cannot draw that: {'; '.join(faults)}.")
    acting = (*options.ACTING, SAVED)
    remarks += options.remark([name for name in overrides if name not in acting])
    drawing = {
        "prompts": [request.prompt],
        "seeds": _seeds(request, most),
        "negative_prompt": request.negative_prompt,
        "steps": request.steps,
        "sampler": _sampler(request),
        "guidance_scale": request.cfg_scale,
        "width": request.width,
        "height": request.height,
        "batch_size": request.batch_size,
        "clip_skip": options.whole(overrides.get("CLIP_stop_at_last_layers")),
        "vae": overrides.get("sd_vae"),
        "model": overrides.get(options.MODEL) or None,
    }
    return {name: value for name, value in drawing.items() if value is not None}


def _unknown_features(further: Mapping[str, Any]) -> list[str]:
    faults = [
        f"{name} is {shortened(further[name])}, which is not done here; leave it out"
        for name, harmless in HARMLESS.items()
        if further.get(name) is not None and not options.is_among(further[name], harmless)
    ]
    scripts = further.get("alwayson_scripts") or {}
    acting = [name for name, given in scripts.items() if _acts(given)] if isinstance(scripts, dict) else ["?"]
    return [*faults, *(f"the script {shortened(name)} in alwayson_scripts is not there" for name in acting)]


def _acts(script: Any) -> bool:
    """Clients send scripts that are switched off too.

    Those have no arguments, begin with False (as ADetailer has it), or have only units that are off (as ControlNet).
    """
    arguments = script.get("args") if isinstance(script, dict) else script
    if not isinstance(arguments, list):
        return _is_on(arguments)
    return not (arguments and arguments[0] is False) and any(_is_on(argument) for argument in arguments)


def _is_on(argument: Any) -> bool:
    is_off = isinstance(argument, dict) and any(argument.get(name) is False for name in ("enabled", "enable"))
    return bool(argument) and not is_off


def _override_faults(overrides: Mapping[str, Any]) -> list[str]:
    faults = []
    for name, value in overrides.items():
        if name in options.ACTING:
            if name != "CLIP_stop_at_last_layers" and not isinstance(value, str):
                faults.append(f"{name} in override_settings is {shortened(value)}, but must be a text")
        elif name == SAVED:
            if not isinstance(value, bool):
                faults.append(f"{name} in override_settings is {shortened(value)}, but must be true or false")
        elif fault := options.refused(name, value):
            known = ", ".join((*options.ACTING, SAVED))
            faults.append(f"override_settings has {shortened(name)}, but may have {known}: {fault}")
    return faults


def _seeds(request: Txt2ImgRequest, most: int) -> list[int]:
    """As in the webui, each picture has the seed behind that of the one before."""
    count = (request.batch_size or 1) * (request.n_iter or 1)
    if count > most:
        raise TooMuchError(
            f"{shortened(count)} pictures were asked for, batch_size times n_iter; this server draws at most {most} "
            "at a time."
        )
    last = LARGEST_REQUESTED_SEED - count
    if not -1 <= request.seed <= last:
        raise UsageError(f"seed is {shortened(request.seed)}, but must be from 0 to {last}, or -1 for one by chance.")
    first = secrets.randbelow(SEEDS_BY_CHANCE) if request.seed == -1 else request.seed
    return [first + number for number in range(count)]


def _sampler(request: Txt2ImgRequest) -> str:
    """The sampler by our name: capitals don't matter, and a scheduler of today belongs to the name."""
    given = request.sampler_name or _sampler_at(request.sampler_index) or DEFAULT_SAMPLER
    folded = {name.casefold(): name for name in SAMPLERS}
    sampler = folded.get(EARLIER_SAMPLERS.get(given.casefold(), given).casefold(), given)
    scheduler = (request.scheduler or "automatic").casefold()
    if scheduler == "automatic" or sampler.casefold().endswith(f" {scheduler}"):
        return sampler
    if f"{sampler} {scheduler}".casefold() in folded:
        return folded[f"{sampler} {scheduler}".casefold()]
    raise UsageError(
        f"The sampler {shortened(given)} cannot have the scheduler {shortened(request.scheduler)}; leave scheduler "
        f"out, or give Karras with one of {', '.join(name[:-7] for name in SAMPLERS if name.endswith(' Karras'))}."
    )


def _sampler_at(index: str | int | None) -> str | None:
    """The sampler by its old name, or by its place in the list."""
    if not isinstance(index, int):
        return index
    if not 0 <= index < len(SAMPLERS):
        raise UsageError(f"sampler_index is {shortened(index)}, but must be from 0 to {len(SAMPLERS) - 1}, or a name.")
    return list(SAMPLERS)[index]


def info_of(request: Txt2ImgRequest, seeds: Sequence[int], texts: Sequence[str], size: tuple[int, int]) -> str:
    """The JSON that clients of the webui find in ``info``.

    Args:
        seeds: of each picture.
        texts: of each picture, as they stand in its chunk ``parameters``.
        size: width and height in pixels.
    """
    count, first = len(texts), parse_parameters(texts[0])
    settings = first.settings
    return json.dumps(
        {
            "prompt": request.prompt,
            "all_prompts": [request.prompt] * count,
            "negative_prompt": request.negative_prompt,
            "all_negative_prompts": [request.negative_prompt] * count,
            "seed": seeds[0],
            "all_seeds": list(seeds),
            "subseed": seeds[0],
            "all_subseeds": list(seeds),
            "subseed_strength": 0,
            "width": size[0],
            "height": size[1],
            "sampler_name": settings.get("Sampler", ""),
            "cfg_scale": float(settings.get("CFG scale", 0)),
            "steps": request.steps,
            "batch_size": request.batch_size or 1,
            "restore_faces": False,
            "face_restoration_model": None,
            "sd_model_name": settings.get("Model", ""),
            "sd_model_hash": settings.get("Model hash", ""),
            "sd_vae_name": None,
            "sd_vae_hash": None,
            "seed_resize_from_w": -1,
            "seed_resize_from_h": -1,
            "denoising_strength": None,
            "extra_generation_params": {},
            "index_of_first_image": 0,
            "infotexts": list(texts),
            "styles": [],
            "job_timestamp": "0",
            "clip_skip": int(settings.get("Clip skip", 1)),
            "is_using_inpainting_conditioning": False,
        },
        ensure_ascii=False,
    )
