"""The photos that images are compared with, with names for messages and SHA-256 for the record."""

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Float
from PIL.Image import Image

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import sha256
from finetune_monitor.base.images import Square, as_rgb, cut, list_images, passed_over, read_images, thumbnail

References: TypeAlias = "str | Path | Sequence[str | Path | Image] | ReferencePhotos"
"""A folder of photos, a list of paths or images, or photos that were read before."""


@dataclass(frozen=True)
class ReferencePhotos:
    """Photos of the subject, in RGB; the held-out ones come last.

    names: their names in messages.
    digests: SHA-256 of each file, or of the pixels if an image has no file.
    used: the number of photos that are not held out.
    """

    names: list[str]
    images: list[Image]
    digests: list[str]
    used: int

    @classmethod
    def read(cls, references: References, held_out: References = ()) -> "ReferencePhotos":
        """Read references and held-out photos together; those that were read before already have both.

        Raises:
            UserError: there is no reference, or some photos cannot be read (all of them are listed).
        """
        if isinstance(references, ReferencePhotos):
            return references
        used, kept = _entries(references), _entries(held_out)
        if not used:
            raise UserError("reference photos: found an empty list, expected at least one photo of the subject")
        named = _named([*used, *kept])
        digests = [_digest(name, image) for name, image in named]
        return cls([name for name, _ in named], [image for _, image in named], digests, len(used))

    def split(
        self, rows: Float[np.ndarray, "n d"]
    ) -> tuple[Float[np.ndarray, "used d"], Float[np.ndarray, "held_out d"]]:
        """The rows of the references, and those of the held-out photos."""
        return rows[: self.used], rows[self.used :]

    def only(self, kept: Sequence[bool]) -> "ReferencePhotos":
        """The photos for which `kept` is true."""
        return ReferencePhotos(
            list(compress(self.names, kept)),
            list(compress(self.images, kept)),
            list(compress(self.digests, kept)),
            sum(kept[: self.used]),
        )

    @property
    def trained(self) -> "ReferencePhotos":
        """The photos that are not held out."""
        return self.only([i < self.used for i in range(len(self.names))])

    @property
    def held_out(self) -> "ReferencePhotos":
        """The photos that are held out, as references of their own."""
        found = self.only([i >= self.used for i in range(len(self.names))])
        return replace(found, used=len(found.names))

    def cropped(self, squares: Mapping[Path, Square]) -> "ReferencePhotos":
        """The photos, of which those with a square are cut to it."""
        found = [squares.get(Path(name)) for name in self.names]
        pairs = zip(self.images, found, strict=True)
        return replace(self, images=[image if square is None else cut(image, square) for image, square in pairs])

    @property
    def weights(self) -> dict[str, list[dict[str, str]]]:
        """The photos in a metric's description: file and SHA-256."""
        described = [{"file": name, "sha256": digest} for name, digest in zip(self.names, self.digests, strict=True)]
        held_out = described[self.used :]
        return {"references": described[: self.used], **({"held_out": held_out} if held_out else {})}

    @property
    def thumbnails(self) -> dict[str, Image]:
        """A thumbnail of each photo, by its SHA-256."""
        return {digest: thumbnail(image) for digest, image in zip(self.digests, self.images, strict=True)}


def _digest(name: str, image: Image) -> str:
    return sha256(Path(name)) if Path(name).is_file() else hashlib.sha256(image.tobytes()).hexdigest()


def _entries(photos: References) -> list[str | Path | Image]:
    if isinstance(photos, ReferencePhotos):
        return list(photos.images)
    if not isinstance(photos, str | Path):
        return list(photos)
    if others := passed_over(photos):
        warnings.warn(others, stacklevel=4)
    return list(list_images(photos))


def _named(entries: Sequence[str | Path | Image]) -> list[tuple[str, Image]]:
    """Every photo with its name in messages."""
    paths = [entry for entry in entries if isinstance(entry, str | Path)]
    read = iter(read_images(paths))
    return [
        (str(entry), next(read))
        if isinstance(entry, str | Path)
        else (f"photo {index}", as_rgb(entry, f"photo {index}"))
        for index, entry in enumerate(entries)
    ]
