from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.runs import Bench
from tincture.adapters.embedding import Embedding
from tincture.adapters.hypernetwork import Hypernetwork


@pytest.mark.parametrize("kind", ["embedding", "hypernetwork"])
def test_an_adapters_file_tells_no_places(bench: Bench, tmp_path: Path, kind: str) -> None:
    (tmp_path / "lines.txt").write_text("a [name]")
    masks = bench.data / "mask"
    masks.mkdir()
    for number in range(5):
        mask = Image.new("L", (16, 16))
        mask.paste(255, (0, 0, 8, 16))
        mask.save(masks / f"{number}.png")
    result = bench.train(
        kind,
        steps=1,
        data=[str(bench.data), f"{bench.data}:2"],
        masks=str(masks),
        use_weight=True,
        template=str(tmp_path / "lines.txt"),
        cache_dir=str(tmp_path / "cache"),
        log_dir=str(tmp_path / "logs"),
    )
    assert str(tmp_path).encode() not in result.adapter_path.read_bytes()
    load = Embedding.load if kind == "embedding" else Hypernetwork.load
    settings = load(result.adapter_path).provenance["settings"]
    assert (settings["data"], settings["masks"]) == (["pictures", "pictures:2"], "mask")
    assert (settings["model"], settings["template"], settings["cache_dir"]) == ("tiny", "lines.txt", "")


def test_mirrored_copies_are_no_pictures_of_their_own(bench: Bench) -> None:
    result = bench.train("embedding", steps=1, flip=True)
    (path,) = result.run_dir.glob("settings-*.json")
    assert json.loads(path.read_text())["num_of_dataset_images"] == 5
