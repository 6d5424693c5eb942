"""Whoever adds an adapter writes one file and registers it: all else works for it as for those that are shipped."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from tests.runs import RANDOM, Bench, Recorder, equal, last_state
from tests.unit.adapters.context_offset import CONTEXT_OFFSET, ContextOffset
from tincture import recipe
from tincture.cli import main
from tincture.drawing.generation import generate_pictures
from tincture.errors import AlreadyTrainedError, UsageError
from tincture.events import CheckpointSaved, PreviewReady
from tincture.kinds.registry import AdapterKind, find_kind, kind_names, register, unregister
from tincture.run.doctor import as_text, examine
from tincture.server.api_v1.schemas import adapter_request
from tincture.server.app import build_app
from tincture.server.library.storage import list_copies, list_files
from tincture.server.page import shell
from tincture.server.requests.adapters import checked_options
from tincture.server.service import Service
from tincture.settings.drawing import Drawing
from tincture.settings.fields import specs_of
from tincture.settings.server import ServerSettings
from tincture.settings.train import TrainSettings

KIND = CONTEXT_OFFSET.name
PREVIEWS: dict[str, Any] = {"preview_every": 2, "preview_steps": 2, "preview_prompts": ["a moon"]}


@pytest.fixture(autouse=True)
def registered() -> Iterator[AdapterKind]:
    yield register(CONTEXT_OFFSET)
    unregister(KIND)


@pytest.fixture
def made(bench: Bench) -> Bench:
    """A workspace with a context offset called shift."""
    recipe.create(KIND, "shift", workspace=bench.workspace, model=str(bench.model), spread=0.1, seed=3)
    return bench


def settings(bench: Bench, **changes: Any) -> TrainSettings:
    return bench.settings(KIND, **{"name": "shift", "learning_rate": "", **changes})


def train(bench: Bench, **changes: Any) -> recipe.RunResult:
    return bench.train(KIND, **{"name": "shift", "learning_rate": "", **changes})


def offset(path: Path) -> torch.Tensor:
    return ContextOffset.load(path).offset.detach()


def picture(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.array(image)


def test_it_is_created_planned_and_trained(made: Bench) -> None:
    path = made.workspace.find_adapter(KIND, "shift")
    assert path == made.workspace.root / "models" / "context-offsets" / "shift.pt"
    before = offset(path)
    assert before.shape == (1, 32) and before.abs().max() > 0
    with pytest.raises(UsageError, match="exists already"):
        recipe.create(KIND, "shift", workspace=made.workspace, model=str(made.model))

    plan = recipe.plan(settings(made), made.workspace)
    assert plan["trained_numbers"] == 32
    assert plan["settings"]["learning_rate"] == "1e-2" and plan["settings"]["template"] == "style_filewords"
    assert plan["memory_mib"]["peak"] > 0

    recorder = Recorder()
    result = train(made, steps=3, save_every=2, callbacks=[recorder])
    assert result.adapter_path == path and result.global_step == 3
    trained = ContextOffset.load(path)
    assert trained.step == 3 and not torch.equal(trained.offset.detach(), before)
    assert trained.provenance["settings"]["kind"] == KIND and trained.model_name == "tiny"
    copy = result.run_dir / "context-offsets" / "shift-2.pt"
    assert [event.path for event in recorder.of(CheckpointSaved)] == [copy, path]
    assert (result.run_dir / "context_offset_loss.csv").is_file()
    assert json.loads(next(result.run_dir.glob("settings-*.json")).read_text())["context-offset_name"] == "shift"
    with pytest.raises(AlreadyTrainedError, match="context-offset 'shift' has 3 steps already"):
        train(made, steps=3)


def test_a_stopped_run_goes_on_as_if_it_had_never_stopped(new_bench: Callable[[str], Bench]) -> None:
    results = []
    for name, stop_after in (("whole", 0), ("stopped", 2)):
        bench = new_bench(name)
        recipe.create(KIND, "shift", workspace=bench.workspace, model=str(bench.model))
        result = train(bench, stop_after=stop_after, **RANDOM, **PREVIEWS)
        results.append(bench.resume(result.run_dir) if stop_after else result)
    whole, resumed = results
    assert resumed.global_step == 4 and not resumed.interrupted
    assert torch.equal(offset(whole.adapter_path), offset(resumed.adapter_path))
    assert equal(last_state(whole.run_dir), last_state(resumed.run_dir))
    for path in sorted((whole.run_dir / "images").glob("*.png")):
        assert np.array_equal(picture(path), picture(resumed.run_dir / "images" / path.name)), path.name


def test_previews_show_what_it_learned(made: Bench) -> None:
    recorder = Recorder()
    train(made, learning_rate="1", callbacks=[recorder], **PREVIEWS)
    first, _, last = (picture(event.paths[0]) for event in recorder.of(PreviewReady))
    assert not np.array_equal(first, last)


def test_training_it_further_takes_the_state_of_the_optimizer_along(
    made: Bench, new_bench: Callable[[str], Bench]
) -> None:
    train(made, steps=2, save_optimizer_state=True)
    path = train(made, steps=4).adapter_path
    other = new_bench("other")
    recipe.create(KIND, "shift", workspace=other.workspace, model=str(other.model), spread=0.1, seed=3)
    train(other, steps=2)
    assert not torch.equal(offset(path), offset(train(other, steps=4).adapter_path))


def test_prompts_name_it_by_its_tag(made: Bench) -> None:
    big = ContextOffset("shift", torch.full((1, 32), 3.0))
    big.save(made.workspace.adapter_path(KIND, "shift"))

    def draw(prompt: str, out: str) -> NDArray[np.uint8]:
        small, folder = Drawing(steps=2, width=16, height=16), made.workspace.root / out
        place: dict[str, Any] = {"workspace": made.workspace, "model": str(made.model)}
        (path,) = generate_pictures([prompt], out=folder, seeds=[1], drawing=small, **place)
        return picture(path)

    plain = draw("a moon", "plain")
    assert not np.array_equal(plain, draw(f"a moon {CONTEXT_OFFSET.in_prompt('shift')}", "named"))
    assert np.array_equal(plain, draw("a moon <offset:shift:0>", "none"))
    with pytest.raises(UsageError, match="no context-offset 'shif'"):
        draw("a moon <offset:shif:1>", "wrong")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"clip_skip": 2}, "clip_skip is 2, but a context offset is added to the last layer"),
        ({"attention_mask_weight": 0.5}, "a context-offset has no name in the prompt"),
        ({"preview_every": 1, "preview_with_embedding": True}, "a picture has no place for a context-offset"),
    ],
)
def test_settings_that_are_not_for_it_are_refused(made: Bench, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        settings(made, **changes)


def test_the_command_line_makes_and_trains_it(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--root", str(bench.workspace.root), "--model", str(bench.model)]
    assert main(["create", KIND, "shift", "--spread", "0.5", "--range", "-0.1,0.1", "--seed", "1", *where]) == 0
    path = bench.workspace.find_adapter(KIND, "shift")
    assert capsys.readouterr().out == f"made {path}\n"
    assert offset(path).abs().max() == pytest.approx(0.1)
    assert main(["create", KIND, "shift", "--overwrite", "--range", "1,0", *where]) == 2
    assert "give the lesser one first" in capsys.readouterr().err
    small = ["--width", "16", "--height", "16", "--preview-every", "0", "--device", "cpu", "--steps", "2"]
    assert main(["train", KIND, "shift", "--data", str(bench.data), *small, *where, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["adapter_path"] == str(path)
    assert ContextOffset.load(path).step == 2
    for words in (["create"], ["train"], ["create", KIND]):
        with contextlib.suppress(SystemExit):
            main([*words, "--help"])
        shown = " ".join(capsys.readouterr().out.split())
        assert KIND in shown and ("constant added to the text context" in shown or words == ["create"])


def test_settings_and_doctor_tell_of_it(made: Bench) -> None:
    specs = specs_of(TrainSettings)
    assert specs["kind"].choices[-1] == KIND
    assert "1e-2 (context-offset)" in specs["learning_rate"].help
    report = examine(made.workspace)
    assert report["workspace"]["context-offsets"] == 1
    assert "1 hypernetworks, 1 context-offsets" in as_text(report)


def test_the_server_makes_lists_and_describes_it(made: Bench) -> None:
    request = adapter_request(CONTEXT_OFFSET)
    assert request.__name__ == "ContextOffsetRequest"
    assert request(name="x").model_dump() == {  # type: ignore[call-arg]
        "name": "x",
        "model": "",
        "spread": 0.0,
        "range": [-1, 1],
        "seed": 0,
        "overwrite": False,
    }
    spread, null = request.model_json_schema()["properties"]["spread"]["anyOf"]
    assert spread["maximum"] == 10 and null == {"type": "null"}  # which stands for left out
    assert checked_options(CONTEXT_OFFSET, {"spread": 0.5}) == {"spread": 0.5}
    with pytest.raises(UsageError, match="A context-offset has no option 'sprd'; it has spread, range, seed"):
        checked_options(CONTEXT_OFFSET, {"sprd": 0.5})
    with pytest.raises(UsageError, match="range is 'a', but must be a list"):
        checked_options(CONTEXT_OFFSET, {"range": "a"})
    train(made, steps=2, save_every=1)
    assert {(copy["kind"], copy["step"]) for copy in list_copies(made.workspace)} == {(KIND, 1), (KIND, 2)}
    assert {file["kind"] for file in list_files(made.workspace)} == {"embedding", "hypernetwork", KIND}


async def built_page(service: Service) -> Any:
    return shell.build(service)  # within a loop: Gradio would make one, and leave it open


def test_the_page_and_the_http_api_have_forms_for_it(made: Bench) -> None:
    service = Service(made.workspace, ServerSettings(device=("cpu",)))
    try:
        paths = build_app(service, page=False).openapi()["paths"]
        assert "/api/v1/adapters/context-offset" in paths
        blocks = asyncio.run(built_page(service)).blocks.values()
    finally:
        service.close()
    inputs = {f"c-{KIND}-{name}" for name in ("name", "spread", "range", "seed", "overwrite", "create")}
    inputs |= {f"tr-{KIND}", f"tr-{KIND}-rate", f"tr-start-{KIND}"}
    assert inputs <= {getattr(block, "elem_id", "") for block in blocks}
    assert {(adapter["kind"], adapter["name"]) for adapter in service.adapters()} >= {(KIND, "shift")}


@pytest.mark.parametrize("part", ["name", "plural", "folder", "losses", "tag"])
def test_two_kinds_share_nothing_that_tells_them_apart(part: str) -> None:
    own = {"name": "x", "plural": "xs", "folder": "x", "losses": "x.csv", "tag": "x"}
    needed = {"title": "x", "implementation": "x:X", "learning_rate": "1", "template": "style"}
    taken = {part: getattr(CONTEXT_OFFSET, part)}
    with pytest.raises(UsageError, match=f"the {part} .* of 'context-offset'"):
        register(AdapterKind(**{**own, **needed, **taken}))
    assert register(AdapterKind(**own, **needed)).name in kind_names()
    unregister("x")
    assert kind_names() == ("embedding", "hypernetwork", KIND)


def test_a_kind_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    unregister(KIND)
    with pytest.raises(UsageError, match="no kind of adapter 'context-offset'; there are embedding and hypernetwork"):
        find_kind(KIND)
    with contextlib.redirect_stderr(io.StringIO()):
        assert main(["create", KIND, "shift"]) == 2
