"""A frozen Stable Diffusion model: text to hidden states, pictures to latents and back, noise prediction.

Shapes: B pictures or prompts, H x W pixels, h = H / 8 and w = W / 8 latent rows and columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tincture.models.attention import KeyValue, cross_attentions, projections
from tincture.models.autoencoder import Autoencoder
from tincture.models.clip_text import ClipText
from tincture.models.conditions import Conditions
from tincture.models.convolutions import speed_up_convolutions
from tincture.models.families import Family
from tincture.models.float8 import store_in_float8
from tincture.models.noise_process import Diffusion
from tincture.models.placement import DENOISER, TEXT_ENCODERS, VAE, Placement
from tincture.models.text_encoder import TextEncoder
from tincture.models.vae_hash import vae_hash


class StableDiffusion:
    """A frozen base model; a ``DiffusionModel``.

    Args:
        family: what anatomy it is of.
        text_encoders: as ``family`` lists them.
        vae: diffusers' AutoencoderKL.
        unet: diffusers' UNet2DConditionModel; one that takes more channels than the VAE gives is an inpainting model.
        noise_scheduler: diffusers' DDPMScheduler with the model's own betas and prediction type.
        name: what files and pictures call the model.
        hash: first 10 hex digits of a sha256 of its weights, "" when unknown.
        guidance_scale: what pictures are drawn with when nothing else is asked for.
        told_by: where it was found out what the U-Net predicts, in words.

    Attributes:
        autoencoder: ``vae``, as the model uses it.
        prediction_type: what the U-Net predicts: ``epsilon`` or ``v_prediction``.
    """

    def __init__(
        self,
        *,
        family: Family,
        text_encoders: Sequence[TextEncoder],
        vae: Any,
        unet: Any,
        noise_scheduler: Any,
        name: str = "",
        hash: str = "",
        guidance_scale: float = 7.0,
        told_by: str = "",
    ) -> None:
        self.family = family
        self.text = ClipText(text_encoders)
        self.autoencoder = Autoencoder(vae)
        self.unet = unet
        self.noise_scheduler = noise_scheduler
        self.name = name
        self.hash = hash
        self.guidance_scale = guidance_scale
        self.told_by = told_by
        self.prediction_type: str = noise_scheduler.config.prediction_type
        self.vae_scale_factor = self.autoencoder.scale_factor
        self.latent_channels = self.autoencoder.latent_channels
        self.default_size: int = unet.config.sample_size * self.vae_scale_factor
        self.is_inpainting: bool = unet.config.in_channels > self.latent_channels
        self.placement = Placement(
            {TEXT_ENCODERS: [encoder.module for encoder in self.text_encoders], VAE: [vae], DENOISER: [unet]}
        )
        self._blank_pictures: dict[tuple[int, ...], Tensor] = {}
        for part in self._parts():
            part.requires_grad_(False).eval()

    @property
    def predicts(self) -> str:
        """What the U-Net predicts and who says so, in words: "v with zero terminal SNR (its metadata)"."""
        return f"{self.noise_process.predicts}{f' ({self.told_by})' if self.told_by else ''}"

    @property
    def vae(self) -> Any:
        """diffusers' AutoencoderKL."""
        return self.autoencoder.vae

    @property
    def slicing(self) -> bool:
        """See ``enable_slicing``."""
        return self.autoencoder.slicing

    @property
    def denoiser(self) -> Any:
        """The U-Net."""
        return self.unet

    @property
    def architecture(self) -> str:
        """Its kind in the metadata standard modelspec."""
        return self.family.modelspec[self.prediction_type]

    @property
    def noise_process(self) -> Diffusion:
        """How noise comes into latents, by ``noise_scheduler``."""
        return Diffusion(self.noise_scheduler)

    def overrides(self) -> dict[str, Any]:
        """What was found out about the model, as arguments of ``load_model``: with them, it is loaded alike again."""
        return {
            "prediction_type": self.prediction_type,
            "zero_terminal_snr": self.noise_process.zero_terminal_snr,
        }

    def describe(self) -> str:
        """The model in one line: name, hash, family and what was found out about it."""
        kind = f"{self.family.title} for inpainting" if self.is_inpainting else self.family.title
        return f"{self.name}{f' [{self.hash}]' if self.hash else ''}: {kind}, predicts {self.predicts}"

    @property
    def called(self) -> str:
        """The model as messages name it: "the model 'picto'"."""
        return f"the model {self.name!r}" if self.name else "this model"

    def _parts(self) -> list[nn.Module]:
        return [*(encoder.module for encoder in self.text_encoders), self.vae, self.unet]

    @property
    def text_encoders(self) -> tuple[TextEncoder, ...]:
        """As the family lists them."""
        return self.text.encoders

    @property
    def tokenizer(self) -> Any:
        """Of the first text encoder."""
        return self.text.tokenizer

    @property
    def text_width(self) -> int:
        """Width of the joined hidden states, 768 for SD 1."""
        return self.text.width

    @property
    def device(self) -> torch.device:
        """Where it computes, and where the weights lie or come when they are needed."""
        return self.placement.device

    @property
    def dtype(self) -> torch.dtype:
        """The U-Net's (and the text encoders') precision; the VAE always computes in float32."""
        weights: Iterator[Tensor] = self.denoiser.parameters()
        return next(weight.dtype for weight in weights if weight.is_floating_point())  # some may be stored as bytes

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> StableDiffusion:
        """Moves the model, with U-Net and text encoders in ``dtype`` and the VAE in float32; returns itself."""
        self.placement.forget()
        # A half-precision VAE overflows on some pictures of SD 1, and every picture is encoded once only.
        for part in self._parts():
            # torch's own method: diffusers' one warns at every cast about modules to keep in float32, and names none.
            nn.Module.to(part, device=device, dtype=torch.float32 if part is self.vae else dtype)
        self._blank_pictures.clear()
        return self

    def context_widths(self) -> list[int]:
        """The distinct widths of what keys and values are made from, self- and cross-attention, ascending."""
        return sorted({pair.context_width for pair in self.projections()})

    def projections(self) -> list[KeyValue]:
        """Where the U-Net's attentions make their keys and values; ModelError where they are fused."""
        return projections(self.denoiser)

    def cross_attentions(self) -> list[nn.Module]:
        """The U-Net's attentions that look at the text; ModelError where they are fused, or there are none."""
        return cross_attentions(self.denoiser)

    def rebuilt(self, copy: Callable[[nn.Module, torch.dtype], Any], dtype: torch.dtype) -> StableDiffusion:
        """A model of the same anatomy, its modules being what ``copy`` makes of each in a precision.

        It does not slice. The VAE's precision is float32, that of the others ``dtype``.
        """
        vae = copy(self.vae, torch.float32)
        vae.disable_slicing()
        vae.disable_tiling()
        return StableDiffusion(
            family=self.family,
            text_encoders=[TextEncoder(e.spec, e.tokenizer, copy(e.module, dtype)) for e in self.text_encoders],
            vae=vae,
            unet=copy(self.unet, dtype),
            noise_scheduler=deepcopy(self.noise_scheduler),
            name=self.name,
            hash=self.hash,
            guidance_scale=self.guidance_scale,
        )

    # --- text --------------------------------------------------------------------------------------------------------

    def encode_prompts(self, prompts: Sequence[str], clip_skip: int = 1, at_least: int = 0) -> Conditions:
        """Hidden states (B, chunks * 77, text_width) and pooled texts for the U-Net, in the text encoders' dtype.

        Prompts may hold weights and ``BREAK`` and be of any length, see docs/prompts.md. Each chunk is encoded by
        itself; ``chunks`` is that of the longest prompt, and shorter ones have encodings of empty chunks behind them.
        Gradients reach the vectors of attached embeddings. ``clip_skip`` n takes the n-th hidden layer from the end,
        counted from the one that the family uses.

        Args:
            prompts: B texts.
            clip_skip: 1..number of layers.
            at_least: so many tokens, rounded up to whole chunks, even if all prompts are shorter.

        Raises:
            UsageError: ``clip_skip`` is not in 1..number of layers.
        """
        # Where they are not needed in every step, they can do without the denoiser beside them.
        with self.placement.acting(TEXT_ENCODERS, alone=TEXT_ENCODERS not in self.placement.keep):
            return self.text.encode(prompts, self.device, clip_skip, at_least)

    def encode_negative_prompt(self, prompt: str, clip_skip: int = 1, at_least: int = 0) -> Conditions:
        """What pictures shall be led away from: as ``encode_prompts``, but in some families zeros for no words."""
        conditions = self.encode_prompts([prompt], clip_skip, at_least)
        return conditions.zeros() if self.family.blank_is_zero and not prompt else conditions

    def bytes_of_prompt(self, prompt: str = "") -> int:
        """Of an encoded prompt in float32, which autocast on CUDA leaves it in."""
        return self.text.lengths([prompt])[0] * self.text_width * 4

    # --- pictures ----------------------------------------------------------------------------------------------------

    def encode_pictures(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents of ``pixels`` (B, 3, H, W) in -1..1.

        Both (B, 4, h, w) float32, in the U-Net's scale (times the VAE's scaling factor).
        """
        with self.placement.acting(VAE, alone=True):
            return self.autoencoder.encode(pixels.to(self.device, torch.float32))

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) float32 in -1..1 from latents (B, 4, h, w) in the U-Net's scale."""
        with self.placement.acting(VAE, alone=True):
            return self.autoencoder.decode(latents.to(self.device, torch.float32))

    def latents_hash(self) -> str:
        """What tells apart models that give a picture different latents: see ``vae_hash``."""
        return vae_hash(self.vae)

    def enable_slicing(self) -> None:
        """Sends pictures through the VAE one at a time, and larger ones than the model was made for in tiles.

        Less memory. What is larger than ``default_size`` squared differs a little.
        """
        self.autoencoder.enable_slicing(self.default_size)

    # --- noise -------------------------------------------------------------------------------------------------------

    def predict_noise(
        self, noisy_latents: Tensor, timesteps: Tensor, conditions: Conditions, time_ids: Tensor | None = None
    ) -> Tensor:
        """The denoiser's output (B, 4, h, w) in ``dtype``: noise or v, as ``prediction_type`` says.

        An inpainting model is told that everything is masked, so that it makes whole pictures.

        Args:
            noisy_latents: (B, 4, h, w).
            timesteps: (B,) or scalar, int64 in 0..999.
            conditions: of B prompts.
            time_ids: (B, 6), see ``time_ids``; None stands for uncropped pictures of the latents' size. Used by
                families that know sizes only.
        """
        added = None
        if self.family.knows_sizes:
            if time_ids is None:
                size = tuple(
                    side * self.vae_scale_factor for side in (noisy_latents.shape[-1], noisy_latents.shape[-2])
                )
                time_ids = self.time_ids(size, (0, 0), size).expand(len(noisy_latents), -1)
            assert conditions.pooled is not None
            # Sizes stay in float32, since bfloat16 knows no 1333; the U-Net makes sines of them, and then rounds.
            added = {"text_embeds": conditions.pooled.to(self.dtype), "time_ids": time_ids.to(self.device)}
        sample = self._with_mask(noisy_latents).to(self.dtype)
        with self.placement.acting(DENOISER):
            noise_pred: Tensor = self.denoiser(
                sample,
                timesteps,
                encoder_hidden_states=conditions.hidden_states.to(self.dtype),
                added_cond_kwargs=added,
                return_dict=False,
            )[0]
        return noise_pred

    @staticmethod
    def time_ids(original_size: Sequence[int], crop: Sequence[int], size: Sequence[int]) -> Tensor:
        """What families that know sizes are told of a picture: (1, 6) float32 (Podell et al. 2023, section 2.2).

        Args:
            original_size: (width, height) in pixels, before it was resized.
            crop: (left, top) in pixels, what was cut off the resized picture.
            size: (width, height) in pixels, as the model sees it.
        """
        return torch.tensor([[*reversed(original_size), *reversed(crop), *reversed(size)]], dtype=torch.float32)

    def _with_mask(self, noisy_latents: Tensor) -> Tensor:
        if not self.is_inpainting:
            return noisy_latents
        count, _, *grid = noisy_latents.shape
        mask = noisy_latents.new_ones(count, 1, *grid)
        return torch.cat([noisy_latents, mask, self.blank_latents(*grid).to(noisy_latents).expand_as(noisy_latents)], 1)

    def blank_latents(self, height: int, width: int) -> Tensor:
        """Latents (1, 4, h, w) of the grey picture that stands for a wholly masked one; encoded once for each size."""
        if (height, width) not in self._blank_pictures:
            size = (1, 3, height * self.vae_scale_factor, width * self.vae_scale_factor)
            self._blank_pictures[height, width] = self.encode_pictures(torch.zeros(size))[0]
        return self._blank_pictures[height, width]

    def enable_gradient_checkpointing(self) -> None:
        """Recomputes U-Net activations in the backward pass: less memory, about a third more time.

        Non-re-entrant, so that gradients reach what is attached to a frozen network, whose inputs need none.
        """
        self.unet.enable_gradient_checkpointing(partial(checkpoint, use_reentrant=False))

    def disable_gradient_checkpointing(self) -> None:
        """Keeps activations again."""
        self.unet.disable_gradient_checkpointing()

    def store_in_float8(self, by: torch.device | str | None = None) -> None:
        """Keeps the U-Net's weights in eight bits from now on, rounded by the device ``by``; see ``float8``."""
        store_in_float8(self.unet, by)

    def speed_up_convolutions(self) -> None:
        """Chooses by their sizes how they are computed, see ``convolutions``."""
        speed_up_convolutions(self.unet)
