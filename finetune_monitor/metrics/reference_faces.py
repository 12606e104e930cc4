"""The faces in the photos of the subject, as every metric of faces compares with them."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from finetune_monitor.base.errors import all_problems
from finetune_monitor.metrics import RunContext
from finetune_monitor.metrics.reference_photos import ReferencePhotos, References

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from finetune_monitor.models.face_reader import FaceReader
    from finetune_monitor.models.faces import Face
    from finetune_monitor.models.recognizers import Embeddings

RECOGNIZER = "vggface2"
"""Where nothing else is asked for."""


@dataclass(frozen=True)
class ReferenceFaces:
    """The embedding of each photo's largest face: of the references, and of the photos that are held out."""

    photos: ReferencePhotos
    references: "Embeddings"
    held_out: "Embeddings"

    @classmethod
    def read(cls, references: References, reader: "FaceReader", held_out: References = ()) -> "ReferenceFaces":
        """Find and embed them.

        Raises:
            UserError: photos that cannot be read or show no face (all are named).
        """
        photos = ReferencePhotos.read(references, held_out)
        faces = _largest_faces(photos.names, reader.find(photos.images))
        return cls(photos, *photos.split(reader.embed(photos.images, faces)))


def make_reader(recognizer: "str | Path | FaceReader", device: "str | torch.device") -> "FaceReader":
    """A reader of faces, or the one that was given.

    Raises:
        UserError: the recognizer cannot be had or loaded.
    """
    from finetune_monitor.models.face_reader import FaceReader

    return recognizer if isinstance(recognizer, FaceReader) else FaceReader(recognizer, device)


def shared_reader(recognizer: str | None, run: RunContext) -> "FaceReader":
    """One for all metrics of a run that name the same recognizer; None names that of the face similarity."""
    similarity = run.options.get("face_similarity")
    return run.faces(recognizer or str(getattr(similarity, "recognizer", RECOGNIZER)))


def _largest_faces(names: Sequence[str], found: "Sequence[list[Face]]") -> "list[Face]":
    problems = [
        f"{name}: no face found; remove the photo, or crop it so that the face is larger and upright"
        for name, faces in zip(names, found, strict=True)
        if not faces
    ]
    all_problems(problems, f"{len(problems)} of {len(names)} reference photos show no face:")
    several = [f"{name} ({len(faces)})" for name, faces in zip(names, found, strict=True) if len(faces) > 1]
    if several:
        warnings.warn(
            f"reference photos with several faces, the largest is used: {', '.join(several)}; crop them to the person "
            "if that is someone else",
            stacklevel=3,
        )
    return [faces[0] for faces in found]
