"""How similar entire images are to the reference photos, even without a face: mean cosine of embeddings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Float
from PIL.Image import Image

from finetune_monitor.base.errors import UserError, all_problems
from finetune_monitor.metrics import Description, RunContext
from finetune_monitor.metrics.cosines import BOUNDS, UNIT, among, cosines
from finetune_monitor.metrics.reference_photos import ReferencePhotos, References
from finetune_monitor.models.defaults import CLIP, PRETRAINED
from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.grid import Cell
from finetune_monitor.stats.estimate import FloatArray

if TYPE_CHECKING:  # the config imports this file for its options, and importing torch takes seconds
    import torch
    from torch import Tensor

    from finetune_monitor.models.clip import ClipEncoder

NAME = "subject_similarity"

DINO = "subject_similarity_dino"

HELD_OUT = "subject_similarity_held_out"
"""Similarity to photos of the subject that the model was not trained on; measured if photos are held out."""


@dataclass(frozen=True)
class _Likeness:
    """An encoder, and its embeddings of the photos to compare with."""

    embed: "Callable[[Sequence[Image]], Tensor]"
    photos: Float[np.ndarray, "m d"]

    def score(self, images: Sequence[Image]) -> FloatArray:
        """The mean cosine of each image with all photos."""
        found: FloatArray = cosines(self.embed(images).cpu().numpy(), self.photos).mean(axis=1)
        return found


class SubjectSimilarity:
    """Mean cosine between the embeddings of an image and of every reference photo, -1 to 1 (Ruiz et al. 2023).

    Columns of `score`:
        subject_similarity: by CLIP (CLIP-I of DreamBooth).
        subject_similarity_dino: by DINO or DINOv2, if one is named. Because it was trained to distinguish images and
            not only their labels, it captures more of what makes a subject unique. DreamBooth uses DINO's ViT-S/16.
        subject_similarity_held_out: by CLIP, relative to the held-out photos instead, if photos are held out.

    The entire image counts: the same background, light, or pose as in the photos raises the score, and for CLIP another
    subject of the same class is nearly as good. The metric does not reveal copies of a training photo: on the demo,
    where up to all images of a late step were copies, none came closer to a photo than .85, while the photos have .91
    with each other.

    Args:
        references: photos of the subject.
        clip: a model name of open_clip, a folder in open_clip's layout, or a `ClipEncoder` shared with other metrics.
        pretrained: the tag of its weights in open_clip; ignored for a folder and an encoder.
        dino: a hub id (facebook/dinov2-small, facebook/dino-vits16) or a folder in transformers layout; None for none.
        device: the device that the networks run on, in float32; a given encoder keeps its own.
        held_out: other photos of the subject, which the model was not trained on.

    Raises:
        UserError: photos cannot be read (all of them are listed), or weights are not available.
    """

    name = NAME
    higher_is_better = True
    bounds = BOUNDS

    @dataclass(frozen=True)
    class Options:
        """The options that a config can set."""

        clip: str = CLIP
        pretrained: str | None = PRETRAINED
        dino: str | None = None

    columns: ClassVar = {
        NAME: ScoreColumn(True, bounds, ignores=("held_out", "dino"), unit=UNIT),
        DINO: ScoreColumn(True, bounds, ignores=("held_out", "clip"), needs=f"monitor.metrics.{NAME}.dino", unit=UNIT),
        HELD_OUT: ScoreColumn(True, bounds, ignores=("references", "dino"), needs="data.held_out", unit=UNIT),
    }

    def __init__(
        self,
        references: References,
        clip: "str | ClipEncoder" = Options.clip,
        pretrained: str | None = Options.pretrained,
        dino: str | None = Options.dino,
        device: "str | torch.device" = "cpu",
        held_out: References = (),
    ) -> None:
        from finetune_monitor.models.clip import ClipEncoder
        from finetune_monitor.models.dino import DinoEncoder

        photos = ReferencePhotos.read(references, held_out)
        by_clip = clip if isinstance(clip, ClipEncoder) else ClipEncoder(clip, pretrained, device)
        used, kept = photos.split(by_clip.embed(photos.images).cpu().numpy())
        weights = {"clip": by_clip.identity}
        self._likenesses = {NAME: _Likeness(by_clip.embed, used)}
        if dino is not None:
            by_dino = DinoEncoder(dino, device)
            used, _ = photos.split(by_dino.embed(photos.images).cpu().numpy())
            weights["dino"] = by_dino.identity
            self._likenesses[DINO] = _Likeness(by_dino.embed, used)
        if len(kept):
            self._likenesses[HELD_OUT] = _Likeness(by_clip.embed, kept)
        self._description = Description(
            columns={name: self.columns[name] for name in self._likenesses},
            weights={**weights, **photos.weights},
            ceilings={name: among(likeness.photos) for name, likeness in self._likenesses.items()},
            thumbnails=photos.thumbnails,
        )

    @classmethod
    def for_run(cls, options: Options, run: RunContext) -> "SubjectSimilarity | None":
        """The metric as configured for a run; without photos, only the networks are checked."""
        from finetune_monitor.models.clip import resolve_clip
        from finetune_monitor.models.dino import find_dino

        searches: list[Callable[[], object]] = [partial(resolve_clip, options.clip, options.pretrained)]
        if options.dino is not None:
            searches.append(partial(find_dino, options.dino))
        _all_found(searches)
        if run.photos is None:
            return None
        encoder = run.clip(options.clip, options.pretrained)
        return cls(run.references(), encoder, dino=options.dino, device=run.device)

    def score(self, images: Sequence[Image], cells: Sequence[Cell]) -> dict[str, FloatArray]:
        """The columns, with one value per image (RGB)."""
        return {name: likeness.score(images) for name, likeness in self._likenesses.items()}

    def describe(self) -> Description:
        """The networks and the photos, each with its SHA-256, and how similar the photos are to each other.

        A ceiling is the mean cosine of two photos, as in `FaceSimilarity`.
        """
        return self._description


def _all_found(searches: Sequence[Callable[[], object]]) -> None:
    """Raise one `UserError` for everything that is not found."""
    problems = []
    for search in searches:
        try:
            search()
        except UserError as error:
            problems.append(str(error))
    all_problems(problems, f"{NAME}: not all networks are available:")
