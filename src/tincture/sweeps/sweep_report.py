"""What came of a sweep as files: the table as CSV and JSON, and a report in HTML that stands alone.

All are written anew whenever they are asked for; none of them is needed to go on.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tincture.formats.files import write_text
from tincture.reports.curves import Line, chart
from tincture.reports.document import document, legend, line_style, picture_data, section, sheet, table
from tincture.reports.smoothing import smooth, spread, window
from tincture.reports.words import escape, plain
from tincture.run.duration import in_words
from tincture.run.past.past_run import previews_in
from tincture.sweeps.points import varied
from tincture.sweeps.standings import FAILED, Row, best_of, cells_of, columns_of, rows_of
from tincture.sweeps.sweep_folder import SweepFolder
from tincture.sweeps.trial import read_losses, read_validation

MOST_DRAWN = 60
"""Runs whose curves and pictures a report shows: the best ones, by the metric."""
MOST_PROMPTS = 6
_POINTS = 120
_SMOOTHING = 60.0
_TITLES = {"train_loss": "train loss", "validation_loss": "validation loss", "file": "file"}
_NOT_FOR_PEOPLE = ("file",)


def write_reports(sweep: SweepFolder, rows: Sequence[Row] | None = None) -> dict[str, Path]:
    """Writes ``table.csv``, ``table.json`` and ``report.html`` into the sweep's folder; their paths by suffix."""
    rows = rows_of(sweep) if rows is None else rows
    texts = {"csv": table_csv(sweep, rows), "json": table_json(sweep, rows), "html": report_html(sweep, rows)}
    paths = {kind: sweep.path / ("report.html" if kind == "html" else f"table.{kind}") for kind in texts}
    for kind, path in paths.items():
        write_text(path, texts[kind])
    return paths


def table_csv(sweep: SweepFolder, rows: Sequence[Row]) -> str:
    """A line per run; numbers in full, lists as JSON."""
    text, columns = io.StringIO(), columns_of(sweep, rows)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        cells = cells_of(row)
        writer.writerow([_csv_cell(cells.get(column)) for column in columns])
    return text.getvalue()


def table_json(sweep: SweepFolder, rows: Sequence[Row]) -> str:
    """The same as JSON, with all that is known of the sweep."""
    return json.dumps(described(sweep, rows), indent=2, ensure_ascii=False, default=str) + "\n"


def described(sweep: SweepFolder, rows: Sequence[Row]) -> dict[str, Any]:
    """Name, metric, folder, counts by state, the best run, and a table of all runs."""
    best = best_of(rows, sweep.metric)
    columns = columns_of(sweep, rows)
    return {
        "name": sweep.name,
        "metric": sweep.metric,
        "folder": str(sweep.path),
        "varied": varied(sweep.source),
        "states": counts(rows),
        "best": best.trial.name if best else None,
        "columns": columns,
        "runs": [{column: cells_of(row).get(column) for column in columns} for row in rows],
    }


def counts(rows: Iterable[Row]) -> dict[str, int]:
    """How many runs are in each state."""
    found: dict[str, int] = {}
    for row in rows:
        found[row.state] = found.get(row.state, 0) + 1
    return found


def shown_table(sweep: SweepFolder, rows: Sequence[Row]) -> tuple[list[str], list[list[str]], list[str]]:
    """The table for people: heads, texts, and the state of each row with ``best`` for the best one."""
    columns = [column for column in columns_of(sweep, rows) if column not in _NOT_FOR_PEOPLE]
    best = best_of(rows, sweep.metric)
    cells = [cells_of(row) for row in rows]
    columns = [column for column in columns if any(each.get(column) not in (None, "") for each in cells)]
    texts = [[_shown(column, each.get(column)) for column in columns] for each in cells]
    states = ["best" if best and row.trial.name == best.trial.name else row.state for row in rows]
    return [_TITLES.get(column, column.replace("_", " ")) for column in columns], texts, states


def label_of(row: Row) -> str:
    """What a run is in a legend: its name and what is its own."""
    values = [f"{key.replace('_', ' ')} {plain(value) or value}" for key, value in row.trial.values.items()]
    values += [f"seed {row.trial.seed}"] if row.trial.seed is not None else []
    return f"{row.trial.name}: {', '.join(values)}" if values else row.trial.name


