"""An extension of Tincture: the mean loss of every epoch, as a table beside the run and a tab of the page.

A run writes the loss of every step to a CSV file in its folder. Whenever a file of the adapter was saved, this tallies
them by epoch into ``loss_by_epoch.csv`` in the same folder; the tab shows these tables.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from tincture.events import CheckpointSaved
from tincture.extensions import Extensions

TABLE = "loss_by_epoch.csv"
COLUMNS = ("epoch", "steps", "mean loss")


def register(extensions: Extensions) -> None:
    """What the entry point names. Nothing heavy is imported here: this is called wherever Tincture trains or serves."""
    tally = Tally()
    extensions.on_before_train(tally.begin)
    extensions.on_saved(tally.write)
    extensions.on_ui_train_tabs(build_tab)


class Tally:
    """Of the run that is being trained. One process trains one run at a time."""

    def __init__(self) -> None:
        self.log = Path()

    def begin(self, settings: Mapping[str, Any], run_dir: Path) -> None:
        name = "textual_inversion" if settings["kind"] == "embedding" else "hypernetwork"
        self.log = run_dir / f"{name}_loss.csv"

    def write(self, event: CheckpointSaved) -> None:
        if self.log.exists():  # the log comes some steps at a time
            write_table(self.log.with_name(TABLE), tallied(self.log))


def tallied(log: Path) -> list[tuple[int, int, float]]:
    """Of every epoch in a run's log: its number from 0, its steps, and the mean of their losses."""
    losses: dict[int, list[float]] = defaultdict(list)
    with log.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            losses[int(row["epoch"])].append(float(row["loss"]))
    return [(epoch, len(found), round(fmean(found), 7)) for epoch, found in sorted(losses.items())]


def write_table(path: Path, rows: list[tuple[int, int, float]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(rows)


def read_table(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))[1:]


# --- the tab ---------------------------------------------------------------------------------------------------------


def build_tab(service: Any) -> None:
    """A tab with the tables of this workspace's runs, the latest first."""
    import gradio as gr

    def runs() -> list[str]:
        logs: Path = service.workspace.logs
        found = sorted(logs.glob(f"*/*/{TABLE}"), key=lambda path: path.stat().st_mtime, reverse=True)
        return [path.parent.relative_to(logs).as_posix() for path in found]

    def refresh() -> Any:
        names = runs()
        return gr.Dropdown(choices=names, value=names[0] if names else None)

    def show(run: str | None) -> list[list[str]]:
        # What a browser sends can be anything: only what was offered is opened.
        return read_table(service.workspace.logs / run / TABLE) if run in runs() else []

    with gr.Tab("Loss tally"):
        with gr.Row():
            run = gr.Dropdown(choices=runs(), value=None, label="Run", info="Those with a table, the latest first.")
            again = gr.Button("Refresh", size="sm", min_width=120, scale=0)
        table = gr.Dataframe(headers=list(COLUMNS), value=[], label="Mean loss by epoch", interactive=False)
        again.click(refresh, None, run, api_visibility="private")
        run.change(show, run, table, api_visibility="private")
