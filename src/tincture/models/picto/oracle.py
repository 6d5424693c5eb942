"""The oracle: reads shape, colour, texture, size, position, background and style back from a picture.

Plain image analysis by synthesis, with nothing learned: it finds the background, proposes what the silhouette could be,
paints the best proposals with :mod:`world` and keeps the one nearest to the picture. A picture that no proposal comes
near is *unclear*, and an unclear picture shows nothing. ``docs/picto.md`` gives its measured accuracy.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from tincture.models.picto import world
from tincture.models.picto.world import Array, Scene

ATTRIBUTES: tuple[str, ...] = ("shape", "colour", "texture", "size", "position", "background")

FOREGROUND = 0.17
"""RGB distance (of 1.73) from the background at which a pixel counts as part of the thing."""
MIN_EXPLAINED = 0.7
"""Pictures of which the best proposal explains less than this are unclear."""
PROPOSALS = 4


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


@dataclasses.dataclass(frozen=True)
class _Proposal:
    shape: str
    size: str
    outline: bool
    centre: tuple[float, float]
    overlap: float

    def edge(self) -> Array:
        return world.distance(self.shape, self.centre, world.SIZES[self.size])


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
    visible = _inside_frame() if ground.frame else np.ones((world.SIZE, world.SIZE), dtype=bool)
    threshold = FOREGROUND * (world.SUNSET_STRENGTH if ground.sunset else 1.0)
    mask = (np.linalg.norm(image - ground.colour, axis=-1) > threshold) & visible
    proposals = _propose(mask, visible)
    if not proposals:
        style = "frame" if ground.frame else "sunset" if ground.sunset else "none"
        return Reading("", "", "", "", "", ground.name, style, explained=0.0)
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
    border = image[to_edge < 2.5]
    ink = world.rgb(world.contrast_ink(world.BACKGROUNDS[name]))
    framed = np.linalg.norm(border - ink, axis=-1) < np.linalg.norm(border - measured, axis=-1)
    return _Ground(name, measured, sunset=dimmed, frame=bool(framed.mean() > 0.75))


@functools.cache
def _inside_frame() -> NDArray[np.bool_]:
    x, y = world.grid()
    to_edge = np.minimum(np.minimum(x, y), np.minimum(world.SIZE - x, world.SIZE - y))
    inside: NDArray[np.bool_] = to_edge > world.FRAME_WIDTH + 1
    return inside


@functools.cache
def _offset(shape: str, size: str, outline: bool) -> tuple[float, float]:
    """From a silhouette's centroid to its shape's centre, in pixels."""
    middle = world.SIZE / 2
    cover = world.coverage(world.distance(shape, (middle, middle), world.SIZES[size]) - outline * world.OUTLINE_WIDTH)
    x, y = world.grid()
    return float(middle - (cover * x).sum() / cover.sum()), float(middle - (cover * y).sum() / cover.sum())


def _propose(mask: NDArray[np.bool_], visible: NDArray[np.bool_]) -> list[_Proposal]:
    """The shapes and sizes, with and without outline, whose silhouettes overlap ``mask`` most, best first."""
    if mask.sum() < 20:
        return []
    x, y = world.grid()
    centroid = float(x[mask].mean()), float(y[mask].mean())
    proposals = []
    for shape in world.SHAPES:
        for size in world.SIZES:
            for outline in (False, True):
                dx, dy = _offset(shape, size, outline)
                found = _Proposal(shape, size, outline, (centroid[0] + dx, centroid[1] + dy), 0.0)
                proposals.append(dataclasses.replace(found, overlap=_overlap(found, mask, visible)))
    proposals.sort(key=lambda proposal: -proposal.overlap)
    return proposals[:PROPOSALS]


def _overlap(proposal: _Proposal, mask: NDArray[np.bool_], visible: NDArray[np.bool_]) -> float:
    width = proposal.outline * world.OUTLINE_WIDTH
    cover = world.coverage(proposal.edge() - np.float32(width)) * visible
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
    outline_ink = world.rgb(world.contrast_ink(world.BACKGROUNDS[ground.name]))
    candidates = []
    for proposal in proposals:
        edge = proposal.edge()
        for colour in _colours(image, ground, mask, edge < -0.5):
            for texture in world.TEXTURES:
                painted = _paint(edge, colour, texture, proposal.outline, ground, outline_ink)
                candidates.append((float(np.square((image - painted)[visible]).sum()), proposal, colour, texture))
    error, proposal, colour, texture = min(candidates, key=lambda candidate: candidate[0])
    empty = float(np.square((image - ground.colour)[visible]).sum())
    return Reading(
        shape=proposal.shape,
        colour=colour,
        texture=texture,
        size=proposal.size,
        position=_position(proposal.centre),
        background=ground.name,
        style="outline" if proposal.outline else "frame" if ground.frame else "sunset" if ground.sunset else "none",
        explained=1.0 - error / empty,
    )


def _position(centre: tuple[float, float]) -> str:
    def apart(name: str) -> float:
        _, x, y = world.POSITIONS[name]
        return (world.SIZE / 2 + x - centre[0]) ** 2 + (world.SIZE / 2 + y - centre[1]) ** 2

    return min(world.POSITIONS, key=apart)


def _paint(edge: Array, colour: str, texture: str, outline: bool, ground: _Ground, outline_ink: Array) -> Array:
    named = world.COLOURS[colour]
    fill, ink = world.rgb(named), world.rgb(world.contrast_ink(named))
    if ground.sunset:
        fill, ink, outline_ink = world.sunset(fill), world.sunset(ink), world.sunset(outline_ink)
    style = "outline" if outline else "none"
    return world.paint(edge, fill, ink, ground.colour, texture, style, outline_ink, outline_ink)


def accuracy(readings: Iterable[tuple[Scene, Reading]], attributes: Iterable[str] = ATTRIBUTES) -> dict[str, float]:
    """Share of readings that agree with their scene, per attribute and for all of them at once (``"all"``)."""
    pairs, names = list(readings), tuple(attributes)
    shares = {name: float(np.mean([reading.shows(scene, [name]) for scene, reading in pairs])) for name in names}
    return {**shares, "all": float(np.mean([reading.shows(scene, names) for scene, reading in pairs]))}
