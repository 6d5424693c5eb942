"""Where models that describe pictures are found by themselves, and what they lack."""

from __future__ import annotations

from pathlib import Path

import pytest

from tincture.preprocessing import describer_kinds
from tincture.preprocessing.describer_kinds import (
    NEEDS_ONNX,
    Kind,
    fault_of,
    find_describer,
    find_describers,
    kind_of,
    missing_describer,
    missing_kind,
    shown,
)
from tincture.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    for variable in ("TINCTURE_CAPTIONER", "TINCTURE_TAGGER"):
        monkeypatch.delenv(variable, raising=False)
    return Workspace(tmp_path)


def put(workspace: Workspace, *names: str) -> Path:
    for name in names:
        path = workspace.root / "models" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    return workspace.root / "models" / Path(names[0]).parent


def wd(workspace: Workspace) -> Path:
    return put(workspace, "wd_tagger/model.onnx", "wd_tagger/selected_tags.csv")


def test_each_kind_is_found_in_its_folder(workspace: Workspace) -> None:
    kinds: list[Kind] = ["blip", "wd", "deepdanbooru"]
    assert [find_describer(kind, workspace) for kind in kinds] == ["", "", ""]
    tagger = wd(workspace)
    assert find_describers(workspace) == {"tagger": str(tagger)}
    places = [put(workspace, "BLIP/config.json"), tagger, put(workspace, "torch_deepdanbooru/model.pt")]
    assert [find_describer(kind, workspace) for kind in kinds] == list(map(str, places))
    # where any tagger does, the webui's own goes first
    assert find_describers(workspace) == {"captioner": str(places[0]), "tagger": str(places[2])}


def test_what_the_environment_names_goes_first_where_it_is_of_that_kind(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, own = put(workspace, "torch_deepdanbooru/model.pt"), wd(workspace)
    for named, found in [
        ("owner/tagger", {"wd": "owner/tagger", "deepdanbooru": str(folder)}),
        (str(folder / "model.pt"), {"wd": str(own), "deepdanbooru": str(folder / "model.pt")}),
        ("not-there", {"wd": "not-there", "deepdanbooru": "not-there"}),  # so that it is told
    ]:
        monkeypatch.setenv("TINCTURE_TAGGER", named)
        assert {kind: find_describer(kind, workspace) for kind in ("wd", "deepdanbooru")} == found
        assert find_describers(workspace) == {"tagger": named}


def test_what_a_model_lacks_is_one_sentence(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    blip, tagger, old = put(workspace, "BLIP/config.json"), wd(workspace), put(workspace, "old/model.pt") / "model.pt"
    assert "holds a model of an unknown kind; captions need" in fault_of("captioner", str(blip))
    assert "is no tagger: it has no model.onnx" in fault_of("tagger", str(blip))
    assert "There is no 'nix' here" in fault_of("tagger", "nix")
    assert [fault_of("tagger", str(model)) for model in (tagger, old, "owner/tagger")] == ["", "", ""]
    assert fault_of("captioner", "owner/blip") == ""  # nobody asks the hub
    monkeypatch.setattr(describer_kinds, "is_installed", lambda module: module != "onnxruntime")
    found = [fault_of("tagger", str(model)) for model in (tagger, old, "owner/tagger")]
    assert found == [NEEDS_ONNX, "", NEEDS_ONNX]
    kinds = [kind_of("tagger", str(model)) for model in (tagger, old, "owner/tagger", blip)]
    assert kinds == ["wd", "deepdanbooru", "wd", ""]


def test_where_none_is_found_it_is_said_where_to_put_one() -> None:
    for kind, told, variable in [
        ("blip", "no BLIP model: put one in", "TINCTURE_CAPTIONER"),
        ("wd", "no tagger of the WD14 family: put one (model.onnx and selected_tags.csv", "TINCTURE_TAGGER"),
        ("deepdanbooru", "no tagger: put DeepDanbooru's model-resnet_custom_v3.pt into", "TINCTURE_TAGGER"),
    ]:
        sentence = missing_kind(kind, "--caption-missing is on", "--caption-model")  # type: ignore[arg-type]
        assert sentence.startswith(f"--caption-missing is on, but there is {told}")
        assert sentence.endswith(f"or name one by --caption-model or by the variable {variable}.")
    assert missing_describer("captioner", "x").endswith("or name one by the variable TINCTURE_CAPTIONER.")
    assert "or a WD14 tagger, by the variable TINCTURE_TAGGER." in missing_describer("tagger", "x")


def test_a_model_is_shown_without_its_place(tmp_path: Path) -> None:
    assert (shown("owner/blip"), shown(str(tmp_path / "blip"))) == ("owner/blip", "blip")
