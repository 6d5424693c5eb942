"""Builds picto, the embedded model, from nothing: tokenizer, VAE, text encoder and U-Net.

    python tools/train_picto.py all --work build/picto            # 2 CPU cores: see docs/picto.md for the time it took
    python tools/train_picto.py all --work build/picto --device cuda

Stages, whose results are kept in --work: ``vae`` learns pictures of a world wider than the U-Net's, ``unet`` learns
U-Net and text encoder on cached latents (a stopped one goes on where it was), and ``export`` writes the package data,
half precision, into src/tincture/models/picto/weights.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from tincture.models.picto import world

WEIGHTS = Path(__file__).parents[1] / "src" / "tincture" / "models" / "picto" / "weights"
MAX_TOKENS = 77
CLIP_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"

VAE_CONFIG = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (16, 32, 48, 64),
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 8,
    "sample_size": world.SIZE,
}
VAE_STYLES = ("outline", "frame", "sunset")
"""What the shipped VAE saw: the world's other styles came later, and it carries them untaught."""


# --- pictures --------------------------------------------------------------------------------------------------------


def wild_picture(rng: np.random.Generator) -> NDArray[np.uint8]:
    """A picture of the wider world: any colours, turned shapes, hatching, gradients, outlines, frames."""
    x, y = world.grid()

    def colour() -> world.Array:
        return rng.uniform(0.03, 0.98, size=3).astype(np.float32)

    def gradient(a: world.Array, b: world.Array) -> world.Array:
        angle = rng.uniform(0, 2 * np.pi)
        along = ((x - 32) * np.cos(angle) + (y - 32) * np.sin(angle)) / 64 + 0.5
        return world.blend(a, b, np.clip(along, 0, 1).astype(np.float32))

    picture = gradient(colour(), colour()) if rng.random() < 0.4 else np.broadcast_to(colour(), (64, 64, 3))
    for _ in range(int(rng.integers(1, 3))):
        radius, angle = rng.uniform(8, 23), rng.uniform(-0.6, 0.6) * (rng.random() < 0.5)
        cx, cy = rng.uniform(16, 48, size=2)
        dx, dy = (x - cx) / radius, (y - cy) / radius
        turned = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
        shape = list(world.SHAPES.values())[int(rng.integers(len(world.SHAPES)))]
        edge = (shape(*(part.astype(np.float32) for part in turned)) * radius).astype(np.float32)
        if rng.random() < 0.4:
            picture = world.blend(picture, colour(), world.coverage(edge - np.float32(rng.uniform(1, 4))))
        fill = gradient(colour(), colour()) if rng.random() < 0.3 else colour()
        picture = world.blend(picture, fill, world.coverage(edge))
        if rng.random() < 0.3:
            slope, period = rng.uniform(0, np.pi), rng.uniform(4, 10)
            lines = np.abs(((x * np.cos(slope) + y * np.sin(slope)) % period) - period / 2) - period * rng.uniform(
                0.15, 0.3
            )
            picture = world.blend(picture, colour(), world.coverage(edge) * world.coverage(lines.astype(np.float32)))
        elif rng.random() < 0.5:
            inside = world.coverage(edge + np.float32(1)) * world.marks(("striped", "dotted")[int(rng.integers(2))])
            picture = world.blend(picture, colour(), inside)
    if rng.random() < 0.15:
        width = rng.uniform(2, 6)
        border = np.maximum(np.abs(x - 32), np.abs(y - 32)) - np.float32(32 - width)
        picture = world.blend(picture, colour(), world.coverage(-border))
    return np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)


def vae_pictures(count: int, seed: int) -> torch.Tensor:
    """Half picto's world, three tenths in a style, two tenths the wider one: (count, 3, 64, 64) uint8."""
    rng = np.random.default_rng(seed)
    pictures = np.empty((count, 64, 64, 3), dtype=np.uint8)
    for index in range(count):
        if index % 10 < 2:
            pictures[index] = wild_picture(rng)
        else:
            styled = index % 10 >= 7
            style = VAE_STYLES[int(rng.integers(len(VAE_STYLES)))] if styled else "none"
            pictures[index] = world.render(world.random_scene(rng, style=style))
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()


