"""Prompts as Stable Diffusion reads them: CLIP's tokens in chunks of 77, and one or two text encoders.

All that knows of token ids stands here and in ``tokens``; others ask by texts and names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from tincture.errors import ModelError
from tincture.models import tokens
from tincture.models.conditions import Conditions
from tincture.models.text_encoder import TextEncoder
from tincture.models.tokens import Placeholder, Vocabulary


class ClipText:
    """The text side of a model; a ``TextSide``.

    Args:
        encoders: as the model's family lists them. Each reads prompts with its own tokenizer, which hardly ever makes
            a difference; where one answer is needed, the first one's counts.

    Attributes:
        widths: by text encoder name, the width of its vectors.
        width: of the joined hidden states.
        layers: how many ``clip_skip`` may count.
        attached: placeholders in order of attachment.
    """

    def __init__(self, encoders: Sequence[TextEncoder]) -> None:
        self.encoders = tuple(encoders)
        self.widths = {encoder.name: encoder.width for encoder in self.encoders}
        self.width = sum(self.widths.values())
        self.layers = min(encoder.layers for encoder in self.encoders)
        self.tokenizer = self.encoders[0].tokenizer
        self.vocabulary = Vocabulary(self.tokenizer)
        self.attached: list[Placeholder] = []

    @property
    def max_vectors(self) -> int:
        """How many vectors in a row a chunk has room for: 75."""
        return int(self.tokenizer.model_max_length) - 2

    def token_embeddings(self, text: str) -> dict[str, Tensor]:
        """By text encoder name, copies of its vectors for the tokens of ``text``: (tokens, width)."""
        return {encoder.name: encoder.token_embeddings(text) for encoder in self.encoders}

    def tokens_of(self, text: str) -> list[str]:
        """The tokens of ``text`` as the first text encoder reads them; one that is a part of a letter is "�"."""
        (ids,) = tokens.token_ids(self.tokenizer, [text])
        return [str(self.tokenizer.decode([each])).strip() for each in ids]

    def token_norms(self) -> dict[str, float]:
        """By text encoder name, the mean norm of its vectors of all tokens."""
        return {encoder.name: encoder.mean_token_norm() for encoder in self.encoders}

    # --- from prompts to hidden states -------------------------------------------------------------------------------

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """Token ids (B, chunks * 77) int64 on the CPU; names of attached embeddings become their placeholder ids.

        A prompt of up to 75 tokens is one chunk; shorter prompts have empty chunks behind them, filled up as the first
        text encoder has it.
        """
        return tokens.to_tensors(self.tokenizer, self._chunks(prompts, self.encoders[0]))[0].flatten(1)

    def lengths(self, prompts: Sequence[str]) -> list[int]:
        """How many tokens the hidden states of each prompt have when it is encoded alone: a multiple of 77."""
        each = zip(*(self._chunks(prompts, encoder) for encoder in self.encoders), strict=True)
        return [max(map(len, chunks)) * self._chunk_length for chunks in each]

    def encode(self, prompts: Sequence[str], device: torch.device, clip_skip: int, at_least: int) -> Conditions:
        """See ``StableDiffusion.encode_prompts``."""
        each = [self._chunks(prompts, encoder) for encoder in self.encoders]
        count = max(-(-at_least // self._chunk_length), *(len(chunks) for read in each for chunks in read), 1)
        encoded = [
            self._encode(encoder, chunks, device, clip_skip, count)
            for encoder, chunks in zip(self.encoders, each, strict=True)
        ]
        pooled = next((first for _, first in encoded if first is not None), None)
        return Conditions(torch.cat([states for states, _ in encoded], dim=-1), pooled)

    def _encode(
        self,
        encoder: TextEncoder,
        chunks: Sequence[Sequence[tokens.Chunk]],
        device: torch.device,
        clip_skip: int,
        at_least: int,
    ) -> tuple[Tensor, Tensor | None]:
        ids, weights = tokens.to_tensors(encoder.tokenizer, chunks, at_least)
        hidden_states, pooled = encoder.encode(ids.flatten(0, 1).to(device), clip_skip)
        if any(weight != 1 for prompt in chunks for chunk in prompt for weight in chunk.weights):
            hidden_states = tokens.emphasize(hidden_states, weights.flatten(0, 1))
        hidden_states = hidden_states.reshape(*ids.flatten(1).shape, encoder.width)
        return hidden_states, None if pooled is None else pooled[:: ids.shape[1]]

    def join(self, parts: Sequence[Conditions], empty: Callable[[], Conditions]) -> Conditions:
        """Conditions of all prompts of ``parts``, with encodings of empty chunks behind those of shorter prompts.

        Args:
            parts: encoded one by one.
            empty: gives the conditions of the empty prompt; asked only where they are needed.
        """
        longest = max(part.hidden_states.shape[1] for part in parts)
        return Conditions.cat([self._lengthen(part, longest, empty) for part in parts])

    @staticmethod
    def _lengthen(part: Conditions, length: int, empty: Callable[[], Conditions]) -> Conditions:
        states = part.hidden_states
        if states.shape[1] == length:
            return part
        chunk = empty().hidden_states
        missing = (length - states.shape[1]) // chunk.shape[1]
        return Conditions(torch.cat([states, *[chunk] * missing], dim=1), part.pooled)

    def _chunks(self, prompts: Sequence[str], encoder: TextEncoder) -> list[list[tokens.Chunk]]:
        return tokens.make_chunks(encoder.tokenizer, prompts, self.attached)

    @property
    def _chunk_length(self) -> int:
        return int(self.tokenizer.model_max_length)

    # --- vectors that stand for a word -------------------------------------------------------------------------------

    @contextmanager
    def attach(self, placeholder: Placeholder) -> Iterator[None]:
        """Inside the context prompts have the vectors of ``placeholder`` where its name stands.

        Its ids are never looked up in the frozen token tables: the vectors are put in behind them. Equal, in output and
        gradient, to tables with the vectors appended.

        Raises:
            ModelError: it is attached already.
        """
        if any(attached is placeholder for attached in self.attached):
            raise ModelError(f"Embedding {placeholder.name!r} is attached to this model already.")
        with ExitStack() as hooks:
            for encoder in self.encoders:
                placement = _Placement(self, placeholder, encoder.name)
                hooks.callback(encoder.table.register_forward_pre_hook(placement.before).remove)
                hooks.callback(encoder.table.register_forward_hook(placement.after).remove)
            self.attached.append(placeholder)
            hooks.callback(self.attached.remove, placeholder)
            yield

    def placeholder_ids(self, placeholder: Placeholder) -> range:
        """The ids that stand for the vectors in what ``tokenize`` gives, while attached.

        They start at ``len(tokenizer)``, ``num_vectors`` consecutive ones each, in order of attachment, so they change
        when another one goes.

        Raises:
            ModelError: it is not attached.
        """
        first = len(self.tokenizer)
        for attached in self.attached:
            if attached is placeholder:
                return range(first, first + placeholder.num_vectors)
            first += attached.num_vectors
        raise ModelError(f"Embedding {placeholder.name!r} is not attached to this model.")

    def positions(self, prompts: Sequence[str], placeholder: Placeholder) -> Tensor:
        """Where in the hidden states of ``prompts`` the vectors of an attached placeholder stand.

        (B, tokens) bool on the CPU, true at every one of them, in the order of ``encode``.

        Raises:
            ModelError: it is not attached.
        """
        ids, own = self.tokenize(prompts), self.placeholder_ids(placeholder)
        return (ids >= own.start) & (ids < own.stop)


class _Placement:
    """Two hooks around a token table: a placeholder's own ids never reach it, their rows are put in behind it."""

    def __init__(self, text: ClipText, placeholder: Placeholder, text_encoder: str) -> None:
        self.text, self.placeholder = text, placeholder
        self.vectors = placeholder.vectors[text_encoder]
        self.positions: Tensor | None = None

    def before(self, table: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Takes the own ids (first, first + num_vectors) out of ``args``: (B, tokens) int64."""
        ids = args[0]
        positions = ids - self.text.placeholder_ids(self.placeholder).start
        own = (positions >= 0) & (positions < self.placeholder.num_vectors)
        # Any row of the table will do, it is replaced afterwards.
        self.positions = torch.where(own, positions, -1)
        return (torch.where(own, 0, ids), *args[1:])

    def after(self, table: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Places the vectors in ``output``: (B, tokens, width) in the table's precision."""
        assert self.positions is not None
        positions, self.positions = self.positions, None
        rows = nn.functional.embedding(positions.clamp(min=0), self.vectors).to(output.dtype)
        return torch.where((positions >= 0)[..., None], rows, output)
