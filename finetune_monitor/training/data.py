"""Which photo a step sees and how it is cropped: pure functions of the seed and the position in training.

Processes that prefetch photos import this and little else, so that they start quickly and use little memory.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.images import Square, cut, each_image, read_image

Size: TypeAlias = tuple[int, int]
"""Width and height in pixels."""

CROPS = 8
"""Random crops per photo in the cache: enough that no crop is memorized, and 1 MB per photo at 512 px."""

ZOOM = 9 / 8
"""Maximum enlargement of a random crop: even a square photo leaves room to move, and faces are rarely cut off."""


class Seen(NamedTuple):
    """Views of photos: RGB in [-1, 1], and where each was cut from."""

    pixels: Float[Tensor, "*n 3 r r"]
    sizes: Float[Tensor, "*n 6"]


@dataclass(frozen=True)
class Window:
    """A square of a photo: left, top, and side in its pixels, and whether it is mirrored."""

    left: float
    top: float
    side: float
    mirrored: bool = False

    def sizes(self, photo: Size, resolution: int, square: Square | None = None) -> list[int]:
        """SDXL's inputs for the size and crop of a view (Podell et al. 2023, arXiv 2307.01952, section 2.2).

        Returns:
            Height and width of the photo; top and left of the view, in pixels of the photo as it was resized for it;
            height and width of the view. A mirrored view is one of the mirrored photo.

        Args:
            photo: width and height in pixels.
            square: the part of the photo that the window lies in; without one, all of it.
        """
        left, top = self.left + (square[0] if square else 0), self.top + (square[1] if square else 0)
        if self.mirrored:
            left = photo[0] - left - self.side
        scale = resolution / self.side
        return [photo[1], photo[0], round(top * scale), round(left * scale), resolution, resolution]


@dataclass(frozen=True)
class Views:
    """The views of photos: the center square, or random squares with `crop`; `flip` mirrors half of them."""

    resolution: int
    crop: bool = False
    flip: bool = False

    @property
    def copies(self) -> int:
        """The number of views per photo in the cache."""
        return CROPS if self.crop else 2 if self.flip else 1

    def windows(self, photo: Size, seed: Sequence[int]) -> list[Window]:
        """The windows for the cache; `flip` mirrors every other one."""
        random = np.random.default_rng(seed)
        found = [self._window(photo, random) for _ in range(self.copies)]
        return [replace(window, mirrored=self.flip and i % 2 == 1) for i, window in enumerate(found)]

    def window(self, photo: Size, seed: Sequence[int]) -> Window:
        """The window for a seed."""
        random = np.random.default_rng(seed)
        found = self._window(photo, random)
        return replace(found, mirrored=self.flip and random.random() < 0.5)

    def _window(self, photo: Size, random: np.random.Generator) -> Window:
        return random_window(photo, random) if self.crop else center_window(photo)

    def cut(self, photo: Image.Image, window: Window) -> Float[Tensor, "3 r r"]:
        """The view in a window."""
        shown = resized(photo, window, self.resolution) if self.crop else center(photo, self.resolution)
        pixels = to_tensor(shown)
        return pixels.flip(-1) if window.mirrored else pixels


def checked_photos(paths: list[Path]) -> list[Path]:
    """The same paths, after reading each photo once so that none fails during training; no photo stays in memory.

    Raises:
        UserError: one error that lists every file that cannot be read.
    """
    for _ in each_image(paths):
        pass
    return paths


def center(photo: Image.Image, resolution: int) -> Image.Image:
    """The largest center square of a photo."""
    return ImageOps.fit(photo, (resolution, resolution), Image.Resampling.LANCZOS)


def center_window(photo: Size) -> Window:
    """The largest square in the center of a photo."""
    side = min(photo)
    return Window((photo[0] - side) / 2, (photo[1] - side) / 2, side)


def random_window(photo: Size, random: np.random.Generator) -> Window:
    """A square anywhere in a photo, with a side between 1 / ZOOM and 1 times the photo's shorter side."""
    side = min(photo) / random.uniform(1, ZOOM)
    left, top = (random.uniform(0, extent - side) for extent in photo)
    return Window(left, top, side)


def resized(photo: Image.Image, window: Window, resolution: int) -> Image.Image:
    """The part of a photo in a window."""
    right = min(window.left + window.side, photo.width)  # never beyond by a rounding error
    bottom = min(window.top + window.side, photo.height)
    box = (window.left, window.top, right, bottom)
    return photo.resize((resolution, resolution), Image.Resampling.LANCZOS, box=box)


