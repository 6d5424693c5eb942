from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from tests.runs import Bench
from tincture.adapters.embedding import Embedding
from tincture.adapters.hypernetwork import Hypernetwork, create_hypernetwork
from tincture.drawing.generation import Studio, generate_grid, generate_pictures
from tincture.drawing.sheets import LABEL_HEIGHT, LABEL_WIDTH
from tincture.errors import UsageError
from tincture.formats.picture_text import PictureParameters, parse_parameters
from tincture.settings.drawing import Drawing

SMALL = Drawing(steps=2, width=16, height=16)


def picture(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.array(image)


def parameters(path: Path) -> PictureParameters:
    with Image.open(path) as image:
        return parse_parameters(image.info["parameters"])


def strong_network(bench: Bench) -> Hypernetwork:
    """One that changes pictures for all to see."""
    network = create_hypernetwork("ink", (32, 64), weight_init="KaimingNormal", activation_func="relu")
    network.save(bench.path("hypernetwork"))
    return network


def draw(bench: Bench, *prompts: str, seeds: tuple[int, ...] = (1,), out: str = "out") -> list[Path]:
    return generate_pictures(
        prompts,
        workspace=bench.workspace,
        out=bench.workspace.root / out,
        seeds=seeds,
        model=str(bench.model),
        drawing=SMALL,
    )


def test_pictures_are_numbered_and_nothing_is_overwritten(bench: Bench) -> None:
    first = draw(bench, "red", "blue", seeds=(1, 2))
    assert [path.name for path in first] == ["00001-1.png", "00002-2.png", "00003-1.png", "00004-2.png"]
    content = [path.read_bytes() for path in first]
    assert [path.name for path in draw(bench, "red")] == ["00005-1.png"]
    assert [path.read_bytes() for path in first] == content


def test_a_picture_depends_on_prompt_and_seed_alone(bench: Bench) -> None:
    together = draw(bench, "red", "blue", seeds=(1, 2))
    (alone,) = draw(bench, "blue", seeds=(2,))
    assert np.array_equal(picture(together[3]), picture(alone))
    assert not np.array_equal(picture(together[2]), picture(alone))


def test_a_hypernetwork_acts_by_its_strength_and_is_told(bench: Bench) -> None:
    strong_network(bench)
    plain, none, full = draw(bench, "red", "red <hypernet:ink:0>", "red <hypernet:ink:1>")
    assert np.array_equal(picture(plain), picture(none))
    assert not np.array_equal(picture(plain), picture(full))
    read = parameters(full)
    assert (read.prompt, read.settings["Hypernet"]) == ("red <hypernet:ink:1>", "ink")
    assert float(read.settings["Hypernet strength"]) == 1
    # It acts on its own prompt only.
    assert np.array_equal(picture(draw(bench, "red")[0]), picture(plain))


def test_an_embedding_acts_by_its_files_name(bench: Bench) -> None:
    (before,) = draw(bench, "a dog")
    path = bench.workspace.adapter_path("embedding", "dog")
    Embedding("another name", {"clip_l": torch.full((2, 32), 3.0)}).save(path)
    (after,) = draw(bench, "a dog")
    assert not np.array_equal(picture(before), picture(after))


def test_an_embedding_of_another_model_is_left_out_with_a_warning(bench: Bench) -> None:
    (before,) = draw(bench, "a dog")
    Embedding("dog", {"clip_l": torch.ones(2, 768)}).save(bench.workspace.adapter_path("embedding", "dog"))
    with pytest.warns(UserWarning, match=r"'dog' has vectors of width clip_l 768.*It is left out"):
        (after,) = draw(bench, "a dog")
    assert np.array_equal(picture(before), picture(after))


def test_a_named_embedding_that_is_damaged_is_left_out_with_a_warning(bench: Bench) -> None:
    (plain,) = draw(bench, "a dog")
    bench.path("embedding").with_name("dog.pt").write_bytes(b"bad")
    with pytest.warns(UserWarning, match=r"dog\.pt .*It is left out"):
        (warned,) = draw(bench, "a dog")
    assert np.array_equal(picture(plain), picture(warned))


def test_an_embedding_may_be_called_like_a_hypernetwork(bench: Bench) -> None:
    strong_network(bench)
    (plain,) = draw(bench, "ink <hypernet:ink:0.5>")
    Embedding("ink", {"clip_l": torch.full((1, 32), 5.0)}).save(bench.workspace.embeddings / "ink.pt")
    (both,) = draw(bench, "ink <hypernet:ink:0.5>")
    assert not np.array_equal(picture(plain), picture(both))


def test_a_seed_that_cannot_be_is_refused_before_anything_is_drawn(bench: Bench) -> None:
    with pytest.raises(UsageError, match=r"The seed 18446744073709551616 is not allowed"):
        draw(bench, "red", seeds=(2**64 - 1, 2**64))
    assert not list(bench.workspace.root.rglob("*-18446744073709551615.png"))


def test_an_unknown_hypernetwork_is_refused(bench: Bench) -> None:
    with pytest.raises(UsageError, match=r"There is no hypernetwork 'inc'.*did you mean ink"):
        draw(bench, "red <hypernet:inc:1>")


def test_grid_has_a_column_per_strength_and_a_row_per_checkpoint(bench: Bench) -> None:
    network = strong_network(bench)
    checkpoints = [bench.workspace.root / f"ink-{step}.pt" for step in (2, 4)]
    for factor, path in enumerate(checkpoints):
        for parameter in network.parameters():
            parameter.data *= factor  # the first changes nothing
        network.save(path)
    strong_network(bench).save(checkpoints[1])
    path = generate_grid(
        "red <hypernet:ink:1>",
        workspace=bench.workspace,
        out=bench.workspace.root / "out",
        seed=1,
        strengths=(0.0, 0.5, 1.0),
        checkpoints=checkpoints,
        model=str(bench.model),
        drawing=SMALL,
    )
    sheet = picture(path)
    assert path.name == "grid-00001-1.png"
    read = parameters(path)
    assert read.prompt == "red <hypernet:ink:1>"
    told = {key: read.settings[key] for key in ("Steps", "Seed", "Model", "Hypernet", "Sheet columns", "Sheet rows")}
    assert told == {
        "Steps": "2",
        "Seed": "1",
        "Model": "tiny",
        "Hypernet": "ink",
        "Sheet columns": "0, 0.5, 1",
        "Sheet rows": "ink-2, ink-4",
    }
    assert sheet.shape == (LABEL_HEIGHT + 2 * 18, LABEL_WIDTH + 3 * 18, 3)
    rows = [sheet[LABEL_HEIGHT + y * 18 : LABEL_HEIGHT + y * 18 + 16, LABEL_WIDTH:] for y in range(2)]
    cells = [[row[:, x * 18 : x * 18 + 16] for x in range(3)] for row in rows]
    (plain,) = draw(bench, "red")
    for cell in (*cells[0], cells[1][0]):
        assert np.array_equal(cell, picture(plain))
    assert not np.array_equal(cells[1][1], cells[1][0])
    assert not np.array_equal(cells[1][2], cells[1][1])


def test_a_checkpoint_that_the_prompt_does_not_name_is_refused(bench: Bench) -> None:
    with pytest.raises(UsageError, match=r"names no adapter 'ink'"):
        generate_grid(
            "red",
            workspace=bench.workspace,
            out=bench.workspace.root / "out",
            seed=1,
            strengths=(1.0,),
            checkpoints=[bench.workspace.root / "ink-500.pt"],
            model=str(bench.model),
            drawing=SMALL,
        )


def test_a_device_that_is_not_there_is_named(bench: Bench) -> None:
    with pytest.raises(UsageError, match="'cuda:99' cannot be used here"):
        generate_pictures(
            ["red"],
            workspace=bench.workspace,
            out=bench.workspace.root,
            seeds=[1],
            model=str(bench.model),
            device="cuda:99",
        )


def test_half_precision_draws_nearly_the_same(bench: Bench) -> None:
    (full,) = draw(bench, "red")
    (half,) = generate_pictures(
        ["red"],
        workspace=bench.workspace,
        out=bench.workspace.root / "half",
        seeds=[1],
        model=str(bench.model),
        precision="bf16",
        drawing=SMALL,
    )
    apart = np.abs(picture(full).astype(int) - picture(half).astype(int))
    assert apart.max() > 0 and apart.mean() < 8


def test_a_name_that_is_missing_stops_before_the_first_picture(bench: Bench) -> None:
    with pytest.raises(UsageError, match="no hypernetwork 'nope'"):
        draw(bench, "red", "blue <hypernet:nope>")
    assert not (bench.workspace.root / "out").exists()


def test_a_studio_keeps_the_model_and_draws_the_same(bench: Bench) -> None:
    studio = Studio(bench.workspace)
    shared: dict[str, Any] = {"workspace": bench.workspace, "model": str(bench.model), "drawing": SMALL}
    (plain,) = draw(bench, "red")
    kept: list[object] = []
    for number in range(2):
        out = bench.workspace.root / f"kept-{number}"
        (path,) = generate_pictures(["red"], seeds=[1], out=out, studio=studio, **shared)
        assert np.array_equal(picture(path), picture(plain))
        kept.append(studio.model(str(bench.model), None, "auto", "fp32"))
    assert kept[0] is kept[1]
    assert studio.model(str(bench.model), None, "auto", "bf16") is not kept[0]


def test_a_studio_sees_new_embeddings_and_new_files_of_the_model(bench: Bench) -> None:
    studio = Studio(bench.workspace)
    shared: dict[str, Any] = {"workspace": bench.workspace, "drawing": SMALL, "seeds": [1], "studio": studio}
    copied = bench.workspace.root / "model"
    shutil.copytree(bench.model, copied)
    out = bench.workspace.root / "out"
    (before,) = generate_pictures(["a dog"], model=str(copied), out=out, **shared)
    Embedding("dog", {"clip_l": torch.full((2, 32), 3.0)}).save(bench.workspace.adapter_path("embedding", "dog"))
    (after,) = generate_pictures(["a dog"], model=str(copied), out=out, **shared)
    assert not np.array_equal(picture(before), picture(after))
    kept = studio.model(str(copied), None, "auto", "fp32")
    file = next((copied / "unet").glob("*.safetensors"))
    file.write_bytes(file.read_bytes())
    assert studio.model(str(copied), None, "auto", "fp32") is not kept


def test_whoever_watches_is_told_every_step_and_can_end_the_drawing(bench: Bench) -> None:
    told: list[tuple[float, int, Path | None]] = []
    shared: dict[str, Any] = {"workspace": bench.workspace, "model": str(bench.model), "drawing": SMALL}
    out = bench.workspace.root / "out"
    paths = generate_pictures(
        ["red", "blue"], seeds=[1, 2, 3], batch_size=2, out=out, watch=lambda *told_: told.append(told_), **shared
    )
    assert [done for done, _, _ in told] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert {total for _, total, _ in told} == {8}
    assert [latest for _, _, latest in told] == [None] * 2 + [paths[1]] * 2 + [paths[2]] * 2 + [paths[4]] * 2
    heun = {**shared, "drawing": dataclasses.replace(SMALL, sampler="Heun")}
    told.clear()
    generate_pictures(["red"], seeds=[1], out=out, watch=lambda *told_: told.append(told_), **heun)
    assert told[-1][:2] == (2, 2) and len(told) == 3
    told.clear()
    generate_grid("red <hypernet:ink:1>", seed=1, strengths=(0, 1), out=out, watch=lambda *t: told.append(t), **shared)
    assert told[-1][:2] == (4, 4)

    def stop(done: float, *_: object) -> None:
        if done == 3:
            raise InterruptedError

    before = len(list(out.iterdir()))
    with pytest.raises(InterruptedError):
        generate_pictures(["red", "blue"], seeds=[1], out=out, watch=stop, **shared)
    assert len(list(out.iterdir())) == before + 1
