"""New adapters in a workspace."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tincture.adapters.adapter import adapter_class
from tincture.adapters.embedding import Embedding
from tincture.adapters.hypernetwork import Hypernetwork
from tincture.formats.software import software
from tincture.kinds.embedding import EMBEDDING
from tincture.kinds.registry import find_kind
from tincture.models.loading.default_model import remember_model
from tincture.models.loading.sources import find_source
from tincture.models.loading.token_tables import load_words
from tincture.run.past.again import CREATED
from tincture.run.presence import refuse_existing
from tincture.workspace import Workspace


def create(
    kind: str, name: str, *, workspace: Workspace, model: str = "", overwrite: bool = False, **options: Any
) -> Path:
    """Writes a new adapter into the workspace and returns its path.

    Args:
        kind: the name of its ``AdapterKind``, whose ``options`` may be given.
        model: the base model that it is for; empty: the workspace's default.

    Raises:
        UsageError: the name is not allowed or taken, or an option's value is not allowed.
    """
    path = workspace.adapter_path(kind, name)
    refuse_existing(path, overwrite)
    description = find_kind(kind)
    base = functools.cache(lambda: _base(model, workspace, description.words_alone))
    made = adapter_class(description).create(path.stem, base, **options)
    if made.suffix != path.suffix:
        path = path.with_suffix(made.suffix)
        refuse_existing(path, overwrite)
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}
    made.save(path, provenance={**software(), CREATED: {"kind": kind, **plain}})
    return path


def _base(model: str, workspace: Workspace, words_alone: bool) -> Any:
    """A ``DiffusionModel``, or its ``ModelWords``."""
    source = find_source(model, workspace)
    if words_alone:
        found: Any = load_words(str(source), workspace=workspace)
    else:
        from tincture.models.loading.load import load_model  # loads diffusers and transformers

        found = load_model(str(source), workspace=workspace, text_only=True)
    remember_model(workspace, source.path)
    return found


def create_embedding(
    name: str,
    *,
    workspace: Workspace,
    model: str = "",
    num_vectors: int = EMBEDDING.option("num_vectors").default,
    init_text: str = EMBEDDING.option("init_text").default,
    overwrite: bool = False,
) -> Path:
    """Writes a new embedding into the workspace and returns its path.

    Raises:
        UsageError: the name is not allowed or taken, or ``num_vectors`` is not in 1..75.
    """
    return create(
        Embedding.kind,
        name,
        workspace=workspace,
        model=model,
        num_vectors=num_vectors,
        init_text=init_text,
        overwrite=overwrite,
    )


def create_hypernetwork(
    name: str,
    *,
    workspace: Workspace,
    model: str = "",
    sizes: Sequence[int] | str | None = None,
    layer_structure: Sequence[float] = (1, 2, 1),
    activation_func: str = "linear",
    weight_init: str = "Normal",
    add_layer_norm: bool = False,
    activate_output: bool = False,
    dropout_structure: Sequence[float] | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> Path:
    """Writes a new hypernetwork into the workspace and returns its path.

    Args:
        sizes: context widths to have a pair for, or the name of a family for all of its widths; then no model is
            loaded. None takes every width of ``model``.

    Raises:
        UsageError: the name is not allowed or taken, there is no such family, or the structure makes no sense.
    """
    return create(
        Hypernetwork.kind,
        name,
        workspace=workspace,
        model=model,
        sizes=sizes,
        layer_structure=layer_structure,
        activation_func=activation_func,
        weight_init=weight_init,
        add_layer_norm=add_layer_norm,
        activate_output=activate_output,
        dropout_structure=dropout_structure,
        seed=seed,
        overwrite=overwrite,
    )
