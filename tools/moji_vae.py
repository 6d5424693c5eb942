"""The VAE of moji: picto's, trained on with real drawings.

    python tools/moji_vae.py train --work build/moji --minutes 10
    python tools/moji_vae.py measure --work build/moji           # on subjects that were never seen

It learns by the clock: the rate falls with the share of --minutes that is over, in seconds of processor time.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from tincture.models.picto import world

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # when run as a program
from tools import drawings
from tools.drawings import Pixels
from tools.train_picto import VAE_CONFIG, WEIGHTS, cosine, pixels, vae_loss, vae_optimizers

SIDES = (32, 40, 48, 56, 64)


def wild(rng: np.random.Generator, svgs: Sequence[str], count: int) -> torch.Tensor:
    """Drawings at any of SIDES, anywhere, half of them on a named background: (count, 3, 64, 64) uint8."""
    pictures = np.empty((count, world.SIZE, world.SIZE, 3), dtype=np.uint8)
    named = list(drawings.BACKGROUNDS.values())
    for index in range(count):
        side = SIDES[int(rng.integers(len(SIDES)))]
        x, y = rng.integers(-4, drawings.SIZE - side + 5, size=2)
        colour = named[int(rng.integers(len(named)))] if rng.random() < 0.5 else rng.integers(0, 256, size=3)
        drawn = drawings.render(svgs[int(rng.integers(len(svgs)))], side)
        pictures[index] = drawings.compose(drawn, (int(x), int(y)), (int(colour[0]), int(colour[1]), int(colour[2])))
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()


def window(pictures: torch.Tensor, side: int, rng: np.random.Generator) -> torch.Tensor:
    """A window of ``side`` pixels from each picture, anywhere on the grid of 8."""
    corners = rng.integers(0, (drawings.SIZE - side) // 8 + 1, size=(len(pictures), 2)) * 8
    return torch.stack([p[:, y : y + side, x : x + side] for p, (x, y) in zip(pictures, corners.tolist(), strict=True)])


def batch_of(pictures: Sequence[Pixels]) -> torch.Tensor:
    """Pictures (64, 64, 3) as the VAE takes them: (count, 3, 64, 64) in -1..1."""
    return pixels(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous())


def pictures_of(decoded: torch.Tensor) -> list[Pixels]:
    """What the VAE gives, (count, 3, 64, 64), as pictures (64, 64, 3)."""
    return list(((decoded.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())


def load(path: Path | None) -> AutoencoderKL:
    """picto's VAE, or the one whose weights ``path`` holds."""
    if path is None:
        return AutoencoderKL.from_pretrained(WEIGHTS / "vae")
    vae = AutoencoderKL(**VAE_CONFIG)
    vae.load_state_dict(torch.load(path, weights_only=True))
    return vae


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    sets, names = drawings.read_sets(args.work)
    svgs = [sets[style][name] for style in drawings.STYLES for name in names.seen]
    vae = load(args.start_from).float().train()
    optimizers = vae_optimizers(vae, args.rate)
    rng = np.random.default_rng(args.seed)
    start, clock, spent, step, running = time.process_time(), time.monotonic(), 0.0, 0, 0.0
    while spent < args.minutes * 60:
        share = spent / (args.minutes * 60)
        pictures = pixels(wild(rng, svgs, args.batch))
        target = window(pictures, 32, rng) if share < args.window_share else pictures[: args.batch // 2]
        loss = vae_loss(vae, target, half=False)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = cosine(int(share * 10000), 10000, args.rate)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        running += loss.item()
        step += 1
        spent = time.process_time() - start
        if step % 100 == 0:
            clocked = time.monotonic() - clock
            print(f"vae {step} loss {running / 100:.4f} {clocked:.0f} s, {spent:.0f} s of processor", flush=True)
            running = 0.0
            torch.save(vae.state_dict(), args.work / "vae.partial.pt")
    torch.save(vae.state_dict(), args.work / "vae.pt")
    figures = {"steps": step, "seconds": time.monotonic() - clock, "cpu_seconds": spent}
    (args.work / "vae.json").write_text(json.dumps(figures, indent=2) + "\n")


# --- measuring -------------------------------------------------------------------------------------------------------


def ssim(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Mean structural similarity of each pair of pictures in 0..1, windows of 7×7 pixels: (batch,)."""

    def mean(x: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(x, 7, stride=1)

    mean_a, mean_b = mean(a), mean(b)
    spread_a, spread_b = mean(a * a) - mean_a.square(), mean(b * b) - mean_b.square()
    shared = mean(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    top = (2 * mean_a * mean_b + c1) * (2 * shared + c2)
    return (top / ((mean_a.square() + mean_b.square() + c1) * (spread_a + spread_b + c2))).mean(dim=(1, 2, 3))


@torch.no_grad()
def measure(args: argparse.Namespace) -> None:
    """SSIM and mean absolute error of colour, of 255, for held-out subjects in each set, large and small."""
    sets, names = drawings.read_sets(args.work)
    path = args.work / "vae.pt"
    vae = load(path if path.exists() else args.work / "vae.partial.pt").eval()
    rows, figures = [], {}
    for style, bodies in sets.items():
        for size in ("large", "small"):
            pictures = []
            for index, name in enumerate(names.held_out):
                background = list(drawings.BACKGROUNDS)[index % len(drawings.BACKGROUNDS)]
                position = "in the center" if size == "large" else list(drawings.OFFSETS)[index % len(drawings.OFFSETS)]
                scene = drawings.Scene(name, style, size, position, background)
                pictures.append(drawings.draw(scene, bodies[name]))
            given = batch_of(pictures)
            came = vae.decode(vae.encode(given).latent_dist.mean).sample.clamp(-1, 1)
            a, b = (given + 1) / 2, (came + 1) / 2
            figures[f"{style}, {size}"] = {
                "ssim": round(ssim(a, b).mean().item(), 4),
                "colour": round((a - b).abs().mean().item() * 255, 2),
            }
            rows += [pictures[:16], pictures_of(came[:16])]
    print(json.dumps(figures, indent=2))
    (args.work / "vae_measured.json").write_text(json.dumps(figures, indent=2) + "\n")
    drawings.sheet(rows).save(args.work / "vae.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["train", "measure"])
    parser.add_argument("--work", type=Path, default=Path("build/moji"))
    parser.add_argument("--minutes", type=float, default=10, help="of processor time")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--window-share", type=float, default=0.7, help="share of the time on windows of 32 pixels")
    parser.add_argument("--start-from", type=Path, help="weights to go on from, if not picto's")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.command == "train":
        train(args)
    else:
        measure(args)


if __name__ == "__main__":
    main()
