"""Regularisation pictures that the model draws itself: which, when, where they stay, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.runs import Bench, Recorder, csv_text, equal, last_state, trained
from tests.support import tiny_model
from tincture import recipe
from tincture.errors import UsageError
from tincture.events import Event, Progressed
from tincture.models.loading.load import load_model
from tincture.models.placement import DENOISER
from tincture.models.sampling import generate
from tincture.run.prior_drawing import STAGE, _computing_on
from tincture.settings.drawing import Drawing

PROMPT = "a photo of a star"
DRAWN: dict[str, Any] = {"prior_prompt": PROMPT, "prior_count": 6, "prior_steps": 2, "prior_seed": 11}
SMALL: dict[str, Any] = {"steps": 2, "batch_size": 2, "log_every": 1}


def own_folder(bench: Bench) -> Path:
    (folder,) = bench.workspace.prior_pictures.iterdir()
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.png"))}


class Interrupt(Exception):
    pass


class InterruptAt:
    """Ends the drawing when so many pictures are there."""

    def __init__(self, done: int) -> None:
        self.done = done

    def on_event(self, event: Event) -> None:
        if isinstance(event, Progressed) and event.stage == STAGE and event.done >= self.done:
            raise Interrupt


def test_the_pictures_are_those_that_the_model_draws_of_the_prompt(bench: Bench) -> None:
    recorder = Recorder()
    changes = {**SMALL, **DRAWN, "prior_sampler": "DDIM", "prior_guidance_scale": 3, "prior_negative_prompt": "moon"}
    result = bench.train("hypernetwork", callbacks=[recorder], **changes)
    folder = own_folder(bench)
    model = load_model(str(bench.model), workspace=bench.workspace, device="cpu")
    drawing = Drawing(
        steps=2, sampler="DDIM", guidance_scale=3, negative_prompt="moon", width=16, height=16, clip_skip=1
    )
    expected = generate(model, [PROMPT] * 6, drawing, seeds=range(11, 17), batch_size=4).numpy()
    found = np.stack([np.asarray(Image.open(folder / f"{number:05}.png")) for number in range(6)])
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert len({picture.tobytes() for picture in found}) == 6
    assert {path.read_text() for path in folder.glob("*.txt")} == {PROMPT}
    record = json.loads((result.run_dir / "run.json").read_text())
    assert record["settings"]["prior_data"] == str(folder)
    assert record["prior_hash"]
    told = [(event.done, event.total) for event in recorder.of(Progressed) if event.stage == STAGE]
    assert told[0] == (0, 6)
    assert told[-1] == (6, 6)


@pytest.mark.parametrize("kind", ["embedding", "hypernetwork"])
def test_a_run_with_them_is_one_with_the_same_pictures_in_its_data(
    new_bench: Callable[[str], Bench], kind: str, tmp_path: Path
) -> None:
    """For both kinds: an embedding needs a template that names it."""
    (tmp_path / "named.txt").write_text("[filewords] beside [name]")
    template = {"prior_template": str(tmp_path / "named.txt")} if kind == "embedding" else {}
    drawing, given = new_bench("drawing"), new_bench("given")
    drawn = drawing.train(kind, **SMALL, **DRAWN, **template)
    same = given.train(kind, **SMALL, prior_data=str(own_folder(drawing)), **template)
    plain = new_bench("plain").train(kind, **SMALL)
    assert equal(trained(drawn.adapter_path), trained(same.adapter_path))
    assert not equal(trained(drawn.adapter_path), trained(plain.adapter_path))


def test_an_interruption_goes_on_at_the_next_missing_picture_and_later_runs_draw_none(
    new_bench: Callable[[str], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = new_bench("whole")
    uninterrupted = whole.train("hypernetwork", **SMALL, **DRAWN)
    bench = new_bench("interrupted")
    with pytest.raises(Interrupt):
        bench.train("hypernetwork", callbacks=[InterruptAt(4)], **SMALL, **DRAWN)
    assert [*contents(own_folder(bench))] == [f"{number:05}.png" for number in range(4)]
    assert not bench.workspace.logs.exists()
    drawn: list[int] = []

    def counted(model: Any, prompts: Any, *args: Any, **more: Any) -> Any:
        drawn.append(len(prompts))
        return generate(model, prompts, *args, **more)

    monkeypatch.setattr("tincture.run.prior_drawing.generate", counted)
    result = bench.train("hypernetwork", **SMALL, **DRAWN)
    assert drawn == [2]
    assert contents(own_folder(bench)) == contents(own_folder(whole))
    assert equal(trained(result.adapter_path), trained(uninterrupted.adapter_path))
    bench.train("hypernetwork", **{**SMALL, "steps": 4}, **DRAWN, seed=5)
    assert drawn == [2]
    bench.train("hypernetwork", **{**SMALL, "steps": 6}, **{**DRAWN, "prior_seed": 12})
    assert drawn == [2, 4, 2]
    assert len([*bench.workspace.prior_pictures.iterdir()]) == 2


def test_a_run_that_was_stopped_ends_as_one_that_was_not(new_bench: Callable[[str], Bench]) -> None:
    """One that lost a picture meanwhile, too, since it is drawn again as it was."""
    changes = {**SMALL, "steps": 4, **DRAWN}
    whole, stopped = new_bench("whole").train("hypernetwork", **changes), new_bench("stopped")
    first = stopped.train("hypernetwork", stop_after=2, **changes)
    (own_folder(stopped) / "00004.png").unlink()
    result = stopped.resume(first.run_dir)
    assert equal(trained(result.adapter_path), trained(whole.adapter_path))
    assert csv_text(result.run_dir) == csv_text(whole.run_dir)
    assert equal(last_state(result.run_dir), last_state(whole.run_dir))


def test_a_named_folder_keeps_them_and_is_refused_to_others(bench: Bench) -> None:
    folder = bench.workspace.root / "stars"
    bench.train("hypernetwork", **SMALL, **DRAWN, prior_data=str(folder))
    assert len(contents(folder)) == 6
    more = {**DRAWN, "prior_count": 7, "prior_data": str(folder)}
    before = contents(folder)
    bench.train("hypernetwork", **{**SMALL, "steps": 4}, **more)
    assert {name: content for name, content in contents(folder).items() if name in before} == before
    assert len(contents(folder)) == 7
    assert not bench.workspace.prior_pictures.exists()
    for changes in ({"prior_prompt": "a moon"}, {"prior_count": 5}, {"prior_data": str(bench.data)}):
        with pytest.raises(UsageError, match=r"holds pictures that `prior_prompt` did not draw so, such as \S+\.png"):
            bench.train("hypernetwork", **{**SMALL, "steps": 9}, **{**more, **changes})


def test_an_embedding_that_the_prompt_does_not_name_is_refused_before_any_is_drawn(bench: Bench) -> None:
    told = "The pictures of 'a photo of a star' .* teach 'cat' nothing"
    for act in (
        lambda: bench.train("embedding", **SMALL, **DRAWN),
        lambda: recipe.plan(bench.settings("embedding", **SMALL, **DRAWN), bench.workspace, timing="none"),
    ):
        with pytest.raises(UsageError, match=told):
            act()
    assert not bench.workspace.prior_pictures.exists()


def test_a_plan_draws_nothing_and_tells_what_will_be_drawn(bench: Bench) -> None:
    settings = bench.settings("hypernetwork", **SMALL, **DRAWN)
    plan = recipe.plan(settings, bench.workspace, timing="none")
    assert not bench.workspace.prior_pictures.exists()
    assert {key: plan["prior"][key] for key in ("pictures", "to_draw", "drawn_by")} == {
        "pictures": 6,
        "to_draw": 6,
        "drawn_by": PROMPT,
    }
    assert any("draws 6 of 6 pictures of 'a photo of a star'" in remark for remark in plan["remarks"])
    bench.train("hypernetwork", **SMALL, **DRAWN)
    after = recipe.plan(settings.replace(steps=4), bench.workspace, timing="none")
    assert after["prior"]["folder"] == plan["prior"]["folder"] == str(own_folder(bench))
    assert after["prior"]["to_draw"] == 0
    assert after["prior"]["prompt"] == PROMPT
    assert not any("draws" in remark for remark in after["remarks"])


@pytest.mark.parametrize(
    ("changes", "faults"),
    [
        (
            {"prior_count": 5, "prior_steps": 3, "prior_seed": 1, "prior_weight": 2},
            [
                "prior_count is 5, but prior_prompt is empty",
                "prior_steps is 3, but prior_prompt is empty",
                "prior_seed is 1, but prior_prompt is empty",
                "prior_weight is '2', but prior_data is empty",
            ],
        ),
        (
            {"prior_prompt": "a cat", "prior_data": ("one", "two"), "prior_count": 0},
            ["prior_data has 2 folders, but the pictures of prior_prompt are drawn into one", "prior_count is 0"],
        ),
        ({"prior_prompt": "  ", "prior_sampler": "DDIM"}, ["prior_sampler is 'DDIM', but prior_prompt is empty"]),
    ],
    ids=("without", "two", "blank"),
)
def test_what_makes_no_sense_is_refused_together(bench: Bench, changes: dict[str, Any], faults: list[str]) -> None:
    with pytest.raises(UsageError) as refused:
        bench.settings("hypernetwork", **changes)
    assert [fault for fault in faults if fault not in str(refused.value)] == []


def test_a_model_that_lies_elsewhere_computes_on_the_device_and_is_afterwards_as_it_was() -> None:
    """The device without numbers stands for a GPU: parts are there while they act."""
    model = tiny_model()
    before = {name: value.clone() for name, value in model.denoiser.state_dict().items()}
    with pytest.raises(Interrupt), _computing_on(model, torch.device("meta")):
        assert model.device.type == "meta"
        with model.placement.acting(DENOISER):
            assert next(model.denoiser.parameters()).device.type == "meta"
        raise Interrupt
    assert model.device.type == "cpu"
    assert equal(dict(model.denoiser.state_dict()), before)


def test_an_unknown_sampler_is_refused(bench: Bench) -> None:
    with pytest.raises(UsageError, match="There is no sampler 'Dice'; known are"):
        bench.train("hypernetwork", **SMALL, **DRAWN, prior_sampler="Dice")
