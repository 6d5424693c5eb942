from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.utils import logging as transformers_logging

from tests.support import save_folder, tiny_model, tiny_sdxl, weights
from tincture.errors import ModelError
from tincture.models.loading.load import load_model
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
    assert model.text.tokenize(["small moon"]).tolist() == shared_model.text.tokenize(["small moon"]).tolist()
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
    "Stable Diffusion 3": (
        lambda f: edit(
            f / "model_index.json", _class_name="StableDiffusion3Pipeline", unet=None, transformer=["d", "S"]
        ),
        "holds a StableDiffusion3Pipeline; only Stable Diffusion 1, 2 and XL",
    ),
    "the refiner": (
        lambda f: edit(f / "model_index.json", text_encoder=[None, None], text_encoder_2=["transformers", "C"]),
        "holds the refiner of Stable Diffusion XL; only",
    ),
    "a second text encoder is missing": (
        lambda f: edit(f / "model_index.json", text_encoder_2=["transformers", "C"]),
        "has no text_encoder_2, tokenizer_2; it needs unet",
    ),
    "no vae, no tokenizer": (
        lambda f: [shutil.rmtree(f / "vae"), shutil.rmtree(f / "tokenizer")],
        "has no vae, tokenizer; it needs unet, vae",
    ),
    "no unet weights": (lambda f: (f / UNET).unlink(), "The unet in .* has no weights"),
    "no unet config": (lambda f: (f / "unet/config.json").unlink(), "unet has no config.json"),
    "broken unet config": (lambda f: (f / "unet/config.json").write_text("{"), "unet/config.json .*cannot be read"),
    "senseless unet config": (
        lambda f: edit(f / "unet/config.json", down_block_types=["Other"]),
        "The unet in .* cannot be loaded",
    ),
    "senseless text config": (
        lambda f: edit(f / "text_encoder/config.json", num_attention_heads=5),
        "The text_encoder in .* cannot be loaded",
    ),
    "pieces": (
        lambda f: (f / UNET).rename(f / "unet/diffusion_pytorch_model-00001-of-00003.safetensors"),
        "The unet in .* has 1 of 3 pieces",
    ),
    "another vae": (
        lambda f: edit(f / "vae/config.json", _class_name="AutoencoderTiny"),
        "The vae in .* is of the kind AutoencoderTiny",
    ),
    "code in weights": (lambda f: with_code(f / "unet"), "unet .*could run code"),
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
        r"The unet in .* its weight .* has the shape \(64,.*\), and \(32,.*\) is needed",
    ),
    "other text encoder": (
        lambda f: edit(f / "text_encoder/config.json", hidden_size=64),
        "The text_encoder in .* cannot be loaded",
    ),
    "text width": (
        lambda f: save_folder(wider_text(), f),
        "the unet expects a text width of 32 and the text encoders of Stable Diffusion 1 give 64",
    ),
    "senseless scheduler": (
        lambda f: edit(f / "scheduler/scheduler_config.json", beta_schedule="curly"),
        "The scheduler of .* cannot be loaded",
    ),
    "no sample size": (lambda f: edit(f / "unet/config.json", sample_size=None), "The unet .*sample_size is None"),
    "depth": (lambda f: save_folder(tiny_model(in_channels=5), f), "the unet takes 5 channels and the vae gives 4"),
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
        "scheduler has no scheduler_config.json",
    ),
    "Playground 2.5": (
        lambda f: edit(f / "scheduler/scheduler_config.json", _class_name="EDMDPMSolverMultistepScheduler"),
        "scheduler of the kind EDMDPMSolverMultistepScheduler, whose noise is not .*; only Stable Diffusion 1, 2 and",
    ),
    "prediction type": (
        lambda f: edit(f / "scheduler/scheduler_config.json", prediction_type="sample"),
        "prediction_type is 'sample'",
    ),
}


