"""Every format into every other that can hold it, and back; refusals of the rest."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.support import tiny_model
from tincture import convert_file, inspect_file
from tincture.adapters.embedding import Embedding
from tincture.adapters.files import conversion as module
from tincture.adapters.files.conversion import EMBEDDING_FORMATS, LoraOptions, plan_conversion, read_captions
from tincture.adapters.hypernetwork import Hypernetwork
from tincture.errors import DataError, UsageError
from tincture.formats.embedding_content import EmbeddingFile
from tincture.formats.embedding_file import EMBEDDING_WRITERS, read_embedding_file
from tincture.formats.files import short_hash
from tincture.formats.hypernetwork_file import HYPERNETWORK_WRITERS, read_hypernetwork_file
from tincture.workspace import Workspace

GOLDEN = Path(__file__).parents[3] / "golden"
SUFFIX = {"pt": ".pt", "bin": ".bin", "png": ".png", "webp": ".webp"}
SINGLE = tuple(name for name in EMBEDDING_FORMATS if name != "sdxl")
XTI = ("IN01", "IN02", "IN04", "IN05", "IN07", "IN08", "MID", *(f"OUT{n:02}" for n in range(3, 12)))


def vectors(width: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, width, generator=torch.Generator().manual_seed(seed))


def embedding(name: str = "cat") -> EmbeddingFile:
    provenance = {"author": "A", "license": "CC0-1.0", "settings": {"steps": 3}, "metadata": {"ss_tag": "x"}}
    return EmbeddingFile({"clip_l": vectors()}, name, 7, "model", "0123456789", provenance)


def sdxl(name: str = "cat") -> EmbeddingFile:
    return dataclasses.replace(embedding(name), vectors={"clip_l": vectors(768), "clip_g": vectors(1280)})


def path_of(folder: Path, kind: str) -> Path:
    return folder / f"cat{SUFFIX.get(kind, '.safetensors')}"


def traits(file: EmbeddingFile) -> dict[str, Any]:
    return {field: getattr(file, field) for field in ("name", "step", "model_name", "model_hash", "provenance")}


# --- embeddings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "second"), list(itertools.product(SINGLE, SINGLE)))
def test_embeddings_there_and_back(first: str, second: str, tmp_path: Path) -> None:
    there, back = (path_of(tmp_path / name, kind) for name, kind in (("there", second), ("back", first)))
    source = path_of(tmp_path, first)
    EMBEDDING_WRITERS[first](source, embedding())
    original = read_embedding_file(source)

    assert convert_file(source, there, second)["format"] == second
    assert inspect_file(there)["format"] == second
    convert_file(there, back, first)

    result = read_embedding_file(back)
    assert torch.equal(result.vectors["clip_l"], original.vectors["clip_l"])
    if "bin" in (first, second):
        assert result.name == "cat"
    else:
        assert traits(result) == traits(original) == traits(embedding())


@pytest.mark.parametrize("name", ["webui 2022", "one term of half precision", "OneTrainer", "legacy bin"])
def test_foreign_files_become_every_format(name: str, tmp_path: Path) -> None:
    source, rows = tmp_path / "cat.pt", vectors().half()
    contents: dict[str, Any] = {
        "webui 2022": {"string_to_param": torch.nn.ParameterDict({"*": rows.float()}), "name": "cat"},
        "one term of half precision": {"string_to_param": {"*": rows}, "name": "cat"},
        "OneTrainer": {"emp_params": rows, "emp_params_out": rows},
        "legacy bin": {"cat": rows},
    }
    torch.save(contents[name], source, _use_new_zipfile_serialization="legacy" not in name)
    for kind in SINGLE:
        report = convert_file(source, path_of(tmp_path / kind, kind), kind)
        file = read_embedding_file(report["path"])
        assert (file.name, file.vectors["clip_l"].tolist()) == ("cat", rows.float().tolist())
        assert bool(report["lost"]) == (name == "OneTrainer")


def test_sdxl_goes_to_its_own_format_only(tmp_path: Path) -> None:
    source, joined = tmp_path / "cat.safetensors", tmp_path / "hcp.pt"
    EMBEDDING_WRITERS["sdxl"](source, sdxl())
    torch.save({"string_to_param": {"*": torch.cat([vectors(768), vectors(1280)], 1)}, "name": "cat"}, joined)
    for path in (source, joined):
        assert convert_file(path, tmp_path / f"{path.stem}-2.safetensors")["format"] == "sdxl"
        assert list(read_embedding_file(tmp_path / f"{path.stem}-2.safetensors").vectors) == ["clip_l", "clip_g"]
        for kind in SINGLE:
            with pytest.raises(UsageError, match=r"clip_l, clip_g, but .* hold those of exactly one; choose .* sdxl"):
                convert_file(path, path_of(tmp_path / "no", kind), kind)
    assert not (tmp_path / "no").exists()
    EMBEDDING_WRITERS["pt"](tmp_path / "sd1.pt", embedding())
    with pytest.raises(UsageError, match="for SDXL holds those of clip_l and clip_g"):
        convert_file(tmp_path / "sd1.pt", tmp_path / "no.safetensors", "sdxl")


def test_xti_says_before_writing_what_is_lost(tmp_path: Path) -> None:
    save_file({key: vectors(768, seed) for seed, key in enumerate(XTI)}, tmp_path / "cat.safetensors")
    plan = plan_conversion(tmp_path / "cat.safetensors", tmp_path / "cat.pt")
    assert "their mean is kept" in plan.lost[0]
    assert not (tmp_path / "cat.pt").exists()
    plan.write()
    assert read_embedding_file(tmp_path / "cat.pt").vectors["clip_l"].shape == (2, 768)


def test_a_bin_says_what_it_has_no_place_for(tmp_path: Path) -> None:
    EMBEDDING_WRITERS["pt"](tmp_path / "cat.pt", embedding())
    (tmp_path / "cat.pt.optim").touch()
    lost = convert_file(tmp_path / "cat.pt", tmp_path / "cat.bin")["lost"]
    assert lost[0] == "The format bin has no place for: step, model's name, model's hash, provenance."
    assert "cat.pt.optim" in lost[1]
    (tmp_path / "cat.pt.optim").unlink()
    assert convert_file(tmp_path / "cat.bin", tmp_path / "dog.bin")["lost"] == []


def test_name_author_and_licence(tmp_path: Path) -> None:
    EMBEDDING_WRITERS["pt"](tmp_path / "cat.pt", embedding())
    convert_file(tmp_path / "cat.pt", tmp_path / "dog.safetensors", name="dog", author="B", license="MIT")
    file = read_embedding_file(tmp_path / "dog.safetensors")
    assert (file.name, file.provenance) == ("dog", {**embedding().provenance, "author": "B", "license": "MIT"})
    with pytest.raises(UsageError, match="characters that are not allowed"):
        convert_file(tmp_path / "cat.pt", tmp_path / "x.pt", name="a/b")


def test_a_card_is_drawn_on_the_picture(tmp_path: Path) -> None:
    EMBEDDING_WRITERS["pt"](tmp_path / "cat.pt", embedding())
    Image.new("RGB", (400, 300), "teal").save(tmp_path / "photo.png")
    convert_file(tmp_path / "cat.pt", tmp_path / "cat.png", picture=tmp_path / "photo.png")
    with Image.open(tmp_path / "cat.png") as card:
        assert card.height == 300
        assert card.convert("RGB").getpixel((card.width // 2, 150)) == (0, 128, 128)
    (tmp_path / "photo.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"photo\.png cannot be read"):
        convert_file(tmp_path / "cat.pt", tmp_path / "dog.png", picture=tmp_path / "photo.png")


# --- hypernetworks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain-121", "relu-optim", "swish-ln-dropout"])
@pytest.mark.parametrize(("first", "second"), list(itertools.product(HYPERNETWORK_WRITERS, HYPERNETWORK_WRITERS)))
def test_hypernetworks_there_and_back_to_the_byte(first: str, second: str, name: str, tmp_path: Path) -> None:
    source = tmp_path / f"{name}.{first}"
    HYPERNETWORK_WRITERS[first](source, read_hypernetwork_file(GOLDEN / f"{name}.pt"))
    there, back = tmp_path / "there" / f"{name}.{second}", tmp_path / "back" / f"{name}.{first}"
    lost = ["In ComfyUI it acts otherwise: with"] if (name, second) == ("swish-ln-dropout", "pt") else []
    assert [sentence[:34] for sentence in convert_file(source, there)["lost"]] == lost
    convert_file(there, back)
    assert back.read_bytes() == source.read_bytes()


def test_a_hypernetwork_as_lora(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(module, "load_model", lambda name, workspace: asked.append((name, workspace)) or tiny_model())
    Hypernetwork("ink", (32, 64), provenance={"software": "x"}).save(tmp_path / "ink.pt")
    options = LoraOptions(model="tiny", rank=4)
    plan = plan_conversion(tmp_path / "ink.pt", tmp_path / "ink.safetensors", "lora", author="B", lora=options)
    assert "acts only with the model tiny" in plan.lost[0]
    report = module.make_conversion(plan)
    assert asked == [("tiny", None)]
    assert report["lora"]["exact"] is True
    assert 0 < report["lora"]["kept_energy"] <= 1
    assert json.loads(json.dumps(report))["path"] == str(tmp_path / "ink.safetensors")
    found = inspect_file(tmp_path / "ink.safetensors")
    assert (found["kind"], found["ranks"], found["model_name"]) == ("lora", [4], "tiny")
    assert found["provenance"]["author"] == "B"


@pytest.mark.parametrize(
    ("model_name", "given", "meant"),
    [("picto", "", "picto"), ("tiny", "", "WORKSPACE"), ("tiny", "other", "other"), ("", "other", "other")],
)
def test_a_lora_is_made_for_the_model_trained_on_at_the_usual_rank(
    model_name: str, given: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(tmp_path)
    workspace.models.mkdir(parents=True)
    model = workspace.models / "tiny.safetensors"
    model.write_bytes(b"content does not matter")
    asked: list[str] = []
    monkeypatch.setattr(module, "load_model", lambda name, workspace: asked.append(name) or tiny_model())
    made = Hypernetwork("ink", (32, 64), model_name=model_name, model_hash=short_hash(model) if model_name else "")
    made.save(tmp_path / "ink.pt")
    options = LoraOptions(given) if given else None
    convert_file(tmp_path / "ink.pt", tmp_path / "x.safetensors", "lora", lora=options, workspace=workspace)
    assert asked == [str(model) if meant == "WORKSPACE" else meant]
    assert inspect_file(tmp_path / "x.safetensors")["ranks"] == [32, 64]  # 64, where the layer is so wide


@pytest.mark.parametrize("name", ["none", "/etc/passwd", "owner/name", "../ink.pt", "tiny"])
def test_the_model_of_a_file_is_looked_up_in_the_workspace_alone(name: str, tmp_path: Path) -> None:
    """Of the last one the hash does not fit."""
    workspace = Workspace(tmp_path)
    workspace.models.mkdir(parents=True)
    (workspace.models / "tiny.safetensors").write_bytes(b"content does not matter")
    Hypernetwork("ink", (32,), model_name=name, model_hash="0123456789").save(tmp_path / "ink.pt")
    for given in (workspace, None):
        with pytest.raises(UsageError, match=r"by `model` \(the file says '.*', which is not in the"):
            convert_file(tmp_path / "ink.pt", tmp_path / "x.safetensors", "lora", workspace=given)


@pytest.mark.parametrize(("encoder", "width"), [("clip_l", 768), ("clip_h", 1024)])
def test_an_embedding_as_onetrainer_has_it(encoder: str, width: int, tmp_path: Path) -> None:
    vectors = torch.randn(2, width, generator=torch.Generator().manual_seed(0))
    Embedding("cat", {encoder: vectors}, step=7).save(tmp_path / "cat.pt")
    report = convert_file(tmp_path / "cat.pt", tmp_path / "cat.safetensors", "onetrainer")
    assert (report["format"], report["lost"]) == ("onetrainer", [])
    assert {key: tuple(value.shape) for key, value in load_file(tmp_path / "cat.safetensors").items()} == {
        "emp_params": (2, width)
    }
    found = inspect_file(tmp_path / "cat.safetensors")
    assert (found["format"], found["step"], found["read_by"]) == ("onetrainer", 7, ["OneTrainer", "Tincture"])
    assert torch.equal(Embedding.load(tmp_path / "cat.safetensors").vectors[encoder], vectors)


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "target", "options", "told"),
    [
        ("cat.pt", "cat.xyz", {}, "tells no format; use .pt, .bin, .safetensors, .png, .webp"),
        ("cat.pt", "x.safetensors", {"to": "lora"}, "An embedding cannot be written as 'lora'"),
        ("cat.pt", "x.safetensors", {"lora": LoraOptions(rank=4)}, "cannot become a LoRA"),
        ("cat.pt", "x.safetensors", {"to": "xti"}, "cannot be written as 'xti'; its formats are pt, bin"),
        ("cat.pt", "x.preview.png", {}, "taken for the preview"),
        ("cat.pt", "x.pt", {"picture": "p.png"}, "The format pt holds no picture"),
        ("ink.pt", "x.png", {}, "A hypernetwork cannot be written as 'png'; its formats are pt, safetensors, lora"),
        ("ink.pt", "x.pt", {"picture": "p.png"}, "has no picture card"),
        ("ink.pt", "x.pt", {"lora": LoraOptions(rank=4)}, "are for the format lora, not for pt"),
        ("ink.pt", "x.safetensors", {"to": "lora"}, r"give the base model by `model` \(the file says 'v1-5"),
        ("ink.pt", "x.pt", {"to": "lora", "lora": LoraOptions("picto", 4)}, "end its name in .safetensors"),
        ("ink.pt.optim", "x.pt", {}, "the state of an optimizer, which no other format can hold"),
        ("lora.safetensors", "x.pt", {}, "a LoRA, which no other format can hold"),
        ("cat.pt", "ink.pt", {}, "There is a file .*ink.pt already"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_written(
    source: str, target: str, options: dict[str, Any], told: str, tmp_path: Path
) -> None:
    EMBEDDING_WRITERS["pt"](tmp_path / "cat.pt", embedding())
    (tmp_path / "ink.pt").write_bytes((GOLDEN / "plain-121.pt").read_bytes())
    (tmp_path / "ink.pt.optim").write_bytes((GOLDEN / "relu-optim.pt.optim").read_bytes())
    save_file(
        {"lora_unet_a.lora_down.weight": torch.ones(1, 2), "lora_unet_a.lora_up.weight": torch.ones(2, 1)},
        tmp_path / "lora.safetensors",
    )
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UsageError, match=told):
        convert_file(tmp_path / source, tmp_path / target, **options)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_overwriting_is_allowed_when_asked_even_onto_itself(tmp_path: Path) -> None:
    EMBEDDING_WRITERS["safetensors"](tmp_path / "cat.safetensors", embedding())
    convert_file(tmp_path / "cat.safetensors", tmp_path / "cat.safetensors", "kohya", overwrite=True)
    assert traits(read_embedding_file(tmp_path / "cat.safetensors")) == traits(embedding())
    assert inspect_file(tmp_path / "cat.safetensors")["format"] == "kohya"


def test_captions_are_lines(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("red moon\n\n  blue star \n")
    assert read_captions(tmp_path / "a.txt") == ["red moon", "blue star"]
    (tmp_path / "b.txt").write_text("\n")
    (tmp_path / "c.txt").write_bytes(b"\xff\xfe")
    for name in ("b.txt", "c.txt", "d.txt"):
        with pytest.raises(DataError, match=name):
            read_captions(tmp_path / name)
