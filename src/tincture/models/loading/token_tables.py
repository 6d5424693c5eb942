"""The vectors that a model's text encoders have for tokens: all that a new embedding begins with.

Read alone, in a fraction of the time that the model takes: of its files nothing but tokenizers, shapes and the rows
that are asked for, and of the libraries neither diffusers nor transformers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from tincture.errors import ModelError
from tincture.formats.tensor_file import TensorFile
from tincture.models.families import FAMILIES, Family, TextEncoderSpec
from tincture.models.loading.checkpoint_kind import CLIP_TABLE, FoundTextEncoder
from tincture.models.loading.config_files import read_config, wrong_shape
from tincture.models.loading.folder_family import family_of
from tincture.models.loading.model_file import (
    open_model_file,
    open_part_file,
    pictos_configs,
    require_checkpoint,
    require_text_encoders,
)
from tincture.models.loading.plain_tokenizer import POSITIONS, folder_tokenizer, own_tokenizer
from tincture.models.loading.sources import Source, find_source, short_hash
from tincture.models.loading.weight_files import weight_files
from tincture.models.tokens import rows_of, too_many_tokens

if TYPE_CHECKING:
    from tincture.workspace import Workspace

_OPEN_CLIP_NAMES = ("token_embedding.weight", "positional_embedding")
_CLIP_NAMES = (CLIP_TABLE, "embeddings.position_embedding.weight")


@dataclass(frozen=True)
class TokenTable:
    """Of one text encoder.

    Attributes:
        name: its key in ``Embedding.vectors``.
        tokenizer: gives ids for texts; ``model_max_length`` are the tokens that the text encoder takes.
        rows: (tokens, width), in the precision of the file and in its memory.
    """

    name: str
    tokenizer: Any
    rows: Tensor


@dataclass(frozen=True)
class TokenTables:
    """What a ``TextSide`` knows without its text encoders."""

    tables: tuple[TokenTable, ...]

    @property
    def max_vectors(self) -> int:
        """How many vectors in a row a chunk has room for."""
        return int(self.tables[0].tokenizer.model_max_length) - 2

    def token_embeddings(self, text: str) -> dict[str, Tensor]:
        """By text encoder name, copies of its vectors for the tokens of ``text``: (tokens, width), float32."""
        return {table.name: rows_of(table.tokenizer, table.rows, text).float() for table in self.tables}


@dataclass(frozen=True)
class ModelWords:
    """What a base model is called, and its token tables.

    Attributes:
        name: see ``StableDiffusion``; ``hash`` likewise.
    """

    name: str
    hash: str
    text: TokenTables


def load_words(name: str = "", *, workspace: Workspace | None = None) -> ModelWords:
    """The token tables of the model ``name``; see ``load_model``, as whose text encoders they read texts.

    Raises:
        ModelError: no such model, or what is needed of it is missing, broken or does not fit together.
        UsageError: none is named, and there are several.
    """
    source = find_source(name, workspace)
    path = source.path or _fetched(source)
    tables = tuple(_of_folder(path, source) if path.is_dir() else _of_file(path, source))
    return ModelWords(source.name, short_hash(path), TokenTables(tables))


def _fetched(source: Source) -> Path:
    from tincture.models.loading import hub  # loads huggingface_hub

    return hub.fetch(source.hub_id)


def _checked(source: Source, spec: TextEncoderSpec, tokenizer: Any, rows: Tensor, place: str) -> TokenTable:
    if not rows.is_floating_point():
        raise ModelError(f"{place} cannot be loaded: its token table holds {rows.dtype}, not real numbers.")
    if len(tokenizer) > len(rows):
        raise too_many_tokens(source, spec, len(tokenizer), len(rows))
    return TokenTable(spec.name, tokenizer, rows)


# --- diffusers folders ------------------------------------------------------------------------------------------------


def _of_folder(folder: Path, source: Source) -> Iterator[TokenTable]:
    for spec in family_of(folder).text_encoders:
        part = folder / spec.component
        place, config = f"The {spec.component} in {part}", read_config(part / "config.json")
        rows = _table_in(part, place)
        needed = (config.get("vocab_size", len(rows)), config.get("hidden_size", rows.shape[-1]))
        if tuple(rows.shape) != needed:
            raise wrong_shape(place, CLIP_TABLE, tuple(rows.shape), needed)
        positions = int(config.get("max_position_embeddings", POSITIONS))
        tokenizer = folder_tokenizer(
            folder / spec.tokenizer,
            positions,
            open_clip=spec.open_clip,
            whole=partial(_whole_folder_tokenizer, folder, spec, positions),
        )
        yield _checked(source, spec, tokenizer, rows, place)


def _table_in(part: Path, place: str) -> Tensor:
    for path in weight_files(part):
        file = open_part_file(path)
        for name in file.shapes:
            if name.removeprefix("text_model.") == CLIP_TABLE:
                return file.tensor(name)
    raise ModelError(f"{place} lacks 1 weights, for example {CLIP_TABLE}; copy it again.")


def _whole_folder_tokenizer(folder: Path, spec: TextEncoderSpec, positions: int) -> Any:
    from tincture.models.loading.diffusers_folder import part_tokenizer  # loads diffusers and transformers

    return part_tokenizer(folder, spec, positions)


# --- single files -----------------------------------------------------------------------------------------------------


def _of_file(path: Path, source: Source) -> Iterator[TokenTable]:
    file = open_model_file(path)
    found = require_checkpoint(file)
    family: Family = FAMILIES[found.family]
    require_text_encoders(file, found, family)
    configs = pictos_configs(file, found)
    for encoder, spec in zip(found.text_encoders, family.text_encoders, strict=False):
        yield _of_encoder(file, encoder, spec, configs, source)


def _of_encoder(
    file: TensorFile, encoder: FoundTextEncoder, spec: TextEncoderSpec, configs: Path | None, source: Source
) -> TokenTable:
    table, positional = (
        encoder.prefix + name for name in (_CLIP_NAMES if encoder.layout == "clip" else _OPEN_CLIP_NAMES)
    )
    positions = file.shapes[positional].size[0]
    if configs is None:
        whole = partial(_whole_own_tokenizer, spec, positions)
        tokenizer: Any = own_tokenizer(positions, open_clip=spec.open_clip, whole=whole)
    else:
        whole = partial(_whole_folder_tokenizer, configs, spec, positions)
        tokenizer = folder_tokenizer(configs / spec.tokenizer, positions, open_clip=spec.open_clip, whole=whole)
    rows = file.tensor(table)
    if rows.ndim != 2 or rows.shape[1] != encoder.width:
        raise wrong_shape(f"The {spec.component} in {file.path}", table, tuple(rows.shape), (len(rows), encoder.width))
    return _checked(source, spec, tokenizer, rows, f"The {spec.component} in {file.path}")


def _whole_own_tokenizer(spec: TextEncoderSpec, positions: int) -> Any:
    from tincture.models.loading.clip_tokenizer import clip_tokenizer  # loads transformers

    return clip_tokenizer(spec.pad_token, positions, open_clip=spec.open_clip)
