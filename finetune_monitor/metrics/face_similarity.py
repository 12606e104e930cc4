"""How similar faces in generated images are to those in the reference photos: mean cosine of face embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from PIL.Image import Image

from finetune_monitor.metrics import Description, RunContext
from finetune_monitor.metrics.cosines import BOUNDS, UNIT, among, cosines
from finetune_monitor.metrics.reference_faces import RECOGNIZER, ReferenceFaces, make_reader, shared_reader
from finetune_monitor.metrics.reference_photos import References
from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.grid import Cell
from finetune_monitor.stats.estimate import MISSING, FloatArray

if TYPE_CHECKING:  # the config imports this file for its options, and importing torch takes seconds
    import torch

    from finetune_monitor.models.face_reader import FaceReader

NAME = "face_similarity"

FACES_FOUND = "faces_found"

ZERO_FILLED = "face_similarity_zero_filled"

HELD_OUT = "face_similarity_held_out"
"""Similarity to photos of the person that the model was not trained on; measured if photos are held out."""


class FaceSimilarity:
    """Mean cosine between an image's largest face and every reference face, -1 to 1.

    Columns of `score`:
        face_similarity: NaN if no face is found.
        faces_found: 1 if a face is found, otherwise 0; its mean is the share of images with a face.
        face_similarity_zero_filled: 0 instead of NaN, as in FastComposer and others.
        face_similarity_held_out: the mean cosine to every held-out face instead, if photos are held out; NaN if no face
            is found.

    Args:
        references: photos of the person; if a photo shows several people, the largest face counts, with a warning.
            Photos without a face are left out, with a warning.
        recognizer: a `FaceReader` shared with other metrics, or an argument for one: `dlib` (comes with the package),
            `vggface2`, `casia-webface`, `sface`, or the path of a recognizer in ONNX format.
        device: the device that detector and recognizer run on.
        held_out: other photos of the person, which the model was not trained on.

    Raises:
        UserError: photos cannot be read, too few of them show a face (all others are listed), or weights are not
            available.
    """

    name = NAME
    is_default = True
    higher_is_better = True
    bounds = BOUNDS

    @dataclass(frozen=True)
    class Options:
        """The options that a config can set."""

        recognizer: str = RECOGNIZER

    columns: ClassVar = {
        NAME: ScoreColumn(True, bounds, ignores=("held_out",), unit=UNIT),
        FACES_FOUND: ScoreColumn(
            True,
            (0.0, 1.0),
            "side",
            zero="no face",
            ignores=("recognizer", "references", "held_out"),
            is_share=True,
        ),
        ZERO_FILLED: ScoreColumn(True, bounds, "side", ignores=("held_out",), unit=UNIT),
        HELD_OUT: ScoreColumn(True, bounds, ignores=("references",), needs="data.held_out", unit=UNIT),
    }

    def __init__(
        self,
        references: References,
        recognizer: "str | Path | FaceReader" = Options.recognizer,
        device: "str | torch.device" = "cpu",
        held_out: References = (),
    ) -> None:
        self._reader = make_reader(recognizer, device)
        faces = ReferenceFaces.read(references, self._reader, held_out)
        self._references, self._held_out = faces.references, faces.held_out
        kept = len(self._held_out) > 0
        self._description = Description(
            columns={name: column for name, column in self.columns.items() if name != HELD_OUT or kept},
            weights={"recognizer": self._reader.identity, **faces.photos.weights},
            ceilings={NAME: among(self._references), **({HELD_OUT: among(self._held_out)} if kept else {})},
            thumbnails=faces.photos.thumbnails,
            notice=self._reader.recognizer.notice,
        )

    @classmethod
    def for_run(cls, options: Options, run: RunContext) -> "FaceSimilarity | None":
        """The metric as configured for a run; without photos, only the recognizer is checked."""
        reader = shared_reader(options.recognizer, run)
        return None if run.photos is None else cls(run.references(), reader)

    def score(self, images: Sequence[Image], cells: Sequence[Cell]) -> dict[str, FloatArray]:
        """The columns, with one value per image (RGB)."""
        found = self._reader.read_largest(images)
        has_face = np.array([len(faces) > 0 for faces in found], dtype=bool)
        similarity, to_held_out = np.full((2, len(images)), MISSING)
        if has_face.any():
            embeddings = np.stack([faces[0] for faces in found if len(faces)])
            similarity[has_face] = cosines(embeddings, self._references).mean(axis=1)
            if len(self._held_out):
                to_held_out[has_face] = cosines(embeddings, self._held_out).mean(axis=1)
        return {
            NAME: similarity,
            FACES_FOUND: has_face.astype(np.float64),
            ZERO_FILLED: np.where(has_face, similarity, 0.0),
            **({HELD_OUT: to_held_out} if len(self._held_out) else {}),
        }

    def describe(self) -> Description:
        """The recognizer and the photos, each with its SHA-256, and how similar the photos are to each other.

        A ceiling is the mean cosine of two photos, for the references and for the held-out photos; NaN for fewer than
        two photos, and without an interval for fewer than three.
        """
        return self._description
