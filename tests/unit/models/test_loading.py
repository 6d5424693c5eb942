from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.utils import logging as transformers_logging

from tests.support import save_folder, tiny_model, weights
from tincture.errors import ModelError
from tincture.models.loading import find_folder, load_model
from tincture.models.stable_diffusion import StableDiffusion

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_folder(tiny_model(), tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(saved, tmp_path / "broken"))


def assert_equal(model: StableDiffusion, other: StableDiffusion) -> None:
    expected = weights(other)
    assert weights(model).keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in weights(model).items())


def test_a_folder_comes_back_whole(saved: Path, shared_model: StableDiffusion) -> None:
    model = load_model(str(saved))

    assert_equal(model, shared_model)
    assert model.name == "tiny"
    assert model.hash == hashlib.sha256((saved / UNET).read_bytes()).hexdigest()[:10]
    assert model.tokenize(["small moon"]).tolist() == shared_model.tokenize(["small moon"]).tolist()
    assert torch.equal(model.noise_scheduler.betas, shared_model.noise_scheduler.betas)
    assert not any(parameter.requires_grad for parameter in model.unet.parameters())


def test_loading_is_silent_and_leaves_random_state_alone(saved: Path, capfd: pytest.CaptureFixture[str]) -> None:
    state = torch.get_rng_state()

    load_model(str(saved))

    assert capfd.readouterr() == ("", "")
    assert torch.equal(state, torch.get_rng_state())


def test_the_libraries_talk_again_after_loading(saved: Path) -> None:
    levels = [logging.getLogger(name).level for name in ("diffusers", "transformers")]
    shows_progress = transformers_logging.is_progress_bar_enabled()

    load_model(str(saved))

    assert levels == [logging.getLogger(name).level for name in ("diffusers", "transformers")]
    assert transformers_logging.is_progress_bar_enabled() == shows_progress


def test_a_name_is_looked_up_in_the_workspace(saved: Path) -> None:
    workspace = SimpleNamespace(models=saved.parent)

    assert find_folder("tiny", workspace) == saved.resolve()
    with pytest.raises(ModelError, match=r"no model 'huge'; give 'picto', .* or a folder in "):
        find_folder("huge", workspace)


def halve(file: Path) -> None:
    save_file({key: value.half() for key, value in load_file(file).items()}, file, {"format": "pt"})


def test_half_precision_files_are_loaded_as_asked(folder: Path, shared_model: StableDiffusion) -> None:
    for file in (UNET, VAE, TEXT):
        halve(folder / file)

    single, half = load_model(str(folder)), load_model(str(folder), dtype=torch.float16)

    assert (single.dtype, single.text_encoders[0].module.dtype, single.vae.dtype) == (torch.float32,) * 3
    assert (half.dtype, half.text_encoders[0].module.dtype, half.vae.dtype) == (
        torch.float16,
        torch.float16,
        torch.float32,
    )
    assert torch.equal(single.unet.conv_in.weight, shared_model.unet.conv_in.weight.half().float())


def test_variant_and_bin_files_are_found(folder: Path, shared_model: StableDiffusion) -> None:
    (folder / UNET).rename(folder / "unet/diffusion_pytorch_model.fp16.safetensors")
    torch.save(load_file(folder / VAE), folder / "vae/diffusion_pytorch_model.bin")
    (folder / VAE).unlink()

    assert_equal(load_model(str(folder)), shared_model)


def test_text_encoders_of_the_old_layout_are_read(folder: Path, shared_model: StableDiffusion) -> None:
    save_file({f"text_model.{key}": value for key, value in load_file(folder / TEXT).items()}, folder / TEXT)

    assert_equal(load_model(str(folder)), shared_model)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def without_weight(file: Path) -> None:
    state = load_file(file)
    del state[sorted(state)[3]]
    save_file(state, file, {"format": "pt"})


