"""A frozen Stable Diffusion model: text to hidden states, pictures to latents and back, noise prediction.

Shapes: B pictures or prompts, H x W pixels, h = H / 8 and w = W / 8 latent rows and columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tincture.errors import ModelError, UsageError
from tincture.models import tokens


class StableDiffusion:
    """A frozen base model: nothing requires a gradient, everything is in ``eval()`` mode, no weight is ever written.

    Args:
        tokenizer: transformers' CLIPTokenizer.
        text_encoder: transformers' CLIPTextModel.
        vae: diffusers' AutoencoderKL.
        unet: diffusers' UNet2DConditionModel.
        noise_scheduler: diffusers' DDPMScheduler with the model's own betas and prediction type.
        name: what files and pictures call the model.
        hash: first 10 hex digits of a sha256 of its weights, "" when unknown.
        guidance_scale: what pictures are drawn with when nothing else is asked for.

    Attributes:
        attached_embeddings: in order of attachment; ``Embedding.attach`` keeps it, ``tokenize`` reads it.
        text_encoder_name: the key of this text encoder in ``Embedding.vectors``: ``clip_l`` (SD 1), ``clip_h`` (SD 2).
        text_width: width of the text encoder's hidden states, 768 for SD 1.
        default_size: side in pixels of the pictures the model was made for, 512 for SD 1.
        vae_scale_factor: pixels per latent cell along a side, 8.
        prediction_type: what the U-Net predicts: ``epsilon`` or ``v_prediction``.
    """

    def __init__(
        self,
        *,
        tokenizer: Any,
        text_encoder: Any,
        vae: Any,
        unet: Any,
        noise_scheduler: Any,
        name: str = "",
        hash: str = "",
        guidance_scale: float = 7.0,
    ) -> None:
        self.tokenizer = tokenizer
        self.text_encoder = text_encoder
        self.vae = vae
        self.unet = unet
        self.noise_scheduler = noise_scheduler
        self.name = name
        self.hash = hash
        self.guidance_scale = guidance_scale
        self.attached_embeddings: list[tokens.Placeholder] = []
        self.text_width: int = self.text_encoder.config.hidden_size
        self.text_encoder_name = "clip_h" if self.text_width == 1024 else "clip_l"
        self.family = "sd2" if self.text_width == 1024 else "sd1"
        self.prediction_type: str = noise_scheduler.config.prediction_type
        self.vae_scale_factor: int = 2 ** (len(self.vae.config.block_out_channels) - 1)
        self.default_size: int = self.unet.config.sample_size * self.vae_scale_factor
        for part in (self.text_encoder, self.vae, self.unet):
            part.requires_grad_(False).eval()

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        device: torch.device = next(self.unet.parameters()).device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """The U-Net's (and the text encoder's) precision; the VAE always computes in float32."""
        dtype: torch.dtype = next(self.unet.parameters()).dtype
        return dtype

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> StableDiffusion:
        """Moves the model, with U-Net and text encoder in ``dtype`` and the VAE in float32; returns itself."""
        # A half-precision VAE overflows on some pictures of SD 1, and every picture is encoded once only.
        parts = ((self.unet, dtype), (self.text_encoder, dtype), (self.vae, torch.float32))
        for part, precision in parts:
            # torch's own method: diffusers' one warns at every cast about modules to keep in float32, and names none.
            nn.Module.to(part, device=device, dtype=precision)
        return self

    def context_widths(self) -> list[int]:
        """The distinct widths of what keys and values are made from, self- and cross-attention, ascending."""
        attentions = [module for module in self.unet.modules() if isinstance(module, Attention)]
        return sorted({projection.in_features for a in attentions for projection in (a.to_k, a.to_v)})

    # --- text --------------------------------------------------------------------------------------------------------

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """Token ids (B, chunks * 77) int64 on the CPU; names of attached embeddings become their placeholder ids.

        Placeholder ids start at ``len(tokenizer)``: ``num_vectors`` consecutive ones per embedding, in order of
        attachment. A prompt of up to 75 tokens is one chunk; shorter prompts have empty chunks behind them.
        """
        return tokens.to_tensors(self.tokenizer, self._chunks(prompts))[0].flatten(1)

    def count_chunks(self, prompts: Sequence[str]) -> list[int]:
        """How many chunks of 77 each prompt takes up, at least 1."""
        return [len(chunks) for chunks in self._chunks(prompts)]

    def token_embeddings(self, text: str) -> Tensor:
        """A copy of the frozen table's rows for the tokens of ``text`` (no special ones): (tokens, text_width)."""
        (ids,) = tokens.token_ids(self.tokenizer, [text])
        table: Tensor = self.text_encoder.get_input_embeddings().weight
        return table[torch.tensor(ids, dtype=torch.int64, device=table.device)].clone()

    def encode_prompts(self, prompts: Sequence[str], clip_skip: int = 1, at_least: int = 1) -> Tensor:
        """Hidden states (B, chunks * 77, text_width) for the U-Net, in the text encoder's dtype.

        Prompts may hold weights and ``BREAK`` and be of any length, see docs/prompts.md. Each chunk is encoded by
        itself; ``chunks`` is that of the longest prompt, and shorter ones have encodings of empty chunks behind them.
        Gradients reach the vectors of attached embeddings. ``clip_skip`` n takes the n-th hidden layer from the end;
        the final layer norm always follows.

        Args:
            prompts: B texts.
            clip_skip: 1..number of layers.
            at_least: so many chunks even if all prompts are shorter.

        Raises:
            UsageError: ``clip_skip`` is not in 1..number of layers.
        """
        ids, weights = tokens.to_tensors(self.tokenizer, self._chunks(prompts), at_least)
        hidden_states = self._encode_ids(ids.flatten(0, 1).to(self.device), clip_skip)
        if not bool((weights == 1).all()):
            hidden_states = tokens.emphasize(hidden_states, weights.flatten(0, 1))
        return hidden_states.reshape(*ids.flatten(1).shape, self.text_width)

    def _chunks(self, prompts: Sequence[str]) -> list[list[tokens.Chunk]]:
        return tokens.make_chunks(self.tokenizer, prompts, self.attached_embeddings, self.text_encoder_name)

    def _encode_ids(self, ids: Tensor, clip_skip: int) -> Tensor:
        layers = self.text_encoder.config.num_hidden_layers
        if not 1 <= clip_skip <= layers:
            raise UsageError(f"clip_skip {clip_skip} is not allowed; this text encoder has layers 1 to {layers}.")
        output = self.text_encoder(ids, output_hidden_states=clip_skip > 1)
        hidden_states: Tensor = output.last_hidden_state
        if clip_skip > 1:
            # The recorded hidden states are those before the final norm.
            hidden_states = _final_layer_norm(self.text_encoder)(output.hidden_states[-clip_skip])
        return hidden_states

    # --- pictures ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode_pictures(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents of ``pixels`` (B, 3, H, W) in -1..1.

        Both (B, 4, h, w) float32, in the U-Net's scale (times the VAE's scaling factor).
        """
        posterior = self.vae.encode(pixels.to(self.device, torch.float32)).latent_dist
        scaling_factor: float = self.vae.config.scaling_factor
        return posterior.mean * scaling_factor, posterior.std * scaling_factor

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) float32 in -1..1 from latents (B, 4, h, w) in the U-Net's scale."""
        latents = latents.to(self.device, torch.float32) / self.vae.config.scaling_factor
        pixels: Tensor = self.vae.decode(latents).sample
        return pixels.clamp(-1, 1)

    # --- noise -------------------------------------------------------------------------------------------------------

    def predict_noise(self, noisy_latents: Tensor, timesteps: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        """The U-Net's output (B, 4, h, w) in ``dtype``: noise or v, as ``prediction_type`` says.

        Args:
            noisy_latents: (B, 4, h, w).
            timesteps: (B,) or scalar, int64 in 0..999.
            encoder_hidden_states: (B, chunks * 77, text_width).
        """
        noise_pred: Tensor = self.unet(
            noisy_latents.to(self.dtype),
            timesteps,
            encoder_hidden_states=encoder_hidden_states.to(self.dtype),
            return_dict=False,
        )[0]
        return noise_pred

    def enable_gradient_checkpointing(self) -> None:
        """Recomputes U-Net activations in the backward pass: less memory, about a third more time.

        Non-re-entrant, so that gradients reach what is attached to a frozen network, whose inputs need none.
        """
        self.unet.enable_gradient_checkpointing(partial(checkpoint, use_reentrant=False))

    def disable_gradient_checkpointing(self) -> None:
        """Keeps activations again."""
        self.unet.disable_gradient_checkpointing()


def _final_layer_norm(text_encoder: Any) -> nn.Module:
    # transformers 5.6 flattened CLIPTextModel; before, and with a projection, the layers stand under text_model.
    for owner in (text_encoder, getattr(text_encoder, "text_model", None)):
        layer = getattr(owner, "final_layer_norm", None)
        if isinstance(layer, nn.Module):
            return layer
    raise ModelError(f"The text encoder {type(text_encoder).__name__} has no final layer norm; a CLIP model is needed.")
