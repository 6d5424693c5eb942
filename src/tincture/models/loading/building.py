"""Modules filled with given weights: no weight is held twice, and none is left empty."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.clip.configuration_clip import CLIPTextConfig

from tincture.errors import ModelError, foreign
from tincture.models.loading.config_files import wrong_shape
from tincture.models.loading.silence import silenced_libraries


def build(
    make: Callable[[], nn.Module],
    weights: dict[str, Tensor],
    place: str,
    device: torch.device | str,
    dtype: torch.dtype,
) -> Any:
    """The module that ``make`` makes, with ``weights`` as its own, on ``device`` and in ``dtype``.

    Args:
        make: is called where nothing is allocated.
        weights: by the module's own names; what is used is taken out, so that it can be freed once it is copied.
        place: what the module is and where it came from, for messages: "The unet in FILE".
        device: ``meta`` leaves the module without values, its weights checked all the same.

    Raises:
        ModelError: weights are missing, or not of the module's shapes.
    """
    try:
        with silenced_libraries(), torch.device("meta"):
            module = make()
    except Exception as error:  # the libraries raise errors of many families for configurations that make no sense
        raise cannot_be_loaded(place, error) from error
    rename: Any = getattr(module, "_fix_state_dict_keys_on_load", None)
    if rename is not None:
        rename(weights)  # diffusers' own, for names of 2022
    expected = module.state_dict()
    _check(expected, weights, place)
    own = {name: _own(weights.pop(name), device, dtype) for name in expected}
    module.load_state_dict(own, strict=False, assign=True)
    if torch.device(device).type != "meta":
        _fill_buffers(module, device)
    return module.eval()


def clip_text_config(values: Mapping[str, Any], place: str) -> Any:
    """transformers' CLIPTextConfig; ModelError where ``values`` make no sense."""
    try:
        with silenced_libraries():
            return CLIPTextConfig.from_dict(dict(values))
    except Exception as error:  # whatever the library finds wrong with it
        raise cannot_be_loaded(place, error) from error


def cannot_be_loaded(place: str, error: Exception) -> ModelError:
    """The sentence for a library's own error."""
    reason = foreign((str(error).strip() or type(error).__name__).splitlines()[0])
    return ModelError(f"{place} cannot be loaded; copy it again. The cause: {reason}.")


def _check(expected: Mapping[str, Tensor], weights: Mapping[str, Tensor], place: str) -> None:
    missing = sorted(set(expected) - set(weights))
    if missing:
        raise ModelError(f"{place} lacks {len(missing)} weights, for example {missing[0]}; copy it again.")
    for name, tensor in expected.items():
        given = weights[name]
        if given.shape != tensor.shape:
            raise wrong_shape(place, name, tuple(given.shape), tuple(tensor.shape))
        if not given.is_floating_point():
            raise ModelError(f"{place} cannot be loaded: its weight {name} holds {given.dtype}, not real numbers.")


def _own(weight: Tensor, device: torch.device | str, dtype: torch.dtype) -> Tensor:
    """A copy, so that a file that is written anew later does not change the model."""
    return weight.to(device=device, dtype=dtype, copy=True).contiguous()


def _fill_buffers(module: nn.Module, device: torch.device | str) -> None:
    """Makes what is no weight and stands in no file: numbers of positions."""
    for owner in module.modules():
        for name, buffer in owner.named_buffers(recurse=False):
            if buffer.is_meta and name == "position_ids":
                owner.register_buffer(name, torch.arange(buffer.shape[-1], device=device)[None], persistent=False)
    empty = [name for name, tensor in [*module.named_parameters(), *module.named_buffers()] if tensor.is_meta]
    if empty:
        raise ModelError(
            f"The part {empty[0]} of a {type(module).__name__} has no values; this is a fault of Tincture."
        )
