"""Reads a drawing's subject, style, position and background back from a picture, by the nearest rendering.

    python tools/drawing_reader.py check --work build/moji    # how often it is right: renderings, and through the VAE

Nothing in it is learned: like picto's oracle it knows the renderer. The background is what most of the picture's rim
shows. Of all drawings of all sets at all places, on that background, the nearest at 16×16 pixels are taken, and of
these the nearest at 32×32, moved by up to two pixels: blurred pictures are told apart by what is left of them. The
sets that pretraining never sees are known too.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # when run as a program
from tools import drawings, moji_vae
from tools.drawings import BACKGROUNDS, PLACES, SIZE, Bodies, Pixels, Scene

CANDIDATES = 48
SHIFTS = tuple((x, y) for x in (-2, 0, 2) for y in (-2, 0, 2))


@dataclass(frozen=True)
class Reading:
    """What a picture shows. ``subjects`` are the five likeliest, the first in the style and place that were read;
    ``distance`` is the root mean square difference to the nearest rendering, of 255."""

    subjects: tuple[str, ...]
    style: str
    size: str
    position: str
    background: str
    distance: float


@dataclass(frozen=True)
class _Templates:
    """Drawings at one resolution: colours times alpha (templates, 3, side²) and alpha (templates, side²)."""

    colours: torch.Tensor
    alpha: torch.Tensor

    def distances(self, pictures: torch.Tensor, backgrounds: torch.Tensor) -> torch.Tensor:
        """Mean square differences (pictures, templates), each template on the background of the picture."""
        offset = pictures - backgrounds[:, :, None]  # what a template adds: its colours less what it covers
        flat, colours = offset.flatten(1), self.colours.flatten(1)
        covered = torch.einsum("bcp,tp->btc", offset, self.alpha)
        overlap = torch.einsum("tcp,tp->tc", self.colours, self.alpha)
        square = colours.square().sum(dim=1) - 2 * backgrounds @ overlap.T
        square = square + backgrounds.square().sum(dim=1)[:, None] * self.alpha.square().sum(dim=1)
        cross = flat @ colours.T - torch.einsum("btc,bc->bt", covered, backgrounds)
        return (flat.square().sum(dim=1)[:, None] + square - 2 * cross) / flat.shape[1]


class Reader:
    """Reads pictures that show one of ``subjects`` of one of ``sets``."""

    def __init__(self, sets: Mapping[str, Bodies], subjects: Sequence[str]) -> None:
        self.known = [(style, subject) for style in sets for subject in subjects]
        layers = [_layers(sets[style][subject]) for style, subject in self.known]
        self.fine = torch.from_numpy(np.stack(layers))  # (drawings × places, 4, 32, 32), half
        self.fine = self.fine.flatten(0, 1)
        coarse = torch.cat([F.avg_pool2d(part.float(), 2) for part in torch.split(self.fine, 4096)]).flatten(2)
        self.coarse = _Templates(coarse[:, :3].contiguous(), coarse[:, 3].contiguous())

    def read(self, pictures: Sequence[Pixels]) -> list[Reading]:
        """Of pictures (64, 64, 3)."""
        found = []
        for first in range(0, len(pictures), 32):
            batch = torch.from_numpy(np.stack(pictures[first : first + 32])).permute(0, 3, 1, 2).float() / 255
            colours = torch.stack([_rim(picture) for picture in batch])
            far = self.coarse.distances(F.avg_pool2d(batch, 4).flatten(2), colours)
            nearest = far.topk(CANDIDATES, largest=False).indices
            found += [self._nearest(*each) for each in zip(batch, colours, nearest, strict=True)]
        return found

    def _nearest(self, picture: torch.Tensor, background: torch.Tensor, candidates: torch.Tensor) -> Reading:
        drawn = self.fine[candidates].float()
        pictures = drawn[:, :3] + (1 - drawn[:, 3:]) * background[:, None, None]
        moved = torch.stack([_moved(picture, background, shift) for shift in SHIFTS])
        target = F.avg_pool2d(moved, 2).flatten(1)
        far = torch.cdist(pictures.flatten(1), target).min(dim=1).values / target.shape[1] ** 0.5
        order = far.argsort()
        subjects = dict.fromkeys(self.known[int(candidates[i]) // len(PLACES)][1] for i in order)
        best = int(candidates[order[0]])
        style = self.known[best // len(PLACES)][0]
        size, position = PLACES[best % len(PLACES)]
        named = min(BACKGROUNDS, key=lambda name: float((background * 255 - torch.tensor(BACKGROUNDS[name])).norm()))
        return Reading(tuple(subjects)[:5], style, size, position, named, far[order[0]].item() * 255)


def _layers(svg: str) -> np.ndarray:
    """Colours times alpha, and alpha, at every place: (places, 4, 32, 32), half precision."""
    found = np.empty((len(PLACES), 4, SIZE, SIZE), dtype=np.float32)
    for index, (size, position) in enumerate(PLACES):
        scene = Scene("", "", size, position)
        black, white = (
            drawings.compose(drawings.render(svg, scene.side), scene.corner, (level,) * 3).astype(np.float32) / 255
            for level in (0, 255)
        )
        found[index, :3] = black.transpose(2, 0, 1)
        found[index, 3] = 1 - (white - black).mean(axis=2)
    halved: np.ndarray = found.reshape(len(PLACES), 4, SIZE // 2, 2, SIZE // 2, 2).mean(axis=(3, 5)).astype(np.float16)
    return halved


def _rim(picture: torch.Tensor) -> torch.Tensor:
    """The colour (3,) that most of the outermost two pixels have, a drawing at one side notwithstanding."""
    rim = torch.cat([picture[:, :2].flatten(1), picture[:, -2:].flatten(1)], dim=1)
    sides = torch.cat([picture[:, 2:-2, :2].flatten(1), picture[:, 2:-2, -2:].flatten(1)], dim=1)
    return torch.cat([rim, sides], dim=1).median(dim=1).values


def _moved(picture: torch.Tensor, background: torch.Tensor, shift: tuple[int, int]) -> torch.Tensor:
    x, y = shift
    canvas = background[:, None, None].expand(3, SIZE + 4, SIZE + 4).clone()
    canvas[:, 2 + y : 2 + y + SIZE, 2 + x : 2 + x + SIZE] = picture
    return canvas[:, 2:-2, 2:-2]


# --- how often it is right -------------------------------------------------------------------------------------------


def shares(scenes: Sequence[Scene], readings: Sequence[Reading]) -> dict[str, float]:
    """Shares of readings that name what a scene shows."""
    pairs = list(zip(scenes, readings, strict=True))

    def share(right: Sequence[bool]) -> float:
        return round(sum(right) / len(right), 4)

    return {
        "subject": share([r.subjects[0] == s.subject for s, r in pairs]),
        "subject in five": share([s.subject in r.subjects for s, r in pairs]),
        "style": share([r.style == s.style for s, r in pairs]),
        "size": share([r.size == s.size for s, r in pairs]),
        "position": share([r.position == s.position for s, r in pairs]),
        "background": share([r.background == s.background for s, r in pairs]),
        "distance": round(float(np.mean([r.distance for r in readings])), 2),
    }


def unlike(scene: Scene, svg: str, rng: np.random.Generator) -> Pixels:
    """A scene as the reader does not know it: another size, a pixel or two away, another shade of the background."""
    side = scene.side + int(rng.choice([-3, -2, 2, 3]))
    moved = [corner + (scene.side - side) // 2 + int(rng.integers(-1, 2)) for corner in scene.corner]
    red, green, blue = (int(np.clip(level + rng.integers(-12, 13), 0, 255)) for level in BACKGROUNDS[scene.background])
    return drawings.compose(drawings.render(svg, side), (moved[0], moved[1]), (red, green, blue))


@torch.no_grad()
def check(args: argparse.Namespace) -> None:
    sets, names = drawings.read_sets(args.work)
    reader = Reader(sets, names.all)
    vae = moji_vae.load(args.work / "vae.pt").eval()
    figures = {}
    rng = np.random.default_rng(1)
    for styles in (drawings.STYLES, drawings.HELD_OUT_SETS):
        scenes = drawings.random_scenes(names.all, styles, args.count, seed=0)
        plain = [drawings.draw(scene, sets[scene.style][scene.subject]) for scene in scenes]
        given = torch.split(moji_vae.batch_of(plain), 32)
        came = torch.cat([vae.decode(vae.encode(part).latent_dist.mean).sample for part in given])
        through = moji_vae.pictures_of(came)
        others = [unlike(scene, sets[scene.style][scene.subject], rng) for scene in scenes]
        for name, pictures in {"plain": plain, "another size and shade": others, "through the VAE": through}.items():
            figures[f"{', '.join(styles)}; {name}"] = shares(scenes, reader.read(pictures))
    print(json.dumps(figures, indent=2))
    (args.work / "reader.json").write_text(json.dumps(figures, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["check"])
    parser.add_argument("--work", type=Path, default=Path("build/moji"))
    parser.add_argument("--count", type=int, default=300, help="pictures of each kind")
    args = parser.parse_args()
    torch.set_num_threads(1)
    check(args)


if __name__ == "__main__":
    main()
