"""Results as tables, on the screen and in docs/performance.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tincture.formats.files import write_text

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"


def tables(results: Mapping[str, Any]) -> str:
    """All that was measured, as Markdown: median (least to greatest) over the rounds."""
    machine = results["machine"]
    parts = [
        f"{results['date']}, commit {str(results['commit'])[:10]}{' with changes' if results['changed'] else ''}, "
        f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads, torch {machine['torch']}, "
        f"diffusers {machine['diffusers']}; load before the start {machine['load_before']}.\n"
    ]
    parts += [_section(title, make(results[key])) for key, title, make in SECTIONS if results.get(key)]
    return "\n".join(parts)


def write_doc(path: Path, results: Sequence[Mapping[str, Any]]) -> None:
    """Puts the tables between the marks of ``path``.

    Raises:
        ValueError: the marks are not there.
    """
    put_between(path, BEGIN, END, "\n\n".join(tables(result) for result in results))


def put_between(path: Path, begin: str, end: str, tables: str) -> None:
    """Puts ``tables`` between two marks of a page.

    Raises:
        ValueError: the marks are not there, once each and in this order.
    """
    text = path.read_text(encoding="utf-8")
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"{path} must have the marks {begin} and {end}, once each and in this order.")
    before, after = text.split(begin)[0], text.split(end)[1]
    write_text(path, f"{before}{begin}\n\n{tables.strip()}\n\n{end}{after}")


def _section(title: str, lines: list[str]) -> str:
    return "\n".join([f"**{title}**\n", *lines, ""])


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [_line(head), _line(["---"] * len(head)), *(_line(row) for row in rows)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _spread(values: Mapping[str, float]) -> str:
    return f"{values['median']:.3g} ({values['min']:.3g} to {values['max']:.3g})"


def _case(row: Mapping[str, Any]) -> list[str]:
    kind = f"{row['kind']}, checkpointing" if row["gradient_checkpointing"] else str(row["kind"])
    return [f"{row['model']} {row['size']}×{row['size']} {row['precision']}", kind, str(row["batch_size"])]


def _speed(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    names = ("product", "floor", "floor_with_adapter")
    ratios = ("product/floor", "product/floor_with_adapter")
    head = ["Model", "Adapter", "Batch", *(f"{name.replace('_', ' ')}, steps/s" for name in names)]
    head += [ratio.replace("_", " ") for ratio in ratios]
    has_memory = any("peak_memory_mib" in row for row in rows)
    lines = []
    for row in rows:
        cells = _case(row) + [_spread(row["steps_per_second"][name]) for name in names]
        cells += [_spread(row["ratio"][ratio]) for ratio in ratios]
        lines.append(cells + ([f"{row['peak_memory_mib']:.0f}"] if has_memory else []))
    return _table([*head, "peak MiB"] if has_memory else head, lines)


def _peers(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    for row in rows:
        peers = [name.removeprefix("product/") for name in row["ratio"] if not name.startswith("product/floor")]
        for peer in peers:
            rate, ratio = row["steps_per_second"][peer], row["ratio"][f"product/{peer}"]
            lines.append([*_case(row), peer.replace("_", ", "), _spread(rate), _spread(ratio)])
    return _table(["Model", "Adapter", "Batch", "peer's loop", "its steps/s", "product/peer"], lines)


def _attention(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    names = ("AttnProcessor", "AttnProcessor2_0")
    head = ["Model", "Floor of", "Batch", *(f"{name}, steps/s" for name in names), "ratio"]
    return _table(
        head,
        (
            _case(row)
            + [_spread(row["steps_per_second"][name]) for name in names]
            + [_spread(row["ratio"]["AttnProcessor/AttnProcessor2_0"])]
            for row in rows
        ),
    )


def _arithmetic(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    head = ["Model", "Adapter", "Batch", "floor, GFLOP a step", "floor with adapter", "floor/floor with adapter"]
    lines = []
    for row in rows:
        bare, full = (row["gflop_per_step"][name] for name in ("floor", "floor_with_adapter"))
        lines.append([*_case(row), f"{bare:.4g}", f"{full:.4g}", f"{bare / full:.3f}"])
    return _table(head, lines)


def _counts(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    head = ["Model", "Adapter", "Batch", "steps", "encodings per picture", "text encodings per distinct prompt"]
    return _table(
        head,
        (
            [*_case(row), str(row["steps"]), f"{row['encodings_per_picture']:g}", f"{row['encodings_per_prompt']:g}"]
            for row in rows
        ),
    )


def _startup(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return _table(
        ["A fresh process", "median (least to greatest)"], ([row["what"], _spread(row["seconds"])] for row in rows)
    )


SECTIONS = (
    ("startup", "Start", _startup),
    ("speed", "Speed", _speed),
    ("speed", "Beside the loops of other trainers", _peers),
    ("speed", "Arithmetic that the floors do", _arithmetic),
    ("counts", "Encodings", _counts),
    ("attention", "The frozen U-Net with either attention of diffusers", _attention),
)
