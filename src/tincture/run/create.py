"""New adapters in a workspace."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tincture.adapters import embedding, hypernetwork
from tincture.errors import UsageError
from tincture.models.families import FAMILIES
from tincture.models.loading.load import load_model
from tincture.run.records import software
from tincture.workspace import Workspace


def create_embedding(
    name: str,
    *,
    workspace: Workspace,
    model: str = "picto",
    num_vectors: int = 1,
    init_text: str = "*",
    overwrite: bool = False,
) -> Path:
    """Writes a new embedding into the workspace and returns its path.

    Raises:
        UsageError: the name is not allowed or taken, or ``num_vectors`` is not in 1..75.
    """
    path = workspace.adapter_path("embedding", name)
    _refuse_existing(path, overwrite)
    base = load_model(model, workspace=workspace, text_only=True)
    made = embedding.create_embedding(path.stem, base, num_vectors, init_text)
    if len(made.vectors) > 1:  # the webui's format has no place for a second text encoder
        path = path.with_suffix(".safetensors")
        _refuse_existing(path, overwrite)
    made.save(path, model_name=base.name, model_hash=base.hash, provenance=software())
    return path


def create_hypernetwork(
    name: str,
    *,
    workspace: Workspace,
    model: str = "picto",
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
    path = workspace.adapter_path("hypernetwork", name)
    _refuse_existing(path, overwrite)
    base = None if sizes else load_model(model, workspace=workspace, text_only=True)
    made = hypernetwork.create_hypernetwork(
        path.stem,
        base.context_widths() if base else _widths(sizes or ()),
        layer_structure=layer_structure,
        activation_func=activation_func,
        weight_init=weight_init,
        add_layer_norm=add_layer_norm,
        activate_output=activate_output,
        dropout_structure=dropout_structure,
        seed=seed,
    )
    told = {"model_name": base.name, "model_hash": base.hash} if base else {}
    made.save(path, **told, provenance=software())
    return path


def _widths(sizes: Sequence[int] | str) -> Sequence[int]:
    if not isinstance(sizes, str):
        return sizes
    if sizes not in FAMILIES:
        raise UsageError(f"There is no family {sizes!r} to take the sizes of; known are {', '.join(FAMILIES)}.")
    return FAMILIES[sizes].context_widths


def _refuse_existing(path: Path, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists already; choose another name, or give --overwrite to replace it.")
