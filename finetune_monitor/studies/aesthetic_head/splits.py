"""Split rated images into training, validation, and test by the content of their files, or by lists of names."""

import hashlib
import json
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from finetune_monitor.base.csv_files import read_text
from finetune_monitor.base.errors import EXAMPLES_NAMED, UserError
from finetune_monitor.base.image_names import without_suffix
from finetune_monitor.studies.rating_problems import Problem, ProblemKind

TEST = 0.1
VALIDATION = 0.1
"""The shares of images that are split by content."""

DIVIDED = {"test": TEST, "validation": VALIDATION}


@dataclass(frozen=True)
class Lists:
    """Files with the names of the images for each part, one per line; None if the images' content decides."""

    train: Path | None = None
    validation: Path | None = None
    test: Path | None = None


@dataclass(frozen=True)
class Split:
    """Rows of the ratings, ascending; no row is in two parts, and no part but the test is ever empty."""

    train: Int[np.ndarray, " train"]
    validation: Int[np.ndarray, " validation"]
    test: Int[np.ndarray, " test"]
    sha256: str  # of the three sorted lists of names


def read_list(path: str | Path) -> list[str]:
    """The names in a list, one per line, such as AVA's `aesthetics_image_lists/generic_test.jpgl`.

    Raises:
        UserError: the file is not readable as UTF-8 text, or has no names.
    """
    text, _ = read_text(Path(path), "a list with one image name per line")
    if names := [line.strip() for line in text.splitlines() if line.strip()]:
        return names
    raise UserError(f"{path}: the list is empty; expected one image name per line")


def make_split(names: Sequence[str], digests: Sequence[str], lists: Lists = Lists()) -> Split:
    """A split of images into training, validation, and test.

    Without lists, only the SHA-256 of an image's file decides: a tenth each for test and validation, so that an image
    is in the same part on every machine, in any order, under any name, and among any other images. Only if a part would
    be empty is the image next to it in the order of the digests moved.

    A list states which images its part has. The images for a missing test or validation list are chosen as above, from
    those of the training list, or from all images in no list if there is none.

    Args:
        names: the names of the n images, as in the ratings.
        digests: hexadecimal SHA-256 of each image's file.
        lists: names in them that are not among the n images are ignored; `wanted_rows` reports them.

    Raises:
        UserError: a list cannot be read or has no rated image, an image is in two lists, or too few images are left for
            the parts without a list.
    """
    listed, _ = _resolve(names, lists)
    pool = listed.pop("train", None)
    if pool is None:
        pool = set(range(len(names))).difference(*listed.values())
    shares = {part: share for part, share in DIVIDED.items() if part not in listed}
    divided = _divide({row: digests[row] for row in pool}, shares)
    return _split(names, {**listed, **divided})


def without_test(names: Sequence[str], digests: Sequence[str]) -> Split:
    """A split of images into training and validation by the content of their files; the test part is empty.

    Raises:
        UserError: fewer than two different images.
    """
    return _split(names, {**_divide(dict(enumerate(digests)), {"validation": VALIDATION}), "test": set()})


def listed_rows(path: Path, names: Sequence[str]) -> tuple[Int[np.ndarray, " n"], list[Problem]]:
    """The rows whose names are in a list, ascending, and a problem for each name without a row.

    Raises:
        UserError: the list cannot be read or has no rated image.
    """
    rows, problems = _listed_rows(path, _index(names))
    return np.array(sorted(rows), dtype=np.int64), problems


def folds(digests: Sequence[str], count: int) -> Int[np.ndarray, " n"]:
    """The fold of each image, 0 to count - 1, for cross-validation.

    Images are distributed in the order of their digests (hexadecimal SHA-256), so that fold sizes differ by at most one
    and do not depend on the order of the rows. Images with the same digest are in the same fold.

    Raises:
        UserError: fewer than two folds, or fewer different images than folds.
    """
    ordered = sorted(set(digests))
    if not 2 <= count <= len(ordered):
        raise UserError(
            f"found {len(ordered)} different rated images for {count} folds; expected at least 2 folds "
            "and at least one image per fold"
        )
    place = {digest: rank % count for rank, digest in enumerate(ordered)}
    return np.array([place[digest] for digest in digests], dtype=np.int64)


