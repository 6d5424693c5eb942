"""What the trainer, adapters, data and sampling ask of a model, whatever its family.

A model is a frozen denoiser between a text side, which reads prompts, and a VAE, with the noise process that it was
taught. ``StableDiffusion`` is one; nothing outside ``models/`` names it as a type, or asks what its parts are made of.

Shapes: B pictures or prompts, H x W pixels, h x w latent rows and columns of ``vae_scale_factor`` pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from tincture.models.attention import KeyValue
    from tincture.models.conditions import Conditions
    from tincture.models.families import Family
    from tincture.models.noise_process import NoiseProcess
    from tincture.models.placement import Placement
    from tincture.models.tokens import Placeholder

T = TypeVar("T")


class Vocabulary(Protocol):
    """How prompts are read, as far as names of embeddings go; equal where they are read alike."""

    def spellings(self, names: Sequence[str]) -> list[tuple[Any, ...]]:
        """What stands for each name in a prompt: equal for equal names, empty where no prompt can hold it."""
        ...

    def finder(self, named: Iterable[tuple[tuple[Any, ...], T]]) -> Callable[[Iterable[str]], list[T]]:
        """A function that tells what the names in prompts mean, in their order and as often as they stand there.

        Args:
            named: the spelling of each name, and what it means.
        """
        ...


class TextSide(Protocol):
    """What reads prompts: all that knows of token ids."""

    @property
    def widths(self) -> Mapping[str, int]:
        """By text encoder name, the width of its vectors: what an embedding must have."""
        ...

    @property
    def layers(self) -> int:
        """How many layers ``clip_skip`` may count, at least 1."""
        ...

    @property
    def max_vectors(self) -> int:
        """How many vectors an embedding may have."""
        ...

    @property
    def vocabulary(self) -> Vocabulary:
        """How names are found in prompts; keeps no weights alive."""
        ...

    def token_embeddings(self, text: str) -> dict[str, Tensor]:
        """By text encoder name, copies of its vectors for the tokens of ``text``: (tokens, width)."""
        ...

    def tokens_of(self, text: str) -> list[str]:
        """The tokens of ``text`` as people read them, as many as ``token_embeddings`` has rows of it."""
        ...

    def token_norms(self) -> Mapping[str, float]:
        """By text encoder name, the mean norm of its vectors of all tokens."""
        ...

    def attach(self, placeholder: Placeholder) -> AbstractContextManager[None]:
        """Inside the context prompts have the vectors of ``placeholder``, with gradients, where its name stands.

        Raises:
            ModelError: it is attached already.
        """
        ...

    def positions(self, prompts: Sequence[str], placeholder: Placeholder) -> Tensor:
        """Where in the hidden states of ``prompts`` the vectors of an attached placeholder stand.

        (B, tokens) bool on the CPU.
        """
        ...

    def lengths(self, prompts: Sequence[str]) -> list[int]:
        """How many tokens the hidden states of each prompt have when it is encoded alone."""
        ...

    def join(self, parts: Sequence[Conditions], empty: Callable[[], Conditions]) -> Conditions:
        """Conditions that were encoded one by one, as a batch: shorter ones are made as long as the longest.

        Args:
            parts: of a prompt each.
            empty: gives those of the empty prompt; asked only where they are needed.
        """
        ...


class DiffusionModel(Protocol):
    """A frozen base model: nothing requires a gradient, everything is in ``eval()`` mode, no weight is ever written."""

    # --- what it is --------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """What files and pictures call it."""
        ...

    @property
    def hash(self) -> str:
        """First 10 hex digits of a sha256 of its weights, "" when unknown."""
        ...

    @property
    def family(self) -> Family:
        """What anatomy it is of."""
        ...

    @property
    def architecture(self) -> str:
        """Its kind in the metadata standard modelspec."""
        ...

    @property
    def called(self) -> str:
        """The model as messages name it: "the model 'picto'"."""
        ...

    @property
    def predicts(self) -> str:
        """What its denoiser predicts and who says so, in words."""
        ...

    @property
    def is_inpainting(self) -> bool:
        """Whether its denoiser also wants a mask and a masked picture."""
        ...

    @property
    def guidance_scale(self) -> float:
        """What pictures are drawn with when nothing else is asked for."""
        ...

    def describe(self) -> str:
        """The model in one line."""
        ...

    def overrides(self) -> dict[str, Any]:
        """What was found out about it, as settings of a run: with them it is loaded alike again."""
        ...

    # --- its parts ---------------------------------------------------------------------------------------------------

    @property
    def denoiser(self) -> nn.Module:
        """The network that adapters act on: a U-Net, or a transformer."""
        ...

    @property
    def text(self) -> TextSide:
        """What reads prompts."""
        ...

    @property
    def noise_process(self) -> NoiseProcess:
        """How noise comes into latents."""
        ...

    @property
    def placement(self) -> Placement:
        """Which parts lie on the device."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Precision of denoiser and text encoders; the VAE is float32."""
        ...

    def to(self, device: torch.device | str, dtype: torch.dtype = ...) -> Self:
        """Moves the model and casts it; returns itself."""
        ...

    def projections(self) -> list[KeyValue]:
        """Where its attentions make their keys and values.

        Raises:
            ModelError: they cannot be hooked.
        """
        ...

    def cross_attentions(self) -> list[nn.Module]:
        """The attentions that look at the text.

        Raises:
            ModelError: there are none, or they cannot be hooked.
        """
        ...

    def context_widths(self) -> list[int]:
        """The distinct widths of what keys and values are made from, ascending."""
        ...

    def rebuilt(self, copy: Callable[[nn.Module, torch.dtype], Any], dtype: torch.dtype) -> Self:
        """A model of the same anatomy, its modules being what ``copy`` makes of each in a precision.

        Args:
            dtype: of denoiser and text encoders.
        """
        ...

    # --- memory ------------------------------------------------------------------------------------------------------

    @property
    def slicing(self) -> bool:
        """Whether ``enable_slicing`` was called."""
        ...

    def enable_slicing(self) -> None:
        """Sends pictures through the VAE one at a time, and large ones in tiles."""
        ...

    def enable_gradient_checkpointing(self) -> None:
        """Recomputes the denoiser's activations in the backward pass."""
        ...

    def disable_gradient_checkpointing(self) -> None:
        """Keeps activations again."""
        ...

    def store_in_float8(self, by: torch.device | str | None = None) -> None:
        """Keeps the denoiser's weights in eight bits from now on, rounded by the device ``by``."""
        ...

    def speed_up_convolutions(self) -> None:
        """Spends some memory so that the denoiser takes less time on a processor in float32, where it has a way to.

        Results may differ in their last bits.
        """
        ...

    # --- text --------------------------------------------------------------------------------------------------------

    @property
    def text_width(self) -> int:
        """Width of the hidden states."""
        ...

    def encode_prompts(self, prompts: Sequence[str], clip_skip: int = 1, at_least: int = 0) -> Conditions:
        """What the denoiser is told of B prompts; gradients reach what is attached.

        Args:
            prompts: B texts.
            clip_skip: 1..``text.layers``.
            at_least: so many tokens even if all prompts are shorter.
        """
        ...

    def encode_negative_prompt(self, prompt: str, clip_skip: int = 1, at_least: int = 0) -> Conditions:
        """What pictures shall be led away from, of one prompt, which may be empty."""
        ...

    def bytes_of_prompt(self, prompt: str = "") -> int:
        """Of an encoded prompt in float32."""
        ...

    # --- pictures ----------------------------------------------------------------------------------------------------

    @property
    def default_size(self) -> int:
        """Side in pixels of the pictures it was made for."""
        ...

    @property
    def vae_scale_factor(self) -> int:
        """Pixels per latent cell along a side."""
        ...

    @property
    def latent_channels(self) -> int:
        """Of its latents."""
        ...

    def latents_hash(self) -> str:
        """What tells apart models that give a picture different latents."""
        ...

    def encode_pictures(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents of ``pixels`` (B, 3, H, W) in -1..1, in the denoiser's scale.

        Both (B, latent_channels, h, w) float32.
        """
        ...

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) float32 in -1..1 from latents (B, latent_channels, h, w)."""
        ...

    # --- noise -------------------------------------------------------------------------------------------------------

    def predict_noise(
        self, noisy_latents: Tensor, timesteps: Tensor, conditions: Conditions, time_ids: Tensor | None = None
    ) -> Tensor:
        """The denoiser's answer (B, latent_channels, h, w), which the noise process has a target for.

        Args:
            noisy_latents: (B, latent_channels, h, w).
            timesteps: (B,) or scalar, of the model's noise process.
            conditions: of B prompts.
            time_ids: (B, n), see ``time_ids``; None stands for uncropped pictures of the latents' size.
        """
        ...

    def time_ids(self, original_size: Sequence[int], crop: Sequence[int], size: Sequence[int]) -> Tensor:
        """What families that know sizes are told of a picture, (1, n) float32; (width, height) and (left, top)."""
        ...