def with_code(part: Path) -> None:
    for file in part.glob("*.safetensors"):
        file.unlink()
    torch.save({"conv_in.weight": Call()}, part / "diffusion_pytorch_model.bin")


class Call:
    def __reduce__(self) -> Any:
        return print, ("pwned",)


def wider_text() -> StableDiffusion:
    model = tiny_model()
    config = type(model.text_encoders[0].module.config)(
        **{**model.text_encoders[0].module.config.to_dict(), "hidden_size": 64}
    )
    model.text_encoders[0].module = type(model.text_encoders[0].module)(config)
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


def test_the_scheduler_of_a_folder_is_kept_or_overridden(folder: Path) -> None:
    config = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "beta_end": 0.02}
    edit(folder / "scheduler/scheduler_config.json", **config)

    kept, changed = load_model(str(folder)), load_model(str(folder), prediction_type="epsilon")

    assert (kept.prediction_type, kept.noise_scheduler.config.beta_end) == ("v_prediction", 0.02)
    assert kept.noise_scheduler.alphas_cumprod[-1] == 0
    assert (changed.prediction_type, changed.noise_scheduler.config.beta_end) == ("epsilon", 0.02)
    assert changed.noise_scheduler.alphas_cumprod[-1] > 0


@pytest.mark.parametrize("variant", ["", ".fp16"])
def test_weights_in_pieces_are_put_together(variant: str, folder: Path, shared_model: StableDiffusion) -> None:
    state = load_file(folder / UNET)
    (folder / UNET).unlink()
    names = sorted(state)
    for number, part in enumerate((names[::2], names[1::2]), 1):
        path = folder / f"unet/diffusion_pytorch_model{variant}-0000{number}-of-00002.safetensors"
        save_file({name: state[name] for name in part}, path)

    assert_equal(load_model(str(folder)), shared_model)


def test_the_usual_weights_come_before_variants(folder: Path, shared_model: StableDiffusion) -> None:
    for variant in ("fp16", "non_ema"):
        shutil.copy(folder / TEXT, folder / UNET.replace(".safetensors", f".{variant}.safetensors"))

    assert_equal(load_model(str(folder)), shared_model)


def test_vae_attention_of_2022_is_read(folder: Path, shared_model: StableDiffusion) -> None:
    """Its layers were called query, key, value and proj_attn."""
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = load_file(folder / VAE)
    for name in [name for name in state if "attentions" in name]:
        for new, former in old.items():
            if f".{new}." in name:
                state[name.replace(new, former)] = state.pop(name)
    save_file(state, folder / VAE)

    assert_equal(load_model(str(folder)), shared_model)


def test_sdxl_folders_are_read(tmp_path: Path) -> None:
    model = tiny_sdxl()

    loaded = load_model(str(save_folder(model, tmp_path / "xl")))

    assert_equal(loaded, model)
    assert loaded.family.name == "sdxl"
    assert [encoder.tokenizer.pad_token for encoder in loaded.text_encoders] == ["<|endoftext|>", "!"]


def test_inpainting_folders_are_read(tmp_path: Path) -> None:
    model = load_model(str(save_folder(tiny_model(in_channels=9), tmp_path / "inpainting")))

    assert model.is_inpainting


def test_an_end_token_that_is_none_is_put_right(folder: Path, shared_model: StableDiffusion) -> None:
    edit(folder / "text_encoder/config.json", eos_token_id=2)

    assert load_model(str(folder)).text_encoders[0].module.config.eos_token_id == 654


def test_a_folder_that_is_written_anew_does_not_change_a_loaded_model(folder: Path) -> None:
    model = load_model(str(folder))
    expected = weights(model)
    content = bytearray((folder / UNET).read_bytes())
    content[-4000:] = bytes(4000)
    with (folder / UNET).open("r+b") as file:
        file.write(content)

    assert all(torch.equal(value, expected[key]) for key, value in weights(model).items())
