"""The program that tells and checks memory does both, and its tables hold what it found."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench import machine, memory, memory_tables
from bench.material import make_workspace

from tests.support import save_folder, tiny_model
from tincture.run.memory.estimate import ENCODING, PREVIEWS, TRAINING

pytestmark = pytest.mark.slow


def test_memory_is_told_without_weights(tmp_path: Path) -> None:
    model = memory.without_weights("sdxl", 64, full=False)
    assert all(weight.is_meta for weight in model.unet.parameters())
    rows = memory.tell("sdxl", 64, make_workspace(tmp_path / "workspace", 2), full=False)
    told = [row for row in rows if "measures" in row]
    assert len(told) == 2 * len(memory.MEASURES)
    assert all(row["peak_mib"] == max(row["phases_mib"].values()) > 0 for row in told)
    # Of a model so small the text encoders, with their 49,408 rows, are the most.
    assert told[0]["phases_mib"][ENCODING] > told[2]["phases_mib"][ENCODING]
    cards = [row for row in rows if "card_gib" in row]
    assert [row["card_gib"] for row in cards] == [*memory.CARDS] * 2 and all(row["chosen"] == {} for row in cards)
    results = {"date": "2026-01-31", "commit": "0", "machine": machine.describe(), "told": rows, "checked": []}
    text = memory_tables.tables(results)
    assert text.count("| sdxl 64×64 | embedding |") == len(memory.MEASURES) + 1
    assert TRAINING in text and PREVIEWS in text and "(not measured)" in text


def test_told_and_measured_peaks_are_compared(tmp_path: Path) -> None:
    folder = str(save_folder(tiny_model(), tmp_path / "tiny"))
    rows = memory.check(folder, "tiny", [(64, 2)], tmp_path / "workspace")
    assert [(row["kind"], row["gradient_checkpointing"]) for row in rows] == [
        (kind, on) for kind in memory.KINDS for on in (False, True)
    ]
    assert all(row["ratio"] == pytest.approx(1, abs=0.15) for row in rows)
    assert all(row["ratio"] == pytest.approx(row["told_mib"] / row["measured_mib"], abs=0.05) for row in rows)
    text = memory_tables.tables(
        {"date": "2026-01-31", "commit": "0", "machine": machine.describe(), "told": [], "checked": rows}
    )
    assert text.count("| tiny 64×64 |") == 4 and "told/measured" in text


def test_the_doc_gets_the_tables_between_its_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    doc, results = tmp_path / "memory.md", tmp_path / "results.json"
    doc.write_text(f"before\n{memory_tables.BEGIN}\nold\n{memory_tables.END}\nafter\n")
    results.write_text(
        '{"date": "2026-01-31", "commit": "0", "machine": {"torch": "1", "diffusers": "2", "gpu": null, '
    )
    results.write_text(results.read_text() + '"cpu": "c"}, "told": [], "checked": []}')
    monkeypatch.setattr(memory_tables, "DOC", doc)
    memory_tables.write_doc([results])
    text = doc.read_text()
    assert text.startswith(f"before\n{memory_tables.BEGIN}\n\n2026-01-31, commit 0") and "old" not in text
    assert text.endswith(f"{memory_tables.END}\nafter\n")


def test_predictions_are_of_every_timestep() -> None:
    made = memory.predictions(memory.load_model())
    assert made.shape == (4 * 8, 4, 8, 8)
    assert len({float(part.norm()) for part in made}) == 32
