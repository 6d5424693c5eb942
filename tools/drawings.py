"""Real drawings: sets of emoji as SVG, split for good, rendered on backgrounds at sizes and places, with captions.

    python tools/drawings.py fetch --work build/moji     # npm pack of the sets below, checked; nothing is installed
    python tools/drawings.py sheet --work build/moji     # a sheet of what the model is taught, sheet.png

What is kept apart: every tenth of the sorted common names is a subject that no pretraining sees, and the sets of
``HELD_OUT_SETS`` are never drawn for it at all. ``openmoji`` is CC-BY-SA and for measuring alone: neither it nor
anything learned from it is to be shipped.
"""

from __future__ import annotations

import argparse
import base64
import functools
import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tincture.formats.pictures import open_picture

SIZE = 64


@dataclass(frozen=True)
class Package:
    """An npm package of a set of drawings at a fixed version; ``integrity`` is npm's own, sha512 in base64."""

    name: str
    version: str
    licence: str
    integrity: str

    @property
    def file(self) -> str:
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


PACKAGES = {
    "noto": Package(
        "@iconify-json/noto",
        "1.2.9",
        "Apache-2.0",
        "sha512-DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
    ),
    "fluent": Package(
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "MIT",
        "sha512-RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
    ),
    "contrast": Package(
        "@iconify-json/fluent-emoji-high-contrast",
        "1.2.6",
        "MIT",
        "sha512-esqhZPpkrF7sNX3NsLoh8KW64okEr/bzko7WNnFP+qTJGAqDPDYjp0925yxuivXy3HtVQB8xhIKu3+Nq1byX5w==",
    ),
    "openmoji": Package(
        "@iconify-json/openmoji",
        "1.2.29",
        "CC-BY-SA-4.0",
        "sha512-vXdhkqcXVSO6suy+m9LbcUM3OdVyuNOtpV8/als/WqfkQIRxevL5Geb/g+6GH/Qwnq1OqksEmaDGTCmZ5nFKJQ==",
    ),
}
STYLES = ("noto", "fluent")
"""The sets that pretraining draws; their names are the words of captions."""
HELD_OUT_SETS = ("contrast", "openmoji")

BACKGROUNDS: Mapping[str, tuple[int, int, int]] = {
    "white": (255, 255, 255),
    "sand": (226, 202, 150),
    "mint": (160, 228, 190),
    "sky": (140, 200, 245),
    "pink": (250, 170, 200),
    "navy": (32, 44, 100),
}
SMALL, LARGE = 40, 56
OFFSETS: Mapping[str, tuple[int, int]] = {
    "in the center": (12, 12),
    "on the left": (0, 12),
    "on the right": (24, 12),
    "at the top": (12, 0),
    "at the bottom": (12, 24),
}
"""Where the corner of a small drawing stands, x and y in pixels."""

Pixels = NDArray[np.uint8]
Bodies = Mapping[str, str]
"""The SVG text of each drawing of a set, under its name."""


class DrawingsError(Exception):
    """A set of drawings is missing or is not what was asked for."""


# --- sets and splits -------------------------------------------------------------------------------------------------


def fetch(work: Path) -> None:
    """Packs each set into ``work``/npm by npm, unless it is there, and checks it."""
    folder = work / "npm"
    folder.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES.values():
        if not (folder / package.file).exists():
            subprocess.run(["npm", "pack", "--silent", f"{package.name}@{package.version}"], cwd=folder, check=True)
        check(folder / package.file, package)
        print(f"{package.name} {package.version} ({package.licence})")


def check(path: Path, package: Package) -> None:
    """Raises DrawingsError if the file at ``path`` is not the one of ``package``."""
    if not path.exists():
        raise DrawingsError(f"{path} is missing; run python tools/drawings.py fetch --work {path.parents[1]}")
    found = "sha512-" + base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    if found != package.integrity:
        raise DrawingsError(f"{path} has the integrity {found}, not {package.integrity}; remove it and fetch again")


def read_set(work: Path, style: str) -> dict[str, str]:
    """The drawings of a fetched set as SVG texts, by name, without skin tones."""
    package = PACKAGES[style]
    path = work / "npm" / package.file
    check(path, package)
    with tarfile.open(path) as archive:
        member = archive.extractfile("package/icons.json")
        assert member is not None
        return svgs(json.load(member))


def read_sets(work: Path) -> tuple[dict[str, dict[str, str]], Split]:
    """All fetched sets, see ``read_set``, and how their subjects are split."""
    sets = {style: read_set(work, style) for style in PACKAGES}
    return sets, split(list(sets.values()))


def svgs(icons: Mapping[str, Any]) -> dict[str, str]:
    """SVG texts of an Iconify set, whose drawings are bodies without the element around them."""
    texts = {}
    for name, icon in icons["icons"].items():
        width, height = icon.get("width", icons.get("width", 16)), icon.get("height", icons.get("height", 16))
        texts[name] = (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="0 0 {width} {height}">{icon["body"]}</svg>'
        )
    return texts


def plain_name(name: str) -> bool:
    """Whether a name is up to three words for one thing: no skin tones, no clock faces, no person's many activities."""
    words = name.split("-")
    if len(words) > 3 or {"light", "dark", "medium", "oclock", "thirty", "mx", "mrs"} & set(words):
        return False
    if words[0] in ("man", "woman", "person", "keycap") and len(words) > 1:
        return False
    return not (words[0] == "japanese" and words[-1] == "button")


