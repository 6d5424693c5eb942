from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.checkpoints import Checkpoints
from tests.support import tiny_model
from tincture.adapters.files import conversion
from tincture.adapters.hypernetwork import Hypernetwork
from tincture.cli import main
from tincture.formats.embedding_file import read_embedding_file
from tincture.formats.lora_file import describe_lora
from tincture.formats.safetensors_file import read_safetensors

EMBEDDING = Path(__file__).parents[2] / "golden" / "gold-one.pt"


def test_the_suffix_or_the_flag_tells_the_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a.safetensors"
    assert main(["convert", str(EMBEDDING), str(out)]) == 0
    assert capsys.readouterr().out == f"wrote {out}: embedding gold-one as safetensors\n"
    assert main(["convert", str(EMBEDDING), str(out), "--to", "kohya", "--overwrite", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["path"], report["kind"], report["format"]) == (str(out), "embedding", "kohya")


def test_what_is_lost_is_told_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(EMBEDDING), str(tmp_path / "a.bin")]) == 0
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("lost: The format bin has no place for: step, model's name")
    assert "gold-one.pt.optim" in told[1]


def test_all_flags_of_embeddings(tmp_path: Path) -> None:
    Image.new("RGB", (300, 300), "teal").save(tmp_path / "photo.png")
    flags = ["--name", "cat", "--author", "A", "--license", "MIT", "--picture", str(tmp_path / "photo.png")]
    assert main(["convert", str(EMBEDDING), str(tmp_path / "a.webp"), *flags]) == 0
    file = read_embedding_file(tmp_path / "a.webp")
    assert (file.name, file.provenance) == ("cat", {"author": "A", "license": "MIT"})


def test_a_lora_with_captions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: dict[str, Any] = {}
    export = conversion.export_lora

    def exported(*arguments: Any, **options: Any) -> Any:
        asked.update(options)
        return export(*arguments, **options)

    monkeypatch.setattr(conversion, "load_model", lambda name, workspace: tiny_model())
    monkeypatch.setattr(conversion, "export_lora", exported)
    monkeypatch.setattr("tincture.run.presence.require_model", lambda model, vae, workspace: None)
    Hypernetwork("ink", (32,), activation_func="relu").save(tmp_path / "ink.pt")
    (tmp_path / "captions.txt").write_text("red moon\nblue star\n")
    flags = ["--model", "tiny", "--rank", "2", "--captions", str(tmp_path / "captions.txt"), "--strength", "0.5"]
    out = str(tmp_path / "ink.safetensors")
    assert main(["convert", str(tmp_path / "ink.pt"), out, "--to", "lora", *flags, "--output-bias"]) == 0
    wanted = {"rank": 2, "multiplier": 0.5, "captions": ["red moon", "blue star"], "output_bias": True}
    assert asked == wanted
    captured = capsys.readouterr()
    assert "lost: The LoRA acts only with the model tiny" in captured.err
    assert "of the changes" in captured.out and "noise prediction" in captured.out


def test_the_base_model_of_a_lora_is_looked_up_in_the_current_folder_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoints: Checkpoints
) -> None:
    models = tmp_path / "models" / "Stable-diffusion"
    models.mkdir(parents=True)
    (models / "anime.safetensors").symlink_to(checkpoints.path("sdxl"))
    Hypernetwork("ink", (80,), [1, 1]).save(tmp_path / "ink.pt")
    monkeypatch.chdir(tmp_path)

    assert main(["convert", "ink.pt", "out.safetensors", "--to", "lora", "--model", "anime", "--rank", "2"]) == 0

    assert describe_lora("out.safetensors", read_safetensors("out.safetensors")[0]).layout == "kohya"


@pytest.mark.parametrize(
    ("words", "code"), [(["a.xyz"], 2), (["a.pt", "--to", "gif"], 2), (["a.pt", "--rank", "0"], 2), ([], 2)]
)
def test_refusals(words: list[str], code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    placed = [str(tmp_path / words[0]), *words[1:]] if words else []
    assert main(["convert", str(EMBEDDING), *placed]) == code
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())
