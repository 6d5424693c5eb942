"""One frozen text encoder with its tokenizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tincture.errors import ModelError, UsageError
from tincture.models import tokens
from tincture.models.families import TextEncoderSpec

_ROWS_AT_ONCE = 8192
"""Of a token table that are copied in float32."""


class TextEncoder:
    """Token ids to hidden states, in the way a family uses them.

    Args:
        spec: the family's use of it.
        tokenizer: transformers' CLIPTokenizer.
        module: transformers' CLIPTextModel, or CLIPTextModelWithProjection where ``spec.projected``.

    Attributes:
        name: its key in ``Embedding.vectors``.
        width: of its hidden states.
        layers: how many of its layers ``clip_skip`` may count.
    """

    def __init__(self, spec: TextEncoderSpec, tokenizer: Any, module: Any) -> None:
        self.spec, self.tokenizer, self.module = spec, tokenizer, module
        self.name = spec.name
        self.width: int = module.config.hidden_size
        self.layers: int = module.config.num_hidden_layers - spec.layers_left_out
        # Published configurations name an end token that is none, and the pooled text is that of the end token.
        module.config.eos_token_id = tokenizer.eos_token_id
        for inner in (module, getattr(module, "text_model", None)):
            if inner is not None and hasattr(inner, "eos_token_id"):
                inner.eos_token_id = tokenizer.eos_token_id

    @property
    def table(self) -> nn.Module:
        """The token table: ids (…) int64 to vectors (…, width)."""
        table: nn.Module = self.module.get_input_embeddings()
        return table

    def token_embeddings(self, text: str) -> Tensor:
        """A copy of the table's rows for the tokens of ``text`` (no special ones): (tokens, width)."""
        return tokens.rows_of(self.tokenizer, self.module.get_input_embeddings().weight, text)

    @torch.no_grad()
    def mean_token_norm(self) -> float:
        """Mean of the norms of all rows of the table, computed in float32."""
        rows: Tensor = self.module.get_input_embeddings().weight
        norms = [torch.linalg.vector_norm(piece.float(), dim=1) for piece in torch.split(rows, _ROWS_AT_ONCE)]
        return float(torch.cat(norms).double().mean())

    def encode(self, ids: Tensor, clip_skip: int = 1) -> tuple[Tensor, Tensor | None]:
        """Hidden states (N, 77, width) of token ids (N, 77) int64, and the pooled text (N, projection width) if used.

        Args:
            clip_skip: n takes the n-th hidden layer from the end of those that the family uses.

        Raises:
            UsageError: ``clip_skip`` is not in 1..``layers``.
        """
        if not 1 <= clip_skip <= self.layers:
            raise UsageError(f"clip_skip {clip_skip} is not allowed; this text encoder has layers 1 to {self.layers}.")
        layer = clip_skip + self.spec.layers_left_out
        output = self.module(ids, output_hidden_states=layer > 1 or not self.spec.final_layer_norm)
        if layer == 1 and self.spec.final_layer_norm:
            hidden_states: Tensor = output.last_hidden_state
        else:
            # The recorded hidden states are those before the final norm.
            hidden_states = output.hidden_states[-layer]
            if self.spec.final_layer_norm:
                hidden_states = _final_layer_norm(self.module)(hidden_states)
        return hidden_states, output.text_embeds if self.spec.projected else None


def _final_layer_norm(module: Any) -> nn.Module:
    # transformers 5.6 flattened CLIPTextModel; before, and with a projection, the layers stand under text_model.
    for owner in (module, getattr(module, "text_model", None)):
        layer = getattr(owner, "final_layer_norm", None)
        if isinstance(layer, nn.Module):
            return layer
    raise ModelError(f"The text encoder {type(module).__name__} has no final layer norm; a CLIP model is needed.")
