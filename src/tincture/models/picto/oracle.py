"""The oracle: reads shape, colour, texture, size, position, background and style back from a picture.

Plain image analysis by synthesis, with nothing learned: it finds the background, proposes what the silhouette could be,
paints the best proposals with :mod:`world` and keeps the one nearest to the picture. A picture that no proposal comes
near is *unclear*, and an unclear picture shows nothing. ``docs/picto.md`` gives its measured accuracy.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from tincture.models.picto import world
from tincture.models.picto.world import Array, Scene

ATTRIBUTES: tuple[str, ...] = ("shape", "colour", "texture", "size", "position", "background")

FOREGROUND = 0.17
"""RGB distance (of 1.73) from the background at which a pixel counts as part of the thing."""
MIN_EXPLAINED = 0.7
"""Pictures of which the best proposal explains less than this are unclear."""
SHADOW_SHARE = 0.5
"""Of the error that is left without a shadow, what may be left with one, so that it is one and no smear."""
PROPOSALS = 4
"""So many of the plain and outlined silhouettes are painted, and as many of those with a shadow."""
SILHOUETTES = ("none", "outline", "shadow")
"""Styles that change what covers the background."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """What the oracle sees. ``explained`` is the share of the picture's squared distance from an empty background

    that painting the best proposal removes: 1.0 is a perfect fit, 0.0 no better than an empty picture.
    """

    shape: str
    colour: str
    texture: str
    size: str
    position: str
    background: str
    style: str
    explained: float

    @property
    def clear(self) -> bool:
        return self.explained >= MIN_EXPLAINED

    def shows(self, scene: Scene, attributes: Iterable[str] = ATTRIBUTES) -> bool:
        """Whether the picture is clear and agrees with ``scene`` in every one of ``attributes``."""
        return self.clear and all(getattr(self, name) == getattr(scene, name) for name in attributes)


@dataclasses.dataclass(frozen=True)
class _Ground:
    """The background as found: its name, the colour measured, and what lies around it."""

    name: str
    colour: Array
    sunset: bool
    frame: bool
    hatched: bool

    @property
    def style(self) -> str:
        return "frame" if self.frame else "sunset" if self.sunset else "hatching" if self.hatched else "none"


@dataclasses.dataclass(frozen=True)
class _Proposal:
    shape: str
    size: str
    style: str
    centre: tuple[float, float]
    overlap: float

    def edge(self) -> Array:
        return world.distance(self.shape, self.centre, world.SIZES[self.size])


_Painted = tuple[float, _Proposal, str, str]
"""A proposal as it was painted: its squared distance from the picture, itself, colour and texture."""


def read(picture: NDArray[np.uint8]) -> Reading:
    """Reads one picture, (64, 64, 3) uint8.

    Raises:
        ValueError: the picture has another shape or dtype.
    """
    if picture.shape != (world.SIZE, world.SIZE, 3) or picture.dtype != np.uint8:
        expected = f"({world.SIZE}, {world.SIZE}, 3) uint8"
        raise ValueError(f"The oracle reads pictures of {expected}, not {picture.shape} {picture.dtype}.")
    image = (picture / 255).astype(np.float32)
    ground = _find_ground(image)
    visible = _visible(ground)
    threshold = FOREGROUND * (world.SUNSET_STRENGTH if ground.sunset else 1.0)
    mask = (np.linalg.norm(image - ground.colour, axis=-1) > threshold) & visible
    proposals = _propose(mask, visible)
    if not proposals:
        return Reading("", "", "", "", "", ground.name, ground.style, explained=0.0)
    return _best(image, ground, mask, visible, proposals)


def _find_ground(image: Array) -> _Ground:
    """The background is the named colour that most pixels of a ring near the picture's edge are close to."""
    x, y = world.grid()
    to_edge = np.minimum(np.minimum(x, y), np.minimum(world.SIZE - x, world.SIZE - y))
    ring = image[(to_edge > 5) & (to_edge < 10)]
    best: tuple[float, str, bool, Array] | None = None
    for name, colour in world.BACKGROUNDS.items():
        for dimmed in (False, True):
            nominal = world.sunset(world.rgb(colour)) if dimmed else world.rgb(colour)
            apart = np.linalg.norm(ring - nominal, axis=-1)
            near = apart < 0.2
            score = float((near * (1 - apart)).sum())
            if best is None or score > best[0]:
                measured = np.median(ring[near], axis=0) if near.any() else nominal
                best = (score, name, dimmed, measured.astype(np.float32))
    assert best is not None
    _, name, dimmed, measured = best
    ink = world.rgb(world.contrast_ink(world.BACKGROUNDS[name]))
    inked = np.linalg.norm(image - ink, axis=-1) < np.linalg.norm(image - measured, axis=-1)
    framed = inked[to_edge < 2.5].mean() > 0.75
    return _Ground(name, measured, sunset=dimmed, frame=bool(framed), hatched=_hatched(inked))


