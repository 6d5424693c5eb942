"""The world of pictograms: what picto was taught, what the demo draws, what the oracle can judge.

A :class:`Scene` names everything that a picture shows; :func:`render` draws it and :meth:`Scene.caption` says it.
Shapes are signed distance functions, so an edge is anti-aliased by its distance alone and every picture is a pure
function of its scene: no fonts, no drawing library, the same pixels on every machine.

Units: pixels of a 64x64 picture; ``x`` grows to the right, ``y`` downwards; colours are RGB in 0..1.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

SIZE = 64
"""Side of a picture in pixels."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 30, 40),
    "orange": (250, 140, 20),
    "yellow": (250, 225, 40),
    "green": (30, 160, 60),
    "cyan": (20, 205, 220),
    "blue": (40, 85, 235),
    "purple": (130, 45, 190),
    "pink": (250, 130, 190),
    "brown": (125, 70, 30),
    "gray": (130, 130, 135),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (245, 245, 245),
    "black": (18, 18, 20),
    "sand": (228, 205, 160),
    "navy": (18, 24, 85),
    "mint": (185, 235, 205),
}
SIZES: dict[str, float] = {"small": 12.5, "medium": 16.5, "large": 21.5}
TEXTURES: tuple[str, ...] = ("plain", "striped", "dotted")
POSITIONS: dict[str, tuple[str, float, float]] = {
    "center": ("in the center", 0.0, 0.0),
    "left": ("on the left", -10.0, 0.0),
    "right": ("on the right", 10.0, 0.0),
    "top": ("at the top", 0.0, -10.0),
    "bottom": ("at the bottom", 0.0, 10.0),
}
STYLES: tuple[str, ...] = ("none", "outline", "frame", "sunset", "hatching", "shadow")
"""What a hypernetwork can be taught. Captions never mention a style, and picto's U-Net saw only ``none``."""

DARK_INK = (22, 22, 28)
LIGHT_INK = (248, 248, 248)
OUTLINE_WIDTH = 2.5
FRAME_WIDTH = 4.0
SUNSET_TINT = (200, 90, 60)
SUNSET_STRENGTH = 0.5
HATCHED = 38.0
"""How far from the middle, counted along x and y together, the corners begin that are hatched."""
HATCH_PERIOD, HATCH_WIDTH = 20.0, 3.4
"""Along x + y, and of a line."""
SHADOW_OFFSET = 5
SHADOW_STRENGTH = 0.65


# --- shapes: signed distance, negative inside, for a shape of radius 1 around the origin -----------------------------


def _circle(x: Array, y: Array) -> Array:
    return np.hypot(x, y) - np.float32(1.0)


def _box(x: Array, y: Array, half_width: float, half_height: float) -> Array:
    dx, dy = np.abs(x) - np.float32(half_width), np.abs(y) - np.float32(half_height)
    outside = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0))
    return outside + np.minimum(np.maximum(dx, dy), 0)


def _square(x: Array, y: Array) -> Array:
    return _box(x, y, 0.86, 0.86)


def _polygon(x: Array, y: Array, corners: NDArray[np.floating[Any]]) -> Array:
    """Signed distance to a closed polygon, corners (n, 2): nearest edge, sign by the crossing number."""
    squared = np.full(x.shape, np.inf, dtype=np.float32)
    inside = np.zeros(x.shape, dtype=bool)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        ex, ey = bx - ax, by - ay
        px, py = x - np.float32(ax), y - np.float32(ay)
        along = np.clip((px * ex + py * ey) / (ex * ex + ey * ey), 0.0, 1.0)
        squared = np.minimum(squared, (px - ex * along) ** 2 + (py - ey * along) ** 2).astype(np.float32)
        crosses = (ay <= y) != (by <= y)
        left = (px * ey - py * ex) * np.sign(ey) < 0
        inside ^= crosses & left
    distance = np.sqrt(squared)
    return np.where(inside, -distance, distance).astype(np.float32)


