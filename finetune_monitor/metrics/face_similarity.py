"""How much the faces in generated images are like those in the reference photos: mean cosine of face embeddings."""

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeAlias

import numpy as np
from jaxtyping import Float
from PIL.Image import Image

from finetune_monitor.base.errors import UserError, all_problems
from finetune_monitor.base.files import sha256
from finetune_monitor.base.images import list_images, read_images, thumbnail
from finetune_monitor.metrics import Description, RunContext
from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.grid import Cell
from finetune_monitor.stats.estimate import MISSING, Estimate, FloatArray
from finetune_monitor.stats.intervals import jackknife

if TYPE_CHECKING:  # the config reads this file for its options, and torch takes seconds
    import torch

    from finetune_monitor.models.faces import Face

NAME = "face_similarity"

FACES_FOUND = "faces_found"

ZERO_FILLED = "face_similarity_zero_filled"

HELD_OUT = "face_similarity_held_out"
"""Likeness to photos of the person that the model was not trained on; measured where some are held out."""

References: TypeAlias = str | Path | Sequence[str | Path | Image]
"""A folder of photos, or a list of paths or images."""


class FaceSimilarity:
    """Mean cosine between an image's largest face and every reference face, -1 to 1 (the seed's similarity).

    Columns of `score`:
        face_similarity: NaN where no face is found.
        faces_found: 1 where a face is found, else 0; its mean is the rate of images with a face.
        face_similarity_zero_filled: 0 in place of NaN, the convention of FastComposer and others.
        face_similarity_held_out: the mean cosine to every held-out face instead, where photos are held out; NaN where
            no face is found.

    Args:
        references: photos of the person; where one shows several people the largest face counts, with a warning.
        recognizer: `dlib` (comes with the package), `vggface2`, `casia-webface`, `sface`, or the path of a recognizer
            in ONNX format.
        device: where detector and recognizer run.
        held_out: further photos of the person, which the model was not trained on.

    Raises:
        UserError: photos that cannot be read or show no face (all are named), or weights that cannot be had.
    """

    name = NAME
    is_default = True
    higher_is_better = True
    bounds = (-1.0, 1.0)

    @dataclass(frozen=True)
    class Options:
        """What a config may set."""

        recognizer: str = "vggface2"

    columns: ClassVar = {
        NAME: ScoreColumn(True, bounds, ignores=("held_out",)),
        FACES_FOUND: ScoreColumn(
            True,
            (0.0, 1.0),
            "side",
            zero="no face",
            ignores=("recognizer", "references", "held_out"),
            is_share=True,
        ),
        ZERO_FILLED: ScoreColumn(True, bounds, "side", ignores=("held_out",)),
        HELD_OUT: ScoreColumn(True, bounds, ignores=("references",), needs="data.held_out"),
    }

    def __init__(
        self,
        references: References,
        recognizer: str | Path = Options.recognizer,
        device: "str | torch.device" = "cpu",
        held_out: References = (),
    ) -> None:
        from finetune_monitor.models.faces import FaceFinder
        from finetune_monitor.models.recognizers import load_recognizer

        used, kept = _entries(references), _entries(held_out)
        if not used:
            raise UserError("reference photos: found an empty list, expected at least one photo of the person")
        named = _named([*used, *kept])
        self._recognizer = load_recognizer(recognizer, device)
        self._finder = FaceFinder(device)
        photos, images = _described(named), [image for _, image in named]
        faces = _largest_faces([name for name, _ in named], self._finder.find(images))
        embeddings = self._recognizer.embed(images, faces)
        self._references, self._held_out = embeddings[: len(used)], embeddings[len(used) :]
        self._description = Description(
            columns={name: column for name, column in self.columns.items() if name != HELD_OUT or kept},
            weights={
                "recognizer": {"id": self._recognizer.id, "sha256": self._recognizer.sha256},
                "references": photos[: len(used)],
                **({"held_out": photos[len(used) :]} if kept else {}),
            },
            ceilings={NAME: _among(self._references), **({HELD_OUT: _among(self._held_out)} if kept else {})},
            thumbnails={p["sha256"]: thumbnail(image) for p, image in zip(photos, images, strict=True)},
            notice=self._recognizer.notice,
        )

    @classmethod
    def for_run(cls, options: Options, run: RunContext) -> "FaceSimilarity | None":
        """The metric that a run's config asks for; without photos only the recognizer is looked for."""
        if run.photos is not None:
            return cls(run.photos, options.recognizer, run.device, run.held_out)
        from finetune_monitor.models.recognizers import load_recognizer

        load_recognizer(options.recognizer, run.device)
        return None

    def score(self, images: Sequence[Image], cells: Sequence[Cell]) -> dict[str, FloatArray]:
        """The columns, one value an image (RGB)."""
        found = self._finder.find(images)
        has_face = np.array([bool(faces) for faces in found], dtype=bool)
        similarity, to_held_out = np.full((2, len(images)), MISSING)
        if has_face.any():
            chosen = [image for image, faces in zip(images, found, strict=True) if faces]
            embeddings = self._recognizer.embed(chosen, [faces[0] for faces in found if faces])
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
        """The recognizer and the photos, each with its SHA-256, and how alike the photos are among themselves.

        A ceiling is the mean cosine of two photos: of the references, and of the held-out photos; NaN where there are
        fewer than two, and without an interval where there are fewer than three.
        """
        return self._description


def cosines(a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "n m"]:
    """Cosine of every row of `a` with every row of `b`, both L2-normalized."""
    found: np.ndarray = np.clip(a.astype(np.float64) @ b.astype(np.float64).T, -1.0, 1.0)
    return found


def _among(embeddings: Float[np.ndarray, "n d"]) -> Estimate:
    """The mean cosine of two of them, with its interval over other photos of the same kind."""
    count = len(embeddings)
    if count < 2:
        return Estimate(MISSING, MISSING, MISSING, count, 0)
    among = cosines(embeddings, embeddings)

    def of_pairs(chosen: Sequence[int]) -> float:
        return float(among[np.ix_(chosen, chosen)][np.triu_indices(len(chosen), k=1)].mean())

    return jackknife(of_pairs, count).interval(count, bounds=FaceSimilarity.bounds)


def _entries(photos: References) -> list[str | Path | Image]:
    return list_images(photos) if isinstance(photos, str | Path) else list(photos)  # type: ignore[return-value]


def _named(entries: Sequence[str | Path | Image]) -> list[tuple[str, Image]]:
    """Every photo with what messages call it."""
    paths = [entry for entry in entries if isinstance(entry, str | Path)]
    read = iter(read_images(paths))
    return [
        (str(entry), next(read)) if isinstance(entry, str | Path) else (f"photo {index}", entry.convert("RGB"))
        for index, entry in enumerate(entries)
    ]


def _described(named: Sequence[tuple[str, Image]]) -> list[dict[str, str]]:
    """File and SHA-256; of the pixels where an image came without a file."""
    return [
        {
            "file": name,
            "sha256": sha256(Path(name)) if Path(name).is_file() else hashlib.sha256(image.tobytes()).hexdigest(),
        }
        for name, image in named
    ]


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
