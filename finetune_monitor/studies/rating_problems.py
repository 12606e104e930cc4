"""What is left out of rated images and ratings, and why: counted in a sentence and listed in a table."""

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
"""The name of the table in a report's folder."""


class ProblemKind(str, Enum):
    """Why a row or an image is left out, or a note on those that are kept."""

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
"""Kinds that do not leave rows out."""


@dataclass(frozen=True)
class Problem:
    """A problem with one row or image, or a note on a file.

    where: an image's name, or text such as `line 12`, `line 12, column Eva`, or `task 7, annotation 3`; a table's
        header counts as a line.
    detail: what was found and what was expected.
    file: the file it is in, if there may be several.
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
    """The first problems as text, for an error that lists only a few."""
    return [f"{problem.where}: {problem.detail}" for problem in problems[:EXAMPLES_NAMED]]


def left_out(problems: Sequence[Problem]) -> str:
    """The number of problems of each kind, and where they are listed."""
    counts = Counter(problem.kind.value for problem in problems)
    listed = ", ".join(f"{kind}: {count:,}" for kind, count in counts.items())
    return f"{listed} (see {PROBLEMS})" if listed else "nothing"


def write_problems(folder: Path, problems: Sequence[Problem], columns: Sequence[str]) -> None:
    """Write `problems.csv` to `folder`: one line per problem, with columns from `CELLS`."""
    rows = ([CELLS[column](problem) for column in columns] for problem in problems)
    write_atomic(folder / PROBLEMS, encoded(csv_text(columns, rows)))