@dataclass(frozen=True)
class Split:
    """Names of subjects, sorted: those that pretraining sees and those that it never sees."""

    seen: tuple[str, ...]
    held_out: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        return tuple(sorted(self.seen + self.held_out))


def split(sets: Sequence[Bodies]) -> Split:
    """Of the plain names that all sets have, every tenth is held out."""
    common = sorted(name for name in set.intersection(*(set(bodies) for bodies in sets)) if plain_name(name))
    return Split(tuple(n for i, n in enumerate(common) if i % 10 != 9), tuple(common[9::10]))


# --- pictures --------------------------------------------------------------------------------------------------------


@functools.cache
def render(svg: str, side: int) -> Pixels:
    """One drawing, (side, side, 4) RGBA, colours not multiplied by alpha."""
    import resvg_py

    png = resvg_py.svg_to_bytes(svg_string=svg, width=side, height=side, skip_system_fonts=True)
    drawn = open_picture(io.BytesIO(bytes(png)), ["PNG"]).convert("RGBA")
    if drawn.size != (side, side):  # a drawing that is not square keeps its shape
        square = Image.new("RGBA", (side, side))
        drawn.thumbnail((side, side))
        square.paste(drawn, ((side - drawn.width) // 2, (side - drawn.height) // 2))
        drawn = square
    return np.asarray(drawn)


def compose(drawn: Pixels, corner: tuple[int, int], background: tuple[int, int, int]) -> Pixels:
    """A picture, (64, 64, 3): ``drawn`` on a background, its corner at x, y, which may lie outside."""
    picture = np.empty((SIZE, SIZE, 3), dtype=np.float32)
    picture[:] = background
    x, y = corner
    side = drawn.shape[0]
    left, top, right, bottom = max(x, 0), max(y, 0), min(x + side, SIZE), min(y + side, SIZE)
    inside = drawn[top - y : bottom - y, left - x : right - x].astype(np.float32)
    alpha = inside[..., 3:] / 255
    patch = picture[top:bottom, left:right]
    picture[top:bottom, left:right] = patch * (1 - alpha) + inside[..., :3] * alpha
    return np.round(picture).astype(np.uint8)


@dataclass(frozen=True)
class Scene:
    """What a picture shows, in the words of its caption. A large drawing stands in the center."""

    subject: str
    style: str
    size: str = "large"
    position: str = "in the center"
    background: str = "white"

    @property
    def corner(self) -> tuple[int, int]:
        return ((SIZE - LARGE) // 2,) * 2 if self.size == "large" else OFFSETS[self.position]

    @property
    def side(self) -> int:
        return LARGE if self.size == "large" else SMALL


PLACES = (("large", "in the center"), *(("small", position) for position in OFFSETS))
"""Sizes and positions that go together."""


def draw(scene: Scene, svg: str) -> Pixels:
    """The picture of a scene, (64, 64, 3)."""
    return compose(render(svg, scene.side), scene.corner, BACKGROUNDS[scene.background])


def random_scenes(subjects: Sequence[str], styles: Sequence[str], count: int, seed: int) -> list[Scene]:
    """All that a caption says, drawn by chance."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        size, position = PLACES[int(rng.integers(len(PLACES)))]
        subject, style = subjects[int(rng.integers(len(subjects)))], styles[int(rng.integers(len(styles)))]
        found.append(Scene(subject, style, size, position, list(BACKGROUNDS)[int(rng.integers(len(BACKGROUNDS)))]))
    return found


def words(name: str) -> str:
    return name.replace("-", " ")


def caption(scene: Scene, leave_out: Sequence[str] = (), subject: str | None = None) -> str:
    """The caption of a scene, without the parts of ``leave_out`` (fields of Scene), of another ``subject`` if given."""
    parts = {
        "subject": f"a {subject or words(scene.subject)}",
        "style": f"{scene.style} style",
        "size": scene.size,
        "position": scene.position,
        "background": f"{scene.background} background",
    }
    return ", ".join(text for part, text in parts.items() if part not in leave_out)


# --- the command -----------------------------------------------------------------------------------------------------


def sheet(pictures: Sequence[Sequence[Pixels]], scale: int = 1) -> Image.Image:
    """Rows of pictures side by side, two pixels of white between them."""
    width, height = max(len(row) for row in pictures), len(pictures)
    canvas = Image.new("RGB", (width * (SIZE + 2) - 2, height * (SIZE + 2) - 2), "white")
    for y, row in enumerate(pictures):
        for x, picture in enumerate(row):
            canvas.paste(Image.fromarray(picture), (x * (SIZE + 2), y * (SIZE + 2)))
    return canvas.resize((canvas.width * scale, canvas.height * scale), Image.Resampling.NEAREST)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["fetch", "sheet"])
    parser.add_argument("--work", type=Path, default=Path("build/moji"))
    args = parser.parse_args()
    fetch(args.work)
    if args.command == "sheet":
        sets, names = read_sets(args.work)
        print(f"{len(names.seen)} subjects seen, {len(names.held_out)} held out")
        rows = [random_scenes(names.seen, [style], 12, seed) for style in STYLES for seed in range(3)]
        drawn = [[draw(scene, sets[scene.style][scene.subject]) for scene in row] for row in rows]
        sheet(drawn).save(args.work / "sheet.png")


if __name__ == "__main__":
    main()
