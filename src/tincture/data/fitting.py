"""How a picture gets the size it is trained in: resized to one size, then cropped to another around its centre.

Sizes are (width, height) in pixels throughout.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from tincture.errors import UsageError

Size = tuple[int, int]


@dataclass(frozen=True)
class Fit:
    """A picture is resized to `scaled`, of which `size` is cut out at `crop`, which is (left, top)."""

    size: Size
    scaled: Size
    crop: tuple[int, int] = (0, 0)

    @property
    def cropped(self) -> float:
        """The share of the picture that is cut off, 0..1."""
        return 1 - (self.size[0] * self.size[1]) / (self.scaled[0] * self.scaled[1])

    def enlarges(self, original: Size) -> bool:
        """Whether a picture of the size `original` is made larger, in width or in height."""
        return self.scaled[0] > original[0] or self.scaled[1] > original[1]

    def apply(self, image: Image.Image) -> Image.Image:
        """The picture in its training size, resized bicubically.

        An image of another size than the picture that this was planned for, such as a small mask, is stretched over
        the picture first. Only the part that stays is resized, so that a long and thin picture takes no more memory.
        """
        (width, height), (left, top) = self.size, self.crop
        if image.size == self.scaled:
            return image.crop((left, top, left + width, top + height))
        # Multiplied before divided: so the whole width of an image is its width exactly, in floats too.
        x = [edge * image.width / self.scaled[0] for edge in (left, left + width)]
        y = [edge * image.height / self.scaled[1] for edge in (top, top + height)]
        return image.resize(self.size, Image.Resampling.BICUBIC, box=(x[0], y[0], x[1], y[1]))


def fitting(
    width: int,
    height: int,
    *,
    resize: str = "stretch",
    varsize: bool = False,
    buckets: Buckets | None = None,
    stride: int = 8,
) -> Callable[[Size], Fit]:
    """The size of a picture -> its fit: its own size with `varsize`, else its bucket, else width × height.

    Args:
        resize: "stretch" to width × height, or "crop" to their proportions.
        stride: Pixels per cell of the latents; width and height must be multiples.

    Raises:
        UsageError: a side, of a bucket too, is not a multiple of `stride`.
    """
    _check_size("width", width, stride)
    _check_size("height", height, stride)
    if varsize:
        return lambda original: own(original, stride)
    if buckets:
        if any(side % stride for size in buckets.sizes for side in size):
            raise UsageError(
                f"The buckets' sides don't suit the model; give a bucket_step that is a multiple of {stride}."
            )
        return buckets.fit
    size = width, height
    return (lambda original: cover(original, size)) if resize == "crop" else (lambda _: stretch(size))


def _check_size(name: str, size: int, stride: int) -> None:
    if size < stride or size % stride:
        near = max(size - size % stride, stride)
        raise UsageError(
            f"The pictures' {name} is {size}, but must be a multiple of {stride}, such as {near} or {near + stride}."
        )


def stretch(size: Size) -> Fit:
    """The whole picture at `size`, whatever its proportions."""
    return Fit(size, size)


def cover(original: Size, size: Size) -> Fit:
    """A picture of the size `original` at `size`, its proportions kept: the edges that do not fit are cut off."""
    (width, height), (wide, high) = original, size
    if wide * height >= high * width:
        scaled = wide, max(high, round(height * wide / width))
    else:
        scaled = max(wide, round(width * high / height)), high
    return Fit(size, scaled, _centre(scaled, size))


def own(original: Size, stride: int) -> Fit:
    """A picture in its own size, less what exceeds a multiple of `stride`; below `stride`, the size holds a 0."""
    size = original[0] // stride * stride, original[1] // stride * stride
    return Fit(size, original, _centre(original, size))


def _centre(scaled: Size, size: Size) -> tuple[int, int]:
    return (scaled[0] - size[0]) // 2, (scaled[1] - size[1]) // 2


@dataclass(frozen=True)
class Buckets:
    """The sizes on a grid that have about one area, of which each picture takes the one that crops it least.

    Attributes:
        sizes: from narrow to wide. For every width they have the height that comes nearest below the area.
    """

    sizes: tuple[Size, ...]

    @classmethod
    def of_area(cls, area: int, step: int, shortest: int, longest: int) -> Buckets:
        """Buckets of at most `area` pixels, their sides multiples of `step` in `shortest` .. `longest`.

        Raises:
            UsageError: there is no such size.
        """
        low, high = -(-shortest // step) * step, longest // step * step
        sizes: set[Size] = set()
        for side in range(low, high + 1, step):
            other = min(area // side // step * step, high)
            if other >= low:
                sizes |= {(side, other), (other, side)}
        if not sizes:
            raise UsageError(
                f"No bucket has at most {area} pixels and sides from {shortest} to {longest} that are multiples of "
                f"{step}; give a smaller bucket_min or bucket_step, or a larger bucket_max, width or height."
            )
        return cls(tuple(sorted(sizes)))

    @classmethod
    def around(cls, area: int, stride: int, *, step: int = 0, shortest: int = 0, longest: int = 0) -> Buckets:
        """Buckets of at most `area` pixels; what is 0 follows from a square of that area.

        That is: from half of its side to twice, in steps of 64, or for small models of an eighth of the side.

        Args:
            stride: Pixels per cell of the latents; an own step is a multiple of it.

        Raises:
            UsageError: there is no such size.
        """
        side = math.isqrt(area)
        step = step or max(stride, min(64, side // 8 // stride * stride))
        return cls.of_area(area, step, shortest or side // 2, longest or side * 2)

    def fit(self, original: Size) -> Fit:
        """How a picture of the size `original` gets into its bucket. Of buckets that crop alike, the largest counts."""

        def share_that_stays(size: Size) -> tuple[float, int, Size]:
            one, other = original[0] * size[1], original[1] * size[0]
            return min(one, other) / max(one, other), size[0] * size[1], size

        return cover(original, max(self.sizes, key=share_that_stays))
