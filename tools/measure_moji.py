"""Draws with moji as far as it is trained, and measures what it drew by the reader.

python tools/measure_moji.py sheet --work build/moji                 # seen subjects beside their drawings
python tools/measure_moji.py measure --work build/moji --count 500   # shares over prompts of seen subjects
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # when run as a program
from tools import drawing_reader, drawings, moji_vae, train_moji
from tools import train_picto as picto
from tools.drawings import Pixels, Scene


class Artist:
    """Draws captions by DDIM with guidance; ``length`` tokens of a prompt are computed, 77 as others do it."""

    def __init__(self, work: Path, length: int = picto.MAX_TOKENS) -> None:
        self.unet, self.text_encoder, self.tokenizer = train_moji.load_average(work)
        stored = torch.load(work / "latents.pt", weights_only=True)
        self.vae: AutoencoderKL = moji_vae.load(work / "vae.pt").eval()
        self.scale, self.length = stored["scale"], length

    @torch.no_grad()
    def draw(self, captions: Sequence[str], steps: int, guidance: float, seed: int) -> list[Pixels]:
        """Pictures (64, 64, 3). That of a caption depends on its place in the list."""
        found: list[Pixels] = []
        generator = torch.Generator().manual_seed(seed)
        for first in range(0, len(captions), 32):
            latents = self._latents(captions[first : first + 32], steps, guidance, generator)
            found += moji_vae.pictures_of(self.vae.decode(latents / self.scale).sample)
        return found

    def _latents(self, texts: Sequence[str], steps: int, guidance: float, generator: torch.Generator) -> torch.Tensor:
        tokens = train_moji.tokens_of(self.tokenizer, [*texts, *[""] * len(texts)], self.length)
        hidden = self.text_encoder(tokens).last_hidden_state
        mask = train_moji.long_ends(len(tokens), self.length)
        scheduler = DDIMScheduler(**train_moji.SCHEDULER_CONFIG, set_alpha_to_one=False)
        scheduler.set_timesteps(steps)
        latents = torch.randn((len(texts), 4, 8, 8), generator=generator)
        for timestep in scheduler.timesteps:
            both = self.unet(torch.cat([latents, latents]), timestep, hidden, encoder_attention_mask=mask).sample
            wanted, unwanted = both.chunk(2)
            latents = scheduler.step(unwanted + guidance * (wanted - unwanted), timestep, latents).prev_sample
        return latents


def sheet(args: argparse.Namespace, artist: Artist, seen: Sequence[str]) -> None:
    """Three rows of two: what the drawings are, and what was drawn for the same words."""
    sets = {style: drawings.read_set(args.work, style) for style in drawings.STYLES}
    rows = []
    for index, scenes in enumerate(sheet_scenes(seen, args.seed)):
        rows.append([drawings.draw(scene, sets[scene.style][scene.subject]) for scene in scenes])
        rows.append(artist.draw([drawings.caption(s) for s in scenes], args.steps, args.guidance, args.seed + index))
    drawings.sheet(rows).save(args.out or args.work / "drawn.png")


def sheet_scenes(seen: Sequence[str], seed: int, columns: int = 12) -> list[list[Scene]]:
    """The same subjects in each style, large, and others in the first style wherever they may stand."""
    rng = np.random.default_rng(seed)
    backgrounds = list(drawings.BACKGROUNDS)
    subjects = [str(name) for name in rng.choice(seen, columns, replace=False)]
    large = [
        [Scene(name, style, background=backgrounds[i % len(backgrounds)]) for i, name in enumerate(subjects)]
        for style in drawings.STYLES
    ]
    return [*large, drawings.random_scenes(seen, drawings.STYLES, columns, seed)]


def measure(args: argparse.Namespace, artist: Artist, seen: Sequence[str]) -> None:
    start = time.process_time()
    sets, names = drawings.read_sets(args.work)
    scenes = drawings.random_scenes(seen, drawings.STYLES, args.count, args.seed + 10)
    pictures = artist.draw([drawings.caption(scene) for scene in scenes], args.steps, args.guidance, args.seed)
    reader = drawing_reader.Reader(sets, names.all)
    readings = reader.read(pictures)
    figures: dict[str, Any] = {"all": drawing_reader.shares(scenes, readings)}
    for size in ("large", "small"):
        chosen = [i for i, scene in enumerate(scenes) if scene.size == size]
        some = drawing_reader.shares([scenes[i] for i in chosen], [readings[i] for i in chosen])
        figures[size] = {"pictures": len(chosen), **some}
    settings = {"pictures": args.count, "steps": args.steps, "guidance": args.guidance, "tokens": artist.length}
    figures["settings"] = {**settings, "cpu_seconds": round(time.process_time() - start)}
    print(json.dumps(figures, indent=2))
    (args.work / "measured.json").write_text(json.dumps(figures, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["sheet", "measure"])
    parser.add_argument("--work", type=Path, default=Path("build/moji"))
    parser.add_argument("--out", type=Path, help="sheet: where it is written")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--tokens", type=int, default=picto.MAX_TOKENS, help="how much of a prompt is computed")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    seen = json.loads((args.work / "subjects.json").read_text())["seen"]
    {"sheet": sheet, "measure": measure}[args.command](args, Artist(args.work, args.tokens), seen)


if __name__ == "__main__":
    main()
