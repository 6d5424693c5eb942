"""From a name to a ``StableDiffusion``: the embedded picto, or a diffusers folder.

A diffusers folder: ``model_index.json`` and one folder each for ``unet``, ``vae``, ``text_encoder``, ``tokenizer`` and
``scheduler``, as ``StableDiffusionPipeline.save_pretrained`` writes them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from transformers.models.clip.modeling_clip import CLIPTextModel
from transformers.models.clip.tokenization_clip import CLIPTokenizer
from transformers.utils import logging as transformers_logging

from tincture.errors import ModelError
from tincture.models.families import SD1, SD2
from tincture.models.stable_diffusion import StableDiffusion
from tincture.models.text_encoder import TextEncoder

if TYPE_CHECKING:
    from tincture.workspace import Workspace

PICTO = Path(__file__).parent / "picto" / "weights"
PICTO_GUIDANCE_SCALE = 2.0
"""A model of so few words needs less guidance than Stable Diffusion; docs/picto.md has the figures."""
PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
WEIGHT_SUFFIXES = (".safetensors", ".bin")


def load_model(
    name: str = "picto",
    *,
    workspace: Workspace | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> StableDiffusion:
    """The frozen model ``name``.

    Args:
        name: ``picto``, a diffusers folder, or the name of one in the workspace's ``models/Stable-diffusion``.
        workspace: where names are looked up.
        device: where its weights shall lie.
        dtype: precision of U-Net and text encoder, whatever the files hold; the VAE is float32.

    Raises:
        ModelError: no such model, or a part of it is missing, broken or does not fit the others.
    """
    folder = find_folder(name, workspace)
    _check_parts(folder)
    text_encoder = _load(folder, "text_encoder", lambda path: _text_encoder(path, dtype))
    tokenizer = _load(folder, "tokenizer", lambda path: _tokenizer(path, text_encoder.config.max_position_embeddings))
    family = SD2 if text_encoder.config.hidden_act == "gelu" else SD1
    model = StableDiffusion(
        family=family,
        text_encoders=[TextEncoder(family.text_encoders[0], tokenizer, text_encoder)],
        vae=_load(folder, "vae", lambda path: _diffusers_part(AutoencoderKL, path, torch.float32)),
        unet=_load(folder, "unet", lambda path: _unet(path, dtype)),
        noise_scheduler=_load(folder, "scheduler", lambda path: DDPMScheduler.from_pretrained(path)),
        name="picto" if folder == PICTO else folder.name,
        hash=_hash(folder / "unet"),
        guidance_scale=PICTO_GUIDANCE_SCALE if folder == PICTO else 7.0,
    )
    _check_fit(model, folder)
    return model.to(device, dtype)


def find_folder(name: str, workspace: Workspace | None = None) -> Path:
    """The diffusers folder that ``name`` means (see ``load_model``).

    Raises:
        ModelError: there is none.
    """
    if name == "picto":
        return PICTO
    models = [] if workspace is None else [workspace.models]
    for folder in [Path(name).expanduser(), *(path / name for path in models)]:
        if folder.is_dir():
            return folder.resolve()
        if folder.is_file():
            raise ModelError(
                f"The model {folder} is a file; give a diffusers folder (with model_index.json, unet, vae and so on)."
            )
    where = f" or a folder in {models[0]}" if models else ""
    raise ModelError(f"There is no model {name!r}; give 'picto', the path of a diffusers folder{where}.")


def _check_parts(folder: Path) -> None:
    index = _read_json(folder / "model_index.json", folder)
    missing = [part for part in PARTS if not (folder / part).is_dir()]
    if missing:
        raise ModelError(f"The model folder {folder} has no {', '.join(missing)}; it needs {', '.join(PARTS)}.")
    # A null entry, or [null, null], stands for a part that is left out.
    if index.get("text_encoder_2", [None])[0] or index.get("unet", [None, None])[1] != "UNet2DConditionModel":
        kind = index.get("_class_name", "another kind of model")
        raise ModelError(f"The model folder {folder} holds a {kind}; only Stable Diffusion 1 and 2 models can be used.")


def _read_json(path: Path, folder: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"The model folder {folder} has no {path.name}; a diffusers folder is needed.") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"The file {path} of the model cannot be read: {error}.") from error
    if not isinstance(content, dict):
        raise ModelError(f"The file {path} of the model holds no JSON object; copy the model folder again.")
    return content


def _load(folder: Path, part: str, load: Callable[[Path], Any]) -> Any:
    path = folder / part
    try:
        with _silence():
            loaded = load(path)
    except ModelError:
        raise
    except Exception as error:  # the libraries raise errors of many families here, and all mean a broken part
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise ModelError(f"The {part} in {path} cannot be loaded; copy it again. The cause: {reason}.") from error
    if isinstance(loaded, torch.nn.Module):
        weights = [*loaded.named_parameters(), *loaded.named_buffers()]
        unfilled = [key for key, weight in weights if weight.is_meta]
        if unfilled:
            raise ModelError(_missing_keys(part, path, unfilled))
    return loaded


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Holds back the libraries' reports and progress bars: what matters of them is in our own errors."""
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    levels = [logger.level for logger in loggers]
    shows_progress = transformers_logging.is_progress_bar_enabled()
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        transformers_logging.disable_progress_bar()
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if shows_progress:
            transformers_logging.enable_progress_bar()


