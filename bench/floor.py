"""The least work that a step can be made of, with nothing around it: what the trainer is held against.

Inputs are made once, beforehand. The backward pass is asked for exactly the gradients that must flow, so that no other
part of the graph is walked; weights are frozen, so none of theirs is ever computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tincture.adapters.hypernetwork import create_hypernetwork
from tincture.models.conditions import Conditions
from tincture.models.stable_diffusion import StableDiffusion

Step = Callable[[], None]


class Floors:
    """Floors of one model at one shape; they share their inputs.

    Args:
        model: used by nothing else: its modules get hooks.
        size: side of the pictures in pixels.
    """

    def __init__(self, model: StableDiffusion, batch_size: int, size: int) -> None:
        self.model = model
        cells = size // model.vae_scale_factor
        random = torch.Generator().manual_seed(0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=random).to(model.device)

        self.noisy_latents, self.target = normal(batch_size, 4, cells, cells), normal(batch_size, 4, cells, cells)
        self.hidden_states = normal(batch_size, 77, model.text_width).to(model.dtype)
        self.timesteps = torch.randint(1000, (batch_size,), generator=random).to(model.device)
        pooled = model.encode_prompts([""]).pooled
        self.pooled = None if pooled is None else normal(batch_size, pooled.shape[-1]).to(model.dtype)
        self.ids = torch.randint(600, (batch_size, 77), generator=random).to(model.device)

    def _loss(self, hidden_states: Tensor) -> Tensor:
        noise_pred = self.model.predict_noise(
            self.noisy_latents, self.timesteps, Conditions(hidden_states, self.pooled)
        )
        return nn.functional.mse_loss(noise_pred.float(), self.target)

    # --- embedding ---------------------------------------------------------------------------------------------------

    def embedding(self) -> Step:
        """U-Net forward, and backward to ``encoder_hidden_states``: nothing ahead of the first cross-attention."""
        leaf = self.hidden_states.clone().requires_grad_()

        def step() -> None:
            _backward(self._loss(leaf), [leaf])

        return step

    def embedding_with_text(self) -> Step:
        """The same, and the text encoders' forward and backward to their token vectors, one text per picture."""
        leaves: list[Tensor] = []

        def open_to_gradients(_: nn.Module, __: Any, output: Tensor) -> Tensor:
            leaves.append(output.requires_grad_())
            return output

        encoders = self.model.text_encoders

        def step() -> None:
            leaves.clear()
            handles = [encoder.table.register_forward_hook(open_to_gradients) for encoder in encoders]
            states = torch.cat([encoder.encode(self.ids)[0] for encoder in encoders], dim=-1)
            for handle in handles:
                handle.remove()
            _backward(self._loss(states), leaves)

        return step

    # --- hypernetwork ------------------------------------------------------------------------------------------------

    def hypernetwork(self) -> Step:
        """U-Net forward, and backward to what keys and values are made from, in every attention.

        Those are ``encoder_hidden_states`` and the contexts of the self-attentions. The first self-attention's own
        context is cut off from what comes before it, which leads to nothing that is trained.
        """
        leaf = self.hidden_states.clone().requires_grad_()
        first: list[Tensor] = []

        def cut(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            first.append(args[0].detach().requires_grad_())
            return (first[-1], *args[1:])

        def step() -> None:
            handles = [projection.register_forward_pre_hook(cut) for projection in self.model.projections()[0]]
            # Gradient checkpointing goes through the hooks again, in the backward pass.
            loss = self._loss(leaf)
            _backward(loss, [leaf, *first])
            for handle in handles:
                handle.remove()
            first.clear()

        return step

    def hypernetwork_with_modules(self) -> Step:
        """The same with the hypernetwork's own arithmetic: every distinct context transformed once, and its gradients.

        All cross-attentions have the same context, so their keys and values are transformed once in a step.
        """
        model = self.model
        network = create_hypernetwork("floor", model.context_widths(), activation_func="relu").to(model.device).train()
        parameters = network.parameters()
        attentions = model.projections()
        texts: list[tuple[Tensor, Tensor]] = []

        def hook(width: int, which: int) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
            def transform(projection: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
                if args[0] is self.hidden_states:
                    return (texts[0][which], *args[1:])
                return (network.pairs[width][which](args[0]), *args[1:])

            return transform

        def step() -> None:
            texts[:] = [network.transform(self.hidden_states)]
            handles = [
                projection.register_forward_pre_hook(hook(pair.context_width, which))
                for pair in attentions
                for which, projection in enumerate(pair)
            ]
            _backward(self._loss(self.hidden_states), parameters)
            for handle in handles:
                handle.remove()

        return step

    def of(self, kind: str) -> dict[str, Step]:
        """By name: the bare floor, and the floor with what the adapter cannot do without."""
        if kind == "embedding":
            return {"floor": self.embedding(), "floor_with_adapter": self.embedding_with_text()}
        return {"floor": self.hypernetwork(), "floor_with_adapter": self.hypernetwork_with_modules()}


def _backward(loss: Tensor, leaves: Sequence[Tensor]) -> None:
    torch.autograd.backward(loss, inputs=leaves)
    for leaf in leaves:
        assert leaf.grad is not None, "a gradient did not arrive"
        leaf.grad = None


def gflop(step: Step) -> float:
    """Billions of multiplications and additions of matrix products, convolutions and attentions in one step."""
    with FlopCounterMode(display=False) as counter:
        step()
    flop: int = counter.get_total_flops()
    return flop / 1e9