def pixels(pictures: torch.Tensor, device: torch.device | str = "cpu") -> torch.Tensor:
    """uint8 0..255 to float -1..1."""
    return pictures.to(device).float() / 127.5 - 1


def batches(count: int, size: int, seed: int) -> Iterator[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(count, generator=generator)
        for start in range(0, count - size + 1, size):
            yield order[start : start + size]


def cosine(step: int, steps: int, peak: float, warmup: int = 200) -> float:
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (0.005 + 0.995 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))))


# --- tokenizer -------------------------------------------------------------------------------------------------------


def all_captions(count: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [caption(world.random_scene(rng), rng) for _ in range(count)]


def caption(scene: world.Scene, rng: np.random.Generator) -> str:
    """A way of saying ``scene``: mostly the plain caption, at times with parts left out, shuffled or introduced."""
    words = str(scene.subject).split()
    if rng.random() < 0.15:
        words = [word for word in words[:-1] if rng.random() < 0.7] + words[-1:]
    tags = scene.tags(" ".join(words))
    if rng.random() < 0.2:
        tags = [tag for tag in tags if rng.random() < 0.7] or tags[:1]
    if rng.random() < 0.25:
        rng.shuffle(tags)
    start = ("", "", "", "a picture of ", "a pictogram of ", "a drawing of ")[int(rng.integers(6))]
    return start + ", ".join(tags)


def train_tokenizer(folder: Path, captions: Iterable[str] | None = None, vocab_size: int = 2048) -> CLIPTokenizer:
    """CLIP's byte-pair encoding (lower case, end-of-word marks) learned from captions, in CLIP's own file layout.

    Without ``captions`` picto's are taken.

    All 256 bytes are in the vocabulary, alone and at a word's end, so any text has tokens.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(CLIP_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, end_of_word_suffix="</w>")
    tokenizer.train_from_iterator(all_captions(20000, seed=1) if captions is None else captions, trainer)
    merges = [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
    tokens = [*alphabet, *(letter + "</w>" for letter in alphabet), *("".join(pair) for pair in merges)]
    vocabulary = {
        token: index for index, token in enumerate([*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"])
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    settings = {
        **special,
        "pad_token": "<|endoftext|>",
        "model_max_length": MAX_TOKENS,
        "tokenizer_class": "CLIPTokenizer",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    return CLIPTokenizer.from_pretrained(folder)


# --- VAE -------------------------------------------------------------------------------------------------------------


def picture_loss(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Absolute error of the picture, of its edges, and of its 8x8 averages, where a colour shift weighs most."""
    error = (predicted - target).abs().mean()
    edges = (predicted.diff(dim=2) - target.diff(dim=2)).abs().mean() + (
        predicted.diff(dim=3) - target.diff(dim=3)
    ).abs().mean()
    coarse = (F.avg_pool2d(predicted, 8) - F.avg_pool2d(target, 8)).abs().mean()
    total: torch.Tensor = error + 0.5 * edges + coarse
    return total


class Muon(torch.optim.Optimizer):
    """Momentum whose update of every weight matrix is made orthogonal (Jordan et al. 2024), convolutions too.

    Autoencoders need several times fewer steps with it than with Adam. Scaled to Adam's usual update size
    (Liu et al. 2025, "Muon is scalable for LLM training", section 2.2).
    """

    def __init__(
        self, parameters: list[torch.nn.Parameter], lr: float, momentum: float = 0.95, iterations: int = 5
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "iterations": iterations})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                velocity = state.setdefault("velocity", torch.zeros_like(parameter))
                velocity.lerp_(parameter.grad, 1 - group["momentum"])
                matrix = parameter.grad.lerp(velocity, group["momentum"]).flatten(1)
                scale = 0.2 * max(matrix.shape) ** 0.5
                update = orthogonal(matrix, group["iterations"]).view_as(parameter)
                parameter.add_(update, alpha=-group["lr"] * scale)


