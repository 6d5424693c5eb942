from __future__ import annotations

import json
from pathlib import Path

import pytest

from tincture.adapters.hypernetwork import Hypernetwork
from tincture.cli import main
from tincture.workspace import Workspace


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = Workspace(tmp_path).hypernetworks
    folder.mkdir(parents=True)
    for seed, name in enumerate("ab"):
        Hypernetwork(name, (32,), activation_func="relu", seed=seed).save(folder / f"{name}.pt")
    return tmp_path


def test_names_with_weights_become_a_new_adapter(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["merge", "a:0.6", "b:0.4", "c", "--root", str(root)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].endswith("models/hypernetworks/c.pt: hypernetwork c, interpolate of a:0.6 + b:0.4")
    assert "layer structure 1, 2, 1 for the widths 32: 8,384 numbers" in out[1] and "off the one asked for" in out[2]


def test_all_flags(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Workspace(root).hypernetworks / "a.pt"
    out = root / "x.safetensors"
    flags = ["--method", "sum", "--layer-structure", "1,0.5,1", "--sizes", "32", "--precision", "bf16", "--name", "ink"]
    people = ["--author", "A", "--license", "MIT", "--json"]
    assert main(["merge", f"{path}:2", "b", str(out), *flags, *people, "--root", str(root)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["path"], report["name"], report["method"]) == (str(out), "ink", "sum")
    assert report["layer_structure"] == [1, 0.5, 1] and [s["weight"] for s in report["sources"]] == [2, 1]
    assert Hypernetwork.load(out).provenance["license"] == "MIT"
    assert main(["merge", "a:0.5", str(out), "--root", str(root)]) == 2
    assert main(["merge", "a:0.5", str(out), "--overwrite", "--root", str(root)]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a:0.6", "b:0.6", "x"], "weights that add up to 1.2, but a mean needs 1"),
        (["a:0.6", "b", "x"], "files with a weight and others without"),
        (["a", "x"], "one file at its own strength"),
        (["a"], "sources has no file"),
        (["a:inf", "b", "x"], "The weight of 'a' is inf"),
        (["a:0.5", "c:0.5", "x"], "There is no adapter 'c'"),
        (["a:0.5", "b:0.5", "x", "--method", "mean"], "mean"),
        (["a:0.5", "x", "--sizes", "32,b"], "--sizes has 'b', which is not a number"),
        (["a:0.5", "x", "--layer-structure", "1,-1,1"], "layer_structure has -1"),
    ],
)
def test_refusals(words: list[str], said: str, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["merge", *words, "--root", str(root)]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert sorted(path.name for path in Workspace(root).hypernetworks.iterdir()) == ["a.pt", "b.pt"]


def test_a_name_of_two_kinds_needs_a_path(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Workspace(root).embeddings
    folder.mkdir()
    (folder / "a.pt").write_bytes(b"x")
    assert main(["merge", "a:0.5", "x", "--root", str(root)]) == 2
    assert "'a' is the name of an embedding and of a hypernetwork; give the path of one" in capsys.readouterr().err