def to_tensor(square: Image.Image) -> Float[Tensor, "3 r r"]:
    """RGB in [-1, 1]."""
    return torch.from_numpy(np.asarray(square, dtype=np.float32) / 127.5 - 1).permute(2, 0, 1)


@dataclass(frozen=True)
class Photos(Dataset[Seen]):
    """An endless sequence of shuffled epochs over photos, by position; photos are read from disk each time.

    squares: the part of each photo that is used; without one, all of it.
    repeats: how often an epoch contains each photo; empty for once.
    """

    paths: Sequence[Path]
    views: Views
    seed: int
    squares: Mapping[Path, Square] = field(default_factory=dict)
    repeats: Sequence[int] = ()

    def __getitem__(self, position: int) -> Seen:
        index = self.indices(position, 1)[0]
        photo, size = self._read(index)
        window = self.views.window(photo.size, [self.seed, position])
        return Seen(self.views.cut(photo, window), torch.tensor(self._sizes(index, window, size)).float())

    def all_views(self, index: int, decoded: Image.Image | None = None) -> Seen:
        """The views of a photo for the cache; `decoded` is the photo, if it was read before."""
        photo, size = self._read(index, decoded)
        windows = self.views.windows(photo.size, [self.seed, index])
        pixels = torch.stack([self.views.cut(photo, window) for window in windows])
        return Seen(pixels, torch.tensor([self._sizes(index, window, size) for window in windows]).float())

    def _read(self, index: int, decoded: Image.Image | None = None) -> tuple[Image.Image, Size]:
        """The photo, or its square, and the size of the entire photo."""
        path = self.paths[index]
        image, square = decoded or read_image(path), self.squares.get(path)
        return image if square is None else cut(image, square), image.size

    def _sizes(self, index: int, window: Window, photo: Size) -> list[int]:
        return window.sizes(photo, self.views.resolution, self.squares.get(self.paths[index]))

    def indices(self, position: int, count: int) -> list[int]:
        """The photos at `count` positions."""
        return [self._epoch[i] for i in batch_indices(self.seed, position, len(self._epoch), count)]

    @property
    def epoch_length(self) -> int:
        """How many positions an epoch has."""
        return len(self._epoch)

    @cached_property
    def _epoch(self) -> list[int]:
        """The indices of an epoch's photos; repeats that all photos share are left out."""
        repeats = self.repeats or [1] * len(self.paths)
        shared = math.gcd(*repeats)
        return [index for index, count in enumerate(repeats) for _ in range(count // shared)]


@dataclass(frozen=True)
class Batches(Dataset[Seen | UserError]):
    """Batches of photos by turn.

    A problem that the user can fix is returned, and not raised: torch would bury its message in a traceback.
    """

    photos: Photos
    size: int

    def __len__(self) -> int:
        return self.photos.epoch_length

    def __getitem__(self, turn: int) -> Seen | UserError:
        try:
            seen = [self.photos[turn * self.size + i] for i in range(self.size)]
            pixels, sizes = (torch.stack(each) for each in zip(*seen, strict=True))
            return Seen(_to_pass_on(pixels), sizes)
        except UserError as error:
            return error


def _to_pass_on(pixels: Float[Tensor, "b 3 r r"]) -> Float[Tensor, "b 3 r r"]:
    """The pixels in shared memory, where a process of its own has read them; torch would only print its failure."""
    try:
        return pixels.share_memory_() if get_worker_info() is not None else pixels
    except (RuntimeError, OSError) as error:
        raise UserError(
            f"data.workers: no space left in shared memory for photos ({str(error).splitlines()[0]}); enlarge "
            "/dev/shm (docker run --shm-size=8g), lower data.workers, or set it to 0"
        ) from error


def batch_indices(seed: int, position: int, count: int, batch_size: int) -> list[int]:
    """Entries `position` to `position + batch_size` of an endless sequence of shuffled epochs over `count` photos.

    As a function of the position, it needs no state: a resumed run sees the same photos as an uninterrupted one.
    """
    indices: list[int] = []
    while len(indices) < batch_size:
        epoch, offset = divmod(position + len(indices), count)
        order = np.random.default_rng([seed, epoch]).permutation(count)
        indices.extend(order[offset : offset + batch_size - len(indices)].tolist())
    return indices


def step_seed(*parts: int) -> int:
    """A 63-bit seed for a position in training, such as (seed, step, micro step, rank)."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0]) >> 1