def edit(file: Path, **values: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


Break = Callable[[Path], object]
BROKEN: dict[str, tuple[Break, str]] = {
    "no index": (lambda f: (f / "model_index.json").unlink(), "has no model_index.json"),
    "index is no JSON": (lambda f: (f / "model_index.json").write_text("{"), "model_index.json .*cannot be read"),
    "index is a list": (lambda f: (f / "model_index.json").write_text("[]"), "model_index.json .*no JSON object"),
    "SDXL": (
        lambda f: edit(f / "model_index.json", _class_name="XL", text_encoder_2=["transformers", "C"]),
        "holds a XL; only Stable Diffusion 1 and 2",
    ),
    "no vae, no tokenizer": (
        lambda f: [shutil.rmtree(f / "vae"), shutil.rmtree(f / "tokenizer")],
        "has no vae, tokenizer; it needs unet, vae",
    ),
    "no unet weights": (lambda f: (f / UNET).unlink(), "The unet in .* has no weights"),
    "no unet config": (lambda f: (f / "unet/config.json").unlink(), "The unet in .* cannot be loaded"),
    "broken unet config": (lambda f: (f / "unet/config.json").write_text("{"), "The unet in .* cannot be loaded"),
    "truncated unet": (lambda f: truncate(f / UNET), "The unet in .* cannot be loaded"),
    "empty unet": (lambda f: (f / UNET).write_bytes(b""), "The unet in .* cannot be loaded"),
    "truncated vae": (lambda f: truncate(f / VAE), "The vae in .* cannot be loaded"),
    "truncated text encoder": (lambda f: truncate(f / TEXT), "The text_encoder in .* cannot be loaded"),
    "no text encoder weights": (lambda f: (f / TEXT).unlink(), "The text_encoder in .* has no weights"),
    "unet lacks a weight": (lambda f: without_weight(f / UNET), "The unet in .* lacks 1 weights, for example"),
    "vae lacks a weight": (lambda f: without_weight(f / VAE), "The vae in .* lacks 1 weights, for example"),
    "text encoder lacks a weight": (lambda f: without_weight(f / TEXT), "The text_encoder in .* lacks 1 weights"),
    "other unet": (
        lambda f: edit(f / "unet/config.json", block_out_channels=[32, 32]),
        "The unet in .* cannot be loaded",
    ),
    "other text encoder": (
        lambda f: edit(f / "text_encoder/config.json", hidden_size=64),
        "The text_encoder in .* cannot be loaded",
    ),
    "text width": (
        lambda f: save_folder(wider_text(), f),
        "the unet expects a text width of 32 and the text_encoder gives 64",
    ),
    "no sample size": (lambda f: edit(f / "unet/config.json", sample_size=None), "The unet .*sample_size is None"),
    "inpainting": (lambda f: save_folder(inpainting(), f), "the unet takes 9 channels and the vae gives 4"),
    "no vocabulary": (
        lambda f: [(f / "tokenizer" / name).unlink() for name in ("tokenizer.json",)],
        "The tokenizer in .* lacks vocab.json or merges.txt",
    ),
    "broken tokenizer": (
        lambda f: (f / "tokenizer/tokenizer.json").write_text("{"),
        "The tokenizer in .* cannot be loaded",
    ),
    "no scheduler config": (
        lambda f: (f / "scheduler/scheduler_config.json").unlink(),
        "The scheduler in .* cannot be loaded",
    ),
    "prediction type": (
        lambda f: edit(f / "scheduler/scheduler_config.json", prediction_type="sample"),
        "prediction_type is 'sample'",
    ),
}


def wider_text() -> StableDiffusion:
    model = tiny_model()
    config = type(model.text_encoders[0].module.config)(
        **{**model.text_encoders[0].module.config.to_dict(), "hidden_size": 64}
    )
    model.text_encoders[0].module = type(model.text_encoders[0].module)(config)
    return model


def inpainting() -> StableDiffusion:
    model = tiny_model()
    model.unet = type(model.unet)(**{**model.unet.config, "in_channels": 9})
    return model


@pytest.mark.parametrize("case", BROKEN)
def test_broken_folders_are_refused_by_a_sentence_that_names_the_part(
    case: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    damage, message = BROKEN[case]
    damage(folder)
    capfd.readouterr()

    with pytest.raises(ModelError, match=message) as caught:
        load_model(str(folder))

    text = str(caught.value)
    assert str(folder) in text and "\n" not in text and text.endswith(".")
    assert capfd.readouterr() == ("", "")


def test_more_tokens_than_rows_are_refused(folder: Path) -> None:
    state = load_file(folder / TEXT)
    state["embeddings.token_embedding.weight"] = state["embeddings.token_embedding.weight"][:600].clone()
    save_file(state, folder / TEXT, {"format": "pt"})
    edit(folder / "text_encoder/config.json", vocab_size=600)

    with pytest.raises(ModelError, match="the tokenizer knows 655 tokens and the text_encoder only 600"):
        load_model(str(folder))


def test_no_such_model_and_a_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="There is no model 'nothing'; give 'picto', the path of a diffusers folder"):
        load_model("nothing")
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ModelError, match="is a file; give a diffusers folder"):
        load_model(str(tmp_path / "model.safetensors"))
