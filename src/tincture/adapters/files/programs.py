"""In which programs a hypernetwork acts as it does here: from its structure, norm, dropout and activation together.

The rules are those of the programs' own loaders (docs/files.md lists them). The webui builds the layers from the file's
structures; Tincture does the same. ComfyUI builds them from the order of the tensors, which has consequences:

- with layer norms it takes no layer for the last one, so the activation follows the last one too;
- a missing ``activate_output`` means no there, and yes in the webui;
- where the file says ``use_dropout``, its layers drop out while pictures are drawn.

Forge is not among them: hypernetworks are reported not to act there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tincture.formats.contents import Contents
from tincture.formats.hypernetwork_file import HypernetworkFile, as_written
from tincture.formats.hypernetwork_states import context_width_of

_COMFYUI_ACTIVATIONS = ("linear", "relu", "leakyrelu", "elu", "swish", "tanh", "sigmoid", "softsign", "mish")


def acts_the_same_in(file: HypernetworkFile, found: Contents) -> list[str]:
    """The programs in which the hypernetwork ``file``, read from ``found``, acts as it does here."""
    if found.container == "safetensors":
        return ["Tincture"]
    webui = not found.refused_entries and not any(_of_keys(found.values))
    comfyui = not any(comfyui_differences(file, found.values))
    return [*(["webui"] if webui else []), *(["ComfyUI"] if comfyui else []), "Tincture"]


def comfyui_differences(file: HypernetworkFile, stated: Mapping[Any, Any] | None = None) -> Iterator[str]:
    """Why ``file`` acts otherwise in ComfyUI, as sentences.

    Args:
        file: the hypernetwork.
        stated: the dict in its ``.pt``; None for the one that Tincture writes.
    """
    rewriting = "" if stated is None else " Convert it to pt to write it anew."
    stated = as_written(file) if stated is None else stated
    activation = stated.get("activation_func", "linear")
    yield from _of_keys(stated)
    if activation is None:
        yield f"ComfyUI refuses it, since its activation is None and not 'linear'.{rewriting}"
        return
    if activation not in _COMFYUI_ACTIVATIONS:
        yield f"ComfyUI does not know the activation {activation!r}."
        return
    activates_last = file.add_layer_norm or bool(stated.get("activate_output", False))
    if activation != "linear" and activates_last != file.activate_output:
        yield _ACTIVATION.format(rewriting) if file.activate_output else _NORM
    if stated.get("use_dropout") and _drops_out(file):
        yield f"In ComfyUI it drops out while pictures are drawn, since it says use_dropout.{rewriting}"


_ACTIVATION = "In ComfyUI the activation does not follow its last layer, since it does not say activate_output.{}"
_NORM = (
    "In ComfyUI it acts otherwise: with layer norms the activation follows the last layer there too. One made with "
    "activate_output acts the same."
)


def _of_keys(stated: Mapping[Any, Any]) -> Iterator[str]:
    if any(isinstance(key, str) and context_width_of(key) is not None for key in stated):
        yield (
            "Its widths are texts, not whole numbers: the webui passes its layers over, and ComfyUI cannot load it. "
            "Convert it to pt to write it anew."
        )


def _drops_out(file: HypernetworkFile) -> bool:
    """Whether ComfyUI puts a dropout of 0.3 anywhere: it finds the last layers by counting all tensors' owners."""
    layers = len(file.layer_structure) - 1
    if file.add_layer_norm:
        return layers > 1 or file.last_layer_dropout
    return layers > 2 or (layers == 2 and file.last_layer_dropout)