def report_html(sweep: SweepFolder, rows: Sequence[Row]) -> str:
    """Table, curves and a sheet of previews, for as many runs as are good to see; the table has them all."""
    heads, texts, states = shown_table(sweep, rows)
    drawn = _drawn(sweep, rows)
    left = len([row for row in rows if row.progress or row.result]) - len(drawn)
    note = (
        f"<p>Curves and pictures of the {len(drawn)} best runs; {left} more stand in the table.</p>" if left > 0 else ""
    )
    return document(
        f"Sweep {sweep.name}",
        [
            _summary(sweep, rows),
            section("Runs", table(heads, texts, states)),
            note,
            section("Curves", _charts(drawn), legend([label_of(row) for row in drawn])),
            section("Previews", _previews(drawn)),
        ],
    )


def _summary(sweep: SweepFolder, rows: Sequence[Row]) -> str:
    states = ", ".join(f"{count} {state}" for state, count in counts(rows).items())
    best = best_of(rows, sweep.metric)
    sentence = f"Best by {sweep.metric.replace('_', ' ')}: {label_of(best)}." if best else ""
    return f"<p>{len(rows)} runs: {escape(states)}. {escape(sentence)}</p>"


def _drawn(sweep: SweepFolder, rows: Sequence[Row]) -> list[Row]:
    """Those with something to draw, in their order: of too many, the best ones."""
    begun = [row for row in rows if row.result or row.progress.get("run_dir")]
    left = list(begun)
    chosen: list[str] = []
    while len(begun) > MOST_DRAWN and len(chosen) < MOST_DRAWN:
        best = best_of(left, sweep.metric) or left[0]
        chosen.append(best.trial.name)
        left.remove(best)
    return [row for row in begun if not chosen or row.trial.name in chosen]


def _run_dir(row: Row) -> Path:
    return Path(str(row.result.get("run_dir") or row.progress.get("run_dir") or ""))


def _charts(rows: Sequence[Row]) -> str:
    losses, measured = [], []
    for number, row in enumerate(rows):
        losses.append(_line(read_losses(_run_dir(row), row.trial.settings["kind"]), row, number, _SMOOTHING))
        measured.append(_line(read_validation(_run_dir(row)), row, number, 0.0))
    drawn = [chart("Training loss, smoothed", losses), chart("Validation loss", measured)]
    return f'<div class="charts">{"".join(drawn)}</div>' if any(drawn) else ""


def _line(points: Sequence[tuple[int, float]], row: Row, number: int, smoothing: float) -> Line:
    values = np.array(points, dtype=np.float64).reshape(-1, 2)
    y = smooth(values[:, 1], window(smoothing, len(values)))
    return Line(*spread(values[:, 0], y, _POINTS), line_style(number), name=label_of(row))


def _previews(rows: Sequence[Row]) -> str:
    """Rows are runs, columns prompts, of the latest step that each drew; the step stands with the run."""
    shown = []
    for row in rows:
        if found := latest_previews(_run_dir(row)):
            step, paths = found
            shown.append(
                (f"{label_of(row)} – step {step}{' – failed' if row.state == FAILED else ''}", paths[:MOST_PROMPTS])
            )
    if not shown:
        return ""
    across = max(len(paths) for _, paths in shown)
    prompts = _prompts(rows)
    columns = [prompts[place] if place < len(prompts) else f"prompt {place + 1}" for place in range(across)]
    return sheet(columns, [(label, [picture_data(path) for path in paths]) for label, paths in shown])


def _prompts(rows: Sequence[Row]) -> list[str]:
    """The prompts of previews with the adapter's name left open; empty where they are not the same for all."""
    found = [
        [str(prompt).replace(row.trial.name, "[name]") for prompt in row.trial.settings.get("preview_prompts", ())]
        for row in rows
    ]
    return found[0] if found and all(each == found[0] for each in found) else []


def latest_previews(run_dir: Path) -> tuple[int, list[Path]] | None:
    """The step that a run drew previews at last, and the pictures in the order of their prompts."""
    found = previews_in(run_dir / "images") if run_dir.name else {}
    return max(found.items()) if found else None


def _csv_cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list | dict | bool):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def _shown(column: str, value: Any) -> str:
    if value is None:
        return ""
    if column == "seconds":
        return in_words(float(value))
    if column.endswith("_loss") and isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, Mapping | list):
        return plain(value)
    return plain(value) or str(value)
