"""Where a training crop lies: the center square of a photo, or a square that shows the face, large enough to learn."""

import math
from collections.abc import Sequence
from typing import TypeAlias

from finetune_monitor.base.images import Square

Box: TypeAlias = Sequence[float]
"""Left, top, right, and bottom of a face in pixels of the photo."""

SMALL_FACE, WANTED_SHARE = 0.15, 0.18
"""Share of the crop's area below which a face is too small to be learned well, so that the crop is narrowed, and the
share that it then covers: head and shoulders."""

FEW_PIXELS, ENOUGH_PIXELS = 40, 48
"""The same for the height of a face in pixels of the crop, which decides at low resolutions, such as the demo's 64."""

ENLARGEMENT = 2.0
"""A crop is never narrowed so far that its pixels are enlarged by more than this."""

EYE_LEVEL = 0.45
"""Where the face's middle comes to lie in a crop that was moved, as a share of its height."""

ABOVE, AROUND = 0.45, 0.25
"""Room that hair and chin need around a face's box, as shares of its height and width."""


def center_square(size: tuple[int, int]) -> Square:
    """The largest square in the middle of an image of this width and height."""
    side = min(size)
    return (size[0] - side) // 2, (size[1] - side) // 2, side


def face_square(size: tuple[int, int], face: Box, resolution: int) -> Square:
    """The center square if it shows the whole head large enough, else a square around the head.

    It is as wide as possible: narrower than the photo only if the face would otherwise cover less than `SMALL_FACE`, or
    have fewer than `FEW_PIXELS`.

    Args:
        size: width and height of the photo.
        face: the face's box.
        resolution: side of the training crops in pixels.
    """
    left, top, right, bottom = face
    width, height = right - left, bottom - top
    whole = center_square(size)
    is_small = width * height < SMALL_FACE * whole[2] ** 2 or height * resolution < FEW_PIXELS * whole[2]
    wanted = min(math.sqrt(width * height / WANTED_SHARE), height * resolution / ENOUGH_PIXELS)
    side = min(whole[2], math.ceil(max(wanted, resolution / ENLARGEMENT))) if is_small else whole[2]
    head = (left - AROUND * width, top - ABOVE * height, right + AROUND * width, bottom + AROUND * height)
    if side == whole[2] and _holds(whole, _inside(head, size)):
        return whole
    middle = (left + right) / 2, (top + bottom) / 2
    x = _between(middle[0] - side / 2, size[0] - side)
    y = _between(middle[1] - EYE_LEVEL * side, size[1] - side)
    return x, y, side


def relative_box(face: Box, square: Square) -> tuple[float, float, float, float]:
    """The part of a face's box in a crop, 0 to 1 of the crop's side."""
    left, top, side = square
    edges = [(edge - (top if i % 2 else left)) / side for i, edge in enumerate(face)]
    x0, y0, x1, y1 = (min(1.0, max(0.0, edge)) for edge in edges)
    return x0, y0, x1, y1


def _inside(box: Box, size: tuple[int, int]) -> Box:
    return max(0.0, box[0]), max(0.0, box[1]), min(size[0], box[2]), min(size[1], box[3])


def _holds(square: Square, box: Box) -> bool:
    left, top, side = square
    return left <= box[0] and top <= box[1] and box[2] <= left + side and box[3] <= top + side


def _between(start: float, largest: int) -> int:
    return round(min(max(start, 0), largest))
