"""What a step costs in other trainers, as plain loops of ours written from what theirs do, at their own defaults.

Each works on the same frozen model with the same pictures a step and the same precision as the product, and has the
work of a step alone: no reading of pictures, no tokens, no log. What they do was read in 2026 (sd-scripts, diffusers)
and in the webui's code of 2023:

``kohya``: sd-scripts' textual inversion. Pictures go through the VAE in every step, attention is written out. The text
encoder reads one text for each picture; the gradient is that of the whole token table, its norm is clipped to 1, AdamW
moves the table, and the rows of all other tokens are put back. The loss is read in every step.
``kohya_cached``: the same with its options ``--cache_latents`` and ``--sdpa``, which its guides recommend.
``diffusers``: textual_inversion.py. As ``kohya``, but attention is torch's own, and nothing is clipped.
``webui``: latents are kept, and of a hypernetwork conditions too. Only the vectors, or the hypernetwork, are trained,
but the U-Net is not frozen: it is run with re-entrant checkpoints, so every block twice, and gets gradients of all its
weights. Attention is written out. A hypernetwork transforms the context anew in each attention, the text's too.

Of a model with two text encoders both tables are trained; the webui trains on none of these.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from bench.floor import Step
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tincture.adapters.embedding import Embedding
from tincture.adapters.hypernetwork import create_hypernetwork
from tincture.models.conditions import Conditions
from tincture.models.stable_diffusion import StableDiffusion
from tincture.models.text_encoder import TextEncoder

Ready = Callable[[], AbstractContextManager[Step]]
"""Inside of what it gives the model is as the peer has it, and the step can be made again and again."""
VECTORS, PREFIX = 4, 5


class Peers:
    """The steps of one model at one shape.

    Args:
        model: used by nothing else meanwhile; it is as it was whenever no step is being made.
        size: side of the pictures in pixels.
    """

    def __init__(self, model: StableDiffusion, batch_size: int, size: int) -> None:
        self.model = model
        random = torch.Generator().manual_seed(0)
        cells, device = size // model.vae_scale_factor, model.device
        self.pixels = torch.rand(batch_size, 3, size, size, generator=random).to(device) * 2 - 1
        self.latents = torch.randn(batch_size, 4, cells, cells, generator=random).to(device)
        self.hidden_states = torch.randn(batch_size, 77, model.text_width, generator=random).to(device, model.dtype)
        self.ids = torch.randint(600, (batch_size, 77), generator=random).to(device)

    def of(self, kind: str) -> dict[str, Ready]:
        """By name: what trains adapters of this kind on this model."""
        whole_table: dict[str, Ready] = {
            "kohya": partial(self._whole_tables, cached=False, attention=AttnProcessor, clip=1.0),
            "kohya_cached": partial(self._whole_tables, cached=True, attention=AttnProcessor2_0, clip=1.0),
            "diffusers": partial(self._whole_tables, cached=False, attention=AttnProcessor2_0, clip=None),
        }
        is_of_webui = len(self.model.text_encoders) == 1
        if kind == "embedding":
            return {**whole_table, "webui": self._webui_embedding} if is_of_webui else whole_table
        return {"webui": self._webui_hypernetwork} if is_of_webui else {}

    # --- sd-scripts and diffusers ------------------------------------------------------------------------------------

    @contextmanager
    def _whole_tables(self, cached: bool, attention: type[Any], clip: float | None) -> Iterator[Step]:
        """The token tables with further rows are trained whole, and all but those rows are put back."""
        with ExitStack() as exits:
            tables = [exits.enter_context(_longer_table(encoder)) for encoder in self.model.text_encoders]
            kept = [(table.detach().clone(), torch.arange(len(table)) < len(table) - VECTORS) for table in tables]
            all_ids = []
            for table in tables:
                ids, count = self.ids.clone(), len(table) - VECTORS
                ids[:, PREFIX : PREFIX + VECTORS] = torch.arange(count, count + VECTORS)
                all_ids.append(ids)
            optimizer = torch.optim.AdamW(tables, lr=1e-4, weight_decay=1e-2)

            def step() -> None:
                latents = self.latents if cached else self._encoded()
                loss = self._loss(latents, self._conditions(all_ids))
                loss.backward()  # type: ignore[no-untyped-call]
                if clip is not None:
                    nn.utils.clip_grad_norm_(tables, clip)
                optimizer.step()
                optimizer.zero_grad()
                with torch.no_grad():
                    for table, (original, others) in zip(tables, kept, strict=True):
                        table[others] = original[others]
                loss.item()

            exits.enter_context(self._attending(attention))
            yield step

    def _conditions(self, all_ids: Sequence[Tensor]) -> Conditions:
        """What the text encoders make of token ids, one tensor (B, 77) for each encoder."""
        encoded = [encoder.encode(ids) for encoder, ids in zip(self.model.text_encoders, all_ids, strict=True)]
        pooled = next((pooled for _, pooled in encoded if pooled is not None), None)
        return Conditions(torch.cat([states for states, _ in encoded], dim=-1), pooled)

    @torch.no_grad()
    def _encoded(self) -> Tensor:
        vae = self.model.vae
        latents: Tensor = vae.encode(self.pixels.to(vae.dtype)).latent_dist.sample() * vae.config.scaling_factor
        return latents

    # --- the webui ---------------------------------------------------------------------------------------------------

    @contextmanager
    def _webui_embedding(self) -> Iterator[Step]:
        model = self.model
        width = model.text_encoders[0].width
        embedding = Embedding("peer", {model.text_encoders[0].name: torch.randn(VECTORS, width)})
        (vectors,) = embedding.parameters()
        ids = self.ids.clone()
        optimizer = torch.optim.AdamW([vectors], lr=5e-3, weight_decay=0.0)

        def place(_: nn.Module, __: Any, output: Tensor) -> Tensor:
            rows = vectors.to(output.dtype).expand(len(output), -1, -1)
            return torch.cat([output[:, :PREFIX], rows, output[:, PREFIX + VECTORS :]], dim=1)

        def step() -> None:
            optimizer.zero_grad()
            loss = self._loss(self.latents, self._conditions([ids]))
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            loss.item()

        with self._unfrozen(), ExitStack() as hooks:
            hooks.callback(model.text_encoders[0].table.register_forward_hook(place).remove)
            yield step

    @contextmanager
    def _webui_hypernetwork(self) -> Iterator[Step]:
        model = self.model
        network = create_hypernetwork("peer", model.context_widths(), activation_func="relu").to(model.device).train()
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5)

        def hook(module: nn.Module) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
            return lambda _, args: (module(args[0]), *args[1:])

        def step() -> None:
            optimizer.zero_grad()
            loss = self._loss(self.latents, Conditions(self.hidden_states))
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            loss.item()

        with self._unfrozen(), ExitStack() as hooks:
            for attention in model.projections():
                for projection, module in zip(attention, network.pairs[attention.context_width], strict=True):
                    hooks.callback(projection.register_forward_pre_hook(hook(module)).remove)
            yield step

    @contextmanager
    def _unfrozen(self) -> Iterator[None]:
        """The U-Net as the webui has it: open to gradients, in re-entrant checkpoints."""
        unet = self.model.unet
        unet.enable_gradient_checkpointing(partial(checkpoint, use_reentrant=True))
        unet.requires_grad_(True).train()
        try:
            with self._attending(AttnProcessor), warnings.catch_warnings():
                # ahead of the first attention no input of a block needs a gradient
                warnings.filterwarnings("ignore", message="None of the inputs have requires_grad=True")
                yield
        finally:
            unet.requires_grad_(False).eval()
            unet.disable_gradient_checkpointing()
            unet.zero_grad(set_to_none=True)

    # --- both --------------------------------------------------------------------------------------------------------

    def _loss(self, latents: Tensor, conditions: Conditions) -> Tensor:
        process, count = self.model.noise_process, len(latents)
        noise, timesteps = torch.randn_like(latents), torch.randint(0, 1000, (count,), device=latents.device)
        noisy = process.add_noise(latents, noise, timesteps)
        noise_pred = self.model.predict_noise(noisy, timesteps, conditions)
        return nn.functional.mse_loss(noise_pred.float(), process.target(latents, noise, timesteps).float())

    @contextmanager
    def _attending(self, processor: type[Any]) -> Iterator[None]:
        unet = self.model.unet
        before = unet.attn_processors
        unet.set_attn_processor(processor())
        try:
            yield
        finally:
            unet.set_attn_processor(before)


@contextmanager
def _longer_table(encoder: TextEncoder) -> Iterator[nn.Parameter]:
    """The token table of ``encoder`` with ``VECTORS`` more rows, in single precision, to be trained."""
    module = encoder.table
    frozen = module.weight
    assert isinstance(frozen, nn.Parameter)
    table = nn.Parameter(torch.cat([frozen, frozen[:VECTORS]]).float())
    # its numbers are single precision in a model of half precision too
    hook = module.register_forward_hook(lambda _, __, output: output.to(frozen.dtype))
    module.weight = table
    try:
        yield table
    finally:
        module.weight = frozen
        hook.remove()
