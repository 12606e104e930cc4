"""Which photo a step sees and how it is cropped: pure functions of the seed and the position in training.

Processes that prefetch photos import this and little else, so that they start quickly and use little memory.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.images import Square, cut, each_image, read_image

CROPS = 8
"""Random crops per photo in the cache: enough that no crop is memorized, and 1 MB per photo at 512 px."""

ZOOM = 9 / 8
"""Maximum enlargement of a random crop: even a square photo leaves room to move, and faces are rarely cut off."""


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

    def all(self, photo: Image.Image, seed: Sequence[int]) -> Float[Tensor, "copies 3 r r"]:
        """The views for the cache; `flip` mirrors every other one."""
        random = np.random.default_rng(seed)
        views = [self._square(photo, random) for _ in range(self.copies)]
        return torch.stack([view.flip(-1) if self.flip and i % 2 else view for i, view in enumerate(views)])

    def one(self, photo: Image.Image, seed: Sequence[int]) -> Float[Tensor, "3 r r"]:
        """The view for a seed."""
        random = np.random.default_rng(seed)
        square = self._square(photo, random)
        return square.flip(-1) if self.flip and random.random() < 0.5 else square

    def _square(self, photo: Image.Image, random: np.random.Generator) -> Float[Tensor, "3 r r"]:
        return to_tensor(random_square(photo, self.resolution, random) if self.crop else center(photo, self.resolution))


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


def random_square(photo: Image.Image, resolution: int, random: np.random.Generator) -> Image.Image:
    """A square anywhere in the photo, with a side between 1 / ZOOM and 1 times the photo's shorter side."""
    side = min(photo.size) / random.uniform(1, ZOOM)
    left, top = (random.uniform(0, extent - side) for extent in photo.size)
    right, bottom = min(left + side, photo.width), min(top + side, photo.height)  # never beyond by a rounding error
    return photo.resize((resolution, resolution), Image.Resampling.LANCZOS, box=(left, top, right, bottom))


def to_tensor(square: Image.Image) -> Float[Tensor, "3 r r"]:
    """RGB in [-1, 1]."""
    return torch.from_numpy(np.asarray(square, dtype=np.float32) / 127.5 - 1).permute(2, 0, 1)


@dataclass(frozen=True)
class Photos(Dataset[Tensor]):
    """An endless sequence of shuffled epochs over photos, by position; photos are read from disk each time.

    squares: the part of each photo that is used; without one, all of it.
    repeats: how often an epoch contains each photo; empty for once.
    """

    paths: Sequence[Path]
    views: Views
    seed: int
    squares: Mapping[Path, Square] = field(default_factory=dict)
    repeats: Sequence[int] = ()

    def __getitem__(self, position: int) -> Float[Tensor, "3 r r"]:
        return self.views.one(self.read(self.indices(position, 1)[0]), [self.seed, position])

    def read(self, index: int, decoded: Image.Image | None = None) -> Image.Image:
        """The photo, or its square; `decoded` is the photo, if it was read before."""
        path = self.paths[index]
        image, square = decoded or read_image(path), self.squares.get(path)
        return image if square is None else cut(image, square)

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
class Batches(Dataset[Tensor | UserError]):
    """Batches of photos by turn.

    A problem that the user can fix is returned, and not raised: torch would bury its message in a traceback.
    """

    photos: Photos
    size: int

    def __len__(self) -> int:
        return self.photos.epoch_length

    def __getitem__(self, turn: int) -> Float[Tensor, "b 3 r r"] | UserError:
        try:
            return _to_pass_on(torch.stack([self.photos[turn * self.size + i] for i in range(self.size)]))
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
