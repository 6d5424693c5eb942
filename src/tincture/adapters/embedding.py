"""Textual-inversion embeddings: trainable vectors that a model's text side places where their name stands.

The token table is never resized, copied or written, and no gradient of its size ever exists: only the new vectors are
parameters.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from tincture.adapters.adapter import Adapter, AuxiliaryLoss
from tincture.adapters.attention_mask import AttentionMaskLoss
from tincture.errors import FileFormatError, ModelError, UsageError
from tincture.formats.embedding_content import EmbeddingFile
from tincture.formats.embedding_file import read_embedding_file, write_embedding_file
from tincture.formats.embedding_optimizer import read_embedding_optimizer, write_embedding_optimizer
from tincture.formats.embedding_picture import write_embedding_png
from tincture.kinds.embedding import EMBEDDING, check_vectors
from tincture.kinds.registry import PLACEHOLDER
from tincture.settings.schedule import Schedule

if TYPE_CHECKING:
    from PIL import Image

    from tincture.models.diffusion_model import DiffusionModel
    from tincture.models.loading.token_tables import ModelWords

_OPTIMIZER = "AdamW"


class Embedding(Adapter):
    """Vectors that stand for a made-up word, its name; an ``Adapter``.

    Args:
        name: the placeholder in prompts.
        vectors: by text encoder name (``clip_l``; ``clip_h`` for SD 2; ``clip_l`` and ``clip_g`` for SDXL),
            (num_vectors, width); copied as float32.
        step: optimizer steps trained so far.
        model_name: the model trained on.
        model_hash: first 10 hex digits of its hash.
        provenance: JSON values about how it was made.

    Raises:
        UsageError: no vectors, or not of the shape (num_vectors, width).
    """

    kind: str = "embedding"
    trains_text: bool = True

    def __init__(
        self,
        name: str,
        vectors: Mapping[str, Tensor],
        step: int = 0,
        model_name: str = "",
        model_hash: str = "",
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        if not vectors or any(rows.ndim != 2 or not rows.numel() for rows in vectors.values()):
            shapes = {encoder: tuple(rows.shape) for encoder, rows in vectors.items()}
            raise UsageError(f"Embedding {name!r} needs vectors of the shape (num_vectors, width), not {shapes}.")
        self.name = name
        self.step = step
        self.model_name = model_name
        self.model_hash = model_hash
        self.provenance = dict(provenance or {})
        self._vectors = {
            encoder: nn.Parameter(rows.detach().to(torch.float32, copy=True)) for encoder, rows in vectors.items()
        }

    @property
    def vectors(self) -> Mapping[str, Tensor]:
        """By text encoder name: the trained parameters, float32 (num_vectors, width)."""
        return self._vectors

    @property
    def num_vectors(self) -> int:
        """How many tokens of a prompt it takes up."""
        return next(iter(self._vectors.values())).shape[0]

    @classmethod
    def create(cls, name: str, model: Callable[[], DiffusionModel | ModelWords], **options: Any) -> Embedding:
        """See ``create_embedding``."""
        return create_embedding(name, model(), **options)

    # --- acting ------------------------------------------------------------------------------------------------------

    @contextmanager
    def attach(self, model: DiffusionModel, multiplier: float = 1.0) -> Iterator[None]:
        """Makes ``model`` know the name: inside the context its prompts place the vectors where the name stands.

        It moves itself to the model's device. Several embeddings may be attached at once.

        Args:
            model: the frozen model.
            multiplier: 1; an embedding has no strength.

        Raises:
            UsageError: another multiplier.
            ModelError: it does not fit the model, see ``require_fit``, or is attached already.
        """
        if multiplier != 1.0:
            raise UsageError(f"Embedding {self.name!r} cannot have the multiplier {multiplier}; only 1 is possible.")
        self.require_fit(model)
        self.to(model.device)
        with model.text.attach(self):
            yield

    def require_fit(self, model: DiffusionModel) -> None:
        """Makes sure that ``attach`` can place the vectors.

        Raises:
            ModelError: they are not of the widths of the model's text encoders, or more than a prompt has room for.
        """
        needed = model.text.widths
        widths = {encoder: rows.shape[1] for encoder, rows in self._vectors.items()}
        if widths != needed:
            raise ModelError(
                f"Embedding {self.name!r} has vectors of width {_listed(widths)}, but the text encoder of "
                f"{model.called} is {_listed(needed)} ({model.family.title}); choose one made for this kind of "
                "model, or name the model that it was made for (--model)."
            )
        counts = {encoder: len(rows) for encoder, rows in self._vectors.items()}
        if len(set(counts.values())) > 1:
            raise ModelError(
                f"Embedding {self.name!r} has unequal numbers of vectors ({_listed(counts)}), but each of its tokens "
                "needs one for every text encoder; its file is damaged or was put together wrongly."
            )
        if self.num_vectors > model.text.max_vectors:
            raise ModelError(
                f"Embedding {self.name!r} has {self.num_vectors} vectors, but a prompt has room for "
                f"{model.text.max_vectors} in a row; use one with fewer."
            )

    def check_run(self, settings: Mapping[str, Any], model: DiffusionModel, lines: Sequence[str]) -> None:
        """See ``Adapter``; every line of the template must name it, and a card holds vectors of one text encoder."""
        self.require_fit(model)
        if settings["preview_with_embedding"] and len(self._vectors) > 1:
            raise UsageError(
                "--preview-with-embedding is on, but a picture has no place for vectors of several text encoders, as "
                f"{model.family.title} has them; leave it out."
            )
        unnamed = [line for line in lines if PLACEHOLDER not in line]
        if unnamed:
            raise UsageError(
                f"The template {settings['template']!r} has a line without [name] ({unnamed[0]!r}): nothing in it can "
                "be trained. Use subject, subject_filewords, style, style_filewords or a template of your own with "
                "[name]."
            )

    def is_taught_by(self, prompts: Sequence[str], model: DiffusionModel) -> bool:
        """Those with its name do."""
        (spelling,) = model.text.vocabulary.spellings([self.name])
        return bool(model.text.vocabulary.finder([(spelling, True)])(prompts))

    # --- training ----------------------------------------------------------------------------------------------------

    def parameters(self) -> list[nn.Parameter]:
        """The vectors, float32 (num_vectors, width), one tensor per text encoder."""
        return list(self._vectors.values())

    def token_vectors(self) -> Sequence[tuple[str, nn.Parameter]]:
        """All of them."""
        return [*self._vectors.items()]

    def train(self, mode: bool = True) -> Self:
        """Nothing differs between training and use."""
        return self

    def to(self, device: torch.device | str) -> Self:
        """Moves the vectors, which stay the same objects."""
        for rows in self._vectors.values():
            rows.data = rows.data.to(device)
        return self

    def auxiliary_loss(
        self, settings: Mapping[str, Any], model: DiffusionModel, masks: Callable[[], Sequence[Tensor | None]]
    ) -> AuxiliaryLoss | None:
        """The one that holds the attention to its name to the masks, if the settings give it a weight."""
        weight = settings["attention_mask_weight"]
        return AttentionMaskLoss(model, self, masks(), Schedule.parse(weight, settings["steps"])) if weight else None

    def state_dict(self) -> dict[str, Tensor]:
        """The vectors by text encoder name, not copied."""
        return {encoder: rows.detach() for encoder, rows in self._vectors.items()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copies the values of ``state_dict`` into the vectors.

        Raises:
            FileFormatError: names or shapes differ.
        """
        shapes = {encoder: tuple(rows.shape) for encoder, rows in self._vectors.items()}
        given = {encoder: tuple(rows.shape) for encoder, rows in state.items()}
        if shapes != given:
            raise FileFormatError(
                f"The saved vectors do not fit embedding {self.name!r}: it has {shapes}, the saved state {given}."
            )
        for encoder, rows in self._vectors.items():
            rows.copy_(state[encoder])

    def webui_settings(self) -> dict[str, Any]:
        """How many vectors there are."""
        return {"num_vectors_per_token": self.num_vectors}

    # --- files -------------------------------------------------------------------------------------------------------

    @property
    def suffix(self) -> str:
        """The webui's format has no place for a second text encoder."""
        return ".pt" if len(self._vectors) == 1 else ".safetensors"

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        model_name: str = "",
        model_hash: str = "",
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes an embedding file, whole or not at all; what is not given stays as it was known.

        The suffix tells the format: ``.safetensors``, ``.bin`` (diffusers), ``.png`` or ``.webp``; any other gives the
        webui's ``.pt``. Vectors for two text encoders fit into ``.safetensors`` only.

        Raises:
            UsageError: vectors for more text encoders than the format has a place for.
            StorageError: a full disk, no permission.
        """
        write_embedding_file(path, self.content(model_name, model_hash, provenance))

    def content(
        self, model_name: str = "", model_hash: str = "", provenance: Mapping[str, Any] | None = None
    ) -> EmbeddingFile:
        """What ``save`` writes; the vectors are not copied."""
        return EmbeddingFile(
            vectors=self.state_dict(),
            name=self.name,
            step=self.step,
            model_name=model_name or self.model_name,
            model_hash=model_hash or self.model_hash,
            provenance=dict(self.provenance if provenance is None else provenance),
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Reads an embedding file of any program (docs/files.md) onto the CPU; code in it is never run.

        Raises:
            FileFormatError: no such file, damaged, no embedding, or a broken one.
            StorageError: the system refuses to read it.
        """
        file = read_embedding_file(path)
        return cls(file.name, file.vectors, file.step, file.model_name, file.model_hash, file.provenance)

    def save_card(
        self, path: str | os.PathLike[str], picture: Image.Image, *, model_name: str = "", model_hash: str = ""
    ) -> None:
        """Writes a PNG that shows ``picture`` and holds the vectors, which must be for one text encoder."""
        write_embedding_png(path, self.content(model_name, model_hash), picture)

    def save_optimizer(self, path: str | os.PathLike[str], optimizer: str, state: Mapping[str, Any]) -> None:
        """Writes the webui's ``PATH.optim``; that of another optimizer than AdamW is not written, with a warning."""
        if optimizer != _OPTIMIZER:
            warnings.warn(
                f"{os.fspath(path)}.optim is not written: beside an embedding it can hold AdamW's state only.",
                stacklevel=3,
            )
            return
        write_embedding_optimizer(path, self._flat(), state)

    def load_optimizer(self, path: str | os.PathLike[str]) -> tuple[str, dict[str, Any]] | None:
        """The webui's file names no optimizer, since it knows one only."""
        state = read_embedding_optimizer(path, self._flat())
        return None if state is None else (_OPTIMIZER, state)

    def _flat(self) -> Tensor:
        return torch.cat([rows.detach().reshape(-1) for rows in self._vectors.values()])


def create_embedding(
    name: str,
    model: DiffusionModel | ModelWords,
    num_vectors: int = EMBEDDING.option("num_vectors").default,
    init_text: str = EMBEDDING.option("init_text").default,
) -> Embedding:
    """A new embedding that starts from the model's own vectors of ``init_text``.

    The n tokens of the text are spread over the vectors: vector i starts as token floor(i * n / num_vectors). An empty
    text gives zeros.

    Raises:
        UsageError: ``num_vectors`` is not in 1..75, or what else a prompt for the model has room for.
    """
    check_vectors(num_vectors, model.text.max_vectors)
    starts = model.text.token_embeddings(init_text)
    vectors = {encoder: _spread(tokens, num_vectors) for encoder, tokens in starts.items()}
    return Embedding(name, vectors, model_name=model.name, model_hash=model.hash)


def _spread(tokens: Tensor, num_vectors: int) -> Tensor:
    """Rows (num_vectors, width) float32 of ``tokens`` (n, width); zeros when there is none."""
    if not len(tokens):
        return torch.zeros(num_vectors, tokens.shape[1])
    return tokens.float().cpu()[torch.arange(num_vectors) * len(tokens) // num_vectors]


def _listed(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{encoder} {number}" for encoder, number in numbers.items())
