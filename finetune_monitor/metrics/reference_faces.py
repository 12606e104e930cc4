"""The faces in the photos of the subject, shared by all face metrics."""

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
"""The default recognizer."""


@dataclass(frozen=True)
class ReferenceFaces:
    """The embeddings of each photo's largest face, for the references and for the held-out photos."""

    photos: ReferencePhotos
    references: "Embeddings"
    held_out: "Embeddings"

    @classmethod
    def read(cls, references: References, reader: "FaceReader", held_out: References = ()) -> "ReferenceFaces":
        """Find and embed the faces in the photos.

        Raises:
            UserError: photos cannot be read or show no face (all of them are listed).
        """
        photos = ReferencePhotos.read(references, held_out)
        faces = _largest_faces(photos.names, reader.find(photos.images))
        return cls(photos, *photos.split(reader.embed(photos.images, faces)))


def make_reader(recognizer: "str | Path | FaceReader", device: "str | torch.device") -> "FaceReader":
    """A face reader: a new one, or the one that was given.

    Raises:
        UserError: the recognizer is not available or cannot be loaded.
    """
    from finetune_monitor.models.face_reader import FaceReader

    return recognizer if isinstance(recognizer, FaceReader) else FaceReader(recognizer, device)


def shared_reader(recognizer: str | None, run: RunContext) -> "FaceReader":
    """The face reader that a run's metrics share for a recognizer; None means that of the face similarity."""
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
            f"reference photos with several faces: {', '.join(several)}; the largest face is used; crop the photos to "
            "the person if that is someone else",
            stacklevel=3,
        )
    return [faces[0] for faces in found]
