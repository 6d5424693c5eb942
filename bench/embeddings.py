"""How long ``EmbeddingDatabase`` takes over a large folder: python bench/embeddings.py [--files 10000]"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch

from tincture.adapters.embedding import Embedding
from tincture.adapters.embedding_database import EmbeddingDatabase
from tincture.models.loading.load import load_model
from tincture.models.stable_diffusion import StableDiffusion

ROUNDS = 5
VECTORS = 4


def measure_database(model: StableDiffusion, root: Path, files: int) -> dict[str, float]:
    """Seconds for reading ``files`` embeddings below ``root``, and the least for a rescan when nothing changed."""
    vectors = {name: torch.ones(VECTORS, width) for name, width in model.text.widths.items()}
    Embedding("written", vectors).save(root / "written.pt")
    content = (root / "written.pt").read_bytes()
    for number in range(1, files):
        path = root / f"{number % 100}" / f"name{number}.pt"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    database = EmbeddingDatabase([root])
    seconds = [_seconds(database, model) for _ in range(1 + ROUNDS)]
    if len(database.loaded) != files:
        raise RuntimeError(f"{len(database.loaded)} of {files} embeddings were loaded.")
    return {"read": seconds[0], "rescan": min(seconds[1:])}


def _seconds(database: EmbeddingDatabase, model: StableDiffusion) -> float:
    started = time.perf_counter()
    database.refresh(model)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=int, default=10_000)
    files = parser.parse_args().files
    with tempfile.TemporaryDirectory(prefix="tincture-bench-") as root:
        seconds = measure_database(load_model("picto"), Path(root), files)
    print(f"{files} embeddings: read in {seconds['read']:.1f} s, rescanned in {seconds['rescan']:.2f} s")


if __name__ == "__main__":
    main()
