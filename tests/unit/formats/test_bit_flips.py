"""One flipped bit, anywhere in a file: it is noticed, or what is read is the same to the bit."""

from __future__ import annotations

import dataclasses
import io
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.runs import equal
from tincture.errors import FileFormatError
from tincture.formats.contents import read_contents
from tincture.formats.embedding_content import EmbeddingFile
from tincture.formats.embedding_file import EMBEDDING_WRITERS, read_embedding_file
from tincture.formats.embedding_optimizer import read_embedding_optimizer, write_embedding_optimizer
from tincture.formats.files import atomic_torch_save, safe_torch_load
from tincture.formats.hypernetwork_file import (
    HYPERNETWORK_WRITERS,
    HypernetworkFile,
    read_hypernetwork_file,
)
from tincture.formats.hypernetwork_optimizer import read_hypernetwork_optimizer, write_hypernetwork_optimizer
from tincture.formats.lora_file import LowRank, write_lora_file

FLIPS = 120
SEED = 20261130
# What people and other programs may change in a file of ours, so that no checksum covers it.
EDITABLE = ("author", "license", "description", "date", "metadata")
VALUES = {"step": 7, "model_name": "tiny", "model_hash": "0123456789", "provenance": {"software": "s", "run": [1, 2.5]}}
ADAMW = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.linspace(-1, 1, 40)}}, "param_groups": [{"lr": 0.1}]}


def vectors(width: int = 40) -> torch.Tensor:
    return torch.randn(2, width, generator=torch.Generator().manual_seed(1))


def embedding(suffix: str) -> EmbeddingFile:
    widths = {"clip_l": 768, "clip_g": 1280} if suffix == "sdxl" else {"clip_l": 40}
    return EmbeddingFile({name: vectors(width) for name, width in widths.items()}, "rex", **VALUES)


def hypernetwork() -> HypernetworkFile:
    state = {"linear.0.weight": torch.randn(4, 4), "linear.0.bias": torch.randn(4)}
    return HypernetworkFile({4: (state, {key: -value for key, value in state.items()})}, "ink", 7, (1, 1))


def plain(file: Any) -> dict[str, Any]:
    """What a file says, without what anybody may have changed in it."""
    values = {field.name: getattr(file, field.name) for field in dataclasses.fields(file)}
    values["provenance"] = {key: value for key, value in values["provenance"].items() if key not in EDITABLE}
    return {key: value for key, value in values.items() if key != "layout"}


def write_sidecar(path: Path, kind: str) -> Path:
    adapter = path.with_suffix(".pt")
    atomic_torch_save({"a": 1}, adapter)
    if kind == "embedding":
        write_embedding_optimizer(adapter, vectors(), ADAMW)
    else:
        write_hypernetwork_optimizer(adapter, "AdamW", ADAMW)
    return adapter.with_name(f"{adapter.name}.optim")


def read_sidecar(path: Path, kind: str) -> Any:
    """The optimizer's state; one that does not fit the adapter is none."""
    adapter = path.with_suffix("")
    return read_embedding_optimizer(adapter, vectors()) if kind == "embedding" else read_hypernetwork_optimizer(adapter)


def write_lora(path: Path) -> Path:
    write_lora_file(path, {"a.to_k": LowRank(torch.randn(4, 2), torch.randn(2, 4))}, {}, {"tincture.lora": "{}"})
    return path


def write_state(path: Path) -> Path:
    state = {"global_step": 3, "adapter": {"a": torch.randn(40)}, "optimizer": ADAMW, "losses": [0.5] * 9}
    atomic_torch_save(state, path)
    return path


def write_foreign(path: Path) -> Path:
    """As torch writes it: no checksum of ours, entries that begin at multiples of 64 bytes."""
    torch.save({"global_step": 3, "adapter": {"a": torch.randn(40)}}, path)
    return path


Reader = Callable[[Path], Any]
Kind = tuple[Callable[[Path], Path | None], Reader]


def kinds() -> dict[str, Kind]:
    found: dict[str, Kind] = {
        "state": (write_state, safe_torch_load),
        "foreign": (write_foreign, safe_torch_load),
        "lora": (write_lora, lambda path: dict(read_contents(path).values)),
        "embedding optim": (lambda path: write_sidecar(path, "embedding"), lambda p: read_sidecar(p, "embedding")),
        "network optim": (lambda path: write_sidecar(path, "network"), lambda p: read_sidecar(p, "network")),
    }
    for name, write in EMBEDDING_WRITERS.items():
        writer = lambda path, write=write, name=name: write(path, embedding(name))  # noqa: E731
        found[f"embedding {name}"] = (writer, lambda path: plain(read_embedding_file(path)))
    for name, wrote in HYPERNETWORK_WRITERS.items():
        writer = lambda path, write=wrote: write(path, hypernetwork())  # noqa: E731
        found[f"hypernetwork {name}"] = (writer, lambda path: plain(read_hypernetwork_file(path)))
    return found


KINDS = kinds()