def wanted_rows(names: Sequence[str], lists: Lists) -> tuple[Int[np.ndarray, " n"], list[Problem]]:
    """The rows that a split by these lists uses, ascending, and a problem for each name without a row.

    Raises:
        UserError: a list cannot be read or has no rated image, or an image is in two lists.
    """
    listed, problems = _resolve(names, lists)
    rows = set().union(*listed.values()) if lists.train else range(len(names))
    return np.array(sorted(rows), dtype=np.int64), problems


def _resolve(names: Sequence[str], lists: Lists) -> tuple[dict[str, set[int]], list[Problem]]:
    """The rows of each part with a list."""
    listed: dict[str, set[int]] = {}
    problems: list[Problem] = []
    index = _index(names)
    for part, path in (("test", lists.test), ("validation", lists.validation), ("train", lists.train)):
        if path is not None:
            listed[part], unknown = _listed_rows(path, index)
            problems += unknown
    _refuse_overlaps(names, listed)
    return listed, problems


def _index(names: Sequence[str]) -> dict[str, list[int]]:
    """Rows by name, and by name without its image suffix."""
    index: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        index.setdefault(without_suffix(name), []).append(row)
    return {**index, **{name: [row] for row, name in enumerate(names)}}


def _listed_rows(path: Path, index: dict[str, list[int]]) -> tuple[set[int], list[Problem]]:
    rows: set[int] = set()
    problems = []
    wanted = list(dict.fromkeys(read_list(path)))
    for name in wanted:
        found = index.get(name) or index.get(without_suffix(name))
        if found:
            rows.update(found)
        else:
            detail = f"in {path}, without a rating or a usable image"
            problems.append(Problem(ProblemKind.NOT_RATED, name, detail))
    if not rows:
        there = reprlib.repr(next(iter(index), "no rated image"))
        raise UserError(
            f"{path}: none of its {len(wanted)} names is a rated image; found {reprlib.repr(wanted[0])}, "
            f"expected names such as {there}; use the list that belongs to these ratings"
        )
    return rows, problems


def _refuse_overlaps(names: Sequence[str], listed: dict[str, set[int]]) -> None:
    parts = list(listed)
    for position, part in enumerate(parts):
        for other in parts[position + 1 :]:
            if both := sorted(listed[part] & listed[other]):
                examples = ", ".join(reprlib.repr(names[row]) for row in both[:EXAMPLES_NAMED])
                raise UserError(
                    f"--{part} and --{other}: found {len(both)} images in both, such as {examples}; "
                    "expected each in only one list; remove them from the other"
                )


def _divide(digests: dict[int, str], shares: dict[str, float]) -> dict[str, set[int]]:
    """Rows by part: `shares` of the range of digests in turn; the rest is for training."""
    ordered = sorted(set(digests.values()))
    parts = [*shares, "train"]
    if len(ordered) < len(parts):
        raise UserError(
            f"found {len(ordered)} different rated images to split into {', '.join(parts)}; "
            f"expected {len(parts)} or more; add rated images or shorten the lists"
        )
    places = [int(digest[:16], 16) / 2**64 for digest in ordered]
    wanted = [*np.searchsorted(places, np.cumsum(list(shares.values()))), len(ordered)]
    part_of, start = {}, 0
    for number, part in enumerate(parts):
        left = len(parts) - number - 1
        end = int(np.clip(wanted[number], start + 1, len(ordered) - left))
        part_of.update(dict.fromkeys(ordered[start:end], part))
        start = end
    return {part: {row for row, digest in digests.items() if part_of[digest] == part} for part in parts}


def _split(names: Sequence[str], parts: dict[str, set[int]]) -> Split:
    content = json.dumps({part: sorted(names[row] for row in rows) for part, rows in parts.items()}, sort_keys=True)
    rows = {part: np.array(sorted(chosen), dtype=np.int64) for part, chosen in parts.items()}
    return Split(**rows, sha256=hashlib.sha256(content.encode()).hexdigest())
