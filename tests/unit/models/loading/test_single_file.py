"""Checkpoints in one file: every tensor arrives, nothing is fetched, and what is odd about files does no harm."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tools.original_layout import original_state_dict
from tools.write_single_file import write_single_file
from torch import Tensor

from tests.checkpoints import Checkpoints, Edit, adding, modules, renamed, without
from tests.support import save_folder, weights
from tincture.errors import ModelError, UsageError
from tincture.models.loading.load import PICTO, load_model, load_parts
from tincture.models.loading.parts import LoadOptions
from tincture.models.loading.sources import find_source
from tincture.models.stable_diffusion import StableDiffusion

OPEN_CLIP = ("cond_stage_model", "conditioner.embedders.1")
UNUSED = ("text_projection", "logit_scale")
KINDS = ("sd1", "sd2", "sd2-v", "sdxl", "sd1-inpainting", "sd2-inpainting", "sdxl-inpainting")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any try to reach another machine fails the test."""

    def refuse(*arguments: object, **_: object) -> None:
        raise AssertionError(f"the network was asked for {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def sd1(checkpoints: Checkpoints) -> StableDiffusion:
    return load_model(str(checkpoints.path("sd1")))


def assert_same(model: StableDiffusion, other: StableDiffusion) -> None:
    expected = weights(other)
    assert weights(model).keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in weights(model).items())


# --- every family -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_tensor_arrives(kind: str, checkpoints: Checkpoints) -> None:
    path = checkpoints.path(kind)

    model = load_model(str(path))

    state = load_file(path)
    encoders = [encoder.module for encoder in model.text_encoders]
    original = original_state_dict(model.family.name, model.unet, model.vae, encoders)
    unused = {name for name in state if kind.startswith("sd2") and ".resblocks.2." in name}  # its last layer
    assert set(state) - set(original) <= {f"{name}.model.{rest}" for name in OPEN_CLIP for rest in UNUSED}
    assert all(torch.equal(value, state[name].float()) for name, value in original.items() if name not in unused)
    assert not any(tensor.is_meta for part in modules(model).values() for tensor in part.buffers())
    assert (model.name, len(model.hash)) == (kind, 10)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_found_out(kind: str, checkpoints: Checkpoints) -> None:
    model = load_model(str(checkpoints.path(kind)))

    assert model.family.name == kind[:3].rstrip("-") if kind[:4] != "sdxl" else model.family.name == "sdxl"
    assert model.prediction_type == ("v_prediction" if kind == "sd2-v" else "epsilon")
    assert model.is_inpainting == kind.endswith("inpainting")
    assert (
        model.describe().endswith(" (its metadata)") and (" for inpainting," in model.describe()) == model.is_inpainting
    )
    assert model.default_size == {"sd1": 512, "sd2": 512, "sd2-v": 768, "sdxl": 1024}[kind.removesuffix("-inpainting")]
    scaling = 0.13025 if kind.startswith("sdxl") else 0.18215
    assert (model.vae.config.scaling_factor, model.vae_scale_factor) == (scaling, 8)
    activations = [encoder.module.config.hidden_act for encoder in model.text_encoders]
    expected = {"sd1": ["quick_gelu"], "sd2": ["gelu"], "sdxl": ["quick_gelu", "gelu"]}
    assert activations == expected[model.family.name]
    pads = [encoder.tokenizer.pad_token_id for encoder in model.text_encoders]
    assert pads == {"sd1": [49407], "sd2": [0], "sdxl": [49407, 0]}[model.family.name]


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl", "sdxl-inpainting"])
def test_a_model_of_every_family_predicts(kind: str, checkpoints: Checkpoints) -> None:
    model = load_model(str(checkpoints.path(kind)))

    conditions = model.encode_prompts(["a cat", "a dog"])
    noise = model.predict_noise(torch.randn(2, 4, 8, 8), torch.tensor([1, 999]), conditions)

    assert noise.shape == (2, 4, 8, 8) and bool(noise.isfinite().all()) and float(noise.std()) > 0


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
def test_what_is_written_comes_back(kind: str, checkpoints: Checkpoints, tmp_path: Path) -> None:
    model = load_model(str(checkpoints.path(kind)))
    for suffix in (".safetensors", ".ckpt"):
        path = tmp_path / f"copy{suffix}"

        write_single_file(model, path)

        assert_same(load_model(str(path), prediction_type="epsilon"), model)


