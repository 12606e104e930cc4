"""Rated images with their embeddings, to fit or evaluate a head; unusable images are listed."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float16

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.image_names import locate_images
from finetune_monitor.models.clip import ClipSource
from finetune_monitor.studies.aesthetic_head.embedding import embed_images
from finetune_monitor.studies.aesthetic_head.ratings import Ratings
from finetune_monitor.studies.rating_problems import Problem, ProblemKind


@dataclass(frozen=True)
class RatedImages:
    """Images that are rated, readable, and distinct, in the ratings' order.

    digests: hexadecimal SHA-256 of each file.
    embeddings: L2-normalized, in half precision.
    problems: everything that was left out, including the problems of the ratings.
    """

    ratings: Ratings
    paths: list[Path]
    digests: list[str]
    embeddings: Float16[np.ndarray, "n d"]
    problems: list[Problem]


def load_rated_images(
    ratings: Ratings, folder: Path, clip: ClipSource, store: Path, device: str | torch.device, workers: int
) -> RatedImages:
    """The rated images below a folder, after embedding those that are not in the store yet.

    Raises:
        UserError: none of the rated images is found or usable.
    """
    found = locate_images(ratings.names, folder)
    problems = [
        Problem(ProblemKind.MISSING_IMAGE, name, f"not found below {folder}")
        for name, path in zip(ratings.names, found, strict=True)
        if path is None
    ]
    present = [path for path in found if path is not None]
    stored, embedded = embed_images(present, clip, store, device, workers)
    digest_of = dict(zip(present, embedded.digests, strict=True))
    rows, digests = [], []
    first: dict[str, int] = {}
    for row, path in enumerate(found):
        digest = None if path is None else digest_of[path]
        if digest is not None and digest not in first:
            first[digest] = row
            rows.append(row)
            digests.append(digest)
        elif path is not None:
            problems.append(
                _left_out(ratings, row, None if digest is None else first[digest], embedded.problems.get(path))
            )
    if not rows:
        raise UserError(f"{folder}: none of its {len(present)} rated images is usable; {problems[-1].detail}")
    paths = [path for path in (found[row] for row in rows) if path is not None]
    everything = [*ratings.problems, *problems]
    return RatedImages(ratings.take(rows), paths, digests, stored.rows(digests), everything)


def _left_out(ratings: Ratings, row: int, same_as: int | None, problem: str | None) -> Problem:
    name = ratings.names[row]
    if same_as is None:
        return Problem(ProblemKind.UNREADABLE_IMAGE, name, problem or "it cannot be read")
    detail = (
        f"the same file as {ratings.names[same_as]}; rated {ratings.means[row]:.3g} and {ratings.means[same_as]:.3g}"
    )
    return Problem(ProblemKind.DUPLICATE_IMAGE, name, detail)
