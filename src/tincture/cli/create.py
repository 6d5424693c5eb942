"""`tincture create`: new adapter files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tincture.cli.session import Session, command, new_group, show_help
from tincture.randomness import LARGEST_SEED
from tincture.settings.number_lists import number_list, whole_number_list

Name = Annotated[str, typer.Argument(metavar="NAME", help="Its name; also the file's name.")]
Model = Annotated[
    str, typer.Option(help="Base model: picto, a checkpoint file, a diffusers folder, or a name in the workspace.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing file of that name.")]


def register(app: typer.Typer) -> None:
    group = new_group("create")
    command(group, "create", group=True)(create)
    command(group, "embedding")(create_embedding)
    command(group, "hypernetwork")(create_hypernetwork)
    app.add_typer(group)


def create(session: Session, context: typer.Context) -> None:
    """Make a new embedding or hypernetwork file."""
    if context.invoked_subcommand is None:
        show_help(context)


def create_embedding(
    session: Session,
    name: Name,
    vectors: Annotated[
        int, typer.Option("--vectors", "--num-vectors", min=1, help="Number of vectors: tokens it stands for.")
    ] = 1,
    init_text: Annotated[str, typer.Option(help="Text whose tokens it starts from; empty: zeros.")] = "*",
    model: Model = "picto",
    overwrite: Overwrite = False,
) -> None:
    """Make a new textual-inversion embedding in ROOT/embeddings."""
    workspace = session.workspace()
    workspace.adapter_path("embedding", name)  # a wrong name is told before anything heavy is loaded
    from tincture import recipe

    path = recipe.create_embedding(
        name, workspace=workspace, model=model, num_vectors=vectors, init_text=init_text, overwrite=overwrite
    )
    _show(session, "embedding", path)


def create_hypernetwork(
    session: Session,
    name: Name,
    sizes: Annotated[
        str,
        typer.Option(
            help="Context widths that get a pair of modules, like 768,320, or those of a family: sd1, sd2 or sdxl; no "
            "model is loaded then. Empty: all of the model."
        ),
    ] = "",
    layer_structure: Annotated[
        str, typer.Option(help="Widths of the layers as factors; first and last must be 1.")
    ] = "1,2,1",
    activation: Annotated[str, typer.Option(help="Activation between layers: linear, relu, swish, mish, ...")] = (
        "linear"
    ),
    weight_init: Annotated[
        str, typer.Option(help="Normal, XavierUniform, XavierNormal, KaimingUniform or KaimingNormal.")
    ] = "Normal",
    layer_norm: Annotated[bool, typer.Option("--layer-norm", help="Add a layer norm behind each layer.")] = False,
    activate_output: Annotated[
        bool, typer.Option("--activate-output", help="Put the activation behind the last layer too.")
    ] = False,
    dropout_structure: Annotated[
        str, typer.Option(help="Dropout per entry of the structure, like 0,0.3,0; empty: none.")
    ] = "",
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of the first weights.")] = 0,
    model: Model = "picto",
    overwrite: Overwrite = False,
) -> None:
    """Make a new hypernetwork in ROOT/models/hypernetworks."""
    workspace = session.workspace()
    workspace.adapter_path("hypernetwork", name)
    widths = _sizes(sizes)
    structure = number_list("--layer-structure", layer_structure)
    dropout = number_list("--dropout-structure", dropout_structure) if dropout_structure else None
    from tincture import recipe

    path = recipe.create_hypernetwork(
        name,
        workspace=workspace,
        model=model,
        sizes=widths,
        layer_structure=structure,
        activation_func=activation,
        weight_init=weight_init,
        add_layer_norm=layer_norm,
        activate_output=activate_output,
        dropout_structure=dropout,
        seed=seed,
        overwrite=overwrite,
    )
    _show(session, "hypernetwork", path)


def _sizes(text: str) -> list[int] | str | None:
    """Numbers, or a word: the name of a family."""
    if not text or text[0].isalpha():
        return text or None
    return whole_number_list("--sizes", text)


def _show(session: Session, kind: str, path: Path) -> None:
    session.show({"kind": kind, "path": str(path)}, f"made {path}")