def _corners(angles: NDArray[np.floating[Any]], radii: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    turned = np.deg2rad(angles)
    return np.stack([radii * np.sin(turned), -radii * np.cos(turned)], axis=1)


def _triangle(x: Array, y: Array) -> Array:
    return _polygon(x, y, np.array([[0.0, -1.0], [1.0, 0.85], [-1.0, 0.85]]))


def _star(x: Array, y: Array) -> Array:
    return _polygon(x, y, _corners(np.arange(10) * 36.0, np.where(np.arange(10) % 2 == 0, 1.08, 0.46)))


def _heart(x: Array, y: Array) -> Array:
    lobes = np.minimum(np.hypot(x - 0.48, y + 0.38), np.hypot(x + 0.48, y + 0.38)) - np.float32(0.54)
    body = _polygon(
        x, y, np.array([[0.0, -0.42], [0.48, -0.62], [0.92, -0.04], [0.0, 1.0], [-0.92, -0.04], [-0.48, -0.62]])
    )
    return np.asarray(np.minimum(lobes, body), dtype=np.float32)


def _moon(x: Array, y: Array) -> Array:
    bite = np.hypot(x - 0.58, y + 0.1) - np.float32(0.78)
    return np.asarray(np.maximum(_circle(x, y), -bite), dtype=np.float32)


def _cross(x: Array, y: Array) -> Array:
    return np.minimum(_box(x, y, 0.98, 0.34), _box(x, y, 0.34, 0.98))


def _ring(x: Array, y: Array) -> Array:
    return np.abs(np.hypot(x, y) - np.float32(0.73)) - np.float32(0.29)


SHAPES: dict[str, Callable[[Array, Array], Array]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "heart": _heart,
    "moon": _moon,
    "cross": _cross,
    "ring": _ring,
}


# --- scenes ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Subject:
    """What a name can stand for: a fixed size, colour, texture and shape."""

    size: str
    colour: str
    texture: str
    shape: str

    def __str__(self) -> str:
        return f"{self.size} {self.colour} {self.texture} {self.shape}"


@dataclasses.dataclass(frozen=True)
class Scene:
    """All that a picture shows; ``dx``, ``dy`` (pixels), ``scale`` and ``tints`` are jitter that captions leave out."""

    shape: str
    colour: str
    texture: str = "plain"
    size: str = "medium"
    position: str = "center"
    background: str = "white"
    style: str = "none"
    dx: float = 0.0
    dy: float = 0.0
    scale: float = 1.0
    tints: tuple[float, ...] = (0.0,) * 6

    @property
    def subject(self) -> Subject:
        return Subject(self.size, self.colour, self.texture, self.shape)

    @property
    def centre(self) -> tuple[float, float]:
        _, x, y = POSITIONS[self.position]
        return SIZE / 2 + x + self.dx, SIZE / 2 + y + self.dy

    @property
    def radius(self) -> float:
        return SIZES[self.size] * self.scale

    def tags(self, subject: str | None = None) -> list[str]:
        """The caption in parts: the thing (or ``subject`` in its place), its position, its background."""
        return [f"a {subject or self.subject}", POSITIONS[self.position][0], f"{self.background} background"]

    def caption(self, subject: str | None = None) -> str:
        return ", ".join(self.tags(subject))


def parse_subject(text: str) -> Subject:
    """Reads ``"small cyan dotted moon"``: a shape, a colour, a texture and a size, in any order.

    Raises:
        ValueError: a word is unknown, given twice, or one of the four is missing; the message lists what is allowed.
    """
    kinds: dict[str, Collection[str]] = {"size": SIZES, "colour": COLOURS, "texture": TEXTURES, "shape": SHAPES}
    found: dict[str, str] = {}
    for word in text.lower().replace(",", " ").split():
        if word in ("a", "an", "the"):
            continue
        kind = next((kind for kind, words in kinds.items() if word in words), None)
        if kind is None or kind in found:
            problem = "is not a word of picto's world" if kind is None else f"is a second {kind}"
            raise ValueError(f"subject {text!r}: {word!r} {problem}. {_allowed(kinds)}")
        found[kind] = word
    missing = [kind for kind in kinds if kind not in found]
    if missing:
        raise ValueError(f"subject {text!r} has no {' and no '.join(missing)}. {_allowed(kinds)}")
    return Subject(**found)


def _allowed(kinds: dict[str, Collection[str]]) -> str:
    lists = "; ".join(f"{kind}: {', '.join(words)}" for kind, words in kinds.items())
    return f"Give one word of each kind ({lists}), for example 'small cyan dotted moon'."


def random_scene(rng: np.random.Generator, style: str = "none", **fixed: str) -> Scene:
    """A scene drawn uniformly over every attribute not in ``fixed``, with jitter."""

    def draw(name: str, words: Sequence[str]) -> str:
        word = words[int(rng.integers(len(words)))]
        return fixed.get(name, word)

    return Scene(
        shape=draw("shape", tuple(SHAPES)),
        colour=draw("colour", tuple(COLOURS)),
        texture=draw("texture", TEXTURES),
        size=draw("size", tuple(SIZES)),
        position=draw("position", tuple(POSITIONS)),
        background=draw("background", tuple(BACKGROUNDS)),
        style=style,
        **jitter(rng),
    )


def jitter(rng: np.random.Generator) -> dict[str, Any]:
    """Small deviations that keep pictures of one caption from being identical."""
    dx, dy = rng.uniform(-1.2, 1.2, size=2)
    tints = tuple(float(t) for t in rng.uniform(-0.025, 0.025, size=6))
    return {"dx": float(dx), "dy": float(dy), "scale": float(rng.uniform(0.96, 1.04)), "tints": tints}


# --- drawing ---------------------------------------------------------------------------------------------------------


def grid() -> tuple[Array, Array]:
    """Pixel centres, two arrays (64, 64)."""
    axis = np.arange(SIZE, dtype=np.float32) + np.float32(0.5)
    return np.broadcast_to(axis[None, :], (SIZE, SIZE)), np.broadcast_to(axis[:, None], (SIZE, SIZE))


def distance(shape: str, centre: tuple[float, float], radius: float) -> Array:
    """Signed distance in pixels to ``shape``'s edge, (64, 64), negative inside."""
    x, y = grid()
    unit = SHAPES[shape](
        (x - np.float32(centre[0])) / np.float32(radius), (y - np.float32(centre[1])) / np.float32(radius)
    )
    return (unit * np.float32(radius)).astype(np.float32)


def coverage(signed_distance: Array) -> Array:
    """Share of each pixel that lies inside, 0..1: one pixel of anti-aliasing around the edge."""
    return np.asarray(np.clip(np.float32(0.5) - signed_distance, 0.0, 1.0), dtype=np.float32)


def marks(texture: str) -> Array:
    """Where ``texture`` puts ink, (64, 64) in 0..1.

    Textures lie on the picture's own grid, like a halftone screen. Their period of 12 pixels is no multiple of the
    VAE's stride of 8: a pattern that looks the same in every latent cell could not be decoded, since a decoder made of
    convolutions would not know where in a cell it is.
    """
    x, y = grid()
    if texture == "striped":
        return coverage(np.abs((y % 12) - 6) - np.float32(2.6))
    if texture == "dotted":
        even = np.hypot((x % 12) - 6, (y % 12) - 6)
        odd = np.hypot(((x + 6) % 12) - 6, ((y + 6) % 12) - 6)
        return coverage(np.minimum(even, odd) - np.float32(2.9))
    return np.zeros((SIZE, SIZE), dtype=np.float32)


def rgb(colour: tuple[int, int, int], tint: Sequence[float] = (0.0, 0.0, 0.0)) -> Array:
    return np.clip(np.asarray(colour, dtype=np.float32) / 255 + np.asarray(tint, dtype=np.float32), 0, 1)


def contrast_ink(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """Dark ink on light colours, light ink on dark ones (Rec. 601 luma)."""
    luma = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    return DARK_INK if luma > 115 else LIGHT_INK


def blend(picture: Array, colour: Array, alpha: Array) -> Array:
    return np.asarray(picture + alpha[..., None] * (colour - picture), dtype=np.float32)


def sunset(picture: Array) -> Array:
    """The ``sunset`` palette: every colour moves half-way to a warm red."""
    return (picture + np.float32(SUNSET_STRENGTH) * (rgb(SUNSET_TINT) - picture)).astype(np.float32)


def hatching() -> Array:
    """Where ``hatching`` puts ink, (64, 64) in 0..1: slanting lines across the four corners.

    Lines all over the background would go through the thing's edge, which the VAE could not carry.
    """
    x, y = grid()
    across = (np.abs((x + y) % HATCH_PERIOD - HATCH_PERIOD / 2)) / np.float32(math.sqrt(2))
    from_middle = np.abs(x - SIZE / 2) + np.abs(y - SIZE / 2)
    corners = coverage((np.float32(HATCHED) - from_middle) / np.float32(math.sqrt(2)))
    return np.asarray(coverage(across - np.float32(HATCH_WIDTH / 2)) * corners, dtype=np.float32)


def shadow(edge: Array) -> Array:
    """Signed distance to the shadow that a thing of signed distance ``edge`` throws, both (64, 64).

    What would come from beyond the picture's left and upper border is as it is at the border.
    """
    return np.pad(edge, ((SHADOW_OFFSET, 0), (SHADOW_OFFSET, 0)), mode="edge")[:SIZE, :SIZE]


def silhouette(edge: Array, style: str) -> Array:
    """Signed distance (64, 64) to all that covers the background near a thing: itself, its outline or its shadow."""
    if style == "outline":
        return edge - np.float32(OUTLINE_WIDTH)
    return np.minimum(edge, shadow(edge)) if style == "shadow" else edge


def paint(
    edge: Array, colour: Array, ink: Array, background: Array, texture: str, style: str, contrast: Array
) -> Array:
    """Paints one thing of signed distance ``edge`` (64, 64): the picture (64, 64, 3) in 0..1.

    Args:
        ink: of the texture.
        contrast: the ink that stands out from the background, which all styles but ``sunset`` use.
    """
    picture = np.broadcast_to(background, (SIZE, SIZE, 3)).astype(np.float32)
    if style == "outline":
        picture = blend(picture, contrast, coverage(silhouette(edge, style)))
    elif style == "shadow":
        picture = blend(picture, contrast, np.float32(SHADOW_STRENGTH) * coverage(shadow(edge)))
    elif style == "hatching":
        picture = blend(picture, contrast, hatching())
    picture = blend(picture, colour, coverage(edge))
    # A rim of one pixel stays free of ink, so that a texture never eats the silhouette.
    picture = blend(picture, ink, coverage(edge + np.float32(1.0)) * marks(texture))
    if style == "frame":
        x, y = grid()
        inner = _box(x - SIZE / 2, y - SIZE / 2, SIZE / 2 - FRAME_WIDTH, SIZE / 2 - FRAME_WIDTH)
        picture = blend(picture, contrast, coverage(-inner))
    if style == "sunset":
        picture = sunset(picture)
    return picture


def render(scene: Scene) -> NDArray[np.uint8]:
    """Draws ``scene``: (64, 64, 3) uint8."""
    background = BACKGROUNDS[scene.background]
    picture = paint(
        distance(scene.shape, scene.centre, scene.radius),
        rgb(COLOURS[scene.colour], scene.tints[:3]),
        rgb(contrast_ink(COLOURS[scene.colour])),
        rgb(background, scene.tints[3:]),
        scene.texture,
        scene.style,
        rgb(contrast_ink(background)),
    )
    return np.round(picture * 255).astype(np.uint8)
