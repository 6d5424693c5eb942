"""A family of another anatomy goes through the whole of a run: nothing above ``models/`` knows which one it has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.runs import NAMES, Bench, csv_text, equal, last_state, trained, write_pictures
from tests.support import tiny_model
from tests.toy_family import ENCODER, ToyModel, toy_model, weights
from tincture import randomness, recipe
from tincture.adapters.embedding import create_embedding
from tincture.adapters.embedding_database import EmbeddingDatabase
from tincture.adapters.hypernetwork import create_hypernetwork
from tincture.errors import ModelError, UsageError
from tincture.models.sampling import generate
from tincture.run import components
from tincture.settings.drawing import Drawing
from tincture.training.loss import PLAIN
from tincture.workspace import Workspace

KINDS = ("embedding", "hypernetwork")
# all that can be random, and what a run can be asked for
RUN: dict[str, Any] = {
    "steps": 6,
    "batch_size": 2,
    "gradient_accumulation_steps": 2,
    "shuffle_tags": True,
    "tag_drop_out": 0.3,
    "latent_sampling_method": "random",
    "template": "style_filewords",
    "preview_every": 3,
    "preview_sampler": "Euler",
    "preview_steps": 3,
}


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> ToyModel:
    """The model that every run is given, whatever it asks for."""
    made = toy_model()
    monkeypatch.setattr(components, "load_model", lambda *given, **named: made)
    return made


@pytest.fixture
def new_bench(model: ToyModel, tmp_path: Path) -> Callable[[str], Bench]:
    def make(name: str) -> Bench:
        root = tmp_path / name
        bench = Bench(Workspace(root), write_pictures(root / "pictures"), Path("picto"))
        create_embedding("cat", model, 2, "moon").save(bench.path("embedding"))
        network = create_hypernetwork(NAMES["hypernetwork"], model.context_widths(), dropout_structure=(0, 0.3, 0))
        network.save(bench.path("hypernetwork"))
        return bench

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_and_resumed_run_equals_one_that_was_not(
    new_bench: Callable[[str], Bench], model: ToyModel, kind: str
) -> None:
    before, bench = weights(model), new_bench("whole")
    start = trained(bench.path(kind))
    whole = bench.train(kind, **RUN)
    assert not equal(trained(whole.adapter_path), start)
    part = new_bench("part")
    stopped = part.train(kind, stop_after=3, **RUN)
    assert (stopped.global_step, stopped.interrupted) == (3, True)
    resumed = part.resume(stopped.run_dir)
    assert (resumed.global_step, resumed.interrupted) == (6, False)
    assert equal(trained(whole.adapter_path), trained(resumed.adapter_path))
    assert equal(last_state(whole.run_dir), last_state(resumed.run_dir))
    assert csv_text(whole.run_dir) == csv_text(resumed.run_dir)
    assert equal(weights(model), before)


def test_previews_show_what_was_learned_and_disturb_nothing(new_bench: Callable[[str], Bench]) -> None:
    settings = {**RUN, "steps": 12, "learning_rate": "0.1", "preview_prompts": ("a cat",)}
    drawn = new_bench("drawn").train("embedding", **settings)
    plain = new_bench("plain").train("embedding", **{**settings, "preview_every": 0})
    assert equal(trained(drawn.adapter_path), trained(plain.adapter_path))
    pictures = [np.asarray(Image.open(path)) for path in sorted((drawn.run_dir / "images").glob("cat-*-0.png"))]
    assert len(pictures) == 5 and pictures[0].shape == (16, 16, 3)
    assert not np.array_equal(pictures[0], pictures[-1])


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_falls(new_bench: Callable[[str], Bench], model: ToyModel, kind: str) -> None:
    """Over the same draws, before and after."""
    bench = new_bench("bench")
    rate = {"embedding": "0.05", "hypernetwork": "0.002"}[kind]
    settings = bench.settings(kind, steps=80, learning_rate=rate, template="style")
    adapter = components.load_adapter(kind, bench.path(kind), NAMES[kind])
    before = loss_of(model, bench, adapter)
    result = recipe.train(settings, bench.workspace)
    after = loss_of(model, bench, components.load_adapter(kind, result.adapter_path, NAMES[kind]))
    assert after < 0.97 * before, (before, after)


def loss_of(model: ToyModel, bench: Bench, adapter: Any) -> float:
    pictures = [np.asarray(Image.open(bench.data / f"{index}.png")) for index in range(5)]
    pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 127.5 - 1
    latents = model.encode_pictures(pixels)[0].repeat(20, 1, 1, 1)
    noise = torch.stack([randomness.normal(latents.shape[1:], 9, "noise", 0, slot) for slot in range(100)])
    process = model.noise_process
    timesteps = process.draw_timesteps(9, 0, range(100))
    with torch.no_grad(), adapter.attach(model):
        conditions = model.encode_prompts([f"a painting, art by {adapter.name}"]).expand(100)
        return (
            PLAIN.errors(
                lambda noisy, at: model.predict_noise(noisy, at, conditions), process, latents, noise, timesteps
            )
            .mean()
            .item()
        )


def test_times_are_real_numbers_of_the_process_own(model: ToyModel) -> None:
    times = model.noise_process.draw_timesteps(0, 0, range(100))
    assert times.dtype == torch.float32 and 0 < times.min() < 0.2 and 0.8 < times.max() < 1
    assert torch.equal(times[3:5], model.noise_process.draw_timesteps(0, 0, range(3, 5)))


def test_a_plan_tells_pictures_and_memory(new_bench: Callable[[str], Bench]) -> None:
    bench = new_bench("bench")
    plan = recipe.plan(bench.settings("embedding", **RUN), bench.workspace)
    assert plan["model"]["family"] == "A toy" and plan["model"]["predicts"] == "the way from picture to noise"
    assert plan["memory_mib"]["peak"] > plan["memory_mib"]["weights of unet"] > 0


def test_names_are_found_as_the_family_reads_them(model: ToyModel, tmp_path: Path) -> None:
    """Letter by letter: CLIP's tokens would find no cat in a concatenation."""
    create_embedding("cat", model, 2, "moon").save(tmp_path / "cat.pt")
    database = EmbeddingDatabase([tmp_path])
    database.refresh(model)
    assert [entry.name for entry in database.named_in(["concatenation"])] == ["cat"]
    assert database.named_in(["dog"]) == []


def test_where_vectors_stand_is_where_they_act(model: ToyModel) -> None:
    embedding, prompts = create_embedding("cat", model, 2, "moon"), ["a cat", "a cat, a cat", "dog"]
    with embedding.attach(model):
        before = model.encode_prompts(prompts).hidden_states
        embedding.vectors[ENCODER].data.add_(1)
        changed = (model.encode_prompts(prompts).hidden_states != before).any(-1)
        assert torch.equal(changed, model.text.positions(prompts, embedding))
    assert changed.sum(1).tolist() == [2, 4, 0]


def test_what_does_not_go_with_the_family_is_refused(model: ToyModel) -> None:
    with pytest.raises(UsageError, match="6 vectors are not possible; num_vectors is 1 to 5"):
        create_embedding("cat", model, 6)
    with pytest.raises(UsageError, match="'DDIM' for this model; give Euler"):
        generate(model, ["dog"], Drawing(sampler="DDIM", steps=2), seeds=[1])
    with pytest.raises(ModelError, match=r"width clip_l 32.*the model 'toy' is clip_l 16 \(A toy\)"):
        create_embedding("cat", tiny_model()).require_fit(model)
