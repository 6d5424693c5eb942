"""The rules for a hypernetwork's structure, as the webui's files state them; the names that it is made of."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence

from tincture.errors import UsageError

WEIGHT_INITS = ("Normal", "XavierUniform", "XavierNormal", "KaimingUniform", "KaimingNormal")
ACTIVATIONS = (
    *("linear", "relu", "leakyrelu", "elu", "swish", "tanh", "sigmoid"),
    *("celu", "gelu", "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "logsigmoid", "logsoftmax", "mish"),
    *("prelu", "relu6", "rrelu", "selu", "silu", "softmax", "softmax2d", "softmin", "softplus", "softshrink"),
    *("softsign", "tanhshrink"),
)
"""``linear`` (none), ``swish``, which is Hardswish, and torch's activations that need no arguments."""


def numbers(what: str, values: Sequence[float] | str) -> list[float]:
    """A structure given as numbers or as a text such as ``"1, 2, 1"``.

    Raises:
        UsageError: a part of the text is not a number.
    """
    if not isinstance(values, str):
        return list(values)
    try:
        return [float(part) for part in values.split(",")]
    except ValueError:
        raise UsageError(f"The {what} {values!r} is not a list of numbers; write it like 1, 2, 1.") from None


def check_layer_structure(layer_structure: Sequence[float]) -> None:
    """Raises UsageError unless the structure has two or more positive factors of which the first and last are 1."""
    allowed = "two or more positive factors are needed, the first and the last 1, such as 1, 2, 1"
    if len(layer_structure) < 2 or layer_structure[0] != 1 or layer_structure[-1] != 1:
        raise UsageError(f"The layer structure {list(layer_structure)} is not allowed; {allowed}.")
    if not all(0 < factor < math.inf for factor in layer_structure):
        raise UsageError(f"The layer structure {list(layer_structure)} is not allowed; {allowed}.")


def check_dropout_structure(dropout_structure: Sequence[float], layer_structure: Sequence[float]) -> None:
    """Raises UsageError unless there is one probability in [0, 1) per entry of the layer structure."""
    if len(dropout_structure) != len(layer_structure):
        raise UsageError(
            f"The dropout structure {list(dropout_structure)} has {len(dropout_structure)} values; it needs as many as "
            f"the layer structure {list(layer_structure)} has, {len(layer_structure)}."
        )
    for probability in dropout_structure:
        if not 0 <= probability < 1:
            raise UsageError(f"The dropout probability {probability} is not allowed; it is 0 or more and less than 1.")


def legacy_dropout_structure(layer_structure: Sequence[float], last_layer_dropout: bool) -> list[float]:
    """What ``use_dropout`` means in a file without a dropout structure.

    0.3 after the inner layers; after the last of them only when ``last_layer_dropout``.
    """
    structure = [0.0] * len(layer_structure)
    last = len(layer_structure) - 2
    for i in range(1, last + 1):
        structure[i] = 0.3 if i < last or last_layer_dropout else 0.0
    return structure


def layer_widths(dim: int, layer_structure: Sequence[float]) -> list[int]:
    """The widths of a module's layers: ``dim`` times each factor, cut to a whole number.

    Raises:
        UsageError: a width below 1 or beyond any matrix.
    """
    widths = [dim * factor for factor in layer_structure]
    if not all(1 <= width < 2**31 for width in widths):
        raise UsageError(
            f"The layer structure {list(layer_structure)} is not possible at width {dim}: layers of "
            f"{min(widths):g} to {max(widths):g} units would result; 1 to 2147483647 are."
        )
    return [int(width) for width in widths]


def check_sizes(sizes: Sequence[int]) -> list[int]:
    """Raises UsageError unless ``sizes`` are one or more different context widths of at least 1."""
    if not sizes or len(set(sizes)) < len(sizes) or min(sizes) < 1:
        raise UsageError(
            f"The sizes {list(sizes)} are not allowed; one or more different context widths are needed, "
            f"such as 768, 320, 640, 1280 for Stable Diffusion 1."
        )
    return list(sizes)


def check_activation(name: str | None) -> None:
    """Raises UsageError for a name that is none of ``ACTIVATIONS``; None is ``linear``."""
    if name is not None and name not in ACTIVATIONS:
        near = difflib.get_close_matches(name.lower(), ACTIVATIONS, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"allowed are {', '.join(sorted(ACTIVATIONS))}."
        raise UsageError(f"The activation {name!r} is unknown; {hint}")


def check_weight_init(name: str) -> None:
    """Raises UsageError for a name that is none of ``WEIGHT_INITS``."""
    if name not in WEIGHT_INITS:
        raise UsageError(f"The weight_init {name!r} is unknown; allowed are {', '.join(WEIGHT_INITS)}.")
