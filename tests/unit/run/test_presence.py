"""What is named and not there is refused before torch is loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from PIL import Image

CASES: dict[str, tuple[list[str], str]] = {
    "create: a name that is taken": (["create", "embedding", "cat"], "exists already"),
    "create: a name that is not allowed": (["create", "embedding", "a/b"], "characters that are not allowed"),
    "create: an unknown model": (["create", "hypernetwork", "new", "--model", "nix"], "There is no model 'nix'"),
    "train: an unknown name": (["train", "embedding", "nix", "--data", "pics"], "Create it first"),
    "train: no such pictures": (["train", "embedding", "cat", "--data", "nix"], "folder nix does not exist"),
    "train: no such pictures for validation": (
        ["train", "embedding", "cat", "--data", "pics", "--validation-data", "nix"],
        "folder nix does not exist",
    ),
    "train: a file for pictures": (["train", "embedding", "cat", "--data", "pics/1.png"], "is a file"),
    "train: an unknown model": (["train", "embedding", "cat", "--data", "pics", "--model", "nix"], "There is no model"),
    "train: an unknown VAE": (["train", "embedding", "cat", "--data", "pics", "--vae", "nix"], "There is no VAE"),
    "train: an unknown template": (["train", "embedding", "cat", "--data", "pics", "--template", "nix"], "template"),
    "train: no masks": (
        ["train", "embedding", "cat", "--data", "pics", "--use-weight", "--masks", "nix"],
        "The mask folder nix",
    ),
    "train: no captioner": (
        ["train", "embedding", "cat", "--data", "pics", "--caption-missing", "blip"],
        "--caption-missing is blip, but there is no BLIP model",
    ),
    "train: no such tagger": (
        ["train", "embedding", "cat", "--data", "pics", "--caption-missing", "wd", "--caption-model", "nix"],
        "--caption-missing is wd, for which nix cannot be used: There is no 'nix' here",
    ),
    "train: neither pictures nor a template": (
        ["train", "embedding", "cat", "--data", "nix", "--template", "nox"],
        "folder nix does not exist. Check the path. There is no template 'nox'",
    ),
    "train: no adapters, no pictures, no model": (
        [
            "train",
            "embedding",
            "nobody",
            "--data",
            "nix",
            "--model",
            "nox",
            "--with",
            "embedding:no2",
            "--fixed",
            "embedding:no3",
        ],
        "tincture create embedding 'no3'. There is no model 'nox'",
    ),
    "plan: no such pictures": (["train", "embedding", "cat", "--data", "nix", "--dry-run"], "does not exist"),
    "resume: no folder": (["resume"], "Missing argument"),
    "resume: no such folder": (["resume", "nix"], "is not a folder"),
    "resume: no run": (["resume", "pics"], "is not the folder of a run"),
    "generate: an unknown model": (["generate", "a cat", "--model", "nix"], "There is no model"),
    "generate: an unknown VAE": (["generate", "a cat", "--vae", "nix"], "There is no VAE"),
    "generate: no such copy": (["generate", "a cat", "--grid", "--checkpoint", "nix.pt"], "There is no file nix.pt"),
    "preprocess: no such pictures": (["preprocess", "nix", "out"], "folder nix does not exist"),
    "convert: no such file": (["convert", "nix.pt", "out.safetensors"], "There is no file nix.pt"),
    "convert: an unknown model": (["convert", "embeddings/cat.pt", "o.pt", "--model", "nix"], "There is no model"),
    "preview: a folder that is no run": (["preview", "pics"], "is not the folder of a run"),
    "inspect: no such file": (["inspect", "nix.pt"], "There is no file nix.pt"),
}
PROGRAM = """
import contextlib, io, json, sys
from tincture.cli import main
done = {}
for name, words in json.load(sys.stdin).items():
    with contextlib.redirect_stderr(io.StringIO()) as said:
        code = main(words)
    done[name] = code, said.getvalue(), "torch" in sys.modules
json.dump(done, sys.stdout)
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All of them in one process, which loads torch at none."""
    folder = tmp_path_factory.mktemp("presence")
    for place in ("embeddings", "pics"):
        (folder / place).mkdir()
    (folder / "embeddings" / "cat.pt").write_bytes(b"x")
    Image.new("RGB", (8, 8)).save(folder / "pics" / "1.png")
    words = json.dumps({name: words for name, (words, _) in CASES.items()})
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM], input=words, cwd=folder, capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


@pytest.mark.parametrize("case", CASES)
def test_what_is_not_there_is_refused_before_torch_is_loaded(done: dict[str, Any], case: str) -> None:
    code, said, has_torch = done[case]
    assert code in (1, 2) and CASES[case][1] in said, said
    assert not has_torch
