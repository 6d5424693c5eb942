"""`tincture merge`: several adapters made into one file, or one made weaker, stronger or smaller."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from tincture.cli.flags import flag, given
from tincture.cli.session import Session, command
from tincture.settings.merging import MERGE_FIELDS, MergeRequest, is_name, source_file
from tincture.settings.number_lists import number_list, whole_number_list

FLAGLESS = ("sources", "out")
"""Settings without a flag: they stand alone, the new file last."""


def register(app: typer.Typer) -> None:
    flags = [flag(spec, ranged=True) for name, spec in MERGE_FIELDS.items() if name not in FLAGLESS]
    command(app, "merge", extra=flags)(merge)


def merge(
    session: Session,
    files: Annotated[
        list[str], typer.Argument(metavar="SOURCE[:WEIGHT]... OUT", help=MERGE_FIELDS["sources"].help.rstrip("."))
    ],
    **flags: Any,
) -> None:
    """Merge adapters into one file by weights, or make one weaker, stronger or smaller."""
    values = given(flags)
    for name, parse in (("layer_structure", number_list), ("sizes", whole_number_list)):
        if name in values:
            values[name] = parse(f"--{name.replace('_', '-')}", values[name])
    asked = MergeRequest.from_dict({"sources": files[:-1], "out": files[-1], **values})
    from tincture.formats.files import refuse_taken
    from tincture.run.presence import require_files

    weighted, workspace = asked.weighted(), session.workspace()
    require_files([source_file(place, workspace) for place, _ in weighted])
    if not is_name(asked.out):
        refuse_taken(Path(asked.out), asked.overwrite)
    from tincture.adapters.merging import merged_files

    plan = merged_files.plan_merge(
        weighted,
        asked.out,
        method=asked.chosen_method,
        workspace=workspace,
        layer_structure=asked.layer_structure,
        sizes=asked.sizes,
        precision=asked.precision,
        name=asked.name,
        author=asked.author,
        license=asked.license,
        overwrite=asked.overwrite,
    )
    for sentence in plan.conversion.lost:
        session.say(f"lost: {sentence}")
    report = merged_files.make_merge(plan)
    session.show(report, as_text(report))


def as_text(report: Mapping[str, Any]) -> str:
    """What was written, for a person."""
    parts = " + ".join(f"{source['name']}:{source['weight']:g}" for source in report["sources"])
    lines = [f"wrote {report['path']}: {report['kind']} {report['name']}, {report['method']} of {parts}"]
    if "layer_structure" in report:
        structure = ", ".join(f"{factor:g}" for factor in report["layer_structure"])
        widths = ", ".join(map(str, report["widths"]))
        lines.append(f"layer structure {structure} for the widths {widths}: {report['parameters']:,} numbers")
        worst = max(report["differences"].values())
        if report["exact"]:
            lines.append(f"its effect is the one asked for, up to rounding ({worst:.1g})")
        else:
            lines.append(f"its effect on random contexts is off the one asked for by {worst:.1%} at most")
    return "\n".join(lines)
