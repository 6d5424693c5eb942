"""`tincture generate`: pictures, to see what an adapter does. The flags are made from the settings of drawings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tincture.cli.flags import flag, given, typed_path
from tincture.cli.models import named_model
from tincture.cli.session import Session, command
from tincture.errors import UsageError
from tincture.models.heavy_imports import heavy_imports
from tincture.settings.drawing import DRAWING_FIELDS, DrawingSettings
from tincture.settings.number_lists import number_list
from tincture.settings.toml import read_toml

FLAGLESS = ("prompts", "seeds")
"""Settings without a flag: prompts stand alone, and seeds are said by --seed and --count."""


def register(app: typer.Typer) -> None:
    flags = [flag(spec, ranged=True) for name, spec in DRAWING_FIELDS.items() if name not in FLAGLESS]
    command(app, "generate", extra=flags)(generate)


def generate(
    session: Session,
    prompts: Annotated[
        list[str] | None, typer.Argument(metavar="PROMPT...", help=DRAWING_FIELDS["prompts"].help)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the pictures; else outputs in the workspace.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with settings; flags win over it.")] = None,
    **flags: Any,
) -> None:
    """Make pictures; their settings are kept in the PNG files."""
    if not prompts and config is None:
        raise UsageError("Missing argument 'PROMPT...'. See tincture generate --help.")
    settings = _settings({"prompts": prompts or None, **flags}, config)
    workspace = session.workspace()
    folder = typed_path(out) if out else workspace.root / "outputs"
    from tincture.formats.files import require_place
    from tincture.run import presence

    settings = settings.replace(model=named_model(session, settings.model, workspace))
    presence.require_drawing(settings, workspace)
    require_place(folder)
    with heavy_imports():
        from tincture.models.devices import resolve_device

    resolve_device(settings.device)  # torch alone knows it, and the rest takes three times as long to load
    with heavy_imports():
        from tincture.drawing import generation
    from tincture.extensions import load_extensions
    from tincture.models.threads import computing_threads

    shared: dict[str, Any] = {
        "workspace": workspace,
        "out": folder,
        "model": settings.model,
        "overrides": settings.overrides(),
        "device": settings.device,
        "precision": settings.precision,
        "drawing": settings.drawing(),
    }
    if (extensions := load_extensions(root=workspace.root)).listen_at("on_model_loaded"):
        shared["studio"] = generation.Studio(workspace, extensions.model_loaded)
    seeds = settings.drawn_seeds()
    with computing_threads(settings.threads):
        if settings.is_sheet:
            rows = [Path(checkpoint) for checkpoint in settings.checkpoints]
            sheet = generation.generate_grid(
                settings.prompts[0], seed=seeds[0], strengths=settings.columns, checkpoints=rows, **shared
            )
            paths = [sheet]
        else:
            if settings.batch_size is not None:
                shared["batch_size"] = settings.batch_size
            paths = generation.generate_pictures(list(settings.prompts), seeds=seeds, **shared)
    session.show({"pictures": [str(path) for path in paths]}, "\n".join(str(path) for path in paths))


def _settings(flags: dict[str, Any], config: Path | None) -> DrawingSettings:
    """Flags win over the file; what is wrong with a flag is called by its name."""
    values = given(flags)
    for name in ("width", "height"):
        if values.get(name, 0) % 8:
            raise UsageError(f"--{name} is {values[name]}, but must be a multiple of 8, or 0 for the model's own size.")
    if "strengths" in values:
        values["strengths"] = number_list("--strengths", values["strengths"])
    from_file = read_toml(config) if config else {}
    settings = DrawingSettings.from_dict({**from_file, **values}, source=str(config or ""))
    prompts, seeds = len(settings.prompts), settings.seed_count
    if settings.is_sheet and (prompts, seeds) != (1, 1):
        raise UsageError(f"--grid takes one prompt and one seed, but {prompts} and {seeds} were given.")
    return settings
