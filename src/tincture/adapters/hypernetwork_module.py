"""One residual network of a hypernetwork.

Layers, their order, names and initial values are the stable-diffusion-webui's, so that its files fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from tincture.kinds.layer_structure import (
    check_activation,
    check_dropout_structure,
    check_layer_structure,
    check_weight_init,
    layer_widths,
)

# "swish" is Hardswish in the format; torch's own name for x * sigmoid(x) is "silu".
_ALIASES = {"swish": "hardswish"}


def build_activation(name: str | None) -> nn.Module | None:
    """A fresh activation layer, None for ``linear`` and None.

    Raises:
        UsageError: an unknown name.
    """
    check_activation(name)
    if name is None or name == "linear":
        return None
    module = nn.modules.activation
    classes: dict[str, type[nn.Module]] = {each.lower(): getattr(module, each) for each in module.__all__}
    kind = classes[_ALIASES.get(name, name)]
    # The softmax family's default for (B, tokens, width) is dimension 0; saying so avoids torch's warning.
    return kind(dim=0) if kind in (nn.Softmax, nn.Softmin, nn.LogSoftmax) else kind()


class HypernetworkModule(nn.Module):
    """One residual network: ``x + linear(x) * multiplier``, shape (B, tokens, dim) in and out.

    ``linear`` holds, for each step of the layer structure, a Linear; the activation, except after the last Linear
    unless ``activate_output``; a LayerNorm if ``add_layer_norm``; a Dropout where its probability is above 0.

    Args:
        dim: the context width.
        state_dict: tensors to take as the weights, not copied, instead of drawing new ones.
        layer_structure: widths as factors of ``dim``, cut to whole numbers; the first and last are 1.
        activation_func: one of ``layer_structure.ACTIVATIONS``, or None for none.
        weight_init: one of ``WEIGHT_INITS``. ``Normal`` has a standard deviation of 0.01, which LayerNorm weights
            always have; biases are 0.
        add_layer_norm: normalise after every step, the last included.
        activate_output: activation after the last Linear too.
        dropout_structure: probabilities; entry i + 1 belongs to step i, so the first counts for nothing. None: none.
        generator: draws the weights, on the CPU; None seeds one with 0.

    Raises:
        UsageError: a value that is not allowed.
    """

    def __init__(
        self,
        dim: int,
        state_dict: Mapping[str, Tensor] | None = None,
        *,
        layer_structure: Sequence[float] = (1, 2, 1),
        activation_func: str | None = None,
        weight_init: str = "Normal",
        add_layer_norm: bool = False,
        activate_output: bool = False,
        dropout_structure: Sequence[float] | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_layer_structure(layer_structure)
        dropout_structure = dropout_structure or [0.0] * len(layer_structure)
        check_dropout_structure(dropout_structure, layer_structure)
        check_weight_init(weight_init)
        self.linear = layers_on_meta(
            layer_widths(dim, layer_structure), activation_func, add_layer_norm, activate_output, dropout_structure
        )
        if state_dict is not None:
            self.load_state_dict(state_dict, assign=True)
        else:
            self.to_empty(device="cpu")
            _draw_weights(self.linear, weight_init, activation_func, generator or torch.Generator().manual_seed(0))

    def forward(self, x: Tensor, multiplier: float = 1.0) -> Tensor:
        """``x`` (B, tokens, dim) transformed, in the precision of ``x``.

        In training mode the multiplier counts as 1, as in the webui. A half-precision ``x`` meets the float32 weights
        in half-precision products.
        """
        if x.dtype in (torch.bfloat16, torch.float16):
            # No cache of cast weights: one made without gradients must not serve a later pass with them.
            with torch.autocast(x.device.type, x.dtype, cache_enabled=False):
                return self._residual(x, multiplier).to(x.dtype)
        return self._residual(x, multiplier)

    def _residual(self, x: Tensor, multiplier: float) -> Tensor:
        y: Tensor = self.linear(x)
        return x + (y if self.training else y * multiplier)


def layers_on_meta(
    widths: Sequence[int],
    activation_func: str | None,
    add_layer_norm: bool,
    activate_output: bool,
    dropout_structure: Sequence[float],
) -> nn.Sequential:
    """The layers of a module without values, by the names that files have; see ``HypernetworkModule``.

    Layers made on the meta device draw no weights, so the global random state stays as it is.

    Args:
        widths: in units, the context's first and last.
    """
    steps = len(widths) - 1
    layers: list[nn.Module] = []
    with torch.device("meta"):
        for i in range(steps):
            layers.append(nn.Linear(widths[i], widths[i + 1]))
            activation = build_activation(activation_func)
            if activation is not None and (activate_output or i < steps - 1):
                layers.append(activation)
            if add_layer_norm:
                layers.append(nn.LayerNorm(widths[i + 1]))
            if dropout_structure[i + 1] > 0:
                layers.append(nn.Dropout(dropout_structure[i + 1]))
    return nn.Sequential(*layers)


def _draw_weights(
    layers: nn.Sequential, weight_init: str, activation_func: str | None, generator: torch.Generator
) -> None:
    nonlinearity: Literal["leaky_relu", "relu"] = "leaky_relu" if activation_func == "leakyrelu" else "relu"
    for layer in layers:
        if isinstance(layer, nn.PReLU):
            layer.reset_parameters()
        if not isinstance(layer, nn.Linear | nn.LayerNorm):
            continue
        nn.init.zeros_(layer.bias)
        if weight_init == "Normal" or isinstance(layer, nn.LayerNorm):
            nn.init.normal_(layer.weight, std=0.01, generator=generator)
        elif weight_init == "XavierUniform":
            nn.init.xavier_uniform_(layer.weight, generator=generator)
        elif weight_init == "XavierNormal":
            nn.init.xavier_normal_(layer.weight, generator=generator)
        elif weight_init == "KaimingUniform":
            nn.init.kaiming_uniform_(layer.weight, nonlinearity=nonlinearity, generator=generator)
        else:
            nn.init.kaiming_normal_(layer.weight, nonlinearity=nonlinearity, generator=generator)