def test_an_xl_checkpoint_and_its_folder_are_the_same_model(checkpoints: Checkpoints, tmp_path: Path) -> None:
    model = load_model(str(checkpoints.path("sdxl")))

    folder = load_model(str(save_folder(model, tmp_path / "xl")))

    assert_same(folder, model)
    assert (folder.family, folder.default_size) == (model.family, 1024)
    assert torch.equal(folder.noise_scheduler.alphas_cumprod, model.noise_scheduler.alphas_cumprod)


def test_picto_as_one_file_predicts_the_same(tmp_path: Path) -> None:
    """With its own configurations and tokenizer, which its shapes do not tell."""
    model = load_model("picto")
    write_single_file(model, tmp_path / "picto.safetensors")

    parts = load_parts(find_source(str(tmp_path / "picto.safetensors")), LoadOptions(configs=PICTO))

    latents, timesteps = torch.randn(1, 4, 8, 8), torch.tensor([500])
    hidden_states, _ = parts.text_encoders[0].encode(model.text.tokenize(["red moon"]))
    noise = parts.unet(latents, timesteps, encoder_hidden_states=hidden_states).sample
    assert torch.equal(noise, model.predict_noise(latents, timesteps, model.encode_prompts(["red moon"])))
    assert parts.scheduler_config["prediction_type"] == "epsilon"
    assert parts.vae.config.scaling_factor == model.vae.config.scaling_factor


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
def test_diffusers_own_pipeline_agrees(kind: str, checkpoints: Checkpoints, tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

    model = load_model(str(checkpoints.path(kind)))
    folder = save_folder(model, tmp_path / "configs")
    index = json.loads((folder / "model_index.json").read_text())
    index |= {
        encoder.spec.component: ["transformers", type(encoder.module).__name__] for encoder in model.text_encoders
    }
    index |= {encoder.spec.tokenizer: ["transformers", "CLIPTokenizer"] for encoder in model.text_encoders}
    (folder / "model_index.json").write_text(json.dumps(index))
    pipeline_kind = StableDiffusionXLPipeline if kind == "sdxl" else StableDiffusionPipeline

    pipeline = pipeline_kind.from_single_file(str(checkpoints.path(kind)), config=str(folder), local_files_only=True)

    for name, part in modules(model).items():
        theirs = getattr(pipeline, name).state_dict()
        assert all(torch.equal(value, theirs[key]) for key, value in part.state_dict().items())


# --- how files differ -------------------------------------------------------------------------------------------------

CLIP = "cond_stage_model.transformer.text_model."
EXTRAS = {
    "betas": torch.ones(10),
    "alphas_cumprod": torch.ones(10),
    "logit_scale": torch.tensor(4.6),
    "model_ema.decay": torch.tensor(0.5),
    "model_ema.num_updates": torch.tensor(3, dtype=torch.int32),
    f"{CLIP}embeddings.position_ids": torch.arange(77)[None],
    "first_stage_model.loss.logvar": torch.zeros(1),
    "model.diffusion_model.extra": torch.zeros(1),
}


def with_ema(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A running mean of the U-Net, of zeros, under the names that the original gives it."""
    unet = [name for name in state if name.startswith("model.diffusion_model.")]
    mean = {f"model_ema.{name[6:].replace('.', '')}": torch.zeros_like(state[name]) for name in unet}
    return {**state, **mean}


SAME: dict[str, Edit] = {
    "extra tensors": adding(**EXTRAS),
    "a running mean": with_ema,
    "no level text_model": renamed(CLIP, "cond_stage_model.transformer."),
    "text encoder as in XL": renamed("cond_stage_model.transformer.", "conditioner.embedders.0.transformer."),
    "text encoder as in 3": renamed("cond_stage_model.transformer.", "text_encoders.clip_l.transformer."),
    "text encoder without prefix": renamed("cond_stage_model.transformer.", ""),
    "full precision": lambda state: {name: value.float() for name, value in state.items()},
    "another order": lambda state: dict(reversed(state.items())),
}


@pytest.mark.parametrize("case", SAME)
@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_files_that_hold_the_same_model(
    case: str, suffix: str, checkpoints: Checkpoints, sd1: StableDiffusion, tmp_path: Path
) -> None:
    path = checkpoints.edited("sd1", tmp_path / f"model{suffix}", SAME[case])

    assert_same(load_model(str(path)), sd1)


XL_G = "conditioner.embedders.1.model."
SAME_XL: dict[str, Edit] = {
    "projection as a layer": lambda state: {
        f"{name}.weight" if name == f"{XL_G}text_projection" else name: (
            value.T if name == f"{XL_G}text_projection" else value
        )
        for name, value in state.items()
    },
    "extra tensors": adding(**{f"{XL_G}logit_scale": torch.tensor(4.6), f"{XL_G}attn_mask": torch.zeros(77, 77)}),
    "text encoders as in 3": lambda state: renamed(XL_G, "text_encoders.clip_g.")(
        renamed("conditioner.embedders.0.", "text_encoders.clip_l.")(state)
    ),
}


@pytest.mark.parametrize("case", SAME_XL)
def test_xl_files_that_hold_the_same_model(case: str, checkpoints: Checkpoints, tmp_path: Path) -> None:
    path = checkpoints.edited("sdxl", tmp_path / "model.safetensors", SAME_XL[case])

    assert_same(load_model(str(path)), load_model(str(checkpoints.path("sdxl"))))


def test_sd2_files_of_todays_layout(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """SD Turbo and others name the text encoder as XL does."""
    edit = renamed("cond_stage_model.", "conditioner.embedders.0.")
    path = checkpoints.edited("sd2", tmp_path / "model.safetensors", edit)

    assert_same(load_model(str(path)), load_model(str(checkpoints.path("sd2"))))


def test_sd2_files_without_the_unused_layer(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """OpenCLIP's 24th layer is not used, and files that were written from a diffusers folder do not have it."""
    prefix = "cond_stage_model.model.transformer.resblocks."

    def with_layers(count: int) -> Edit:
        def edit(state: dict[str, Tensor]) -> dict[str, Tensor]:
            first = {name: value for name, value in state.items() if name.startswith(f"{prefix}0.")}
            layers = {
                name.replace(f"{prefix}0.", f"{prefix}{layer}."): value + layer / 100
                for layer in range(count)
                for name, value in first.items()
            }
            return {**without(prefix)(state), **layers}

        return edit

    whole = load_model(str(checkpoints.edited("sd2", tmp_path / "whole.safetensors", with_layers(24))))
    less = load_model(str(checkpoints.edited("sd2", tmp_path / "less.safetensors", with_layers(23))))

    assert less.text_encoders[0].layers == 23
    assert_same(less, whole)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
def test_other_precisions_are_read(
    dtype: torch.dtype, checkpoints: Checkpoints, sd1: StableDiffusion, tmp_path: Path
) -> None:
    path = checkpoints.edited(
        "sd1", tmp_path / "model.safetensors", lambda state: {name: value.to(dtype) for name, value in state.items()}
    )

    model = load_model(str(path), dtype=torch.float16)

    expected = sd1.unet.conv_in.weight.half().to(dtype)
    assert torch.equal(model.unet.conv_in.weight, expected.half())
    assert {value.dtype for value in model.unet.state_dict().values()} == {torch.float16}
    assert {value.dtype for value in model.vae.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
def test_the_running_mean_is_used_where_nothing_else_is_there(
    kind: str, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    def only_ema(state: dict[str, Tensor]) -> dict[str, Tensor]:
        others = without("model.diffusion_model.")(state)
        unet = {name: value for name, value in state.items() if name not in others}
        return {**others, **{f"model_ema.{name[6:].replace('.', '')}": value for name, value in unet.items()}}

    path = checkpoints.edited(kind, tmp_path / "model.safetensors", only_ema)

    parts = load_parts(find_source(str(path)), LoadOptions())

    plain = load_parts(find_source(str(checkpoints.path(kind))), LoadOptions())
    assert all(torch.equal(value, plain.unet.state_dict()[name]) for name, value in parts.unet.state_dict().items())
    assert parts.notes == ("The plain weights of its U-Net are missing; the running mean of them (EMA) is used.",)
    assert plain.notes == ()
    with pytest.warns(UserWarning, match=r"model\.safetensors: The plain weights of its U-Net are missing"):
        load_model(str(path))


def test_weights_without_a_place_are_told(checkpoints: Checkpoints, tmp_path: Path) -> None:
    extra = {"model.diffusion_model.input_blocks.1.1.transformer_blocks.0.fuser.weight": torch.zeros(2)}
    path = checkpoints.edited("sd1", tmp_path / "model.safetensors", adding(**extra))

    (note,) = load_parts(find_source(str(path)), LoadOptions()).notes

    assert note.startswith("Its U-Net has 1 weights that are not used, for example down_blocks.0.attentions.0.")


def slimmed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As in SSD-1B: no attention in the middle, and blocks of a level with different depths."""
    dropped = ("middle_block.1.", "middle_block.2.", "output_blocks.1.1.transformer_blocks.1.")
    return {name: value for name, value in state.items() if not any(part in name for part in dropped)}


def test_slimmed_models_are_read(checkpoints: Checkpoints, tmp_path: Path) -> None:
    path = checkpoints.edited("sdxl", tmp_path / "model.safetensors", slimmed)

    model = load_model(str(path))

    blocks = [len(attention.transformer_blocks) for attention in model.unet.up_blocks[0].attentions]
    assert blocks == [2, 1, 2]
    assert not model.unet.mid_block.attentions
    assert model.predict_noise(torch.randn(1, 4, 8, 8), torch.tensor([9]), model.encode_prompts([""])).isfinite().all()


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_texts_alone_need_no_unet_and_no_vae(kind: str, checkpoints: Checkpoints, tmp_path: Path) -> None:
    whole = load_model(str(checkpoints.path(kind)))
    silent = checkpoints.edited("sd2", tmp_path / "silent.safetensors", dict, metadata={})
    folder = save_folder(whole, tmp_path / "folder")

    for path in (checkpoints.path(kind), folder):
        model = load_model(str(path), text_only=True)
        assert all(value.is_meta for part in (model.unet, model.vae) for value in part.parameters())
        for encoder, other in zip(model.text_encoders, whole.text_encoders, strict=True):
            assert torch.equal(encoder.token_embeddings("a cat"), other.token_embeddings("a cat"))
        assert model.context_widths() == whole.context_widths()
    assert load_model(str(silent), text_only=True).told_by == "not tried"


# --- prediction -------------------------------------------------------------------------------------------------------


def test_markers_of_v_and_zero_terminal_snr(checkpoints: Checkpoints, tmp_path: Path) -> None:
    marked = adding(v_pred=torch.tensor([]), ztsnr=torch.tensor([]))
    path = checkpoints.edited("sdxl", tmp_path / "noob.safetensors", marked, metadata={})

    model = load_model(str(path))

    assert model.prediction_type == "v_prediction"
    assert model.noise_scheduler.alphas_cumprod[-1] == 0
    assert model.noise_scheduler.config.timestep_spacing == "trailing"
    text = "Stable Diffusion XL, predicts v with zero terminal SNR (its marker v_pred)"
    assert model.describe() == f"noob [{model.hash}]: {text}"
    assert load_model(str(path), zero_terminal_snr=False).noise_scheduler.alphas_cumprod[-1] > 0


def test_a_model_that_says_nothing(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """Random weights do not give back the noise they are shown, so that a trial takes them for v."""
    for kind, told_by in (("sd1", "usual for its family"), ("sd2", "a trial of its U-Net")):
        path = checkpoints.edited(kind, tmp_path / f"{kind}.safetensors", dict, metadata={})
        prediction = load_parts(find_source(str(path)), LoadOptions()).prediction
        assert (prediction.prediction_type, prediction.told_by) == (
            "epsilon" if kind == "sd1" else "v_prediction",
            told_by,
        )


def test_what_the_user_says_counts(checkpoints: Checkpoints) -> None:
    path = str(checkpoints.path("sd2-v"))

    model = load_model(path, prediction_type="epsilon")

    assert (model.prediction_type, model.default_size) == ("epsilon", 512)
    assert load_model(path, family="sd1").family.name == "sd1"
    with pytest.raises(UsageError, match="The family 'sd3' is not known; give sd1, sd2, sdxl"):
        load_model(path, family="sd3")
    with pytest.raises(UsageError, match="'sample' is not known"):
        load_model(path, prediction_type="sample")
    with pytest.raises(ModelError, match="lacks a text encoder: Stable Diffusion XL needs clip_l and clip_g"):
        load_model(path, family="sdxl")


# --- VAE in its own file ----------------------------------------------------------------------------------------------


def original(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    vae = {name: value for name, value in state.items() if name.startswith("first_stage_model.")}
    return {prefix + name.removeprefix("first_stage_model."): value * 2 for name, value in vae.items()}


def write_vae(checkpoints: Checkpoints, path: Path, prefix: str = "") -> Path:
    """The VAE of ``sd1``, all its numbers doubled."""
    state = original(load_file(checkpoints.path("sd1")), prefix)
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": {**state, "loss.logvar": torch.zeros(1)}, "epoch": 1}, path)
    return path


def doubled(sd1: StableDiffusion) -> dict[str, Tensor]:
    return {name: value * 2 for name, value in sd1.vae.state_dict().items()}


@pytest.mark.parametrize("prefix", ["", "first_stage_model."])
@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt", ".pt"])
def test_a_vae_in_the_original_layout(
    prefix: str, suffix: str, checkpoints: Checkpoints, sd1: StableDiffusion, tmp_path: Path
) -> None:
    vae = write_vae(checkpoints, tmp_path / f"soft{suffix}", prefix)

    model = load_model(str(checkpoints.path("sd1")), vae=str(vae))

    assert all(torch.equal(value, doubled(sd1)[name]) for name, value in model.vae.state_dict().items())
    assert model.hash == sd1.hash and torch.equal(model.unet.conv_in.weight, sd1.unet.conv_in.weight)


def test_a_vae_in_diffusers_layout(checkpoints: Checkpoints, sd1: StableDiffusion, tmp_path: Path) -> None:
    vae = load_model(str(checkpoints.path("sd1")), vae=str(write_vae(checkpoints, tmp_path / "soft.pt"))).vae
    vae.save_pretrained(tmp_path / "model" / "vae")
    places = [tmp_path / "model" / "vae" / "diffusion_pytorch_model.safetensors"]
    places += [tmp_path / "model" / "vae", tmp_path / "model"]

    for place in places:
        model = load_model(str(checkpoints.path("sd1")), vae=str(place))
        assert all(torch.equal(value, doubled(sd1)[name]) for name, value in model.vae.state_dict().items())


def test_a_checkpoint_without_a_vae(checkpoints: Checkpoints, sd1: StableDiffusion, tmp_path: Path) -> None:
    path = str(checkpoints.edited("sd1", tmp_path / "model.safetensors", without("first_stage_model.")))

    with pytest.raises(ModelError, match="has no VAE; give the file of one for Stable Diffusion 1 by `vae`"):
        load_model(path)
    assert_same(load_model(path, vae=str(checkpoints.path("sd1"))), sd1)


def decoder_alone(state: dict[str, Tensor]) -> dict[str, Tensor]:
    encoder = ("first_stage_model.encoder.", "first_stage_model.quant_conv.")
    return {name: value for name, value in state.items() if not name.startswith(encoder)}


def test_a_checkpoint_whose_vae_cannot_encode(checkpoints: Checkpoints, sd1: StableDiffusion, tmp_path: Path) -> None:
    path = str(checkpoints.edited("sd1", tmp_path / "model.safetensors", decoder_alone))

    with pytest.raises(ModelError, match=r"model\.safetensors has only the decoder of its VAE: without the enc"):
        load_model(path)
    with pytest.raises(ModelError, match=r"The VAE in .* has only its decoder: without the encoder no picture can be"):
        load_model(str(checkpoints.path("sd1")), vae=path)
    assert_same(load_model(path, vae=str(checkpoints.path("sd1"))), sd1)


def test_a_vae_in_diffusers_layout_without_its_encoder(checkpoints: Checkpoints, tmp_path: Path) -> None:
    save_file(
        {"decoder.conv_in.weight": torch.zeros(1), "decoder.mid_block.x": torch.zeros(1)}, tmp_path / "x.safetensors"
    )

    with pytest.raises(ModelError, match=r"The VAE in .* has only its decoder: without the encoder no picture can be"):
        load_model(str(checkpoints.path("sd1")), vae=str(tmp_path / "x.safetensors"))


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_modules_that_were_wrapped_in_training(
    suffix: str, checkpoints: Checkpoints, sd1: StableDiffusion, tmp_path: Path
) -> None:
    def wrapped(state: dict[str, Tensor]) -> dict[str, Tensor]:
        names = {name: name.replace("first_stage_model.", "first_stage_model._orig_mod.") for name in state}
        return {f"module.{names[name]}": value for name, value in state.items()}

    path = checkpoints.edited("sd1", tmp_path / f"model{suffix}", wrapped)
    assert_same(load_model(str(path)), sd1)


def test_tensors_half_of_which_stand_under_state_dict(
    checkpoints: Checkpoints, sd1: StableDiffusion, tmp_path: Path
) -> None:
    state = load_file(checkpoints.path("sd1"))
    inner = {name: value for name, value in state.items() if name.startswith("model.")}
    outer = {name: value for name, value in state.items() if name not in inner}
    torch.save({**outer, "epoch": 3, "state_dict": inner}, tmp_path / "model.ckpt")
    assert_same(load_model(str(tmp_path / "model.ckpt")), sd1)


def sixteen_channels(state: dict[str, Tensor]) -> dict[str, Tensor]:
    state["first_stage_model.decoder.conv_in.weight"] = torch.zeros(32, 16, 3, 3)
    return state


WrongVae = Callable[[Checkpoints, Path], Path]
WRONG_VAE: dict[str, tuple[WrongVae, str]] = {
    "other latents": (
        lambda made, folder: made.edited("sd1", folder / "vae.safetensors", sixteen_channels),
        "gives 16 latent channels, as Stable Diffusion 3 and Flux have, and Stable Diffusion 1 works with 4",
    ),
    "of XL": (lambda made, folder: made.path("sdxl"), "is of Stable Diffusion XL; give a VAE for Stable Diffusion 1"),
    "of XL, as a folder": (
        lambda made, folder: save_folder(load_model(str(made.path("sdxl"))), folder / "xl"),
        "is one for Stable Diffusion XL; give one for Stable Diffusion 1",
    ),
    "a U-Net": (
        lambda made, folder: made.edited("sd1", folder / "x.safetensors", without("first_stage_model.")),
        "is no VAE that is known; give",
    ),
    "a text": (lambda made, folder: text_file(folder / "x.pt"), "cannot be read as a torch or safetensors file"),
    "incomplete": (
        lambda made, folder: made.edited("sd1", folder / "x.safetensors", without("first_stage_model.decoder.mid")),
        "The vae in .* lacks .* weights, for example",
    ),
    "nothing": (lambda made, folder: folder / "none.pt", "There is no VAE '.*none.pt'; give the path"),
}


def text_file(path: Path) -> Path:
    path.write_text("hello, I am no model")
    return path


@pytest.mark.parametrize("case", WRONG_VAE)
def test_a_wrong_vae_is_refused(case: str, checkpoints: Checkpoints, tmp_path: Path) -> None:
    make, message = WRONG_VAE[case]

    with pytest.raises(ModelError, match=message) as caught:
        load_model(str(checkpoints.path("sd1")), vae=str(make(checkpoints, tmp_path)))

    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


# --- other things -----------------------------------------------------------------------------------------------------


def test_loading_leaves_no_trace(checkpoints: Checkpoints, capfd: pytest.CaptureFixture[str]) -> None:
    state = torch.get_rng_state()

    load_model(str(checkpoints.path("sdxl")))

    assert capfd.readouterr() == ("", "")
    assert torch.equal(state, torch.get_rng_state())


def test_a_file_that_is_overwritten_does_not_change_a_loaded_model(checkpoints: Checkpoints, tmp_path: Path) -> None:
    path = checkpoints.edited("sd1", tmp_path / "model.safetensors", lambda s: {n: v.float() for n, v in s.items()})
    model = load_model(str(path))
    expected = weights(model)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(bytes(path.stat().st_size // 2))

    assert all(torch.equal(value, expected[key]) for key, value in weights(model).items())
