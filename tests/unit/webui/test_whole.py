"""What scripts for the webui import besides its calls; the examples are those of its documentation, import changed."""

from __future__ import annotations

import copy
import inspect
import pickle
import typing
from pathlib import Path
from typing import Any

import pytest
import torch

import tincture
from tests.runs import Bench, write_pictures
from tincture import webui
from tincture.errors import UsageError
from tincture.webui import (
    Embedding,
    EmbeddingDatabase,
    Hypernetwork,
    LearnRateScheduler,
    PersonalizedBase,
    PersonalizedDataLoader,
)

CALLS = ("create_embedding", "create_hypernetwork", "preprocess", "train_embedding", "train_hypernetwork")


@pytest.fixture
def hypernetwork() -> Hypernetwork:
    return Hypernetwork("ink", ["32", "64"], seed=3)


def test_everything_that_is_named_is_there() -> None:
    assert set(webui.__all__) <= set(dir(webui))
    assert all(getattr(webui, name) is not None for name in webui.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Checkpoint'"):
        _ = webui.Checkpoint


@pytest.mark.parametrize("name", CALLS)
def test_every_call_says_what_it_takes_and_gives(name: str) -> None:
    call = getattr(webui, name)
    hints, signature = typing.get_type_hints(call), inspect.signature(call)
    assert hints.keys() == {*signature.parameters, "return"}
    assert signature.return_annotation is not inspect.Signature.empty
    assert all(each.annotation is not inspect.Parameter.empty for each in signature.parameters.values())
    assert (call.__name__, call.__module__, bool(call.__doc__)) == (name, "tincture.webui.calls", True)


def test_what_calls_give_is_of_the_webuis_classes() -> None:
    assert typing.get_type_hints(webui.train_embedding)["return"] == tuple[Embedding, str]
    assert typing.get_type_hints(webui.train_hypernetwork)["return"] == tuple[Hypernetwork, str]
    assert typing.get_type_hints(webui.create_embedding)["return"] is str
    assert typing.get_type_hints(webui.preprocess)["process_width"] is int


@pytest.mark.parametrize("kind", [Embedding, EmbeddingDatabase, Hypernetwork, LearnRateScheduler, PersonalizedBase])
def test_the_annotations_of_every_class_can_be_had(kind: type) -> None:
    for name, member in vars(kind).items():
        function = getattr(member, "fget", None) or getattr(member, "__func__", member)
        if inspect.isfunction(function) and name != "__subclasshook__":  # of protocols
            hints = typing.get_type_hints(function)
            assert "return" in hints, name


# --- the examples ----------------------------------------------------------------------------------------------------


def test_the_first_example_of_schedules(hypernetwork: Hypernetwork) -> None:
    scheduler = LearnRateScheduler("0.005:100, 0.0005:1000", max_steps=1000, cur_step=0)
    optimizer = torch.optim.AdamW(params=hypernetwork.weights(), lr=scheduler.learn_rate)
    rates = []
    for step in range(1000):
        if scheduler.finished:
            break
        scheduler.apply(optimizer, step)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == [0.005] * 100 + [0.0005] * 900


def test_the_example_of_a_clipping_threshold(hypernetwork: Hypernetwork) -> None:
    scheduler = LearnRateScheduler("0.005:500, 0.0005:5000", max_steps=5000)
    clip_grad_sched = LearnRateScheduler("1.0:5000", max_steps=5000, verbose=False)
    optimizer = torch.optim.AdamW(params=hypernetwork.weights(), lr=scheduler.learn_rate)
    clip_grad = torch.nn.utils.clip_grad_norm_
    before = [weight.detach().clone() for weight in hypernetwork.weights()]
    for step in range(3):
        scheduler.apply(optimizer, step)
        clip_grad_sched.step(step)
        sum((weight**2).sum() for weight in hypernetwork.weights()).backward()  # type: ignore[union-attr]
        clip_grad(hypernetwork.weights(), clip_grad_sched.learn_rate)
        optimizer.step()
    assert any(not torch.equal(old, new) for old, new in zip(before, hypernetwork.weights(), strict=True))


def test_the_example_of_going_on(hypernetwork: Hypernetwork) -> None:
    hypernetwork.step = 500
    initial_step = hypernetwork.step
    scheduler = LearnRateScheduler("0.005:100, 0.0005:1000", max_steps=1000, cur_step=initial_step)
    assert (scheduler.learn_rate, scheduler.end_step, scheduler.finished) == (0.0005, 1000, False)


def test_the_choice_of_an_optimizer(hypernetwork: Hypernetwork) -> None:
    optimizer_dict = {name: getattr(torch.optim, name) for name in ("AdamW", "SGD")}
    weights = hypernetwork.weights()
    hypernetwork.train()
    assert hypernetwork.optimizer_name in optimizer_dict
    assert optimizer_dict[hypernetwork.optimizer_name](params=weights, lr=0.1).param_groups[0]["params"] == weights


def test_a_training_gives_what_scripts_read(bench: Bench) -> None:
    hypernetwork, filename = webui.train_hypernetwork(
        id_task="task-001",
        hypernetwork_name="ink",
        learn_rate="0.00005:2000",
        batch_size=1,
        gradient_step=1,
        data_root=str(bench.data),
        log_directory="logs",
        training_width=16,
        training_height=16,
        steps=2,
        create_image_every=0,
        template_filename="hypernetwork.txt",
        workspace=bench.workspace,
        model=str(bench.model),
        settings={"save_optimizer_state": True, "optimizer": "SGD"},
    )
    assert isinstance(hypernetwork, Hypernetwork) and isinstance(hypernetwork, tincture.Hypernetwork)
    assert (hypernetwork.step, hypernetwork.filename, hypernetwork.optimizer_name) == (2, filename, "SGD")
    assert hypernetwork.optimizer_state_dict is not None
    assert hypernetwork.sd_checkpoint_name == "tiny" and len(str(hypernetwork.sd_checkpoint)) == 10
    assert len(str(hypernetwork.shorthash())) == 10
    embedding, filename = webui.train_embedding(
        *("task", "cat", "0.005", 1, 1, str(bench.data)),
        training_width=16,
        training_height=16,
        steps=1,
        create_image_every=0,
        workspace=bench.workspace,
        model=str(bench.model),
    )
    assert isinstance(embedding, Embedding) and isinstance(embedding.vec, torch.Tensor)
    assert (embedding.vec.shape[1], embedding.sd_checkpoint_name, embedding.filename) == (32, "tiny", filename)


# --- members ---------------------------------------------------------------------------------------------------------


def test_members_of_a_hypernetwork(hypernetwork: Hypernetwork, tmp_path: Path) -> None:
    assert [tuple(type(part).__name__ for part in pair) for pair in hypernetwork.layers.values()] == [
        ("HypernetworkModule", "HypernetworkModule")
    ] * 2
    assert list(hypernetwork.layers) == [32, 64]
    assert (hypernetwork.sd_checkpoint, hypernetwork.sd_checkpoint_name, hypernetwork.shorthash()) == (None,) * 3
    hypernetwork.sd_checkpoint, hypernetwork.sd_checkpoint_name = "0123456789", "tiny"
    assert hypernetwork.eval() is hypernetwork and not hypernetwork.use_dropout
    hypernetwork.save(tmp_path / "ink.pt")
    loaded = Hypernetwork.load(tmp_path / "ink.pt")
    assert (loaded.sd_checkpoint, loaded.sd_checkpoint_name, loaded.name) == ("0123456789", "tiny", "ink")
    assert all(map(torch.equal, loaded.weights(), hypernetwork.weights()))
    assert Hypernetwork("wash", [32], use_dropout=True).use_dropout


def test_members_of_an_embedding(tmp_path: Path) -> None:
    made = Embedding(torch.ones(2, 768), "cat", step=5)
    made.sd_checkpoint_name = "tiny"
    made.save(tmp_path / "cat.pt")
    loaded = Embedding.load(tmp_path / "cat.pt")
    assert isinstance(loaded.vec, torch.Tensor) and torch.equal(loaded.vec, torch.ones(2, 768))
    assert (loaded.name, loaded.step, loaded.shape, loaded.num_vectors) == ("cat", 5, 768, 2)
    assert (loaded.sd_checkpoint, loaded.sd_checkpoint_name) == (None, "tiny")
    two = Embedding({"clip_l": torch.ones(1, 768), "clip_g": torch.ones(1, 1280)}, "xl")
    assert isinstance(two.vec, dict | typing.Mapping) and two.shape == 2048


def test_the_database_sorts_by_what_the_model_can_use(bench: Bench) -> None:
    database = EmbeddingDatabase()
    assert (database.expected_shape, database.word_embeddings) == (-1, {})
    database.add_embedding_dir(bench.workspace.embeddings)
    Embedding(torch.ones(2, 768), "wide").save(bench.workspace.embeddings / "wide.pt")
    database.load_textual_inversion_embeddings(model=str(bench.model), workspace=bench.workspace)
    assert (set(database.word_embeddings), set(database.skipped_embeddings)) == ({"cat"}, {"wide"})
    found = database.word_embeddings["cat"]
    assert isinstance(found, Embedding) and found.filename == str(bench.workspace.embeddings / "cat.pt")
    assert database.expected_shape == found.shape == 32
    database.clear_embedding_dirs()
    database.load_textual_inversion_embeddings(force_reload=True, model=str(bench.model), workspace=bench.workspace)
    assert (database.word_embeddings, database.skipped_embeddings) == ({}, {})


# --- the data set ----------------------------------------------------------------------------------------------------


def dataset(bench: Bench, **options: Any) -> PersonalizedBase:
    small: dict[str, Any] = {"width": 16, "height": 16, "workspace": bench.workspace, "model": str(bench.model)}
    return PersonalizedBase(str(bench.data), **{**small, **options})


def test_the_data_set_gives_pictures_encoded_with_their_prompts(bench: Bench) -> None:
    made = dataset(bench, placeholder_token="cat", template_file="subject_filewords", batch_size=50, include_cond=True)
    entries = list(made)
    assert len(made) == len(entries) == made.dataset_length == made.batch_size == 5
    for entry in entries:
        assert entry.latent_sample.shape[0] == 4 and entry.latent_sample.dtype == torch.float32
        assert "cat" in entry.cond_text and entry.filename_text in entry.cond_text
        assert Path(entry.filename).is_file() and entry.cond is not None and entry.cond.shape[1] == 32
    again = list(made)
    assert [entry.cond_text for entry in again] == [entry.cond_text for entry in entries]
    assert all(torch.equal(old.latent_sample, new.latent_sample) for old, new in zip(entries, again, strict=True))
    assert len(dataset(bench, repeats=3)) == 15
    with pytest.raises(IndexError):
        _ = made[5]
    with pytest.raises(UsageError, match="latent_sampling_method is 'twice'"):
        dataset(bench, latent_sampling_method="twice")


def test_what_shall_vary_varies(bench: Bench) -> None:
    drawn = dataset(bench, latent_sampling_method="random")
    assert not torch.equal(drawn[0].latent_sample, drawn[0].latent_sample)
    write_pictures(bench.workspace.root / "tagged", ["a, b, c, d, e, f, g, h"], side=16)
    shuffled = dataset(bench, shuffle_tags=True)
    texts = {shuffled.create_text("a, b, c, d, e, f, g, h") for _ in range(8)}
    assert len(texts) > 4


def test_batches_hold_every_picture_once(bench: Bench) -> None:
    loader = PersonalizedDataLoader(dataset(bench, use_weight=True), batch_size=2)
    batches = list(loader)
    assert [len(batch.filename) for batch in batches] == [2, 2, 1] and len(loader) == 3
    assert len({name for batch in batches for name in batch.filename}) == 5
    assert all(batch.latent_sample.shape[0] == len(batch.cond_text) for batch in batches)
    assert all(batch.weight is not None and batch.weight.shape[0] == len(batch.filename) for batch in batches)


@pytest.mark.parametrize(
    "name", ["create_embedding", "create_hypernetwork", "preprocess", "train_embedding", "train_hypernetwork"]
)
def test_calls_can_be_handed_to_other_processes(name: str) -> None:
    call = getattr(webui, name)
    assert pickle.loads(pickle.dumps(call)) is call
    assert copy.deepcopy(call) is call
