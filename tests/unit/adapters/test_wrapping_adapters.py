"""What is trained and what is published may differ: files and pictures show the one, states go on with the other."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.runs import RANDOM, Bench, Recorder, equal, last_state
from tests.unit.adapters.wrapping_adapters import (
    AVERAGED_EMBEDDING,
    AVERAGED_HYPERNETWORK,
    PAIR,
    Averaged,
    AveragedEmbedding,
    Pair,
)
from tincture import recipe
from tincture.adapters.adapter import Adapter
from tincture.adapters.embedding import Embedding
from tincture.adapters.hypernetwork import Hypernetwork
from tincture.errors import UsageError
from tincture.events import PreviewReady
from tincture.kinds.registry import register, unregister
from tincture.models.sampling import generate
from tincture.models.stable_diffusion import StableDiffusion
from tincture.settings.drawing import Drawing

KINDS = (AVERAGED_EMBEDDING, AVERAGED_HYPERNETWORK, PAIR)
WRAPPED: dict[str, tuple[str, type[Adapter]]] = {
    AVERAGED_EMBEDDING.name: ("embedding", Embedding),
    AVERAGED_HYPERNETWORK.name: ("hypernetwork", Hypernetwork),
}
RATE = {"learning_rate": "0.1"}
PREVIEWS: dict[str, Any] = {"preview_every": 2, "preview_steps": 2, "preview_prompts": ["a cat"], "preview_seed": 7}


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    for kind in KINDS:
        register(kind)
    yield
    for kind in KINDS:
        unregister(kind.name)


def wrapped(bench: Bench, kind: str) -> Bench:
    """The bench with an averaged adapter that begins as the one that it wraps, under its name."""
    path = bench.workspace.adapter_path(kind, "cat")
    path.parent.mkdir(parents=True)
    shutil.copy(bench.path(WRAPPED[kind][0]), path)
    return bench


def begun(bench: Bench, kind: str) -> Bench:
    if kind in WRAPPED:
        return wrapped(bench, kind)
    recipe.create(kind, "cat", workspace=bench.workspace, model=str(bench.model))
    return bench


def picture(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.array(image)


@pytest.mark.parametrize("kind", WRAPPED)
def test_files_hold_the_averages_and_states_what_is_trained(new_bench: Callable[[str], Bench], kind: str) -> None:
    """The weights of each step are those of a run that averages nothing."""
    plain_kind, plain_class = WRAPPED[kind]
    plain = new_bench("plain")
    plain.workspace.adapter_path(plain_kind, "cat").write_bytes(plain.path(plain_kind).read_bytes())
    run = plain.train(plain_kind, name="cat", save_every=1, **RANDOM, **RATE)
    bench = wrapped(new_bench("averaged"), kind)
    expected = plain_class.load(bench.path(plain_kind)).state_dict()
    for step in range(1, 5):
        (copy,) = run.run_dir.glob(f"*/*-{step}.pt")
        for name, tensor in plain_class.load(copy).state_dict().items():
            expected[name] = expected[name].lerp(tensor, 1 - Averaged.DECAY)

    result = bench.train(kind, name="cat", save_every=2, save_optimizer_state=True, **RANDOM, **RATE)
    published = plain_class.load(result.adapter_path)
    assert published.step == 4 and published.provenance["settings"]["kind"] == kind
    assert equal(published.state_dict(), expected)
    assert plain_class.load(next(result.run_dir.glob("*/cat-2.pt"))).step == 2
    state = last_state(result.run_dir)
    assert equal({name: state["adapter"][f"trained.{name}"] for name in expected}, last_state(run.run_dir)["adapter"])
    assert not equal(published.state_dict(), last_state(run.run_dir)["adapter"])
    # what lies beside the file belongs to the file's own weights
    found = published.load_optimizer(result.adapter_path)
    assert found is not None and found[0] == "AdamW" and equal(found[1]["state"], state["optimizer"]["state"])


@pytest.mark.parametrize("kind", [kind.name for kind in KINDS])
def test_a_stopped_run_goes_on_with_what_is_trained(new_bench: Callable[[str], Bench], kind: str) -> None:
    settings = {"name": "cat", **RANDOM, **RATE, **PREVIEWS}
    whole = begun(new_bench("whole"), kind).train(kind, **settings)
    bench = begun(new_bench("stopped"), kind)
    stopped = bench.train(kind, stop_after=2, **settings)
    assert stopped.interrupted
    resumed = bench.resume(stopped.run_dir)
    assert equal(last_state(resumed.run_dir), last_state(whole.run_dir))
    assert whole.adapter_path.name == resumed.adapter_path.name == "cat.pt"
    loaded = [_load(kind, result.adapter_path) for result in (whole, resumed)]
    assert equal(loaded[0].state_dict(), loaded[1].state_dict()) and loaded[1].step == 4
    for path in sorted((whole.run_dir / "images").glob("*.png")):
        assert np.array_equal(picture(path), picture(resumed.run_dir / "images" / path.name)), path.name


def _load(kind: str, path: Path) -> Adapter:
    return WRAPPED[kind][1].load(path) if kind in WRAPPED else Pair.load(path)


@pytest.mark.parametrize("kind", [kind.name for kind in KINDS])
def test_previews_show_what_the_files_hold(bench: Bench, shared_model: StableDiffusion, kind: str) -> None:
    recorder = Recorder()
    rate = {"learning_rate": "1"}
    result = begun(bench, kind).train(kind, name="cat", callbacks=[recorder], save_every=2, **rate, **PREVIEWS)
    drawing = Drawing(steps=2, width=16, height=16)

    def drawn(adapter: Adapter) -> NDArray[np.uint8]:
        adapter.name = "cat"
        with adapter.train(False).attach(shared_model):
            return generate(shared_model, ["a cat"], drawing, seeds=[7]).numpy()[0]

    pictures = {event.global_step: picture(event.paths[0]) for event in recorder.of(PreviewReady)}
    assert np.array_equal(pictures[2], drawn(_load(kind, next(result.run_dir.glob("*/cat-2.pt")))))
    assert np.array_equal(pictures[4], drawn(_load(kind, result.adapter_path)))
    trained = _load(kind, result.adapter_path)
    if kind in WRAPPED:
        state = {name: last_state(result.run_dir)["adapter"][f"trained.{name}"] for name in trained.state_dict()}
        trained.load_state_dict(state)
        assert not np.array_equal(pictures[4], drawn(trained))


@pytest.mark.parametrize("kind", [kind.name for kind in KINDS])
def test_previews_do_not_disturb_training(new_bench: Callable[[str], Bench], kind: str) -> None:
    """The adapter that is trained is taken off the model for them, and put on it again."""
    settings = {"name": "cat", **RANDOM, **RATE}
    without = begun(new_bench("without"), kind).train(kind, **settings)
    previewed = begun(new_bench("with"), kind).train(kind, **{**settings, **PREVIEWS, "preview_every": 1})
    assert equal(last_state(previewed.run_dir), last_state(without.run_dir))


def test_cards_hold_the_averages(bench: Bench) -> None:
    kind = AVERAGED_EMBEDDING.name
    cards = {**PREVIEWS, "preview_with_embedding": True}
    result = wrapped(bench, kind).train(kind, name="cat", save_every=2, **RATE, **cards)
    card = Embedding.load(result.run_dir / "image_embeddings" / "cat-4.png")
    assert equal(card.state_dict(), Embedding.load(result.adapter_path).state_dict())


@pytest.mark.parametrize("kind", [kind.name for kind in KINDS])
def test_a_run_of_it_is_planned(bench: Bench, kind: str) -> None:
    plan = recipe.plan(begun(bench, kind).settings(kind, name="cat", **PREVIEWS), bench.workspace)
    trained = _load(kind, bench.workspace.find_adapter(kind, "cat"))
    assert plan["trained_numbers"] == sum(parameter.numel() for parameter in trained.parameters())
    assert plan["memory_mib"]["training"] > 0


def test_a_file_that_was_put_there_since_is_still_told(bench: Bench) -> None:
    """What a run left is known by what it published."""
    kind = AVERAGED_EMBEDDING.name
    stopped = wrapped(bench, kind).train(kind, name="cat", stop_after=2, **RATE)
    path = stopped.adapter_path
    assert bench.resume(stopped.run_dir, stop_after=3).global_step == 3
    other = AveragedEmbedding.load(path)
    other.averages = {name: tensor + 1 for name, tensor in other.averages.items()}
    other.save(path)
    with pytest.raises(UsageError, match="is not what the run in"):
        bench.resume(stopped.run_dir)