def _missing_keys(part: str, path: Path, keys: list[str]) -> str:
    return f"The {part} in {path} lacks {len(keys)} weights, for example {sorted(keys)[0]}; copy it again."


def _weight_files(path: Path) -> list[Path]:
    """The weight files of a part's folder that are read: safetensors before .bin, full before half precision."""
    files = sorted(file for file in path.iterdir() if file.suffix in WEIGHT_SUFFIXES)
    safe = [file for file in files if file.suffix == ".safetensors"] or files
    return [file for file in safe if ".fp16." not in file.name] or safe


def _how_to_read(path: Path) -> dict[str, Any]:
    """Arguments of ``from_pretrained`` for the files that are there, so that it does not guess and look elsewhere."""
    files = _weight_files(path)
    if not files:
        raise ModelError(f"The {path.name} in {path} has no weights; a .safetensors or .bin file is needed.")
    return {
        "local_files_only": True,
        "use_safetensors": files[0].suffix == ".safetensors",
        "variant": "fp16" if ".fp16." in files[0].name else None,
        "output_loading_info": True,
    }


def _unet(path: Path, dtype: torch.dtype) -> Any:
    unet = _diffusers_part(UNet2DConditionModel, path, dtype)
    if not isinstance(unet.config.sample_size, int):
        raise ModelError(
            f"The unet in {path} is not usable: its sample_size is {unet.config.sample_size}, not a number."
        )
    return unet


def _diffusers_part(kind: Any, path: Path, dtype: torch.dtype) -> Any:
    # Without low_cpu_mem_usage no parameter can stay on the meta device, and accelerate is not needed.
    part, info = kind.from_pretrained(path, torch_dtype=dtype, low_cpu_mem_usage=False, **_how_to_read(path))
    if info["missing_keys"]:
        raise ModelError(_missing_keys(path.name, path, list(info["missing_keys"])))
    return part


def _text_encoder(path: Path, dtype: torch.dtype) -> Any:
    part, info = CLIPTextModel.from_pretrained(path, dtype=dtype, **_how_to_read(path))
    if info["missing_keys"]:
        raise ModelError(_missing_keys(path.name, path, list(info["missing_keys"])))
    return part


def _tokenizer(path: Path, positions: int) -> Any:
    # Without these files transformers makes a tokenizer that knows no word, and says nothing.
    if not (path / "tokenizer.json").is_file() and not all((path / f).is_file() for f in ("vocab.json", "merges.txt")):
        raise ModelError(f"The tokenizer in {path} lacks vocab.json or merges.txt; copy it again.")
    return CLIPTokenizer.from_pretrained(path, local_files_only=True, model_max_length=positions)


def _check_fit(model: StableDiffusion, folder: Path) -> None:
    unet, vae = model.unet.config, model.vae.config
    if unet.cross_attention_dim != model.text_width:
        raise ModelError(
            f"In {folder}, the unet expects a text width of {unet.cross_attention_dim} and the text_encoder gives "
            f"{model.text_width}; they belong to different models."
        )
    if (unet.in_channels, unet.out_channels) != (vae.latent_channels, vae.latent_channels):
        raise ModelError(
            f"In {folder}, the unet takes {unet.in_channels} channels and the vae gives {vae.latent_channels}; "
            "a text-to-picture model is needed (not inpainting or depth)."
        )
    rows = model.text_encoders[0].module.config.vocab_size
    if len(model.tokenizer) > rows:
        raise ModelError(
            f"In {folder}, the tokenizer knows {len(model.tokenizer)} tokens and the text_encoder only {rows}; "
            "they belong to different models."
        )
    if model.prediction_type not in ("epsilon", "v_prediction"):
        raise ModelError(
            f"In {folder}, the scheduler's prediction_type is {model.prediction_type!r}; "
            "epsilon and v_prediction are known."
        )


def _hash(path: Path) -> str:
    """First 10 hex digits of the sha256 over the contents of the weight files that were read, in order of name."""
    digest = hashlib.sha256()
    for file in _weight_files(path):
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:10]
