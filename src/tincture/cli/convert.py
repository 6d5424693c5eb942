"""`tincture convert`: adapter files from one format to another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tincture.cli.session import Session, command

Format = Literal["pt", "bin", "safetensors", "kohya", "sdxl", "png", "webp", "lora"]


def register(app: typer.Typer) -> None:
    command(app, "convert")(convert)


def convert(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Embedding or hypernetwork of any format.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="File to write.")],
    to: Annotated[Format | None, typer.Option(help="Format of OUT; else its suffix tells.")] = None,
    name: Annotated[str, typer.Option(help="New name of the adapter; else it keeps its own.")] = "",
    author: Annotated[str, typer.Option(help="Who made it, to be told by the file.")] = "",
    license: Annotated[str, typer.Option(help="Its licence, such as CC-BY-4.0, to be told by the file.")] = "",
    picture: Annotated[
        Path | None, typer.Option(help="Picture that a PNG or WebP card is drawn on; else a pattern.")
    ] = None,
    model: Annotated[
        str, typer.Option(help="For a LoRA: the base model it is to act with; a name in the workspace, a path.")
    ] = "",
    rank: Annotated[int | None, typer.Option(min=1, help="For a LoRA: its rank; 64 is usual.")] = None,
    captions: Annotated[
        Path | None, typer.Option(help="For a LoRA: text file of captions like those trained on, one in each line.")
    ] = None,
    strength: Annotated[float, typer.Option(help="For a LoRA: strength of the hypernetwork in it.")] = 1.0,
    output_bias: Annotated[
        bool, typer.Option("--output-bias", help="For a LoRA: keep constants exactly, which diffusers cannot read.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it is there.")] = False,
) -> None:
    """Write an embedding or hypernetwork in another format; what gets lost is told before."""
    from tincture.adapters.files import conversion

    wanted = conversion.LoraOptions(
        model=model,
        rank=rank,
        captions=conversion.read_captions(captions) if captions else (),
        multiplier=strength,
        output_bias=output_bias,
    )
    plan = conversion.plan_conversion(
        file,
        out,
        to,
        name=name,
        author=author,
        license=license,
        picture=picture,
        lora=None if wanted == conversion.LoraOptions() else wanted,
        overwrite=overwrite,
        workspace=session.workspace() if model else None,
    )
    for sentence in plan.lost:
        session.say(f"lost: {sentence}")
    report = conversion.make_conversion(plan)
    session.show(report, as_text(report))


def as_text(report: Mapping[str, Any]) -> str:
    """What was written, for a person."""
    lines = [f"wrote {report['path']}: {report['kind']} {report['name']} as {report['format']}"]
    if lora := report.get("lora"):
        lines.append(f"its rank keeps {lora['kept_energy']:.1%} of the changes")
        if lora["noise_error"] is not None:
            lines.append(
                f"its noise prediction is {lora['noise_error']:.1%} of the change off the hypernetwork's, "
                f"{lora['noise_error_most']:.1%} at most"
            )
        if lora["constants"] == "lost":
            lines.append("what is added to all values alike is lost; give captions, or --output-bias, to keep it")
    return "\n".join(lines)
