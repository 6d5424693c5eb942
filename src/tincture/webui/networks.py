"""Embeddings and hypernetworks with the members that scripts for the webui read, over Tincture's own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, cast

from torch import Tensor, nn

from tincture.adapters import embedding, embedding_database, hypernetwork
from tincture.adapters.adapter import Adapter
from tincture.formats.embedding_content import encoder_of
from tincture.formats.hash_cache import sha256_of
from tincture.models.diffusion_model import DiffusionModel
from tincture.models.loading.default_model import default_model
from tincture.models.loading.load import load_model
from tincture.workspace import Workspace

SHORT = 10
"""Hex digits of a hash as the webui shows it."""
_DEFAULT_OPTIMIZER = "AdamW"


class _Members:
    """What both have; to be mixed into an ``Adapter``.

    Attributes:
        filename: the file that it was loaded from or saved to last; None: none yet.
    """

    filename: str | None = None
    model_name: str
    model_hash: str

    @property
    def sd_checkpoint(self) -> str | None:
        """First 10 hex digits of the hash of the model that it was trained on; None where none is known."""
        return self.model_hash or None

    @sd_checkpoint.setter
    def sd_checkpoint(self, value: str | None) -> None:
        self.model_hash = value or ""

    @property
    def sd_checkpoint_name(self) -> str | None:
        """Name of that model; None where none is known."""
        return self.model_name or None

    @sd_checkpoint_name.setter
    def sd_checkpoint_name(self, value: str | None) -> None:
        self.model_name = value or ""

    @property
    def optimizer_name(self) -> str:
        """The optimizer whose state lies beside its file; where none does AdamW, the usual one of trainings."""
        saved = self._saved_optimizer()
        return saved[0] if saved else _DEFAULT_OPTIMIZER

    @property
    def optimizer_state_dict(self) -> dict[str, Any] | None:
        """The state that lies beside its file; None where there is none, or that of another file."""
        saved = self._saved_optimizer()
        return saved[1] if saved else None

    def shorthash(self) -> str | None:
        """First 10 hex digits of its file's sha256; None for what was never saved."""
        return sha256_of([Path(self.filename)])[:SHORT] if self.filename else None

    def _saved_optimizer(self) -> tuple[str, dict[str, Any]] | None:
        return cast(Adapter, self).load_optimizer(self.filename) if self.filename else None


