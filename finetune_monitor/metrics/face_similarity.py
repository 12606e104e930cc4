"""How much the faces in generated images are like those in the reference photos: mean cosine of face embeddings."""

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL.Image import Image

from finetune_monitor.errors import all_problems
from finetune_monitor.evaluation import MISSING, Estimate, FloatArray, bootstrap_mean
from finetune_monitor.faces import Embeddings, Face, FaceFinder, load_recogniser
from finetune_monitor.files import sha256
from finetune_monitor.grid import Cell
from finetune_monitor.images import list_images, read_images


class FaceSimilarity:
    """Mean cosine between an image's largest face and every reference face, -1 to 1 (the seed's similarity).

    Columns of `score`:
        face_similarity: NaN where no face is found.
        faces_found: 1 where a face is found, else 0; its mean is the rate of images with a face.
        face_similarity_zero_filled: 0 in place of NaN, the convention of FastComposer and others.

    Args:
        references: a folder of photos, or a list of paths or pictures. Each shows the person; where it shows several
            people the largest face counts, with a warning.
        recogniser: `vggface2`, `casia-webface`, or the path of a recogniser in ONNX format.
        device: where detector and recogniser run.

    Raises:
        UserError: photos that cannot be read or show no face (all are named), or weights that cannot be had.
    """

    name = "face_similarity"
    higher_is_better = True
    bounds = (-1.0, 1.0)

    def __init__(
        self,
        references: str | Path | Sequence[str | Path | Image],
        recogniser: str | Path = "vggface2",
        device: str | torch.device = "cpu",
    ) -> None:
        named = _named(references)
        self._recogniser = load_recogniser(recogniser, device)
        self._finder = FaceFinder(device)
        self._photos = _described(named)
        images = [image for _, image in named]
        faces = _largest_faces([name for name, _ in named], self._finder.find(images))
        self._references: Embeddings = self._recogniser.embed(images, faces)

    def score(self, images: Sequence[Image], cells: Sequence[Cell]) -> dict[str, FloatArray]:
        """The three columns, one value an image (RGB)."""
        found = self._finder.find(images)
        has_face = np.array([bool(faces) for faces in found], dtype=bool)
        similarity = np.full(len(images), MISSING)
        if has_face.any():
            chosen = [image for image, faces in zip(images, found, strict=True) if faces]
            embeddings = self._recogniser.embed(chosen, [faces[0] for faces in found if faces])
            similarity[has_face] = cosines(embeddings, self._references).mean(axis=1)
        return {
            "face_similarity": similarity,
            "faces_found": has_face.astype(np.float64),
            "face_similarity_zero_filled": np.where(has_face, similarity, 0.0),
        }

    def ceiling(self) -> Mapping[str, Estimate]:
        """How alike the photos are among themselves: each against the others, leaving itself out.

        NaN where there are fewer than two photos.
        """
        count = len(self._references)
        if count < 2:
            return {self.name: bootstrap_mean(np.full(count, MISSING))}
        among = cosines(self._references, self._references)
        np.fill_diagonal(among, 0.0)
        return {self.name: bootstrap_mean(among.sum(axis=1) / (count - 1))}

    def describe(self) -> Mapping[str, Any]:
        """The recogniser with the SHA-256 of its weights, and the photos with theirs."""
        recogniser = {"id": self._recogniser.id, "sha256": self._recogniser.sha256}
        notice = {"notice": self._recogniser.notice} if self._recogniser.notice else {}
        return {"recogniser": recogniser, "references": self._photos, **notice}


def cosines(a: Embeddings, b: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "n m"]:
    """Cosine of every row of `a` with every row of `b`, both L2-normalised."""
    return np.clip(a.astype(np.float64) @ b.astype(np.float64).T, -1.0, 1.0)


def _named(references: str | Path | Sequence[str | Path | Image]) -> list[tuple[str, Image]]:
    """Every reference with what messages call it."""
    entries = list_images(references) if isinstance(references, str | Path) else list(references)
    if not entries:
        all_problems(["found an empty list, expected at least one photo of the person"], "reference photos:")
    paths = [entry for entry in entries if isinstance(entry, str | Path)]
    read = iter(read_images(paths))
    return [
        (str(entry), next(read)) if isinstance(entry, str | Path) else (f"photo {index}", entry.convert("RGB"))
        for index, entry in enumerate(entries)
    ]


def _described(named: Sequence[tuple[str, Image]]) -> list[dict[str, str]]:
    """File and SHA-256; of the pixels where a picture came without a file."""
    return [
        {
            "file": name,
            "sha256": sha256(Path(name)) if Path(name).is_file() else hashlib.sha256(image.tobytes()).hexdigest(),
        }
        for name, image in named
    ]


def _largest_faces(names: Sequence[str], found: Sequence[list[Face]]) -> list[Face]:
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
