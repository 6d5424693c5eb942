"""`tincture generate`: pictures, to see what an adapter does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tincture.cli.session import Session, command
from tincture.errors import UsageError
from tincture.randomness import LARGEST_SEED
from tincture.settings.number_lists import number_list


def register(app: typer.Typer) -> None:
    command(app, "generate")(generate)


def generate(
    session: Session,
    prompts: Annotated[
        list[str], typer.Argument(metavar="PROMPT...", help="Prompts; embeddings by name, <hypernet:NAME:0.8>.")
    ],
    out: Annotated[Path | None, typer.Option(help="Folder for the pictures; else outputs in the workspace.")] = None,
    model: Annotated[str, typer.Option(help="Base model: picto, a name in the workspace, a path, a hub id.")] = "picto",
    vae: Annotated[str, typer.Option(help="VAE to use instead of the model's: a name in the workspace, a path.")] = "",
    family: Annotated[
        Literal["auto", "sd1", "sd2", "sdxl"], typer.Option(help="Family of the model, if its weights are not to say.")
    ] = "auto",
    prediction_type: Annotated[
        Literal["auto", "epsilon", "v_prediction"],
        typer.Option(help="What the model predicts, if its files are not to say."),
    ] = "auto",
    zero_terminal_snr: Annotated[
        bool | None, typer.Option(help="Whether its last timestep is pure noise, if its files are not to say.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N, mps, xpu.")] = "auto",
    precision: Annotated[Literal["fp32", "bf16", "fp16"], typer.Option(help="Precision of the model.")] = "fp32",
    negative_prompt: Annotated[str, typer.Option(help="What the pictures must not show.")] = "",
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of the first picture of each prompt.")] = 0,
    count: Annotated[int, typer.Option(min=1, help="Pictures of each prompt, seeds counting up.")] = 1,
    steps: Annotated[int, typer.Option(min=1, help="Sampling steps.")] = 20,
    sampler: Annotated[str, typer.Option(help="Sampler: Euler a, Euler, DDIM, DPM++ 2M, UniPC, ...")] = "Euler a",
    guidance_scale: Annotated[
        float | None,
        typer.Option(min=0, help="How strictly the prompt is followed; else the model's own (7; picto: 2)."),
    ] = None,
    width: Annotated[int, typer.Option(min=0, help="Width in pixels; 0: the model's own size.")] = 0,
    height: Annotated[int, typer.Option(min=0, help="Height in pixels; 0: the model's own size.")] = 0,
    clip_skip: Annotated[int, typer.Option(min=1, help="Layer of the text encoder, counted from the end.")] = 1,
    grid: Annotated[
        bool, typer.Option("--grid", help="One sheet: a column per strength, a row per checkpoint, of one prompt.")
    ] = False,
    strengths: Annotated[
        str, typer.Option(help="With --grid: strengths of the hypernetwork in the prompt.")
    ] = "0,0.25,0.5,0.75,1",
    checkpoints: Annotated[
        list[Path] | None, typer.Option("--checkpoint", help="With --grid: file of a row; repeat for more.")
    ] = None,
) -> None:
    """Make pictures; their settings are kept in the PNG files."""
    for name, size in (("width", width), ("height", height)):
        if size % 8:
            raise UsageError(f"--{name} is {size}, but must be a multiple of 8, or 0 for the model's own size.")
    if grid and (len(prompts), count) != (1, 1):
        raise UsageError(f"--grid takes one prompt and one seed, but {len(prompts)} and {count} were given.")
    columns = number_list("--strengths", strengths)
    workspace = session.workspace()
    from tincture.drawing import pictures as generation
    from tincture.settings.drawing import Drawing
    from tincture.settings.model_overrides import ModelOverrides

    drawing = Drawing(
        negative_prompt=negative_prompt,
        steps=steps,
        sampler=sampler,
        guidance_scale=guidance_scale,
        width=width or None,
        height=height or None,
        clip_skip=clip_skip,
    )
    shared: dict[str, Any] = {
        "workspace": workspace,
        "out": out or workspace.root / "outputs",
        "model": model,
        "overrides": ModelOverrides(
            vae=vae,
            family=None if family == "auto" else family,
            prediction_type=None if prediction_type == "auto" else prediction_type,
            zero_terminal_snr=zero_terminal_snr,
        ),
        "device": device,
        "precision": precision,
        "drawing": drawing,
    }
    if grid:
        sheet = generation.generate_grid(
            prompts[0], seed=seed, strengths=columns, checkpoints=checkpoints or [], **shared
        )
        paths = [sheet]
    else:
        paths = generation.generate_pictures(prompts, seeds=list(range(seed, seed + count)), **shared)
    session.show({"pictures": [str(path) for path in paths]}, "\n".join(str(path) for path in paths))