def positions(size: int, draw: random.Random, count: int) -> list[int]:
    """Bits in every region: at both ends, where headers and directories are, as many as in between."""
    ends = [*range(64), *range(size - 300, size)]
    drawn = [draw.choice(ends) % size for _ in range(count // 2)] + [draw.randrange(size) for _ in range(count // 2)]
    return [byte * 8 + draw.randrange(8) for byte in drawn]


def survivors(path: Path, read: Reader, bits: list[int]) -> list[int]:
    """The flips after which the file is read without an error, as something else."""
    content, whole = path.read_bytes(), read(path)
    assert whole is not None
    wrong = []
    for bit in bits:
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        try:
            found = read(path)
        except FileFormatError:
            continue
        # A sidecar that does not fit its adapter is not used, which is not read as something else either.
        if found is not None and not equal(found, whole):
            wrong.append(bit)
    path.write_bytes(content)
    return wrong


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_is_noticed_or_harmless(kind: str, tmp_path: Path) -> None:
    write, read = KINDS[kind]
    path = tmp_path / "rex.file"
    path = write(path) or path
    draw = random.Random(f"{SEED} {kind}")
    bits = positions(path.stat().st_size, draw, FLIPS)
    assert not survivors(path, read, bits), f"seed {SEED}"


@pytest.mark.parametrize("kind", ["state", "embedding pt", "hypernetwork pt", "embedding optim", "network optim"])
def test_in_a_torch_file_of_ours_every_flip_but_of_the_seals_mark_is_an_error(kind: str, tmp_path: Path) -> None:
    write, read = KINDS[kind]
    path = tmp_path / "rex.file"
    path = write(path) or path
    content = path.read_bytes()
    draw = random.Random(f"{SEED} all {kind}")
    for byte in (draw.randrange(len(content) - 80) for _ in range(FLIPS)):
        changed = bytearray(content)
        changed[byte] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        with pytest.raises(FileFormatError):
            read(path)


def test_the_error_says_what_to_do(tmp_path: Path) -> None:
    path = write_state(tmp_path / "state.pt")
    content = bytearray(path.read_bytes())
    at = content.find(torch.load(io.BytesIO(bytes(content)))["adapter"]["a"].numpy().tobytes())
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"state\.pt is damaged: its checksum shows .* take an earlier copy"):
        safe_torch_load(path)


@pytest.mark.parametrize("kind", ["embedding optim", "network optim"])
def test_a_damaged_sidecar_can_be_done_without(kind: str, tmp_path: Path) -> None:
    write, read = KINDS[kind]
    path = write(tmp_path / "rex.file")
    assert path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"rex\.pt\.optim is damaged: .* Remove it to go on without\."):
        read(path)


def test_the_checksum_of_each_entry_counts_where_there_is_none_of_ours(tmp_path: Path) -> None:
    """Also of those that no pickle names, which torch would not compare with anything."""
    path = write_foreign(tmp_path / "foreign.pt")
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(io.BytesIO(bytes(content))) as archive:
        entry = next(entry for entry in archive.infolist() if entry.filename.endswith("data/0"))
        at = content.find(archive.read(entry))
    content[at + 5] ^= 16
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"foreign\.pt is damaged"):
        safe_torch_load(path)


def test_an_entry_that_claims_to_be_a_folder_is_refused(tmp_path: Path) -> None:
    """torch reads nothing of it, so that what happens to stand in the memory would be the tensor."""
    path = write_foreign(tmp_path / "foreign.pt")
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        place = archive.start_dir
    for entry in entries:
        if entry.filename.endswith("data/0"):
            content[place + 38] ^= 0x10
        place += 46 + len(entry.filename) + int.from_bytes(content[place + 30 : place + 32], "little")
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"foreign\.pt is damaged"):
        safe_torch_load(path)


def test_other_programs_read_a_sealed_file(tmp_path: Path) -> None:
    path = write_state(tmp_path / "state.pt")
    for options in ({}, {"mmap": True}):
        assert torch.load(path, weights_only=True, **options)["global_step"] == 3
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.comment.startswith(b"tincture sha256 ")


def test_what_another_program_changes_in_the_metadata_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "rex.safetensors"
    EMBEDDING_WRITERS["safetensors"](path, embedding("safetensors"))
    contents = read_contents(path)
    metadata = {**contents.metadata, "modelspec.author": "somebody else", "note": "x"}
    save_file(dict(contents.values), path, metadata)
    assert read_embedding_file(path).provenance["author"] == "somebody else"
    save_file({name: tensor + 1 for name, tensor in contents.values.items()}, path, metadata)  # type: ignore[operator]
    with pytest.raises(FileFormatError, match=r"rex\.safetensors is damaged"):
        read_embedding_file(path)


def test_a_safetensors_file_without_a_checksum_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rex.safetensors"
    EMBEDDING_WRITERS["safetensors"](path, embedding("safetensors"))
    contents = read_contents(path)
    older = {key: text for key, text in contents.metadata.items() if key != "tincture.checksum"}
    save_file({name: tensor + 1 for name, tensor in contents.values.items()}, path, older)  # type: ignore[operator]
    assert read_embedding_file(path).step == 7
