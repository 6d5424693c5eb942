from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image

import tincture
from tests.support import tiny_model
from tincture.adapters import embedding_database
from tincture.adapters.embedding import Embedding
from tincture.adapters.embedding_database import EmbeddingDatabase, Entry, LeftOut
from tincture.models.stable_diffusion import StableDiffusion


def save(path: Path, vectors: int = 1, width: int = 32, name: str = "other") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Embedding(name, {"clip_l": torch.full((vectors, width), 0.5)}).save(path)
    return path


def load(model: StableDiffusion, *folders: Path) -> EmbeddingDatabase:
    database = EmbeddingDatabase(folders)
    database.refresh(model)
    return database


def names(entries: Sequence[Entry | LeftOut]) -> list[str]:
    return [entry.name for entry in entries]


def test_it_is_a_public_name() -> None:
    assert tincture.EmbeddingDatabase is EmbeddingDatabase


def test_folders_are_walked_to_any_depth_and_through_links(shared_model: StableDiffusion, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    save(first / "zork.pt")
    save(first / "deep" / "er" / "blib.PT")
    save(tmp_path / "elsewhere" / "linked.pt")
    save(second / "quax.pt")
    (first / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "ring").symlink_to(first)
    (first / "broken.pt").symlink_to(tmp_path / "nowhere.pt")

    database = load(shared_model, first, second, first / "deep", tmp_path / "missing")

    assert sorted(database.loaded) == ["blib", "linked", "quax", "zork"]
    assert (database.skipped, database.unreadable) == ([], [])
    zork = database.loaded["zork"]
    assert zork.path == first / "zork.pt"
    assert zork.embedding.name == "zork"  # the file's name counts, not the one inside


def test_other_files_previews_and_empty_files_are_passed_over(shared_model: StableDiffusion, tmp_path: Path) -> None:
    save(tmp_path / "zork.pt")
    (tmp_path / "empty.pt").touch()
    (tmp_path / "zork.pt.optim").write_text("x")
    (tmp_path / "notes.txt").write_text("x")
    for name in ("zork.png", "zork.preview.png", "gone.preview.webp"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)

    database = load(shared_model, tmp_path)

    assert list(database.loaded) == ["zork"]
    assert (database.skipped, database.unreadable) == ([], [])


def test_a_picture_is_called_as_it_says_and_one_without_an_embedding_is_told(
    shared_model: StableDiffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("card.png", "plain.webp"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    zork = Embedding("zork", {"clip_l": torch.ones(1, 32)})
    read = Embedding.load
    monkeypatch.setattr(Embedding, "load", lambda path: zork if path.name == "card.png" else read(path))

    database = load(shared_model, tmp_path)

    assert list(database.loaded) == ["zork"]
    assert names(database.unreadable) == ["plain"]


def test_a_bad_file_is_told_and_stops_nothing(
    shared_model: StableDiffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "zork.pt")
    (tmp_path / "bad.pt").write_bytes(b"no torch file")
    save(tmp_path / "crash.pt")
    read = Embedding.load

    def crashing(path: Path) -> Embedding:
        if path.stem == "crash":
            raise RecursionError
        return read(path)

    monkeypatch.setattr(Embedding, "load", crashing)
    database = load(shared_model, tmp_path)

    assert list(database.loaded) == ["zork"]
    assert names(database.unreadable) == ["bad", "crash"]
    assert "bad.pt" in database.unreadable[0].reason
    assert database.unreadable[1].reason == "RecursionError"


def test_what_does_not_fit_the_model_is_skipped(shared_model: StableDiffusion, tmp_path: Path) -> None:
    save(tmp_path / "wide.pt", width=768)
    save(tmp_path / "many.pt", vectors=76)
    save(tmp_path / " .pt")

    database = load(shared_model, tmp_path)

    assert database.loaded == {}
    reasons = {entry.name: entry.reason for entry in database.skipped}
    assert "width clip_l 768" in reasons["wide"]
    assert "76 vectors, but a prompt has room for 75" in reasons["many"]
    assert "has no tokens" in reasons[" "]


def test_another_model_sorts_anew_without_reading(
    shared_model: StableDiffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "zork.pt")
    database = load(shared_model, tmp_path)
    monkeypatch.setattr(Embedding, "load", None)
    other = tiny_model()
    other.text.widths = {"clip_l": 48}

    assert database.refresh(other)
    assert (list(database.loaded), names(database.skipped)) == ([], ["zork"])
    assert database.refresh(shared_model)
    assert list(database.loaded) == ["zork"]


def test_of_clashing_names_the_first_is_loaded(shared_model: StableDiffusion, tmp_path: Path) -> None:
    first = save(tmp_path / "b" / "zork.pt")
    second = save(tmp_path / "a" / "Zork.pt")  # prompts are read in lower case
    wide = save(tmp_path / "b" / "a" / "zork.pt", width=768)

    database = load(shared_model, tmp_path / "b", tmp_path / "a")

    assert [entry.path for entry in database.loaded.values()] == [first]
    assert [entry.path for entry in database.skipped] == [wide, second]
    assert f"is taken by {first}" in database.skipped[1].reason


def test_changes_are_found_and_only_changed_files_are_read(
    shared_model: StableDiffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    load = embedding_database._read

    def noted(path: Path) -> Embedding | str:
        read.append(path.stem)
        return load(path)

    monkeypatch.setattr(embedding_database, "_read", noted)
    changed, gone = save(tmp_path / "changed.pt"), save(tmp_path / "gone.pt")
    save(tmp_path / "same.pt")
    database = EmbeddingDatabase([tmp_path])

    assert database.refresh(shared_model)
    assert not database.refresh(shared_model)
    same = database.loaded["same"].embedding

    save(changed, vectors=2)
    gone.unlink()
    save(tmp_path / "new.pt")
    read.clear()
    assert database.refresh(shared_model)

    assert read == ["changed", "new"]
    assert list(database.loaded) == ["changed", "new", "same"]
    assert database.loaded["same"].embedding is same
    assert database.loaded["changed"].embedding.num_vectors == 2


def test_a_file_rewritten_within_the_same_second_is_read_again(shared_model: StableDiffusion, tmp_path: Path) -> None:
    path = save(tmp_path / "zork.pt")
    times = path.stat()
    database = load(shared_model, tmp_path)

    Embedding("zork", {"clip_l": torch.full((1, 32), 0.25)}).save(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    database.refresh(shared_model)

    assert database.loaded["zork"].embedding.vectors["clip_l"][0, 0] == 0.25


def test_force_reads_everything(shared_model: StableDiffusion, tmp_path: Path) -> None:
    save(tmp_path / "zork.pt")
    database = load(shared_model, tmp_path)
    before = database.loaded["zork"].embedding

    assert database.refresh(shared_model, force=True)
    assert database.loaded["zork"].embedding is not before


def test_prompts_name_embeddings(shared_model: StableDiffusion, tmp_path: Path) -> None:
    for name in ("moon", "red moon", "zork"):
        save(tmp_path / f"{name}.pt")
    save(tmp_path / "blib.pt", width=768)
    (tmp_path / "quax.pt").write_bytes(b"bad")
    database = load(shared_model, tmp_path)

    assert names(database.named_in(["a (Red MOON:1.2), zork", "zork, moonlight"])) == ["red moon", "zork"]
    assert names(database.named_in(["red, moon", "quax blib"])) == ["moon"]
    assert names(database.left_out_in(["blib and quax, moon"])) == ["blib", "quax"]
    assert EmbeddingDatabase([tmp_path]).named_in(["moon"]) == []
