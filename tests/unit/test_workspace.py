from __future__ import annotations

from pathlib import Path

import pytest

from tincture.errors import UsageError
from tincture.workspace import Workspace, clean_name, copy_name, parse_copy_name


@pytest.mark.parametrize("name", ["cat", "my cat v1.5_b-2", "猫", "Ünïcode", "x" * 100, "500"])
def test_clean_name_keeps_allowed_names(name: str) -> None:
    assert clean_name(f" {name} ") == name


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("a/b", "/"),
        ("..\\up", r"\\"),
        ("what?*", "* ?"),
        ("<x>", "< >"),
        ("line\nbreak", r"\n"),
        ("", "empty"),
        ("  ", "empty"),
        ("..", "empty"),
        (". .", "empty"),
        ("x" * 101, "101 characters"),
        ("猫" * 80, "240 bytes"),
    ],
)
def test_clean_name_refuses_and_says_why(name: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        clean_name(name)
    assert told in str(caught.value)


def test_paths_are_the_webuis(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert workspace.adapter_path("embedding", "cat") == tmp_path / "embeddings" / "cat.pt"
    assert workspace.adapter_path("hypernetwork", "ink") == tmp_path / "models" / "hypernetworks" / "ink.pt"
    assert workspace.models == tmp_path / "models" / "Stable-diffusion"
    assert workspace.templates == tmp_path / "textual_inversion_templates"
    assert workspace.logs == tmp_path / "textual_inversion"


def test_paths_refuse_names_that_leave_the_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        Workspace(tmp_path).adapter_path("embedding", "../cat")
    with pytest.raises(UsageError):
        Workspace(tmp_path).adapter_path("hypernetwork", "/etc/passwd")


def test_other_kinds_are_refused(tmp_path: Path) -> None:
    for ask in (Workspace(tmp_path).list_adapters, lambda kind: Workspace(tmp_path).find_adapter(kind, "cat")):
        with pytest.raises(UsageError, match="no kind of adapter 'lora'; there are embedding and hypernetwork"):
            ask("lora")


@pytest.mark.parametrize(
    ("stem", "expected"),
    [("cat-500", ("cat", 500)), ("a-b-7", ("a-b", 7)), ("cat", None), ("cat-", None), ("-5", None), ("cat-²", None)],
)
def test_names_of_copies(stem: str, expected: tuple[str, int] | None) -> None:
    assert parse_copy_name(stem) == expected
    if expected:
        assert copy_name(*expected) == stem


def test_open_prefers_the_argument_then_the_variable_then_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, variable, current = (tmp_path / name for name in ("given", "variable", "current"))
    for folder in (given, variable, current):
        folder.mkdir()
    monkeypatch.chdir(current)
    monkeypatch.delenv("TINCTURE_ROOT", raising=False)
    assert Workspace.open().root == current
    monkeypatch.setenv("TINCTURE_ROOT", str(variable))
    assert Workspace.open().root == variable
    assert Workspace.open(given).root == given


def test_open_refuses_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere"):
        Workspace.open(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_lists_walk_folders_and_links_and_leave_out_what_is_no_adapter(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "root")
    elsewhere = tmp_path / "elsewhere"
    for path in (
        workspace.embeddings / "b.pt",
        workspace.embeddings / "deep" / "a.pt",
        workspace.embeddings / "b.pt.optim",
        workspace.embeddings / "b.preview.png",
        elsewhere / "linked.pt",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (workspace.embeddings / "empty.pt").touch()
    (workspace.embeddings / "link").symlink_to(elsewhere)
    (elsewhere / "ring").symlink_to(workspace.embeddings)

    found = workspace.list_adapters("embedding")

    assert sorted(path.name for path in found) == ["a.pt", "b.pt", "linked.pt"]  # the ring of links is walked once
    assert workspace.list_adapters("hypernetwork") == []


def test_models_are_files_and_folders_with_an_index(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    mine = workspace.models / "mine"
    for path in (
        mine / "model_index.json",
        mine / "unet" / "diffusion_pytorch_model.safetensors",
        workspace.models / "half" / "config.json",
        workspace.models / "anime" / "b.safetensors",
        workspace.models / "A.ckpt",
        workspace.models / "A.vae.safetensors",
        workspace.models / "A.vae.pt",
        workspace.models / "A.yaml",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    (workspace.models / "empty.safetensors").touch()
    (workspace.models / "ring").symlink_to(workspace.models)

    found = workspace.list_models()

    assert [path.relative_to(workspace.models).as_posix() for path in found] == [
        "A.ckpt",
        "anime/b.safetensors",
        "mine",
    ]
    assert workspace.find_model("mine") == mine
    for name in ("b", "b.safetensors", "anime/b", "anime/b.safetensors"):
        assert workspace.find_model(name) == workspace.models / "anime" / "b.safetensors"
    with pytest.raises(UsageError, match=r"There is no model 'A\.vae' in .*; there are: A, b, mine"):
        workspace.find_model("A.vae")


def test_of_models_of_one_name_the_path_tells(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    paths = [workspace.models / "x" / "a.safetensors", workspace.models / "y" / "a.safetensors"]
    for path in paths:
        path.parent.mkdir(parents=True)
        path.write_text("{}")

    assert [workspace.find_model(f"{folder}/a") for folder in "xy"] == paths
    assert workspace.find_model("a") == paths[0]


def test_vaes_have_a_folder_and_may_be_checkpoints(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    for path in (workspace.vaes / "soft.pt", workspace.models / "a.safetensors"):
        path.parent.mkdir(parents=True)
        path.write_text("{}")

    assert workspace.list_vaes() == [workspace.vaes / "soft.pt"]
    assert workspace.find_vae("soft") == workspace.vaes / "soft.pt"
    assert workspace.find_vae("a") == workspace.models / "a.safetensors"
    with pytest.raises(UsageError, match=r"There is no VAE 'sift' in .*; did you mean soft"):
        workspace.find_vae("sift")
    assert Workspace(tmp_path / "none").list_models() == []


def test_find_takes_the_name_or_the_file_name_and_suggests(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.hypernetworks.mkdir(parents=True)
    with pytest.raises(UsageError, match="none yet"):
        workspace.find_adapter("hypernetwork", "ink")
    path = workspace.adapter_path("hypernetwork", "ink-lines v1.5")
    path.write_bytes(b"x")
    assert workspace.find_adapter("hypernetwork", "ink-lines v1.5") == path
    assert workspace.find_adapter("hypernetwork", "ink-lines v1.5.pt") == path
    with pytest.raises(UsageError, match=r"did you mean ink-lines v1\.5\?"):
        workspace.find_adapter("hypernetwork", "inc-lines v1")
    with pytest.raises(UsageError, match=r"there are: ink-lines v1\.5\."):
        workspace.find_adapter("hypernetwork", "zzz")


def test_hypernetworks_of_both_formats_are_found_the_pt_first(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.hypernetworks.mkdir(parents=True)
    other = workspace.hypernetworks / "ink.safetensors"
    other.write_bytes(b"x")
    assert workspace.find_adapter("hypernetwork", "ink") == other
    path = workspace.adapter_path("hypernetwork", "ink")
    path.write_bytes(b"x")
    assert workspace.find_adapter("hypernetwork", "ink") == path
    assert workspace.find_adapter("hypernetwork", "ink.safetensors") == other


def test_what_a_mac_lays_beside_files_is_in_no_list(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    for folder in (workspace.embeddings, workspace.hypernetworks, workspace.models, workspace.vaes):
        folder.mkdir(parents=True)
        for name in ("a.safetensors", "._a.safetensors"):
            (folder / name).write_bytes(b"x")
    listed = [*workspace.list_adapters("embedding"), *workspace.list_adapters("hypernetwork"), *workspace.list_vaes()]
    assert [path.name for path in [*listed, *workspace.list_models()]] == ["a.safetensors"] * 4