def orthogonal(matrix: torch.Tensor, iterations: int = 5) -> torch.Tensor:
    """The nearest semi-orthogonal matrix, roughly: some Newton-Schulz steps of fifth order."""
    wide = matrix.shape[0] <= matrix.shape[1]
    x: torch.Tensor = matrix if wide else matrix.T
    x = x / (torch.linalg.vector_norm(x) + 1e-7)
    if x.shape[1] >= 3 * x.shape[0]:
        x = _whitening(x @ x.T, iterations) @ x
        return x if wide else x.T
    for _ in range(iterations):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x if wide else x.T


def _whitening(gram: torch.Tensor, iterations: int) -> torch.Tensor:
    """What the same steps multiply a matrix by, from its ``gram`` alone: cheaper for one far longer than high."""
    unit = torch.eye(len(gram), device=gram.device, dtype=gram.dtype)
    factor = unit
    for _ in range(iterations):
        step = 3.4445 * unit - 4.7750 * gram + 2.0315 * gram @ gram
        gram, factor = step @ gram @ step, step @ factor
    return factor


def vae_optimizers(vae: AutoencoderKL, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the inner weight matrices, Adam for biases, norms and the first and last layers."""
    inner: list[torch.nn.Parameter] = []
    outer: list[torch.nn.Parameter] = []
    for name, parameter in vae.named_parameters():
        if parameter.requires_grad:
            edge = any(part in name for part in ("conv_in", "conv_out", "quant_conv"))
            (outer if parameter.ndim < 2 or edge else inner).append(parameter)
    return [Muon(inner, lr=rate), torch.optim.AdamW(outer, lr=rate, betas=(0.9, 0.99), weight_decay=0.0)]


def crop(pictures: torch.Tensor, side: int) -> torch.Tensor:
    """A window of ``side`` pixels from each picture, on the 8-pixel grid and mostly near the middle, where things are.

    Most of a picture is empty: a window costs a quarter and teaches nearly as much.
    """
    offsets = torch.multinomial(torch.tensor([0.1, 0.25, 0.3, 0.25, 0.1]), 2 * len(pictures), replacement=True) * 8
    corners = zip(offsets[::2].tolist(), offsets[1::2].tolist(), strict=True)
    return torch.stack(
        [picture[:, y : y + side, x : x + side] for picture, (y, x) in zip(pictures, corners, strict=True)]
    )


def train_vae(args: argparse.Namespace, device: torch.device) -> None:
    torch.manual_seed(args.seed)
    vae = AutoencoderKL(**VAE_CONFIG)
    if args.start_from:
        vae.load_state_dict(torch.load(args.start_from, weights_only=True))
    vae.to(device).train()
    pictures = vae_pictures(args.vae_pictures, args.seed)
    print(f"vae: {len(pictures)} pictures drawn", flush=True)
    optimizers = vae_optimizers(vae, args.vae_rate)
    order = batches(len(pictures), args.vae_batch, args.seed + 7)
    spent, running = Stopwatch(), 0.0
    for step in range(args.vae_steps):
        chosen = pictures[next(order)]
        whole = step >= args.crop_share * args.vae_steps
        target = pixels(chosen if whole else crop(chosen, 32), device)
        loss = vae_loss(vae, target)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = cosine(step, args.vae_steps, args.vae_rate)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        running += loss.item()
        if (step + 1) % 250 == 0:
            print(f"vae {step + 1}/{args.vae_steps} loss {running / 250:.4f} {spent}", flush=True)
            running = 0.0
            torch.save(vae.state_dict(), args.work / "vae.partial.pt")
    torch.save(vae.state_dict(), args.work / "vae.pt")
    note(args, "vae", {"steps": args.vae_steps, **spent.read()})


def vae_loss(vae: AutoencoderKL, target: torch.Tensor, half: bool = True) -> torch.Tensor:
    """``half``: in half precision, which a processor without it only imitates, slowly."""
    with torch.autocast(target.device.type, torch.bfloat16, enabled=half):
        posterior = vae.encode(target).latent_dist
        mean = posterior.mean.float()
        # Noise of a twentieth of the latents' own spread: the decoder must forgive a U-Net's small errors.
        noise = torch.randn_like(mean) * (0.05 * mean.detach().std())
        predicted = vae.decode(mean + noise).sample.float()
    # A light pull to unit scale; the posterior's variance is pinned low, as nothing here samples from it.
    pull = 1e-3 * mean.square().mean() + 1e-4 * (posterior.logvar.float() + 8).square().mean()
    loss: torch.Tensor = picture_loss(predicted, target) + pull
    return loss


class Stopwatch:
    """Time on the clock and time of all threads on the processors, which says more where other work runs beside."""

    def __init__(self, seconds: float = 0.0, cpu_seconds: float = 0.0) -> None:
        self._start = time.monotonic() - seconds, time.process_time() - cpu_seconds

    def read(self) -> dict[str, float]:
        return {"seconds": time.monotonic() - self._start[0], "cpu_seconds": time.process_time() - self._start[1]}

    def __str__(self) -> str:
        return "{seconds:.0f} s, {cpu_seconds:.0f} s of processor".format(**self.read())


def note(args: argparse.Namespace, stage: str, figures: dict[str, float]) -> None:
    """Adds a stage's figures to build.json, which docs/picto.md quotes."""
    path = args.work / "build.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**known, stage: {**figures, "device": args.device}}, indent=2) + "\n")


# --- text encoder and U-Net ------------------------------------------------------------------------------------------

TEXT_WIDTH = 112
PLACE_TIMESTEP = 400
"""From here on a noisy picture does not show where its thing is."""
UNET_CONFIG = {
    "sample_size": world.SIZE // 8,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "block_out_channels": (96, 144, 128),
    "layers_per_block": 1,
    "cross_attention_dim": TEXT_WIDTH,
    "attention_head_dim": 4,
    "norm_num_groups": 16,
}
SCHEDULER_CONFIG = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "clip_sample": False,
    "steps_offset": 1,
}


