"""Trains moji, an embedded model of real drawings, on one processor core, over as many sittings as it takes.

    python tools/drawings.py fetch --work build/moji
    python tools/moji_vae.py train --work build/moji --minutes 10
    python tools/train_moji.py latents --work build/moji     # every drawing in some of its scenes, encoded once
    python tools/train_moji.py train --work build/moji       # goes on where it was; SIGTERM has it stop and save
    python tools/train_moji.py decay --work build/moji --steps 600  # while it trains: the rate falls, then it ends
    python tools/train_moji.py export --work build/moji      # a diffusers folder, half precision: build/moji/model
    python tools/train_moji.py restore --work build/moji     # in place of training a VAE: what stands in tools/moji

Every draw is keyed by seed and step, and the rate is a function of the step and of what ``decay`` wrote, so that a
training that was stopped makes the same steps as one that was not.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from tincture.formats.files import write_atomically, write_text

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # when run as a program
from tools import drawings, moji_vae
from tools import train_picto as picto
from tools.drawings import BACKGROUNDS, PLACES, Scene

EXPORTED = Path(__file__).parent / "moji"
"""What earlier sittings came to, as a folder of diffusers in half precision. It is no model that Tincture has."""
TAKEN = "training.json"
"""Its steps, and the seconds that they took."""
TEXT_WIDTH = 192
TOKENS = 20
"""How much of a prompt is computed in training: captions are shorter. See ``long_ends``."""
UNET_CONFIG: dict[str, Any] = {
    **picto.UNET_CONFIG,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (32, 96, 176),
    "cross_attention_dim": TEXT_WIDTH,
}
SCHEDULER_CONFIG = {**picto.SCHEDULER_CONFIG, "prediction_type": "v_prediction"}


def text_config(tokenizer: CLIPTokenizer, width: int = TEXT_WIDTH) -> CLIPTextConfig:
    return picto.text_config(tokenizer, width, layers=2, expansion=2)


# --- what is learned from --------------------------------------------------------------------------------------------


def scenes(subjects: Sequence[str], variants: int, seed: int) -> list[Scene]:
    """``variants`` scenes of each subject in each style: every place as often as another but the large one, which
    comes as often as two; backgrounds in turn."""
    rng = np.random.default_rng(seed)
    places = (PLACES[0], *PLACES)
    found = []
    for subject in subjects:
        for style in drawings.STYLES:
            order = rng.permutation(len(places)), rng.permutation(len(BACKGROUNDS))
            for variant in range(variants):
                size, position = places[int(order[0][variant % len(places)])]
                background = list(BACKGROUNDS)[int(order[1][variant % len(BACKGROUNDS)])]
                found.append(Scene(subject, style, size, position, background))
    return found


def captions(scene: Scene, rng: np.random.Generator) -> list[str]:
    """The whole caption and three with other parts left out."""
    parts = ("style", "size", "position", "background")
    return [drawings.caption(scene)] + [
        drawings.caption(scene, [part for part in parts if rng.random() < 0.4]) for _ in range(3)
    ]


@dataclass(frozen=True)
class Lessons:
    """Scaled latents (scenes, 4, 8, 8) and the tokens of four captions each (scenes, 4, TOKENS)."""

    latents: torch.Tensor
    tokens: torch.Tensor
    empty: torch.Tensor


@torch.no_grad()
def encode(args: argparse.Namespace) -> None:
    """Writes the latents of all scenes, half precision, and the scale that gives them unit spread."""
    sets, names = drawings.read_sets(args.work)
    (args.work / "subjects.json").write_text(json.dumps({"seen": names.seen, "held_out": names.held_out}, indent=1))
    vae = moji_vae.load(args.work / "vae.pt").eval()
    all_scenes = scenes(names.seen, args.variants, args.seed)
    means, start = [], time.monotonic()
    for first in range(0, len(all_scenes), 32):
        some = all_scenes[first : first + 32]
        drawn = [drawings.draw(scene, sets[scene.style][scene.subject]) for scene in some]
        means.append(vae.encode(moji_vae.batch_of(drawn)).latent_dist.mean)
    latents = torch.cat(means)
    scale = 1.0 / latents.std().item()
    found = {"latents": (latents * scale).half(), "scale": scale, "variants": args.variants}
    write(found, args.work / "latents.pt")
    print(f"{len(latents)} latents, scale {scale:.4f}, {time.monotonic() - start:.0f} s", flush=True)


def tokenizer_of(work: Path, texts: Sequence[str]) -> CLIPTokenizer:
    """Every word of a caption is one token; any other text can be written with bytes."""
    folder = work / "tokenizer"
    if folder.exists():
        return CLIPTokenizer.from_pretrained(folder)
    return picto.train_tokenizer(folder, texts, vocab_size=16384)


def tokens_of(tokenizer: CLIPTokenizer, texts: Sequence[str], length: int = TOKENS) -> torch.Tensor:
    encoded: list[list[int]] = tokenizer(list(texts), padding="max_length", max_length=length).input_ids
    longest = max(len(ids) for ids in encoded)
    if longest > length:
        raise ValueError(f"a caption has {longest} tokens, {length} at most are trained; raise TOKENS")
    return torch.tensor(encoded)


def read_lessons(args: argparse.Namespace) -> tuple[Lessons, CLIPTokenizer]:
    stored = torch.load(args.work / "latents.pt", weights_only=True)
    subjects = json.loads((args.work / "subjects.json").read_text())["seen"]
    rng = np.random.default_rng(args.seed + 1)
    texts = [captions(scene, rng) for scene in scenes(subjects, stored["variants"], args.seed)]
    flat = [text for variants in texts for text in variants]
    tokenizer = tokenizer_of(args.work, flat)
    tokens = tokens_of(tokenizer, flat).view(len(texts), 4, TOKENS)
    return Lessons(stored["latents"].float(), tokens, tokens_of(tokenizer, [""])[0]), tokenizer


# --- training --------------------------------------------------------------------------------------------------------


def rate_share(step: int, warmup: int, decay: tuple[int, int] | None) -> float:
    """The share of the peak rate: it climbs for ``warmup`` steps, stays, and falls to 0 over the steps of ``decay``,
    which says from which step on and over how many."""
    share = min(1.0, (step + 1) / warmup)
    if decay is not None:
        start, steps = decay
        share *= min(1.0, max(0.0, 1 - (step - start) / steps))
    return share


def read_decay(work: Path, step: int) -> tuple[int, int] | None:
    """What ``decay`` wrote, if it did: from which step on and over how many the rate falls.

    One that begins now begins with ``step``, which is then written down for later sittings.
    """
    path = work / "decay.json"
    if not path.exists():
        return None
    known = json.loads(path.read_text())
    if known["from"] is None:
        known["from"] = step
        write_text(path, json.dumps(known))
    return known["from"], known["steps"]


def long_ends(batch: int, length: int = TOKENS) -> torch.Tensor:
    """A mask of the prompt for the U-Net, under which its last token weighs as all that it stands for.

    Prompts are 77 tokens long and end in many end-of-text tokens, which cost far more than the caption. One of them,
    with the logarithm of their number added to what attention makes of it, is nearly as good. diffusers takes
    (1 - mask) * -10000 for what is added.
    """
    mask = torch.ones(batch, length)
    mask[:, -1] += math.log(picto.MAX_TOKENS - length + 1) / 10000
    return mask


class Training:
    """Networks, optimizers and average, which make the same steps whether stopped in between or not."""

    def __init__(self, unet: UNet2DConditionModel, text_encoder: CLIPTextModel, settings: argparse.Namespace) -> None:
        self.unet, self.text_encoder, self.settings = unet, text_encoder, settings
        # With so few positions plain matrix products beat the fused kernel's backward pass on a CPU.
        unet.set_attn_processor(AttnProcessor())
        text_encoder.set_attn_implementation("eager")
        self.both = torch.nn.ModuleDict({"unet": unet, "text_encoder": text_encoder}).train()
        self.parameters: list[torch.Tensor] = list(self.both.parameters())
        inner: list[torch.nn.Parameter] = []
        outer: list[torch.nn.Parameter] = []
        words: list[torch.nn.Parameter] = []
        for name, parameter in self.both.named_parameters():
            edge = any(part in name for part in ("conv_in", "conv_out", "position_embedding", "time_embedding"))
            chosen = words if "token_embedding" in name else outer if edge or parameter.ndim < 2 else inner
            chosen.append(parameter)
        # A subject's words come once in hundreds of pictures: they learn faster than what every picture teaches.
        self.optimizers: list[torch.optim.Optimizer] = [
            picto.Muon(inner, lr=settings.rate, iterations=settings.muon_iterations),
            torch.optim.AdamW(outer, lr=settings.rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True),
            torch.optim.AdamW(words, lr=settings.word_rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True),
        ]
        self.peaks = [optimizer.param_groups[0]["lr"] for optimizer in self.optimizers]
        self.average = [p.detach().clone() for p in self.parameters]
        self.step = 0
        self.signal = DDPMScheduler(**SCHEDULER_CONFIG).alphas_cumprod
        self.predict: Any = torch.compile(unet) if settings.compile else unet

    def loss(self, lessons: Lessons) -> torch.Tensor:
        """The error of the velocity in this step's batch; a third of it is drawn where there is much noise, since
        there a prompt must become a picture."""
        size = self.settings.batch
        rng = torch.Generator().manual_seed(self.settings.seed * 1_000_003 + self.step)
        chosen = torch.randint(len(lessons.latents), (size,), generator=rng)
        whole = torch.rand(size, generator=rng) < 0.8
        variant = torch.where(whole, 0, torch.randint(1, 4, (size,), generator=rng))
        tokens = lessons.tokens[chosen, variant]
        dropped = torch.rand(size, generator=rng) < 0.08
        tokens = torch.where(dropped[:, None], lessons.empty, tokens)
        earliest = (torch.rand(size, generator=rng) < 1 / 3) * 600
        timesteps = earliest + (torch.rand(size, generator=rng) * (1000 - earliest)).long()
        clean = lessons.latents[chosen]
        noise = torch.randn(clean.shape, generator=rng)
        signal = self.signal[timesteps].view(-1, 1, 1, 1)
        noisy = signal.sqrt() * clean + (1 - signal).sqrt() * noise
        target = signal.sqrt() * noise - (1 - signal).sqrt() * clean
        hidden = self.text_encoder(tokens).last_hidden_state
        mask = long_ends(size, tokens.shape[1])
        predicted = self.predict(noisy, timesteps, hidden, encoder_attention_mask=mask).sample
        loss: torch.Tensor = (predicted - target).square().mean()
        return loss

    def advance(self, lessons: Lessons, decay: tuple[int, int] | None = None) -> float:
        """One step; its loss."""
        share = rate_share(self.step, self.settings.warmup, decay)
        loss = self.loss(lessons)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimizer, peak in zip(self.optimizers, self.peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * share
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            keep = min(0.995, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - keep)
        self.step += 1
        return loss.item()

    def state(self) -> dict[str, Any]:
        return {
            "model": self.both.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "average": self.average,
            "step": self.step,
        }

    def load(self, state: dict[str, Any]) -> None:
        self.both.load_state_dict(state["model"])
        if state["optimizers"]:  # those of a model that was exported begin anew
            for optimizer, known in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(known)
        self.average = [tensor.detach().clone() for tensor in state["average"]]
        self.step = state["step"]


def write(state: dict[str, Any], path: Path) -> None:
    write_atomically(path, lambda file: torch.save(state, file))


def train(args: argparse.Namespace) -> None:
    lessons, tokenizer = read_lessons(args)
    torch.manual_seed(args.seed)
    text_encoder = CLIPTextModel(text_config(tokenizer))
    torch.nn.init.normal_(text_encoder.get_input_embeddings().weight, std=0.1)
    unet = UNet2DConditionModel(**UNET_CONFIG)
    training = Training(unet, text_encoder, args)
    weights = [sum(p.numel() for p in part.parameters()) / 1e6 for part in (unet, text_encoder)]
    print(f"{len(lessons.latents)} latents, U-Net {weights[0]:.2f} M, text encoder {weights[1]:.2f} M", flush=True)
    path, spent, losses = args.work / "unet.partial.pt", picto.Stopwatch(), []
    if path.exists():
        state = torch.load(path, weights_only=True)
        training.load(state)
        spent = picto.Stopwatch(state["seconds"], state["cpu_seconds"])
    saved, stop = time.monotonic(), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    while not stop.is_set() and ((decay := read_decay(args.work, training.step)) is None or training.step < sum(decay)):
        losses.append(training.advance(lessons, decay))
        if training.step % 50 == 0:
            print(f"unet {training.step} loss {sum(losses) / len(losses):.4f} {spent}", flush=True)
            losses = []
        if time.monotonic() - saved > args.save_every:
            write({**training.state(), **spent.read()}, path)
            saved = time.monotonic()
    write({**training.state(), **spent.read()}, path)
    print(f"unet: {'stopped' if stop.is_set() else 'done'}, {training.step} steps, {spent}", flush=True)


def begin_decay(args: argparse.Namespace) -> None:
    """Tells the training that goes on (or the next one) to let the rate fall over ``--steps`` steps."""
    write_text(args.work / "decay.json", json.dumps({"from": args.start, "steps": args.steps}))


# --- the model as a folder -------------------------------------------------------------------------------------------


def load_average(work: Path) -> tuple[UNet2DConditionModel, CLIPTextModel, CLIPTokenizer]:
    """What the training has come to, averaged; positions beyond TOKENS are those of the last one."""
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    unet, text_encoder = UNet2DConditionModel(**UNET_CONFIG), CLIPTextModel(text_config(tokenizer))
    both = torch.nn.ModuleDict({"unet": unet, "text_encoder": text_encoder}).eval()
    picto.take_average(both, work)
    with torch.no_grad():
        for name, parameter in text_encoder.named_parameters():
            if "position_embedding" in name:
                parameter[TOKENS:] = parameter[TOKENS - 1]
    return unet, text_encoder, tokenizer


def export(args: argparse.Namespace) -> None:
    folder: Path = args.model or args.work / "model"
    scale = torch.load(args.work / "latents.pt", weights_only=True)["scale"]
    vae = AutoencoderKL(**picto.VAE_CONFIG, scaling_factor=scale)
    vae.load_state_dict(torch.load(args.work / "vae.pt", weights_only=True))
    unet, text_encoder, tokenizer = load_average(args.work)
    tokenizer.save_pretrained(folder / "tokenizer")
    picto.write_folder(folder, "moji", SCHEDULER_CONFIG, vae=vae, unet=unet, text_encoder=text_encoder)
    state = torch.load(args.work / "unet.partial.pt", weights_only=True, mmap=True)
    (folder / TAKEN).write_text(json.dumps({name: state[name] for name in ("step", "seconds", "cpu_seconds")}) + "\n")


def restore(args: argparse.Namespace) -> None:
    """Makes of an exported folder what ``train`` goes on from: VAE, tokenizer, weights and step, in ``work``.

    What the optimizers had gathered is not there: they begin anew.
    """
    folder, path = args.model or EXPORTED, args.work / "unet.partial.pt"
    if path.exists():
        sys.exit(f"{path} is there already; name another folder with --work, or remove it to begin from {folder}.")
    write(AutoencoderKL.from_pretrained(folder / "vae").float().state_dict(), args.work / "vae.pt")
    CLIPTokenizer.from_pretrained(folder / "tokenizer").save_pretrained(args.work / "tokenizer")
    unet = UNet2DConditionModel.from_pretrained(folder / "unet").float()
    text_encoder = CLIPTextModel.from_pretrained(folder / "text_encoder").float()
    both = torch.nn.ModuleDict({"unet": unet, "text_encoder": text_encoder})
    average = [parameter.detach() for parameter in both.parameters()]
    taken = json.loads((folder / TAKEN).read_text())
    write({"model": both.state_dict(), "optimizers": [], "average": average, **taken}, path)
    print(f"moji: {taken['step']} steps from {folder}; go on with latents and train")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["latents", "train", "decay", "export", "restore"])
    parser.add_argument("--work", type=Path, default=Path("build/moji"))
    parser.add_argument(
        "--model",
        type=Path,
        help="export: the folder that is made, WORK/model if not given; restore: that is read, tools/moji if not given",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--variants", type=int, default=7, help="scenes of each drawing")
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--word-rate", type=float, default=5e-3)
    parser.add_argument("--warmup", type=int, default=50)
    parser.add_argument("--muon-iterations", type=int, default=3)
    parser.add_argument("--save-every", type=float, default=240, help="seconds between states")
    parser.add_argument(
        "--compile", action="store_true", help="fuses the U-Net's small operations; needs a C++ compiler"
    )
    parser.add_argument(
        "--from", dest="start", type=int, help="decay: the step from which on the rate falls, now if not given"
    )
    parser.add_argument("--steps", type=int, default=600, help="decay: over how many steps")
    args = parser.parse_args()
    torch.set_num_threads(1)
    stages = {"latents": encode, "train": train, "decay": begin_decay, "export": export, "restore": restore}
    stages[args.stage](args)


if __name__ == "__main__":
    main()