def _hatched(inked: NDArray[np.bool_]) -> bool:
    """Whether ``inked`` pixels lie on the lines of the corners and not between them; no frame counts as lines."""
    lines, inside = world.hatching(), _inside_frame()
    between = inside & ~_inside_corners() & (lines < 0.1)
    return bool(inked[inside & (lines > 0.9)].mean() > 0.65 and inked[between].mean() < 0.35)


def _visible(ground: _Ground) -> NDArray[np.bool_]:
    """What of the picture can show the thing."""
    if ground.frame:
        return _inside_frame()
    return _inside_corners() if ground.hatched else np.ones((world.SIZE, world.SIZE), dtype=bool)


@functools.cache
def _inside_frame() -> NDArray[np.bool_]:
    x, y = world.grid()
    to_edge = np.minimum(np.minimum(x, y), np.minimum(world.SIZE - x, world.SIZE - y))
    inside: NDArray[np.bool_] = to_edge > world.FRAME_WIDTH + 1
    return inside


@functools.cache
def _inside_corners() -> NDArray[np.bool_]:
    x, y = world.grid()
    inside: NDArray[np.bool_] = np.abs(x - world.SIZE / 2) + np.abs(y - world.SIZE / 2) < world.HATCHED - 2
    return inside


@functools.cache
def _offset(shape: str, size: str, style: str) -> tuple[float, float]:
    """From a silhouette's centroid to its shape's centre, in pixels."""
    middle = world.SIZE / 2
    edge = world.distance(shape, (middle, middle), world.SIZES[size])
    cover = world.coverage(world.silhouette(edge, style))
    x, y = world.grid()
    return float(middle - (cover * x).sum() / cover.sum()), float(middle - (cover * y).sum() / cover.sum())


def _propose(mask: NDArray[np.bool_], visible: NDArray[np.bool_]) -> list[_Proposal]:
    """The shapes and sizes, by themselves, with outline and with shadow, whose silhouettes overlap ``mask`` most."""
    if mask.sum() < 20:
        return []
    x, y = world.grid()
    centroid = float(x[mask].mean()), float(y[mask].mean())
    proposals = []
    for shape in world.SHAPES:
        for size in world.SIZES:
            for style in SILHOUETTES:
                dx, dy = _offset(shape, size, style)
                found = _Proposal(shape, size, style, (centroid[0] + dx, centroid[1] + dy), 0.0)
                proposals.append(dataclasses.replace(found, overlap=_overlap(found, mask, visible)))
    proposals.sort(key=lambda proposal: -proposal.overlap)
    shadowed = [proposal for proposal in proposals if proposal.style == "shadow"]
    return [proposal for proposal in proposals if proposal.style != "shadow"][:PROPOSALS] + shadowed[:PROPOSALS]


def _overlap(proposal: _Proposal, mask: NDArray[np.bool_], visible: NDArray[np.bool_]) -> float:
    cover = world.coverage(world.silhouette(proposal.edge(), proposal.style)) * visible
    shared = cover[mask].sum()
    return float(shared / (cover.sum() + mask.sum() - shared))