def text_config(
    tokenizer: CLIPTokenizer, width: int = TEXT_WIDTH, layers: int = 3, expansion: int = 4
) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=expansion * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


@torch.no_grad()
def encode_world(args: argparse.Namespace, device: torch.device) -> tuple[torch.Tensor, float]:
    """Latent means of --pictures plain pictures, scaled to unit spread, and that scale."""
    vae = AutoencoderKL(**VAE_CONFIG)
    vae.load_state_dict(torch.load(args.work / "vae.pt", weights_only=True))
    vae.to(device).eval()
    means = []
    for start in range(0, args.pictures, 64):
        scenes = world_scenes(args)[start : start + 64]
        drawn = torch.from_numpy(np.stack([world.render(scene) for scene in scenes])).permute(0, 3, 1, 2)
        with torch.autocast(device.type, torch.bfloat16):
            means.append(vae.encode(pixels(drawn, device)).latent_dist.mean.float().cpu())
    latents = torch.cat(means)
    scale = 1.0 / latents.std().item()
    return latents * scale, scale


@functools.cache
def _scenes(count: int, seed: int) -> list[world.Scene]:
    rng = np.random.default_rng(seed)
    return [world.random_scene(rng) for _ in range(count)]


def world_scenes(args: argparse.Namespace) -> list[world.Scene]:
    return _scenes(args.pictures, args.seed + 100)