class Hypernetwork(_Members, hypernetwork.Hypernetwork):
    """A hypernetwork with the webui's members; see ``tincture.Hypernetwork`` for all others.

    Args:
        enable_sizes: context widths; none: those of Stable Diffusion 1.
        layer_structure, activation_func, weight_init, add_layer_norm, use_dropout, activate_output: as in the webui.
        more: further arguments of ``tincture.Hypernetwork``, by name.
    """

    def __init__(
        self,
        name: str = "",
        enable_sizes: Sequence[int | str] | None = None,
        layer_structure: Sequence[float] | None = None,
        activation_func: str | None = None,
        weight_init: str | None = None,
        add_layer_norm: bool = False,
        use_dropout: bool = False,
        activate_output: bool = False,
        **more: Any,
    ) -> None:
        sizes = [int(size) for size in enable_sizes] if enable_sizes else hypernetwork.SD1_WIDTHS
        options = {"sizes": sizes, "use_dropout": use_dropout, "activate_output": activate_output, **more}
        super().__init__(
            name,
            layer_structure=layer_structure or (1, 2, 1),
            activation_func=activation_func,
            weight_init=weight_init or "Normal",
            add_layer_norm=add_layer_norm,
            **options,
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """See ``tincture.Hypernetwork.load``."""
        loaded = super().load(path)
        loaded.filename = os.fspath(path)
        return loaded

    def save(self, path: str | os.PathLike[str], **facts: Any) -> None:
        """See ``tincture.Hypernetwork.save``."""
        super().save(path, **facts)
        self.filename = os.fspath(path)

    @property
    def layers(self) -> Mapping[int, tuple[nn.Module, nn.Module]]:
        """By context width, the modules for keys and for values."""
        return self.pairs

    @property
    def use_dropout(self) -> bool:
        """Whether any layer has dropout."""
        return any(self.dropout_structure)

    def weights(self) -> list[nn.Parameter]:
        """All trained weights, float32, as an optimizer takes them."""
        return self.parameters()

    def eval(self) -> Self:
        """Turns dropout off."""
        return self.train(False)


class Embedding(_Members, embedding.Embedding):
    """An embedding with the webui's members; see ``tincture.Embedding`` for all others.

    Args:
        vec: (vectors, width); for several text encoders, by their names.
        name: the placeholder in prompts.
        step: optimizer steps trained so far.
    """

    def __init__(self, vec: Tensor | Mapping[str, Tensor], name: str, step: int | None = None) -> None:
        super().__init__(name, vec if isinstance(vec, Mapping) else {encoder_of(vec): vec}, step or 0)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """See ``tincture.Embedding.load``."""
        loaded = cls.of(embedding.Embedding.load(path))
        loaded.filename = os.fspath(path)
        return loaded

    @classmethod
    def of(cls, plain: embedding.Embedding) -> Self:
        """The same with the webui's members; its vectors are copied."""
        made = cls(plain.vectors, plain.name, plain.step)
        made.model_name, made.model_hash, made.provenance = plain.model_name, plain.model_hash, plain.provenance
        return made

    def save(self, path: str | os.PathLike[str], **facts: Any) -> None:
        """See ``tincture.Embedding.save``."""
        super().save(path, **facts)
        self.filename = os.fspath(path)

    @property
    def vec(self) -> Tensor | Mapping[str, Tensor]:
        """The trained vectors, float32 (vectors, width); for several text encoders, by their names."""
        return self.vectors if len(self.vectors) > 1 else next(iter(self.vectors.values()))

    @property
    def shape(self) -> int:
        """Width of its vectors; of several text encoders, all together."""
        return sum(rows.shape[1] for rows in self.vectors.values())


class EmbeddingDatabase(embedding_database.EmbeddingDatabase):
    """The embeddings of folders, with the webui's members; see ``tincture.EmbeddingDatabase`` for all others.

    Args:
        folders: more can be added by ``add_embedding_dir``.

    Attributes:
        word_embeddings: by name, what the model can use.
        skipped_embeddings: by name, what is of other models.
        expected_shape: width of the vectors that the model takes; -1 before files were looked at.
    """

    def __init__(self, folders: Iterable[str | os.PathLike[str]] = ()) -> None:
        super().__init__(folders)
        self.word_embeddings: dict[str, Embedding] = {}
        self.skipped_embeddings: dict[str, Embedding] = {}
        self.expected_shape = -1

    def add_embedding_dir(self, path: str | os.PathLike[str]) -> None:
        """Looks below ``path`` too, from the next ``load_textual_inversion_embeddings`` on."""
        self.folders = (*self.folders, Path(path))

    def clear_embedding_dirs(self) -> None:
        """Forgets all folders."""
        self.folders = ()

    def load_textual_inversion_embeddings(
        self, force_reload: bool = False, *, model: DiffusionModel | str = "", workspace: Workspace | None = None
    ) -> None:
        """Reads what is new or changed, and sorts all by what the model can use.

        Args:
            force_reload: reads every file again.
            model: a model or its name; empty: the last used or the first of the workspace, or picto.
            workspace: where names are looked up; None: TINCTURE_ROOT, or the current folder.

        Raises:
            ModelError: there is no such model.
        """
        base = loaded_model(model, workspace, text_only=True)
        self.refresh(base, force=force_reload)
        self.expected_shape = sum(base.text.widths.values())
        self.word_embeddings = {name: _of_file(entry.path, entry.embedding) for name, entry in self.loaded.items()}
        self.skipped_embeddings = {
            entry.name: _of_file(entry.path, entry.embedding) for entry in self.skipped if entry.embedding
        }


def _of_file(path: Path, plain: embedding.Embedding) -> Embedding:
    made = Embedding.of(plain)
    made.filename = str(path)
    return made


def loaded_model(
    model: DiffusionModel | str, workspace: Workspace | None, *, text_only: bool = False
) -> DiffusionModel:
    """The model, or the one of that name; empty: the last used or the first of the workspace, or picto. ModelError."""
    if not isinstance(model, str):
        return model
    place = workspace or Workspace.open(None)
    return load_model(model or str(default_model(place, or_first=True)), workspace=place, text_only=text_only)