def _colours(image: Array, ground: _Ground, mask: NDArray[np.bool_], inside: NDArray[np.bool_]) -> list[str]:
    """The two named colours that most pixels inside the silhouette are nearest to; inks count for neither."""
    names = list(world.COLOURS)
    palette = [world.rgb(colour) for colour in world.COLOURS.values()]
    palette += [world.rgb(world.DARK_INK), world.rgb(world.LIGHT_INK)]
    if ground.sunset:
        palette = [world.sunset(colour) for colour in palette]
    pixels = image[mask & inside] if (mask & inside).sum() >= 8 else image[mask]
    apart = np.linalg.norm(pixels[:, None] - np.stack([*palette, ground.colour])[None], axis=-1)
    votes = np.bincount(apart.argmin(axis=1), minlength=len(palette) + 1)[: len(names)]
    return [names[int(index)] for index in np.argsort(-votes, kind="stable")[:2]]


def _best(
    image: Array,
    ground: _Ground,
    mask: NDArray[np.bool_],
    visible: NDArray[np.bool_],
    proposals: list[_Proposal],
) -> Reading:
    """Paints every proposal in its likely colours and all textures; keeps the nearest picture."""
    contrast = world.rgb(world.contrast_ink(world.BACKGROUNDS[ground.name]))
    candidates = []
    for proposal in proposals:
        edge = proposal.edge()
        for colour in _colours(image, ground, mask, edge < -0.5):
            for texture in world.TEXTURES:
                painted = _paint(edge, colour, texture, proposal.style, ground, contrast)
                candidates.append((float(np.square((image - painted)[visible]).sum()), proposal, colour, texture))
    empty = float(np.square((image - ground.colour)[visible]).sum())
    error, proposal, colour, texture = _nearest(candidates, empty)
    return Reading(
        shape=proposal.shape,
        colour=colour,
        texture=texture,
        size=proposal.size,
        position=_position(proposal.centre),
        background=ground.name,
        style=ground.style if proposal.style == "none" else proposal.style,
        explained=1.0 - error / empty,
    )


def _nearest(candidates: Sequence[_Painted], empty: float) -> _Painted:
    """That of the least error; one with a shadow only where it is clear and far nearer than all without."""

    def error(candidate: _Painted) -> float:
        return candidate[0]

    plain = min((candidate for candidate in candidates if candidate[1].style != "shadow"), key=error)
    shadowed = min((candidate for candidate in candidates if candidate[1].style == "shadow"), key=error)
    limit = min(SHADOW_SHARE * plain[0], (1 - MIN_EXPLAINED) * empty)
    return shadowed if shadowed[0] < limit else plain


def _position(centre: tuple[float, float]) -> str:
    def apart(name: str) -> float:
        _, x, y = world.POSITIONS[name]
        return (world.SIZE / 2 + x - centre[0]) ** 2 + (world.SIZE / 2 + y - centre[1]) ** 2

    return min(world.POSITIONS, key=apart)


def _paint(edge: Array, colour: str, texture: str, style: str, ground: _Ground, contrast: Array) -> Array:
    named = world.COLOURS[colour]
    fill, ink = world.rgb(named), world.rgb(world.contrast_ink(named))
    if ground.sunset:
        fill, ink, contrast = world.sunset(fill), world.sunset(ink), world.sunset(contrast)
    return world.paint(edge, fill, ink, ground.colour, texture, style, contrast)


def accuracy(readings: Iterable[tuple[Scene, Reading]], attributes: Iterable[str] = ATTRIBUTES) -> dict[str, float]:
    """Share of readings that agree with their scene, per attribute and for all of them at once (``"all"``)."""
    pairs, names = list(readings), tuple(attributes)
    shares = {name: float(np.mean([reading.shows(scene, [name]) for scene, reading in pairs])) for name in names}
    return {**shares, "all": float(np.mean([reading.shows(scene, names) for scene, reading in pairs]))}
