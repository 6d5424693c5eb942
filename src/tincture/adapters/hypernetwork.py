"""Hypernetworks: pairs of small residual networks in front of the keys and values of every attention.

Shapes: contexts are (B, tokens, width). A context is what an attention makes its keys and values from: the text's
hidden states in cross-attention, the layer's own normalised input in self-attention. Behaviour and file format are the
stable-diffusion-webui's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from tincture.adapters.adapter import Adapter
from tincture.adapters.hypernetwork_module import HypernetworkModule
from tincture.errors import FileFormatError, ModelError, UsageError
from tincture.formats.hypernetwork_file import HypernetworkFile, read_hypernetwork_file, write_hypernetwork_file
from tincture.formats.hypernetwork_states import State
from tincture.kinds.layer_structure import check_sizes, legacy_dropout_structure, numbers
from tincture.models.attention import projections
from tincture.models.families import FAMILIES
from tincture.randomness import torch_generator

if TYPE_CHECKING:
    from tincture.models.diffusion_model import DiffusionModel

SD1_WIDTHS = (768, 320, 640, 1280)


class Hypernetwork(Adapter):
    """One pair of ``HypernetworkModule`` (for keys, for values) per context width; an ``Adapter``.

    A new or loaded one is in eval mode, with all parameters float32 and open to gradients.

    Args:
        name: what prompts and files call it.
        sizes: the context widths it acts on.
        layer_structure: see ``HypernetworkModule``; so are the next five.
        activation_func: see ``layer_structure.ACTIVATIONS``.
        weight_init: see ``layer_structure.WEIGHT_INITS``.
        add_layer_norm: normalise after every step.
        activate_output: activation after the last Linear too.
        dropout_structure: None means none, or with ``use_dropout`` the format's legacy rule (0.3 after inner layers).
        use_dropout: counts only without a ``dropout_structure``.
        last_layer_dropout: whether the legacy rule includes the last inner layer.
        seed: of the first weights; equal seeds give equal weights, and the global random state is not touched.
        states: by width, weights (K, V) to take over instead; their widths take the place of ``sizes``.
        step: optimizer steps trained so far.
        model_name: the model trained on.
        model_hash: first 10 hex digits of its hash.
        optional_info: free text that the file format carries.
        provenance: JSON values about how it was made.

    Attributes:
        pairs: by context width, the modules (K, V).

    Raises:
        UsageError: a value that is not allowed.
    """

    kind: str = "hypernetwork"
    trains_text: bool = False

    def __init__(
        self,
        name: str,
        sizes: Sequence[int] = SD1_WIDTHS,
        layer_structure: Sequence[float] = (1, 2, 1),
        activation_func: str | None = None,
        weight_init: str = "Normal",
        add_layer_norm: bool = False,
        activate_output: bool = False,
        dropout_structure: Sequence[float] | None = None,
        *,
        use_dropout: bool = False,
        last_layer_dropout: bool = True,
        seed: int = 0,
        states: Mapping[int, tuple[State, State]] | None = None,
        step: int = 0,
        model_name: str = "",
        model_hash: str = "",
        optional_info: str | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        if dropout_structure is None and use_dropout:
            dropout_structure = legacy_dropout_structure(layer_structure, last_layer_dropout)
        self.name = name
        self.sizes = check_sizes(sizes if states is None else list(states))
        self.layer_structure = list(layer_structure)
        self.activation_func = activation_func
        self.weight_init = weight_init
        self.add_layer_norm = add_layer_norm
        self.activate_output = activate_output
        self.dropout_structure = list(dropout_structure or [0] * len(self.layer_structure))
        self.step = step
        self.model_name = model_name
        self.model_hash = model_hash
        self.optional_info = optional_info
        self.provenance = dict(provenance or {})
        generator = torch_generator(seed)
        self.pairs: dict[int, tuple[HypernetworkModule, HypernetworkModule]] = {}
        for width in self.sizes:
            k, v = (None, None) if states is None else states[width]
            self.pairs[width] = self._module(width, k, generator), self._module(width, v, generator)
        self._network = nn.ModuleDict({str(width): nn.ModuleList(pair) for width, pair in self.pairs.items()})
        self.train(False)

    @classmethod
    def create(
        cls,
        name: str,
        model: Callable[[], DiffusionModel],
        *,
        sizes: Sequence[int] | str | None = None,
        **options: Any,
    ) -> Hypernetwork:
        """A new one; ``options`` are those of ``create_hypernetwork``.

        Args:
            model: is asked only where no sizes are given, for all of its context widths.
            sizes: context widths, or the name of a family for all of its widths.

        Raises:
            UsageError: a value that is not allowed, or no such family.
        """
        if sizes:
            return create_hypernetwork(name, _family_widths(sizes) if isinstance(sizes, str) else sizes, **options)
        base = model()
        made = create_hypernetwork(name, base.context_widths(), **options)
        made.model_name, made.model_hash = base.name, base.hash
        return made

    def _module(self, width: int, state: State | None, generator: torch.Generator) -> HypernetworkModule:
        return HypernetworkModule(
            width,
            state,
            layer_structure=self.layer_structure,
            activation_func=self.activation_func,
            weight_init=self.weight_init,
            add_layer_norm=self.add_layer_norm,
            activate_output=self.activate_output,
            dropout_structure=self.dropout_structure,
            generator=generator,
        )

    # --- acting ------------------------------------------------------------------------------------------------------

    def transform(self, context: Tensor, multiplier: float = 1.0) -> tuple[Tensor, Tensor]:
        """The contexts for keys and for values, both of the shape and dtype of ``context`` (B, tokens, width).

        A context whose width has no pair comes back as it is. In training mode the multiplier counts as 1.
        """
        pair = self.pairs.get(context.shape[-1])
        if pair is None:
            return context, context
        k, v = pair
        return k(context, multiplier), v(context, multiplier)

    @contextmanager
    def attach(self, model: DiffusionModel | nn.Module, multiplier: float = 1.0) -> Iterator[None]:
        """Acts on every attention of ``model`` (or of a diffusers U-Net) whose context width has a pair.

        Inside the context only; weights and state dict of the model never change. It moves itself to the U-Net's
        device, works with a U-Net in half precision, and stacks: each one transforms what those attached before left.

        Raises:
            ModelError: it does not fit the model, see ``require_fit``, or no context width of the U-Net has a pair, or
                its key and value projections are fused, which would pass the hypernetwork by in silence.
        """
        if not isinstance(model, nn.Module):
            self.require_fit(model)
            denoiser, attentions, device = model.denoiser, model.projections(), model.device
        else:
            denoiser, attentions, device = model, projections(model), next(model.parameters()).device
        widths = {attention.context_width for attention in attentions}
        if widths.isdisjoint(self.pairs):
            raise ModelError(
                f"Hypernetwork {self.name!r} has layers for the widths {_listed(self.pairs)}, but the attentions of "
                f"this model take {_listed(widths) or 'none'}; choose one made for this kind of model."
            )
        self.to(device)
        with ExitStack() as hooks:
            shared = _TextContext(self, multiplier, _text_context(denoiser))
            hooks.callback(denoiser.register_forward_pre_hook(shared.before, with_kwargs=True).remove)
            for attention in attentions:
                pair = self.pairs.get(attention.context_width)
                for projection, module in zip(attention, pair or (), strict=False):
                    handle = projection.register_forward_pre_hook(_pre_hook(module, multiplier, shared))
                    hooks.callback(handle.remove)
            yield

    def require_fit(self, model: DiffusionModel) -> None:
        """Makes sure that it was made for models of this family.

        Families share widths of self-attention, so a common width alone says nothing: one that has layers for widths
        which the model lacks, and none for its text, was made for another.

        Raises:
            ModelError: it was not.
        """
        widths, own = model.context_widths(), set(self.pairs)
        if own.isdisjoint(widths) or (model.text_width not in own and not own.issubset(widths)):
            raise ModelError(
                f"Hypernetwork {self.name!r} has layers for the widths {_listed(own)}, but the attentions of "
                f"{model.called} ({model.family.title}) take {_listed(widths)}, of which {model.text_width} is the "
                "text's; choose one made for this kind of model, or name the model that it was made for (--model)."
            )

    # --- training ----------------------------------------------------------------------------------------------------

    def parameters(self) -> list[nn.Parameter]:
        """All weights, by width in the order of ``sizes``, K before V; float32."""
        return list(self._network.parameters())

    def biases_and_norms(self) -> Mapping[str, Sequence[nn.Parameter]]:
        """Biases of linear layers; both weights and biases of layer norms."""
        norms = [
            each for part in self._network.modules() if isinstance(part, nn.LayerNorm) for each in part.parameters()
        ]
        of_norms = {id(each) for each in norms}
        return {
            "bias": [each for each in self.parameters() if each.ndim == 1 and id(each) not in of_norms],
            "norm": norms,
        }

    def train(self, mode: bool = True) -> Self:
        """Turns dropout on and makes every multiplier count as 1, or back."""
        self._network.train(mode)
        return self

    def to(self, device: torch.device | str) -> Self:
        """Moves the parameters, which stay the same objects; what is there already is not touched."""
        # modules cannot be moved in a rehearsal, where tensors hold nothing
        if any(parameter.device != torch.device(device) for parameter in self._network.parameters()):
            self._network.to(device)
        return self

    def state_dict(self) -> dict[str, Tensor]:
        """All weights by the names ``WIDTH.0.linear.N.weight`` (0 for K, 1 for V), not copied."""
        return dict(self._network.state_dict())

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copies the values of ``state_dict`` into the parameters.

        Raises:
            FileFormatError: names or shapes differ.
        """
        try:
            self._network.load_state_dict(state)
        except RuntimeError as error:
            raise FileFormatError(f"The saved weights do not fit hypernetwork {self.name!r}: {error}.") from error

    def webui_settings(self) -> dict[str, Any]:
        """Its structure."""
        return {
            "layer_structure": list(self.layer_structure),
            "activation_func": self.activation_func,
            "weight_init": self.weight_init,
            "add_layer_norm": self.add_layer_norm,
            "use_dropout": any(self.dropout_structure),
        }

    # --- files -------------------------------------------------------------------------------------------------------

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        model_name: str = "",
        model_hash: str = "",
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes the webui's ``.pt``, whole or not at all; what is not given stays as it was known.

        A ``path`` that ends in ``.safetensors`` gets our safetensors layout instead (docs/files.md).

        Raises:
            StorageError: a full disk, no permission.
        """
        file = HypernetworkFile(
            states={width: (k.state_dict(), v.state_dict()) for width, (k, v) in self.pairs.items()},
            name=self.name,
            step=self.step,
            layer_structure=self.layer_structure,
            activation_func=self.activation_func,
            weight_init=self.weight_init,
            add_layer_norm=self.add_layer_norm,
            activate_output=self.activate_output,
            use_dropout=any(self.dropout_structure),
            dropout_structure=self.dropout_structure,
            last_layer_dropout=self.dropout_structure[-2] > 0,
            model_name=model_name or self.model_name,
            model_hash=model_hash or self.model_hash,
            optional_info=self.optional_info,
            provenance=dict(self.provenance if provenance is None else provenance),
        )
        write_hypernetwork_file(path, file)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Reads a webui ``.pt``, those of 2022 included, or our safetensors layout, onto the CPU; code is never run.

        Raises:
            FileFormatError: no such file, damaged, no hypernetwork, or weights that do not fit its description.
            StorageError: the system refuses to read it.
        """
        file = read_hypernetwork_file(path)
        try:
            return cls(
                file.name,
                layer_structure=file.layer_structure,
                activation_func=file.activation_func,
                weight_init=file.weight_init,
                add_layer_norm=file.add_layer_norm,
                activate_output=file.activate_output,
                dropout_structure=file.dropout_structure,
                use_dropout=file.use_dropout,
                last_layer_dropout=file.last_layer_dropout,
                states={width: (_float32(k), _float32(v)) for width, (k, v) in file.states.items()},
                step=file.step,
                model_name=file.model_name,
                model_hash=file.model_hash,
                optional_info=file.optional_info,
                provenance=file.provenance,
            )
        except UsageError as error:
            raise FileFormatError(f"{os.fspath(path)} cannot be used: {error}") from error
        except RuntimeError as error:
            named = re.search(r'"([\w.]{1,100})"', str(error))  # the first weight that torch finds missing or too much
            example = f", for example {named[1]}" if named else ""
            raise FileFormatError(
                f"{os.fspath(path)} is damaged: its weights do not fit its description{example}."
            ) from error


