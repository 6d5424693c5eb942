"""`tincture convert`: adapter files from one format to another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from tincture.cli.flags import flag, given
from tincture.cli.session import Session, command
from tincture.settings.conversion import CONVERSION_FIELDS, ConversionRequest, format_of

FLAGLESS = ("path", "out")
"""Settings without a flag: they stand alone."""


def register(app: typer.Typer) -> None:
    flags = [flag(spec, ranged=True) for name, spec in CONVERSION_FIELDS.items() if name not in FLAGLESS]
    command(app, "convert", extra=flags)(convert)


def convert(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", help=CONVERSION_FIELDS["path"].help)],
    out: Annotated[Path, typer.Argument(metavar="OUT", help=CONVERSION_FIELDS["out"].help)],
    **flags: Any,
) -> None:
    """Write an embedding or hypernetwork in another format; what gets lost is told before."""
    asked = ConversionRequest(path=str(file), out=str(out), **given(flags))
    from tincture.formats.files import refuse_taken
    from tincture.run.presence import require_files, require_model

    file, out = Path(asked.path), Path(asked.out)
    refuse_taken(out, asked.overwrite)
    format_of(out, asked.to, CONVERSION_FIELDS["to"].choices)
    require_files([file, *map(Path, filter(None, (asked.captions, asked.picture)))])
    if asked.model:
        require_model(asked.model, "", session.workspace())
    from tincture.adapters.files import conversion

    options = asked.lora_options()
    if options is not None:
        options["captions"] = conversion.read_captions(asked.captions) if asked.captions else ()
    plan = conversion.plan_conversion(
        file,
        out,
        asked.to,
        name=asked.name,
        author=asked.author,
        license=asked.license,
        picture=asked.picture or None,
        lora=None if options is None else conversion.LoraOptions(**options),
        overwrite=asked.overwrite,
        workspace=session.workspace() if asked.model or asked.to == "lora" else None,
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
