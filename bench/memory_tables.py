"""The tables of bench/memory.py, on the screen and in docs/memory.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.report import put_between

DOC = Path(__file__).parents[1] / "docs" / "memory.md"
BEGIN, END = "<!-- memory: begin -->", "<!-- memory: end -->"
PHASES = ("encoding pictures", "encoding prompts", "training", "previews")


def tables(results: dict[str, Any]) -> str:
    """Results as Markdown."""
    on = results["machine"]
    head = f"{results['date']}, commit {str(results['commit'])[:10]}, torch {on['torch']}, diffusers {on['diffusers']}"
    parts = [f"{head}, {on['gpu'] or on['cpu']}.\n"]
    if told := [row for row in results["told"] if "measures" in row]:
        parts += ["**Told for a GPU, batch 1, in GiB (not measured)**\n", *_told_table(told), ""]
        cards = [row for row in results["told"] if "card_gib" in row]
        parts += ["**What `--vram` chooses (not measured)**\n", *_cards_table(cards), ""]
    if checked := results["checked"]:
        parts += ["**Told against measured, peak in MiB**\n", *_checked_table(checked), ""]
    if processes := results.get("processes"):
        parts += ["**The whole process on a CPU, told by `--dry-run` and measured, in MiB**\n"]
        parts += [*_processes_table(processes), ""]
    return "\n".join(parts)


def _told_table(rows: list[dict[str, Any]]) -> list[str]:
    head = ["Model", "Adapter", "Settings", *PHASES, "peak"]
    return _table(
        head,
        [
            [
                f"{row['model']} {row['side']}×{row['side']}",
                row["kind"],
                _flags(row["measures"]),
                *(_gib(row["phases_mib"].get(phase)) for phase in PHASES),
                _gib(row["peak_mib"]),
            ]
            for row in rows
        ],
    )


def _cards_table(rows: list[dict[str, Any]]) -> list[str]:
    keys = list(dict.fromkeys((row["model"], row["side"], row["kind"]) for row in rows))
    lines = []
    for model, side, kind in keys:
        found = {row["card_gib"]: row for row in rows if (row["model"], row["kind"]) == (model, kind)}
        cells = ["does not fit" if row["chosen"] is None else _flags(row["chosen"]) for row in found.values()]
        lines.append([f"{model} {side}×{side}", kind, *cells])
    cards = list(dict.fromkeys(row["card_gib"] for row in rows))
    return _table(["Model", "Adapter", *(f"{card} GB" for card in cards)], lines)


def _checked_table(rows: list[dict[str, Any]]) -> list[str]:
    lines = []
    for row in rows:
        measures = row.get("measures") or {"gradient_checkpointing": row["gradient_checkpointing"]}
        case = [f"{row['model']} {row['side']}×{row['side']}", row["kind"], str(row.get("batch_size", 1))]
        lines.append([*case, _flags(measures), str(row["told_mib"]), str(row["measured_mib"]), str(row["ratio"])])
    return _table(["Model", "Adapter", "Batch", "Settings", "told", "measured", "told/measured"], lines)


def _processes_table(rows: list[dict[str, Any]]) -> list[str]:
    lines = []
    for row in rows:
        measures = {"gradient_checkpointing": row.get("gradient_checkpointing", False)}
        measures["previews"] = bool(row.get("preview_every"))
        case = [f"{row['model']} {row['side']}×{row['side']}", row["kind"], str(row["batch_size"])]
        lines.append([*case, _flags(measures), str(row["told_mib"]), str(row["measured_mib"]), str(row["ratio"])])
    return _table(["Model", "Adapter", "Batch", "Settings", "told", "measured", "told/measured"], lines)


def _flags(measures: dict[str, Any]) -> str:
    words = [name if value is True else str(value) for name, value in measures.items() if value is not False]
    return ", ".join(word.replace("gradient_checkpointing", "checkpointing") for word in words) or "none"


def _gib(size_mib: float | None) -> str:
    return "" if size_mib is None else f"{size_mib / 1024:.2f}"


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def write_doc(files: list[Path]) -> None:
    """Puts the tables of ``files`` between the marks of docs/memory.md."""
    inside = "\n".join(tables(json.loads(file.read_text(encoding="utf-8"))) for file in files)
    put_between(DOC, BEGIN, END, inside)