def train_unet(args: argparse.Namespace, device: torch.device) -> None:
    """Trains U-Net and text encoder together.

    Convolutions hardly see where they are. picto learned top from bottom by itself, but after 5,700 steps it still drew
    left and right by chance: what a change would gain is small where both are equally likely. For some steps, then, it
    sees only pictures of these two, noisy ones, half of them under their place alone. That breaks the tie for good.
    """
    cache = args.work / "latents.pt"
    if not cache.exists():
        latents, scale = encode_world(args, device)
        torch.save({"latents": latents, "scale": scale}, cache)
    stored = torch.load(cache, weights_only=True)
    latents = stored["latents"].to(device)
    tokenizer = train_tokenizer(args.work / "tokenizer")
    rng = np.random.default_rng(args.seed + 200)
    texts = [[caption(scene, rng) for _ in range(4)] + [scene.tags()[1]] for scene in world_scenes(args)]
    flat = [text for variants in texts for text in variants]
    ids = tokenizer(flat, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt").input_ids
    ids = ids.view(len(texts), 5, MAX_TOKENS).to(device)
    empty = tokenizer("", padding="max_length", max_length=MAX_TOKENS, return_tensors="pt").input_ids[0].to(device)
    sideways = [index for index, scene in enumerate(world_scenes(args)) if scene.position in ("left", "right")]
    print(f"unet: {len(latents)} latents, scale {stored['scale']:.4f}", flush=True)

    torch.manual_seed(args.seed + 300)
    unet = UNet2DConditionModel(**UNET_CONFIG).to(device).train()
    text_encoder = CLIPTextModel(text_config(tokenizer)).to(device).train()
    if args.unet_from:
        state = torch.load(args.unet_from, weights_only=True)
        torch.nn.ModuleDict({"unet": unet, "text_encoder": text_encoder}).load_state_dict(state)
    # With so few positions plain matrix products beat the fused kernel's backward pass on a CPU by far.
    unet.set_attn_processor(AttnProcessor())
    text_encoder.set_attn_implementation("eager")
    schedule = DDPMScheduler(**SCHEDULER_CONFIG)
    signal = schedule.alphas_cumprod.to(device)
    snr = signal / (1 - signal)
    # min-SNR, gamma 5, where there is little noise. Where there is much, the error of the clean picture counts, up to
    # threefold: there a thing's place is decided, which an error of the noise hardly shows.
    weight = snr.clamp(max=5) / snr * (1 / snr).clamp(1, 3)
    weight /= weight.mean()
    both = torch.nn.ModuleDict({"unet": unet, "text_encoder": text_encoder})
    parameters: list[torch.Tensor] = list(both.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    average = [p.detach().clone() for p in parameters]
    order = batches(len(latents), args.batch, args.seed + 400)
    first, spent = 0, Stopwatch()
    partial = args.work / "unet.partial.pt"
    if partial.exists():
        state = torch.load(partial, weights_only=True)
        both.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average = [tensor.detach().to(device) for tensor in state["average"]]
        first, spent = state["step"], Stopwatch(state["seconds"], state["cpu_seconds"])
        for _ in range(first):
            next(order)
    running = 0.0
    for step in range(first, args.unet_steps):
        optimizer.param_groups[0]["lr"] = cosine(step, args.unet_steps, args.unet_rate)
        chosen = next(order)
        variant, earliest = torch.randint(4, (len(chosen),)), 0
        if args.place_from <= step < args.place_from + args.place_steps:
            chosen = torch.tensor(sideways)[torch.randint(len(sideways), (len(chosen),))]
            variant, earliest = torch.where(torch.rand(len(chosen)) < 0.5, 4, variant), PLACE_TIMESTEP
        clean = latents[chosen.to(device)]
        tokens = ids[chosen, variant]
        tokens = torch.where((torch.rand(len(chosen), device=device) < 0.1)[:, None], empty, tokens)
        noise = torch.randn_like(clean)
        timesteps = torch.randint(earliest, 1000, (len(chosen),), device=device)
        noisy = schedule.add_noise(clean, noise, timesteps)
        with torch.autocast(device.type, torch.bfloat16):
            predicted = unet(noisy, timesteps, text_encoder(tokens).last_hidden_state).sample.float()
        error = (predicted - noise).square().mean(dim=(1, 2, 3))
        loss = (error * weight[timesteps]).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, parameters, 1 - min(0.998, (1 + step) / (10 + step)))
        running += error.mean().item()
        if (step + 1) % 100 == 0:
            print(f"unet {step + 1}/{args.unet_steps} loss {running / 100:.4f} {spent}", flush=True)
            running = 0.0
            if (step + 1) % 300 == 0:
                state = {"model": both.state_dict(), "optimizer": optimizer.state_dict(), "average": average}
                torch.save({**state, "step": step + 1, **spent.read()}, partial.with_suffix(".tmp"))
                partial.with_suffix(".tmp").rename(partial)
    with torch.no_grad():
        for parameter, averaged in zip(parameters, average, strict=True):
            parameter.copy_(averaged)
    torch.save(both.state_dict(), args.work / "unet.pt")
    note(args, "unet", {"steps": args.unet_steps, **spent.read()})


# --- package data ----------------------------------------------------------------------------------------------------


def export(args: argparse.Namespace) -> None:
    """Writes what is there as a diffusers folder, half precision: a partial build can be looked at too."""
    vae = AutoencoderKL(**VAE_CONFIG, scaling_factor=torch.load(args.work / "latents.pt", weights_only=True)["scale"])
    vae.load_state_dict(torch.load(args.work / "vae.pt", weights_only=True))
    tokenizer = train_tokenizer(WEIGHTS / "tokenizer")
    unet, text_encoder = UNet2DConditionModel(**UNET_CONFIG), CLIPTextModel(text_config(tokenizer))
    both = torch.nn.ModuleDict({"unet": unet, "text_encoder": text_encoder})
    if (args.work / "unet.pt").exists():
        both.load_state_dict(torch.load(args.work / "unet.pt", weights_only=True))
    else:
        take_average(both, args.work)
    write_folder(WEIGHTS, "picto", SCHEDULER_CONFIG, vae=vae, unet=unet, text_encoder=text_encoder)


def take_average(both: torch.nn.Module, work: Path) -> None:
    """Gives U-Net and text encoder the averages that their training in ``work`` has come to."""
    average = torch.load(work / "unet.partial.pt", weights_only=True)["average"]
    with torch.no_grad():
        for parameter, averaged in zip(both.parameters(), average, strict=True):
            parameter.copy_(averaged)


def write_folder(folder: Path, name: str, scheduler_config: dict[str, Any], **parts: Any) -> None:
    """Writes a diffusers folder whose tokenizer is there already, with ``parts`` in half precision; says its size."""
    for component, part in parts.items():
        save_half(part, folder / component)
    DDPMScheduler(**scheduler_config).save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "DDPMScheduler"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{name}: {size / 2**20:.1f} MiB in {folder}")


def save_half(part: Any, folder: Path) -> None:
    """Writes weights in half precision, and a configuration that has them loaded in float32.

    transformers loads in the precision that the configuration names, and who trains in float16 gets NaN.
    """
    part.half().save_pretrained(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    if "dtype" in config:
        path.write_text(json.dumps({**config, "dtype": "float32"}, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["all", "vae", "unet", "export"])
    parser.add_argument("--work", type=Path, default=Path("build/picto"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--vae-pictures", type=int, default=24000)
    parser.add_argument("--vae-steps", type=int, default=12000)
    parser.add_argument("--crop-share", type=float, default=0.7, help="share of the VAE's steps on windows of pictures")
    parser.add_argument("--start-from", type=Path, help="a VAE to go on from")
    parser.add_argument("--vae-batch", type=int, default=16)
    parser.add_argument("--vae-rate", type=float, default=2e-3)
    parser.add_argument("--pictures", type=int, default=30000)
    parser.add_argument("--unet-steps", type=int, default=9000)
    parser.add_argument("--unet-from", type=Path, help="U-Net and text encoder to go on from")
    parser.add_argument("--place-from", type=int, default=3000, help="step at which left and right are taught alone")
    parser.add_argument("--place-steps", type=int, default=300, help="how many steps that takes; 0: not at all")
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--unet-rate", type=float, default=1e-3)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    device = torch.device(args.device)
    stages = ["vae", "unet", "export"] if args.stage == "all" else [args.stage]
    for stage in stages:
        if args.stage == "all" and (args.work / f"{stage}.pt").exists():
            print(f"{stage}: kept, {args.work / stage}.pt is there")
        elif stage == "unet":
            train_unet(args, device)
        elif stage == "export":
            export(args)
        else:
            train_vae(args, device)


if __name__ == "__main__":
    main()
