"""The faces in the photos of the subject, shared by all face metrics."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

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

FEWEST = 2
"""References that must be left where photos show no face."""


@dataclass(frozen=True)
class ReferenceFaces:
    """The embeddings of each photo's largest face, for the references and for the held-out photos."""

    photos: ReferencePhotos
    references: "Embeddings"
    held_out: "Embeddings"

    @classmethod
    def read(cls, references: References, reader: "FaceReader", held_out: References = ()) -> "ReferenceFaces":
        """Find and embed the faces in the photos; photos without a face are left out, with a warning.

        Raises:
            UserError: photos cannot be read; or too few are left: fewer than two references, unless only one photo was
                given, or no held-out photo; or the recognizer returns numbers that are not finite.
        """
        from finetune_monitor.models.finite import check_outputs

        everything = ReferencePhotos.read(references, held_out)
        found = reader.find(everything.images)
        photos = everything.only([bool(faces) for faces in found])
        _say_without_face(everything, photos)
        _say_several(photos.names, [faces for faces in found if faces])
        rows = np.concatenate(reader.embed_first(photos.images))
        check_outputs(f"recognizer {reader.recognizer.id}", rows)
        return cls(photos, *photos.split(rows))


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


def _say_without_face(everything: ReferencePhotos, photos: ReferencePhotos) -> None:
    """Say which photos show no face.

    Raises:
        UserError: too few of the others are left.
    """
    without = [name for name in everything.names if name not in photos.names]
    held_out = len(everything.names) - everything.used
    few_left = photos.used < min(FEWEST, everything.used)
    if few_left or (held_out and photos.used == len(photos.names)):
        problems = [
            f"{name}: no face found; remove the photo, or crop it so that the face is larger and upright"
            for name in without
        ]
        needed = f"{FEWEST} or more to compare with" if few_left else "1 or more held-out photos with a face"
        count = f"{len(without)} of {len(everything.names)} reference photos show no face"
        all_problems(problems, f"{count}, expected {needed}:")
    if without:
        warnings.warn(
            f"photos without a face: {', '.join(without)}; images are not compared with them, but training uses them",
            stacklevel=4,
        )


def _say_several(names: Sequence[str], found: "Sequence[list[Face]]") -> None:
    """Say which photos show several faces."""
    several = [f"{name} ({len(faces)})" for name, faces in zip(names, found, strict=True) if len(faces) > 1]
    if several:
        warnings.warn(
            f"reference photos with several faces: {', '.join(several)}; the largest face is used; crop the photos to "
            "the person if that is someone else",
            stacklevel=3,
        )