def create_hypernetwork(
    name: str,
    sizes: Sequence[int] = SD1_WIDTHS,
    layer_structure: Sequence[float] | str = (1, 2, 1),
    activation_func: str | None = None,
    weight_init: str = "Normal",
    add_layer_norm: bool = False,
    activate_output: bool = False,
    dropout_structure: Sequence[float] | str | None = None,
    use_dropout: bool = False,
    seed: int = 0,
) -> Hypernetwork:
    """A new hypernetwork; structures may also be texts such as ``"1, 2, 1"``. See ``Hypernetwork``.

    Raises:
        UsageError: a value that is not allowed.
    """
    return Hypernetwork(
        name,
        sizes,
        numbers("layer structure", layer_structure),
        activation_func,
        weight_init,
        add_layer_norm,
        activate_output,
        None if dropout_structure in (None, "") else numbers("dropout structure", dropout_structure),
        use_dropout=use_dropout,
        seed=seed,
    )


def _family_widths(family: str) -> Sequence[int]:
    if family not in FAMILIES:
        raise UsageError(f"There is no family {family!r} to take the sizes of; known are {', '.join(FAMILIES)}.")
    return FAMILIES[family].context_widths


class _TextContext:
    """The text context transformed once per call of the U-Net, for all cross-attentions that are given it.

    They all have the same input and the same pair, so the result is the same too. It is made before the U-Net runs and
    kept until its next call, since gradient checkpointing asks for it again in the backward pass. With dropout at work
    every attention draws its own, so nothing is shared then, nor behind a hypernetwork that shares nothing.
    """

    def __init__(self, hypernetwork: Hypernetwork, multiplier: float, below: _TextContext | None) -> None:
        self._hypernetwork, self._multiplier, self._below = hypernetwork, multiplier, below
        self._made: dict[HypernetworkModule, tuple[Tensor, Tensor]] = {}
        self.contexts: tuple[Tensor, Tensor] | None = None
        """For keys and values; None when they are not shared."""

    def before(self, denoiser: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        text = kwargs.get("encoder_hidden_states", args[2] if len(args) > 2 else None)
        self._made, self.contexts = {}, (text, text) if isinstance(text, Tensor) else None
        if self._below is not None:
            self.contexts = self._below.contexts
        pair = None if self.contexts is None else self._hypernetwork.pairs.get(self.contexts[0].shape[-1])
        if self.contexts is None or pair is None:
            return
        if any(self._hypernetwork.dropout_structure) and any(module.training for module in pair):
            self.contexts = None
            return
        for module, source in zip(pair, self.contexts, strict=True):
            self._made[module] = source, module(source, self._multiplier)
        self.contexts = self._made[pair[0]][1], self._made[pair[1]][1]

    def get(self, context: Tensor, module: HypernetworkModule) -> Tensor | None:
        """What ``module`` makes of ``context``, if that is the text context that the U-Net's attentions are given."""
        source, made = self._made.get(module, (None, None))
        return made if context is source else None


def _text_context(denoiser: nn.Module) -> _TextContext | None:
    """That of the hypernetwork attached last."""
    owners = [getattr(hook, "__self__", None) for hook in denoiser._forward_pre_hooks.values()]
    return next((owner for owner in reversed(owners) if isinstance(owner, _TextContext)), None)


def _pre_hook(
    module: HypernetworkModule, multiplier: float, shared: _TextContext
) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    def transform_input(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        known = shared.get(args[0], module)
        return (module(args[0], multiplier) if known is None else known, *args[1:])

    return transform_input


def _listed(widths: Iterable[int]) -> str:
    return ", ".join(str(width) for width in sorted(widths))


def _float32(state: State) -> State:
    return {key: tensor.float() for key, tensor in state.items()}
