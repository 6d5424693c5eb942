"""Measures Tincture's speed against the least work that a step can be made of; see docs/performance.md.

python bench/run.py                       all that this machine can do, into bench/results
python bench/run.py --only picto --quick  one part of it, fewer rounds
python bench/run.py --doc                 puts the newest results into docs/performance.md
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from bench import machine, report  # noqa: E402
from bench.material import make_workspace, write_random_sd15  # noqa: E402
from bench.measure import Case, Kind, count_encodings, measure_attention, measure_memory, measure_speed  # noqa: E402
from bench.startup import measure_startup  # noqa: E402

RESULTS, DOC = ROOT / "bench" / "results", ROOT / "docs" / "performance.md"
KINDS: tuple[Kind, ...] = ("embedding", "hypernetwork")
PICTO_PICTURES, SD15_PICTURES = 16, 2

Results = dict[str, list[dict[str, Any]]]


def picto_cases(model: str, rounds: int, quick: bool) -> list[Case]:
    """Both adapters at batch 1 and 8; the warm-up is an epoch, at batch 8 some."""
    shapes = ((1, 5 if quick else 20, 16), (8, 2 if quick else 10, 4))
    return [
        Case(model, kind, 64, batch_size, rounds, steps, warmup)
        for kind in KINDS
        for batch_size, steps, warmup in shapes
    ]


def sd15_cases(model: str, rounds: int) -> list[Case]:
    """Both adapters at 256 x 256, a step in a round."""
    return [Case(model, kind, 256, 1, rounds, steps=1, warmup=SD15_PICTURES) for kind in KINDS]


def cuda_cases(model: str, rounds: int) -> list[Case]:
    """Both adapters at 512 x 512 in bfloat16, gradient checkpointing off and on."""
    base = [Case(model, kind, 512, 1, rounds, 10, 10, precision="bf16", device="cuda") for kind in KINDS]
    return [replace(case, gradient_checkpointing=on) for case in base for on in (False, True)]


def measure_cases(cases: list[Case], root: Path, pictures: int, results: Results) -> None:
    """Speed and encodings of every case, and the attention processors on the bare floors."""
    workspace = make_workspace(root, pictures)
    for case in cases:
        tell(f"{Path(case.model).name} {case.kind}, {case.size} x {case.size}, batch {case.batch_size}")
        results["speed"].append(measure_speed(case, workspace))
        results["counts"].append(count_encodings(case, workspace))
        results["attention"].append(measure_attention(case, workspace))


def measure_cuda(cases: list[Case], root: Path, results: Results) -> None:
    """Speed and peak memory of every case."""
    workspace = make_workspace(root, SD15_PICTURES)
    for case in cases:
        tell(f"{Path(case.model).name} {case.kind} on CUDA, checkpointing {case.gradient_checkpointing}")
        memory = measure_memory(case, workspace)
        results["speed"].append({**measure_speed(case, workspace), "peak_memory_mib": memory})


def measure(parts: list[str], root: Path, model: str, rounds: int | None, quick: bool) -> dict[str, Any]:
    """The parts asked for: everything that a results file holds.

    Args:
        parts: any of startup, picto, sd15, cuda.
        root: an empty folder for workspaces and the random weights.
        model: what takes picto's part.
        rounds: None takes 9 on picto, 5 at the start, 3 on SD 1.5 and 5 on CUDA; 2 with ``quick``.
    """

    def count(usual: int) -> int:
        return rounds or (2 if quick else usual)

    results: Results = {"startup": [], "speed": [], "counts": [], "attention": []}
    head = {
        "date": datetime.date.today().isoformat(),
        **machine.commit(),
        "machine": machine.describe(),
        "parts": parts,
    }
    if "startup" in parts:
        tell("start of a fresh process")
        results["startup"] = measure_startup(make_workspace(root / "startup", 5), model, count(5))
    if "picto" in parts:
        measure_cases(picto_cases(model, count(9), quick), root / "picto", PICTO_PICTURES, results)
    if {"sd15", "cuda"} & set(parts):
        tell("writing SD 1.5 with random weights")
        sd15 = str(write_random_sd15(root / "sd15-random.safetensors"))
        if "sd15" in parts:
            measure_cases(sd15_cases(sd15, count(3)), root / "sd15", SD15_PICTURES, results)
        if "cuda" in parts:
            measure_cuda(cuda_cases(sd15, count(5)), root / "cuda", results)
    return {**head, **results}


def tell(text: str) -> None:
    print(f"{datetime.datetime.now():%H:%M:%S} {text}", file=sys.stderr, flush=True)


def results_path(results: dict[str, Any], everything: bool) -> Path:
    """DATE-CPU.json, with the parts in its name unless all were measured."""
    cpu = re.sub(r"[^a-z0-9]+", "-", results["machine"]["cpu"].lower()).strip("-")
    names = [results["date"], cpu, *([] if everything else results["parts"])]
    return RESULTS / f"{'-'.join(names)}.json"


def write_doc(files: list[Path]) -> None:
    """The newest results, or those of ``files``, into docs/performance.md."""
    chosen = files or sorted(RESULTS.glob("*.json"), key=lambda path: path.stat().st_mtime)[-1:]
    if not chosen:
        sys.exit(f"There are no results in {RESULTS}; measure first.")
    report.write_doc(DOC, [json.loads(file.read_text(encoding="utf-8")) for file in chosen])


def main() -> None:
    available = ["startup", "picto", "sd15", *(["cuda"] if torch.cuda.is_available() else [])]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=available, action="append", help="one part; may be given again")
    parser.add_argument("--rounds", type=int, help="rounds of every part")
    parser.add_argument("--quick", action="store_true", help="two short rounds: to see that it works")
    parser.add_argument("--model", default="picto", help="a diffusers folder in picto's place")
    parser.add_argument("--doc", nargs="*", type=Path, metavar="FILE", help="write docs/performance.md from results")
    args = parser.parse_args()
    if args.doc is not None:
        write_doc(args.doc)
        return
    with tempfile.TemporaryDirectory(prefix="tincture-bench-") as root:
        results = measure(args.only or available, Path(root), args.model, args.rounds, args.quick)
    path = results_path(results, everything=not args.only)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(report.tables(results))
    print(f"\nAll rounds: {path}")


if __name__ == "__main__":
    main()
