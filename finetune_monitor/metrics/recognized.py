"""The share of images in which the subject is recognized, rather than somebody else."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from PIL.Image import Image

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.images import list_images, read_images
from finetune_monitor.base.paths import user_path
from finetune_monitor.metrics import Description, RunContext
from finetune_monitor.metrics.cosines import cosines
from finetune_monitor.metrics.reference_faces import RECOGNIZER, ReferenceFaces, make_reader, shared_reader
from finetune_monitor.metrics.reference_photos import References
from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.grid import Cell
from finetune_monitor.stats.estimate import MISSING, FloatArray

if TYPE_CHECKING:  # the config imports this file for its options, and importing torch takes seconds
    import torch

    from finetune_monitor.models.face_reader import FaceReader
    from finetune_monitor.models.recognizers import Embeddings

OTHERS = "others_recognized"


class Recognized:
    """Whether an image's face is closest to the subject, and not to anyone in a gallery of other people.

    The number is easy to understand and independent of the recognizer's scale. Once the subject is nearer than all
    others, it no longer shows how good the likeness is: it reaches 1 long before the similarity stops rising.

    Columns:
        recognized: 1 if an image's largest face is nearer to a photo of the subject than to any face in the gallery; 0
            if it is not, or if there is no face.
        others_recognized: 1 if this also holds for another face in the image: bystanders become the subject; NaN if
            there is no other face.

    Args:
        references, recognizer, device: as for `FaceSimilarity`.
        gallery: a folder with photos of other people; it is read when the first image is scored, so that training can
            generate it first.

    Raises:
        UserError: as for `FaceSimilarity`; at the first image, if the gallery shows no face.
    """

    name = "recognized"
    higher_is_better = True
    bounds = (0.0, 1.0)

    @dataclass(frozen=True)
    class Options:
        """The options that a config can set; null means the recognizer of the face similarity, and the class images."""

        recognizer: str | None = None
        gallery: str | None = None

    columns: ClassVar = {
        name: ScoreColumn(True, bounds, is_share=True),
        OTHERS: ScoreColumn(
            False,
            bounds,
            "side",
            is_share=True,
            alarm=0.5,
            says="other people in the subject's images become the subject",
        ),
    }

    def __init__(
        self,
        references: References,
        gallery: str | Path,
        recognizer: "str | Path | FaceReader" = RECOGNIZER,
        device: "str | torch.device" = "cpu",
    ) -> None:
        self._reader = make_reader(recognizer, device)
        self._reader.expect_all()
        faces = ReferenceFaces.read(references, self._reader)
        self._references = faces.references
        self._folder = user_path(gallery)
        self._gallery: Embeddings | None = None
        self._description = Description(
            columns=self.columns,
            weights={
                "recognizer": self._reader.identity,
                **faces.photos.weights,
                "gallery": {"id": str(gallery)},
            },
        )

    @classmethod
    def for_run(cls, options: Options, run: RunContext) -> "Recognized | None":
        """The metric as configured for a run; a gallery named in the config is read now.

        Raises:
            UserError: there is neither a gallery nor class images, or the gallery shows no face.
        """
        reader = shared_reader(options.recognizer, run)
        gallery = options.gallery or run.class_images
        if gallery is None:
            raise UserError(
                "monitor.metrics.recognized.gallery: found neither a gallery nor class images, which exist only with "
                "prior preservation; name a folder with photos of other people"
            )
        made = None if run.photos is None else cls(run.references().trained, gallery, reader)
        if made is not None and options.gallery is not None:
            made.read_gallery()
        return made

    def read_gallery(self) -> "Embeddings":
        """The embeddings of the gallery's faces: the largest face of each image.

        Raises:
            UserError: the folder cannot be read, or none of its images show a face.
        """
        if self._gallery is None:
            faces = [found[0] for found in self._reader.read(read_images(list_images(self._folder))) if len(found)]
            if not faces:
                raise UserError(
                    f"{self._folder}: found no face in any image; name a folder with photos of other people"
                )
            self._gallery = np.stack(faces)
        return self._gallery

    def score(self, images: Sequence[Image], cells: Sequence[Cell]) -> dict[str, FloatArray]:
        """The columns, with one value per image (RGB)."""
        gallery = self.read_gallery()
        own, others = np.zeros(len(images)), np.full(len(images), MISSING)
        for place, faces in enumerate(self._reader.read(images)):
            if not len(faces):
                continue
            is_subject = cosines(faces, self._references).max(axis=1) > cosines(faces, gallery).max(axis=1)
            own[place] = is_subject[0]
            others[place] = is_subject[1:].any() if len(faces) > 1 else MISSING
        return {self.name: own, OTHERS: others}

    def describe(self) -> Description:
        """The recognizer and the photos, each with its SHA-256, and the path of the gallery."""
        return self._description
