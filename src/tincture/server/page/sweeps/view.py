"""A sweep as HTML for the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from tincture.reports.document import table
from tincture.run.duration import in_words
from tincture.server.page.parts.fields import label_of
from tincture.server.page.parts.markup import escape, fault, muted, plain

MOST_ROWS = 100
"""Of the table on the page; the report has all."""
_TITLES = {"run": "Run", "state": "State", "step": "Step", "seconds": "Took", "message": "Message"}


def shown(found: Mapping[str, Any]) -> str:
    """State, best run, table, and where the report is."""
    return f'<div class="sweep">{_head(found)}{_table(found)}</div>'


def none() -> str:
    """Where no sweep is chosen."""
    return muted("No sweep yet. A sweep trains with one setting after another, and says which did best.")


def _head(found: Mapping[str, Any]) -> str:
    counts = ", ".join(f"{count} {state}" for state, count in found["states"].items())
    best = f" Best by {label_of(found['metric']).lower()}: {found['best']}." if found["best"] else ""
    address = f"api/v1/sweeps/{quote(found['name'], safe='')}/report"
    return (
        f"<p><b>{escape(found['name'])}</b> is {escape(found['state'])}: {escape(counts)}.{escape(best)} "
        f'<a href="{escape(address)}" target="_blank" rel="noopener">Report</a></p>'
        + (fault(found["error"]) if found["error"] else "")
    )


def _table(found: Mapping[str, Any]) -> str:
    runs = found["runs"]
    columns = [
        column for column in found["columns"] if column != "file" and any(run[column] not in (None, "") for run in runs)
    ]
    rows = [[_cell(column, run[column]) for column in columns] for run in runs[:MOST_ROWS]]
    states = ["best" if run["run"] == found["best"] else run["state"] for run in runs[:MOST_ROWS]]
    left = len(runs) - MOST_ROWS
    more = muted(f"{left} more runs stand in the report.") if left > 0 else ""
    return table([_title(column) for column in columns], rows, states) + more


def _title(column: str) -> str:
    return _TITLES.get(column) or label_of(column.removeprefix("create."))


def _cell(column: str, value: Any) -> str:
    if value is None:
        return ""
    if column == "seconds":
        return in_words(float(value))
    if column.endswith("_loss"):
        return f"{value:.4f}"
    return plain(value) or str(value)
