"""What is left out of rated images and of ratings, and why: counted in words, and listed in a table."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from finetune_monitor.base.csv_files import csv_text
from finetune_monitor.base.errors import EXAMPLES_NAMED
from finetune_monitor.base.files import write_atomic
from finetune_monitor.base.text import encoded

PROBLEMS = "problems.csv"
"""The table's name in the folder of a report."""


class ProblemKind(str, Enum):
    """Why a row or an image is left out, or what to know of those that are not."""

    BAD_ROW = "bad row"
    DUPLICATE_ROW = "duplicate row"
    CONFLICTING_ROW = "conflicting row"
    MISSING_IMAGE = "missing image"
    UNREADABLE_IMAGE = "unreadable image"
    DUPLICATE_IMAGE = "duplicate image"
    NOT_RATED = "not rated"
    UNKNOWN_LABEL = "unknown label"
    OUT_OF_RANGE = "out of range"
    UNKNOWN_IMAGE = "unknown image"
    NO_LABELER = "no labeler"
    SIMILAR_NAMES = "similar names"
    UNREADABLE_TIME = "unreadable time"
    IGNORED_COLUMN = "ignored column"


NOTES = frozenset({ProblemKind.SIMILAR_NAMES, ProblemKind.UNREADABLE_TIME, ProblemKind.IGNORED_COLUMN})
"""Kinds that leave no row out."""


@dataclass(frozen=True)
class Problem:
    """What is wrong with one row or image, or a note on a file.

    where: an image's name, or such as `line 12`, `line 12, column Eva` or `task 7, annotation 3`; a table's header is
        a line, too.
    detail: what was found and what was expected.
    file: the one it is in, where there may be several.
    """

    kind: ProblemKind
    where: str
    detail: str
    file: Path = Path()


CELLS: Mapping[str, Callable[[Problem], str]] = {
    "kind": lambda problem: problem.kind.value,
    "file": lambda problem: problem.file.name,
    "image": lambda problem: problem.where,
    "where": lambda problem: problem.where,
    "detail": lambda problem: problem.detail,
}
"""The columns that a table may have."""


def examples(problems: Sequence[Problem]) -> list[str]:
    """The first problems in words, for an error that names no more of them."""
    return [f"{problem.where}: {problem.detail}" for problem in problems[:EXAMPLES_NAMED]]


def left_out(problems: Sequence[Problem]) -> str:
    """How many problems there are of each kind that occurs, and where they are listed."""
    counts = Counter(problem.kind.value for problem in problems)
    listed = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    return f"{listed} (see {PROBLEMS})" if listed else "nothing"


def write_problems(folder: Path, problems: Sequence[Problem], columns: Sequence[str]) -> None:
    """Write `problems.csv` into `folder`: one line a problem, in columns of `CELLS`."""
    rows = ([CELLS[column](problem) for column in columns] for problem in problems)
    write_atomic(folder / PROBLEMS, encoded(csv_text(columns, rows)))
