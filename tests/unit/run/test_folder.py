from __future__ import annotations

import datetime
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tincture.run.folder import RunFolder


def test_folders_are_numbered_and_made(tmp_path: Path) -> None:
    day = tmp_path / datetime.date.today().isoformat()
    made = [RunFolder.create(tmp_path, "embedding", "cat").path for _ in range(3)]
    assert made == [day / "cat", day / "cat-2", day / "cat-3"]
    assert all(path.is_dir() for path in made)


def test_runs_that_begin_at_once_never_share_a_folder(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: RunFolder.create(tmp_path, "embedding", "cat").path, range(40)))
    assert len(set(made)) == 40


def test_paths_follow_the_webui(tmp_path: Path) -> None:
    embedding, hypernetwork = RunFolder(tmp_path, "embedding"), RunFolder(tmp_path, "hypernetwork")
    assert (embedding.copies.name, hypernetwork.copies.name) == ("embeddings", "hypernetworks")
    assert (embedding.csv.name, hypernetwork.csv.name) == ("textual_inversion_loss.csv", "hypernetwork_loss.csv")
    assert (embedding.images.name, embedding.tensorboard.name) == ("images", "tensorboard")
