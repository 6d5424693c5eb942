"""A run made once more begins as it did and ends with the same weights, and nothing of the first is lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.runs import RANDOM, Bench, equal, trained
from tincture import recipe
from tincture.adapters.files.inspection import inspect_file
from tincture.cli import main
from tincture.errors import UsageError
from tincture.run.past.again import Again, ChangesSince, Renewed, find_again, of_file

CHANGES: dict[str, Any] = {**RANDOM, "steps": 3, "save_every": 2, "threads": 1}


def find(bench: Bench, text: object) -> Again:
    return find_again(str(text), bench.workspace, inspect_file, lambda _: None)


def renewed(bench: Bench, again: Again, name: str = "", overwrite: bool = False, **asked: Any) -> Renewed:
    return Renewed(again, again.with_settings(asked), bench.workspace, name, overwrite, recipe.create)


def rerun(bench: Bench, again: Again, name: str = "", overwrite: bool = False, **asked: Any) -> tuple[Any, list[str]]:
    remarks: list[str] = []
    with renewed(bench, again, name, overwrite, **asked) as made:
        watchers = [made, ChangesSince(again.then, remarks.append)]
        return recipe.train(made.settings, bench.workspace, callbacks=watchers), [*made.remarks, *remarks]


@pytest.mark.parametrize("kind", ["embedding", "hypernetwork"])
@pytest.mark.parametrize("by", ["run", "file", "copy"])
def test_the_same_weights_come_out(new_bench: Callable[[str], Bench], kind: str, by: str) -> None:
    bench = new_bench("again")
    # What a hypernetwork is called stands in the prompts of most templates.
    own = {} if kind == "embedding" else {"template": "hypernetwork"}
    first = bench.train(kind, **{**CHANGES, **own})
    before = first.adapter_path.read_bytes()
    copy = next((first.run_dir / f"{kind}s").glob("*-2.pt"))
    again = find(bench, {"run": first.run_dir, "file": first.adapter_path, "copy": copy}[by])
    second, remarks = rerun(bench, again)
    assert second.adapter_path.stem == f"{first.adapter_path.stem}-again"
    assert equal(trained(second.adapter_path), trained(first.adapter_path))
    assert first.adapter_path.read_bytes() == before and remarks == []


def test_a_name_that_stands_in_prompts_makes_others_of_them(new_bench: Callable[[str], Bench]) -> None:
    bench = new_bench("named")
    first = bench.train("hypernetwork", **CHANGES)
    old = trained(first.adapter_path)
    second, (remark,) = rerun(bench, find(bench, first.run_dir))
    assert remark.startswith("The prompt template has [name], which is ink-again now")
    assert not equal(trained(second.adapter_path), old)
    third, remarks = rerun(bench, find(bench, first.run_dir), overwrite=True)
    assert equal(trained(third.adapter_path), old) and remarks == []


def test_of_several_adapters_all_begin_anew(new_bench: Callable[[str], Bench]) -> None:
    bench = new_bench("joint")
    first = bench.train("embedding", companions=["hypernetwork:ink:0:2, 1e-2"], **CHANGES)
    second, _ = rerun(bench, find(bench, first.run_dir))
    paths = [(one.adapter_path, one.companions[0].adapter_path) for one in (first, second)]
    assert [path.stem for path in paths[1]] == ["cat-again", "ink-again"]
    assert all(equal(trained(new), trained(old)) for old, new in zip(*paths, strict=True))


def test_a_file_whose_run_is_gone_is_created_as_it_was(new_bench: Callable[[str], Bench]) -> None:
    bench = new_bench("gone")
    recipe.create(
        "embedding", "dog", workspace=bench.workspace, model=str(bench.model), num_vectors=3, init_text="moon"
    )
    first = recipe.train(bench.settings("embedding", name="dog", **CHANGES), bench.workspace)
    shutil.rmtree(bench.workspace.logs)
    again = find(bench, first.adapter_path)
    assert again.absent == ["data"] and again.created == {"kind": "embedding", "num_vectors": 3, "init_text": "moon"}
    with pytest.raises(UsageError, match=r"dog.pt names what is not in this workspace: data \(pictures\); give `data`"):
        again.with_settings({})
    asked = {"data": str(bench.data), "model": str(bench.model)}
    second, remarks = rerun(bench, again, **asked)
    assert equal(trained(second.adapter_path), trained(first.adapter_path)) and remarks == []


def test_a_file_that_was_trained_in_several_runs_needs_its_run(new_bench: Callable[[str], Bench]) -> None:
    bench = new_bench("twice")
    for steps in (2, 4):
        path = bench.train("embedding", steps=steps).adapter_path
    shutil.rmtree(bench.workspace.logs)
    with pytest.raises(UsageError, match=r"cat\.pt was trained in several runs, and its run is not in"):
        find(bench, path)
    found = inspect_file(path)
    found["provenance"].pop("continued")
    with pytest.raises(UsageError, match="does not say with which options it was created"):
        of_file(bench.workspace, found)


def test_what_changed_since_is_said(new_bench: Callable[[str], Bench]) -> None:
    bench = new_bench("changed")
    first = bench.train("embedding", **CHANGES)
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(bench.data / "new.png")
    (bench.data / "new.txt").write_text("black")
    record = json.loads((first.run_dir / "run.json").read_text())
    record["model_hash"] = "0" * 10
    record.pop("checksum")
    (first.run_dir / "run.json").write_text(json.dumps(record))
    again = find(bench, first.run_dir)
    _, remarks = rerun(bench, again)
    assert [remark.split(":")[0] for remark in remarks] == ["The base model is another one", "The pictures are others"]
    plan = recipe.plan(again.with_settings({"steps": 9}), bench.workspace, timing="none", digests=True)
    assert plan["facts"]["pictures"] == 6 and "facts" not in recipe.plan(
        again.with_settings({"steps": 9}), bench.workspace, timing="none"
    )


def test_options_win_and_names_are_free_or_asked_for(new_bench: Callable[[str], Bench]) -> None:
    bench = new_bench("names")
    first = bench.train("embedding", preview_prompts=["a cat", "cats and a cat"], **CHANGES)
    again = find(bench, first.run_dir)
    made = renewed(bench, again, steps=9)
    assert made.settings.steps == 9 and made.settings.preview_prompts == ("a cat-again", "cats and a cat-again")
    assert renewed(bench, again, "puma").paths == [bench.workspace.adapter_path("embedding", "puma")]
    bench.workspace.adapter_path("embedding", "cat-again").write_bytes(b"x")
    assert renewed(bench, again).paths[0].stem == "cat-again2"
    with pytest.raises(UsageError, match="exists already; choose another name, or give `overwrite`"):
        renewed(bench, again, "cat")
    with pytest.raises(UsageError, match="not allowed"):
        renewed(bench, again, "a/b")


@pytest.mark.parametrize("overwrite", [False, True], ids=("new", "over"))
def test_what_is_refused_leaves_everything_as_it_was(new_bench: Callable[[str], Bench], overwrite: bool) -> None:
    bench = new_bench("refused")
    first = bench.train("embedding", **CHANGES)
    folder = first.adapter_path.parent
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(UsageError, match="batch_size"):
        rerun(bench, find(bench, first.run_dir), overwrite=overwrite, batch_size=50)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_the_first_result_is_replaced_when_asked(new_bench: Callable[[str], Bench]) -> None:
    bench = new_bench("over")
    first = bench.train("embedding", **CHANGES)
    old = trained(first.adapter_path)
    second, _ = rerun(bench, find(bench, first.run_dir), overwrite=True, seed=5)
    assert second.adapter_path == first.adapter_path and not equal(trained(second.adapter_path), old)
    assert sorted(path.name for path in first.adapter_path.parent.iterdir()) == ["cat.pt"]


def test_a_run_that_lost_its_start_is_a_sentence(new_bench: Callable[[str], Bench]) -> None:
    bench = new_bench("lost")
    first = bench.train("embedding", **CHANGES)
    (first.run_dir / "start.pt").unlink()
    with pytest.raises(Exception, match="is not there, so that the adapter cannot begin as it did"):
        find(bench, first.run_dir)


def test_the_command_shows_and_does_it(
    new_bench: Callable[[str], Bench], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = new_bench("command")
    bench.train("embedding", **CHANGES)
    monkeypatch.setenv("TINCTURE_ROOT", str(bench.workspace.root))
    before = sorted(bench.workspace.root.rglob("*"))
    assert main(["rerun", "cat", "--dry-run", "--no-timing"]) == 0
    out = capsys.readouterr().out
    assert "# changed since: none" in out and 'name = "cat-again"' in out
    assert sorted(bench.workspace.root.rglob("*")) == before
    assert main(["rerun", "cat", "--json", "--seed", "3", "--out", "lion"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert Path(shown["adapter_path"]).name == "lion.pt"
    for words, said in (
        ([], "Give what to make again"),
        (["nobody"], "There is no run 'nobody'"),
        (["cat", "--no-timing"], "--no-timing leaves something out"),
        (["cat", "--dry-run", "--events", "-"], "--dry-run begins none"),
        (["cat", "--steps", "0"], "steps is 0"),
        (["cat", "--name", "lion"], "exists already"),
    ):
        assert main(["rerun", *words]) == 2
        shown_error = capsys.readouterr().err
        assert said in shown_error
