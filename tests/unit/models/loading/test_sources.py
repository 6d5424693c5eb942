"""What names of models mean."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.support import save_folder, tiny_model
from tincture.errors import ModelError
from tincture.models.loading.sources import PICTO, find_source, short_hash
from tincture.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """One with two files and a folder, whose content does not matter."""
    found = Workspace(tmp_path / "webui")
    for name, content in (("a.safetensors", b"one"), ("inner/b.ckpt", b"two"), ("folder/model_index.json", b"{}")):
        path = found.models / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return found


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_picto_is_embedded(workspace: Workspace) -> None:
    source = find_source("picto", workspace)
    assert (source.path, source.name, str(source)) == (PICTO, "picto", "picto")


def test_names_paths_and_hashes_mean_a_model(workspace: Workspace) -> None:
    file = workspace.models / "a.safetensors"
    names = ["a", "a.safetensors", str(file), f"a.safetensors [{digest(b'one')[:10]}]", f"a [{digest(b'one')[:10]}]"]
    names += ["a.safetensors [7460a6fa]", digest(b"one"), digest(b"one")[:10], f"[{digest(b'one')[:10]}]"]
    for name in names:
        source = find_source(name, workspace)
        assert (source.path, source.name, str(source)) == (file.resolve(), "a", str(file.resolve()))
    assert find_source("inner/b", workspace).path == (workspace.models / "inner/b.ckpt").resolve()
    assert find_source(digest(b"two")[:10], workspace).name == "b"
    assert find_source("folder", workspace).name == "folder"


def test_a_path_comes_before_a_name(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()

    assert find_source("a", workspace).path == tmp_path / "a"


def test_a_model_that_is_called_like_a_title_is_found_by_its_own_name(workspace: Workspace) -> None:
    path = workspace.models / "a [abc1234567].safetensors"
    path.write_bytes(b"three")

    for name in ("a [abc1234567]", "a [abc1234567].safetensors", f"a [abc1234567] [{digest(b'three')[:10]}]"):
        assert find_source(name, workspace).path == path.resolve()
    assert find_source(f"a [{digest(b'one')[:10]}]", workspace).name == "a"
    with pytest.raises(ModelError, match=rf"has the hash {digest(b'three')[:10]}, not 0123456789;"):
        find_source("a [abc1234567] [0123456789]", workspace)


WRONG_AT_THE_END = f"{digest(b'one')[:11]}{(int(digest(b'one')[11], 16) + 1) % 16:x}"


@pytest.mark.parametrize("given", [digest(b"two")[:9], WRONG_AT_THE_END, "0" * 64])
def test_every_digit_of_a_hash_counts(given: str, workspace: Workspace) -> None:
    with pytest.raises(ModelError, match=f"has the hash {digest(b'one')[:10]}, not {given};"):
        find_source(f"a [{given}]", workspace)


def test_a_hash_of_another_file_is_refused(workspace: Workspace) -> None:
    with pytest.raises(ModelError, match=rf"a\.safetensors has the hash {digest(b'one')[:10]}, not 0123456789;"):
        find_source("a [0123456789]", workspace)
    with pytest.raises(ModelError, match="There is no model '0123456789'"):
        find_source("0123456789", workspace)


def test_what_is_not_there_is_told_with_what_comes_near(workspace: Workspace) -> None:
    with pytest.raises(ModelError, match=r"There is no model 'foldr'; give 'picto', .*did you mean folder"):
        find_source("foldr", workspace)
    with pytest.raises(ModelError, match=r"There is no model 'a'; give 'picto', the path of a \.safetensors"):
        find_source("a")


def test_an_id_of_the_hub_is_what_looks_like_one_and_no_path(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()

    source = find_source("owner/Some-model_1.5", workspace)

    assert (source.path, source.name, str(source)) == (None, "Some-model_1.5", "owner/Some-model_1.5")
    for name in ("models/typo", "a/b/c", "owner/", "/owner/name", "../owner", "owner/name.safetensors/x", "C:\\a"):
        with pytest.raises(ModelError, match="There is no model"):
            find_source(name, workspace)


def test_the_hash_of_a_folder_is_that_of_its_unet(tmp_path: Path) -> None:
    folder = save_folder(tiny_model(), tmp_path / "tiny")
    weights = (folder / "unet/diffusion_pytorch_model.safetensors").read_bytes()

    assert short_hash(folder) == digest(weights)[:10]
    with pytest.raises(ModelError, match="has no unet"):
        short_hash(tmp_path)
