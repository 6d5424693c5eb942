"""Which model counts where none is named."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.checkpoints import Checkpoints, write_head
from tincture.adapters.embedding import Embedding
from tincture.adapters.hypernetwork import Hypernetwork
from tincture.errors import ModelError, UsageError
from tincture.formats.tensor_names import trained_on
from tincture.models.loading.default_model import LAST_MODEL, default_model, is_model, remember_model
from tincture.models.loading.sources import find_source, short_hash
from tincture.workspace import Workspace

RUBBISH = {
    "a page.safetensors": b"<!DOCTYPE html><html><title>model.diffusion_model.input_blocks.0.0.weight</title></html>",
    "a page.ckpt": b"<html>model.diffusion_model.input_blocks.0.0.weight</html>",
    "a pointer.safetensors": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n",
    "a zip.ckpt": b"PK\x03\x04 and no more",
    "a text.ckpt": b"see the readme",
    "zeros.safetensors": bytes(200),
}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def named(workspace: Workspace, **options: object) -> tuple[str, str]:
    found = default_model(workspace, **options)  # type: ignore[arg-type]
    return found.name, found.reason


def embedding(workspace: Workspace, model: str, short: str = "", suffix: str = ".pt") -> Path:
    path = workspace.embeddings / f"rex{suffix}"
    path.parent.mkdir(exist_ok=True)
    made = Embedding("rex", {"clip_l": torch.zeros(1, 768)}, model_name=model, model_hash=short)
    made.save(path)
    return path


def test_picto_counts_only_where_there_is_none(workspace: Workspace) -> None:
    assert named(workspace) == ("picto", "there is no model in the workspace")
    assert str(default_model(None)) == "picto"
    house = write_head(workspace.models / "inner" / "house.safetensors")
    assert named(workspace) == ("inner/house.safetensors", "the only one in the workspace")
    assert find_source("", workspace).path == house.resolve()


def test_rubbish_is_no_model(workspace: Workspace) -> None:
    workspace.models.mkdir(parents=True)
    for name, content in RUBBISH.items():
        (workspace.models / name).write_bytes(content)
    save_file({"lora_unet_x.lora_up.weight": torch.zeros(2, 2)}, workspace.models / "b lora.safetensors")
    whole = write_head(workspace.models / "cut.safetensors").read_bytes()
    (workspace.models / "cut.safetensors").write_bytes(whole[:-9])
    assert named(workspace) == ("picto", "no file there can be used as a model")
    write_head(workspace.models / "z.safetensors")
    assert named(workspace) == ("z.safetensors", "the only one in the workspace")
    assert named(workspace, or_first=True)[0] == "z.safetensors"


def test_a_checkpoint_of_any_container_is_a_model(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    assert is_model(checkpoints.path("sd1"))
    assert is_model(checkpoints.edited("sd1", tmp_path / "again.ckpt", dict))
    (tmp_path / "folder" / "unet").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    assert is_model(tmp_path / "folder") and not is_model(tmp_path / "empty")


def test_of_several_the_last_used_counts(workspace: Workspace) -> None:
    a, b, c = (write_head(workspace.models / f"{name}.safetensors") for name in "abc")
    with pytest.raises(UsageError, match=r"several models in .*: a\.safetensors, b\.\w+, c\.\w+\. Name one by `model`"):
        default_model(workspace)
    with pytest.raises(UsageError, match="several models"):
        find_source("", workspace)
    assert named(workspace, or_first=True) == ("a.safetensors", "the first of 3 in the workspace")
    remember_model(workspace, b)
    assert (
        named(workspace) == named(workspace, or_first=True) == ("b.safetensors", "the last used of 3 in the workspace")
    )
    remember_model(workspace, None)  # picto
    remember_model(workspace, workspace.root / "elsewhere.safetensors")
    assert named(workspace)[0] == "b.safetensors"
    assert named(workspace, chosen="c.safetensors") == ("c.safetensors", "chosen as the default")
    assert named(workspace, chosen="picto")[0] == "picto"
    b.unlink()
    assert named(workspace, chosen="b.safetensors", or_first=True)[0] == "a.safetensors"
    a.unlink()
    assert named(workspace) == ("c.safetensors", "the only one in the workspace")
    (workspace.logs / LAST_MODEL).write_bytes(b"\xff")
    write_head(workspace.models / "d.safetensors")
    with pytest.raises(UsageError, match="several models"):
        default_model(workspace)
    assert c.exists()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_the_adapters_own_model_goes_before_all_others(workspace: Workspace, suffix: str) -> None:
    for name in "ab":
        write_head(workspace.models / f"{name}.safetensors")
    remember_model(workspace, workspace.models / "a.safetensors")
    path = embedding(workspace, "b", suffix=suffix)
    assert named(workspace, adapter=path) == ("b.safetensors", "the one that rex was made on")
    assert named(workspace, adapter=path, chosen="a.safetensors")[0] == "b.safetensors"
    assert named(workspace, adapter=embedding(workspace, "picto", suffix=suffix))[0] == "picto"
    assert named(workspace, adapter=embedding(workspace, "unknown", suffix=suffix))[0] == "a.safetensors"
    assert named(workspace, adapter=workspace.root / "absent.pt")[0] == "a.safetensors"


def test_a_renamed_model_is_found_by_its_hash(workspace: Workspace) -> None:
    write_head(workspace.models / "a.safetensors")
    renamed = write_head(workspace.models / "x" / "b.safetensors")
    renamed.write_bytes(renamed.read_bytes().replace(b"{", b"{ ", 1))
    head = renamed.read_bytes()
    renamed.write_bytes((int.from_bytes(head[:8], "little") + 1).to_bytes(8, "little") + head[8:])
    path = embedding(workspace, "old name", short_hash(renamed))
    assert named(workspace, adapter=path)[0] == "x/b.safetensors"


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_files_of_both_kinds_say_what_they_were_trained_on(tmp_path: Path, suffix: str) -> None:
    made = Hypernetwork("rex", [8])
    made.save(tmp_path / f"h{suffix}", model_name="rex", model_hash="0123456789")  # a name that stands twice
    assert trained_on(tmp_path / f"h{suffix}") == ("rex", "0123456789")
    Embedding("rex", {"clip_l": torch.zeros(1, 768)}).save(tmp_path / f"e{suffix}", model_name="m", model_hash="ab")
    assert trained_on(tmp_path / f"e{suffix}") == ("m", "ab")
    Embedding("rex", {"clip_l": torch.zeros(1, 768)}).save(tmp_path / f"n{suffix}")
    assert trained_on(tmp_path / f"n{suffix}") == ("", "")


def test_old_and_damaged_files_say_what_they_can(tmp_path: Path) -> None:
    old = tmp_path / "old.pt"
    values = {"sd_checkpoint": None, "sd_checkpoint_name": "m", "v": torch.zeros(2)}
    torch.save(values, old, _use_new_zipfile_serialization=False)
    assert trained_on(old) == ("m", "")
    (tmp_path / "cut.pt").write_bytes(old.read_bytes()[:40])
    (tmp_path / "p.pt").write_bytes(pickle.dumps({"sd_checkpoint_name": "m"}, protocol=4))
    with zipfile.ZipFile(tmp_path / "empty.pt", "w"):
        pass
    assert [trained_on(tmp_path / f"{name}.pt") for name in ("cut", "p", "empty")] == [("", ""), ("m", ""), ("", "")]


def test_names_that_are_no_model_are_refused_as_before(workspace: Workspace) -> None:
    with pytest.raises(ModelError, match="There is no model 'zork'"):
        find_source("zork", workspace)
