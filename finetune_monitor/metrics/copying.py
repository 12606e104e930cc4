"""The share of images that copy a training photo instead of showing the subject in a new way."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Float
from PIL import ImageOps
from PIL.Image import Image, Resampling

from finetune_monitor.base.errors import UserError
from finetune_monitor.metrics import Description, RunContext
from finetune_monitor.metrics.cosines import UNIT
from finetune_monitor.metrics.reference_photos import ReferencePhotos, References
from finetune_monitor.record.columns import ScoreColumn, with_level
from finetune_monitor.record.grid import Cell
from finetune_monitor.stats.estimate import FloatArray

if TYPE_CHECKING:  # the config imports this file for its options, and importing torch takes seconds
    import torch

NAME = "copying"

SIDE = 32
"""Side in pixels to which images are reduced: this keeps composition and light but no detail."""

CORRELATION, PHOTO = "photo_correlation", "nearest_photo"

BY_SSCD, SSCD_SIMILARITY, SSCD_PHOTO = "copying_sscd", "photo_sscd", "nearest_photo_sscd"

ALARM = 0.2

SAYS = (
    "images are closer to a training photo than the photos are to each other; if they are copies, stop earlier, add "
    "photos, or lower the learning rate"
)

Rows = Float[np.ndarray, "n d"]


@dataclass(frozen=True)
class _Nearness:
    """The similarity of images to the photos, and of the photos to each other.

    columns: the names of the results of `score`: whether an image is a copy, its similarity to the nearest photo, and
        the index of that photo.
    embed: returns rows of length 1, so that the product of two is their similarity.
    photos: the rows of the photos.
    """

    columns: tuple[str, str, str]
    embed: Callable[[Sequence[Image]], Rows]
    photos: Rows

    @property
    def level(self) -> float:
        """The highest similarity between two photos; an image above it is a copy."""
        among = self.photos @ self.photos.T
        return max(0.0, float(among[~np.eye(len(among), dtype=bool)].max()))

    def score(self, images: Sequence[Image]) -> dict[str, FloatArray]:
        if not images:
            return {name: np.zeros(0) for name in self.columns}
        nearness = self.embed(images) @ self.photos.T
        greatest = nearness.max(axis=1).astype(np.float64)
        is_copy, place = (greatest > self.level).astype(np.float64), nearness.argmax(axis=1).astype(np.float64)
        return dict(zip(self.columns, (is_copy, greatest, place), strict=True))


class Copying:
    """Whether an image is more similar to a training photo than the photos are to each other.

    Similarity is the correlation of luminance at 32 x 32 pixels and, if its weights are given, the cosine of SSCD
    embeddings. The level is the highest similarity between two of the photos themselves: near duplicates among them
    blind the metric. With n photos, an image that is no copy, but as different from them as they are from each other,
    exceeds the level with a probability of 2 / (n + 1): of n + 1 such images, two are the nearest pair. So with few
    photos a high share means little. (CLIP's embeddings and those of faces cannot replace it, because they are designed
    to ignore composition.)

    Columns:
        copying: 1 if the highest correlation exceeds that of any two photos, otherwise 0.
        photo_correlation: the highest correlation with a photo, -1 to 1.
        nearest_photo: the index of that photo, from 0.
        copying_sscd, photo_sscd, nearest_photo_sscd: the same by SSCD, if its weights are given.

    Args:
        references: at least two training photos; only the center square is used. In a run, they are cut as in training.
        alarm: the share of images above which the alarm sounds.
        sscd: `disc_mixup`, which is downloaded once (98 MB), or the path of such a file.

    Raises:
        UserError: photos cannot be read, there are fewer than two, or SSCD's weights are not available.
    """

    name = NAME
    higher_is_better = False
    bounds = (0.0, 1.0)

    @dataclass(frozen=True)
    class Options:
        """The options that a config can set."""

        alarm: float = ALARM
        sscd: str | None = None

        def __post_init__(self) -> None:
            if not 0 < self.alarm < 1:
                raise ValueError(f"Options.alarm: found {self.alarm:g}, expected a share between 0 and 1")

    columns: ClassVar = {
        NAME: ScoreColumn(False, bounds, is_share=True, ignores=("sscd",), alarm=ALARM, says=SAYS),
        CORRELATION: ScoreColumn(None, (-1.0, 1.0), "side", ignores=("sscd",), unit="correlation"),
        PHOTO: ScoreColumn(None, role="note", of=NAME, ignores=("sscd",), likeness=CORRELATION),
        BY_SSCD: ScoreColumn(
            False, bounds, is_share=True, alarm=ALARM, says=SAYS, needs=f"monitor.metrics.{NAME}.sscd"
        ),
        SSCD_SIMILARITY: ScoreColumn(None, (-1.0, 1.0), "side", needs=f"monitor.metrics.{NAME}.sscd", unit=UNIT),
        SSCD_PHOTO: ScoreColumn(
            None, role="note", of=BY_SSCD, likeness=SSCD_SIMILARITY, needs=f"monitor.metrics.{NAME}.sscd"
        ),
    }

    def __init__(
        self,
        references: References,
        alarm: float = ALARM,
        sscd: str | None = Options.sscd,
        device: "str | torch.device" = "cpu",
    ) -> None:
        photos = ReferencePhotos.read(references)
        if len(photos.images) < 2:
            raise UserError(
                f"copying: found {len(photos.images)} training photo, expected two or more: copies are detected by "
                "how similar the photos are to each other; add photos or leave the metric out"
            )
        self._nearness = [_Nearness((NAME, CORRELATION, PHOTO), _luminance, _luminance(photos.images))]
        weights: dict[str, Any] = dict(photos.weights)
        if sscd is not None:
            from finetune_monitor.models.sscd import SscdEncoder

            encoder = SscdEncoder(sscd, device)
            weights["sscd"] = encoder.identity
            names = (BY_SSCD, SSCD_SIMILARITY, SSCD_PHOTO)
            self._nearness.append(_Nearness(names, encoder.rows, encoder.rows(photos.images)))
        given = [name for nearness in self._nearness for name in nearness.columns]
        known = {name: self.columns[name] for name in given}
        self._description = Description(
            columns=with_level(known, alarm),
            weights=weights,
            thumbnails=photos.thumbnails,
        )

    @classmethod
    def for_run(cls, options: Options, run: RunContext) -> "Copying | None":
        """The metric as configured for a run; without photos, only SSCD's weights are checked."""
        if run.photos is not None:
            photos = run.references().trained.cropped(run.squares)
            return cls(photos, options.alarm, options.sscd, run.device)
        if options.sscd is not None:
            from finetune_monitor.models.sscd import find_sscd

            find_sscd(options.sscd)
        return None

    @property
    def level(self) -> float:
        """The luminance correlation above which an image is a copy."""
        return self._nearness[0].level

    def score(self, images: Sequence[Image], cells: Sequence[Cell]) -> dict[str, FloatArray]:
        """The columns, with one value per image (RGB)."""
        return {name: values for each in self._nearness for name, values in each.score(images).items()}

    def describe(self) -> Description:
        """The photos with their SHA-256 and thumbnails, SSCD, and the alarm."""
        return self._description


def _luminance(images: Sequence[Image]) -> Rows:
    """Luminance of the center square at 32 x 32 pixels, centered and of length 1: products are correlations."""
    small = [ImageOps.fit(image.convert("L"), (SIDE, SIDE), Resampling.BOX) for image in images]
    rows = np.stack([np.asarray(image, dtype=np.float64).ravel() for image in small])
    centered = rows - rows.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(centered, axis=1, keepdims=True)
    found: Rows = centered / np.where(lengths > 0, lengths, 1.0)
    return found
