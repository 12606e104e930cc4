"""The share of images that copy a training photo instead of showing the person anew."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from PIL.Image import Image, Resampling

from finetune_monitor.base.errors import UserError
from finetune_monitor.metrics import Description, RunContext
from finetune_monitor.metrics.reference_photos import ReferencePhotos, References
from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.grid import Cell
from finetune_monitor.stats.estimate import FloatArray

SIDE = 32
"""Pixels a side that images are brought to: composition and light are left, detail is not."""

CORRELATION, PHOTO = "photo_correlation", "nearest_photo"

ALARM = 0.2


class Copying:
    """Whether an image is nearer to one training photo than the photos are to each other.

    Nearness is the correlation of luminance at 32 x 32 pixels. The level is the greatest between two of the photos
    themselves: a set of near duplicates makes the metric blind, and a set of two photos says little. With the
    demo's models, without prior preservation: 0, 31, 75 and 88 % of 16 images at steps 0, 100, 200 and 300. Whole-image
    CLIP and the nearest face never show copies, as they are made to overlook composition.

    Columns:
        copying: 1 where the greatest correlation is beyond that of any two photos, else 0.
        photo_correlation: the greatest correlation with a photo, -1 to 1.
        nearest_photo: the place of that photo, from 0.

    Args:
        references: the training photos, two at least.
        alarm: share of the images beyond which the alarm sounds.

    Raises:
        UserError: photos that cannot be read, or fewer than two.
    """

    name = "copying"
    higher_is_better = False
    bounds = (0.0, 1.0)

    @dataclass(frozen=True)
    class Options:
        """What a config may set."""

        alarm: float = ALARM

        def __post_init__(self) -> None:
            if not 0 < self.alarm < 1:
                raise ValueError(f"Options.alarm: found {self.alarm:g}, expected a share between 0 and 1")

    columns: ClassVar = {
        name: ScoreColumn(
            False,
            bounds,
            is_share=True,
            alarm=ALARM,
            says="images copy training photos; stop earlier, add photos, or lower the learning rate",
        ),
        CORRELATION: ScoreColumn(None, (-1.0, 1.0), "side"),
        PHOTO: ScoreColumn(None, role="note", likeness=CORRELATION),
    }

    def __init__(self, references: References, alarm: float = ALARM) -> None:
        photos = ReferencePhotos.read(references)
        images = photos.images
        if len(images) < 2:
            raise UserError(
                f"copying: found {len(images)} training photo, expected two or more: what is a copy is told by how "
                "alike the photos are; add photos, or leave the metric out"
            )
        self._photos = np.stack([_flattened(image) for image in images])
        among = self._photos @ self._photos.T
        self.level = max(0.0, float(among[~np.eye(len(among), dtype=bool)].max()))
        self._description = Description(
            columns={**self.columns, self.name: self.columns[self.name].with_alarm(alarm)},
            weights=photos.weights,
            thumbnails=photos.thumbnails,
        )

    @classmethod
    def for_run(cls, options: Options, run: RunContext) -> "Copying | None":
        """The metric that a run's config asks for."""
        return None if run.photos is None else cls(run.photos, options.alarm)

    def score(self, images: Sequence[Image], cells: Sequence[Cell]) -> dict[str, FloatArray]:
        """The columns, one value an image (RGB)."""
        if not images:
            return {name: np.zeros(0) for name in self.columns}
        correlations = np.stack([_flattened(image) for image in images]) @ self._photos.T
        greatest = correlations.max(axis=1)
        return {
            self.name: (greatest > self.level).astype(np.float64),
            CORRELATION: greatest,
            PHOTO: correlations.argmax(axis=1).astype(np.float64),
        }

    def describe(self) -> Description:
        """The photos, each with its SHA-256 and a small image, and the alarm."""
        return self._description


def _flattened(image: Image) -> Float[np.ndarray, "pixels"]:
    """Luminance at 32 x 32 pixels, centered and of length 1, so that a product of two is their correlation."""
    small = np.asarray(image.convert("L").resize((SIDE, SIDE), Resampling.BOX), dtype=np.float64).ravel()
    centered = small - small.mean()
    length = float(np.linalg.norm(centered))
    found: np.ndarray = centered / length if length else centered
    return found
