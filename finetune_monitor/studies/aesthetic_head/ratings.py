"""Rated images from AVA.txt or a CSV table; invalid rows are listed."""

import io
import math
import re
import reprlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from finetune_monitor.base.csv_files import read_text, shown_columns, table_rows
from finetune_monitor.base.errors import UserError, all_problems
from finetune_monitor.base.image_names import IMAGE_COLUMNS
from finetune_monitor.models.defaults import SCALE
from finetune_monitor.studies.rating_problems import Problem, ProblemKind, examples

MEAN_COLUMNS = frozenset({"mean", "mean_rating", "mean_score", "mos", "rating", "score"})
COUNT_COLUMN = re.compile(r"(?:(?:counts?|votes?)_)?(\d+(?:\.\d+)?)", re.ASCII)
"""Columns such as `7`, `count_7`, or `votes_7`: how many people gave a 7."""

EXPECTED_COLUMNS = (
    f"expected one column of images ({', '.join(sorted(IMAGE_COLUMNS))}) and either one of mean ratings "
    f"({', '.join(sorted(MEAN_COLUMNS))}) or one per grade with its votes (1, 2, ... or votes_1, votes_2, ...)"
)
AVA_COLUMNS = 15
AVA_GRADES = tuple(float(grade) for grade in range(1, 11))
MAX_VOTES = 1_000_000_000
"""Maximum votes for one image; more means damage, and sums would not be exact."""


@dataclass(frozen=True)
class Ratings:
    """Rated images in the file's order, each once."""

    names: tuple[str, ...]
    means: Float[np.ndarray, " n"]  # within `scale`
    counts: Float[np.ndarray, "n k"] | None  # whole votes per grade, at least one per image; None with mean ratings
    grades: Float[np.ndarray, " k"] | None  # ascending, within `scale`
    scale: tuple[float, float]  # lowest and highest possible rating
    sha256: str  # of the file
    problems: tuple[Problem, ...]

    def __len__(self) -> int:
        return len(self.names)

    def take(self, rows: Sequence[int] | Int[np.ndarray, " m"]) -> "Ratings":
        """The given rows in the given order, with all problems."""
        chosen = np.asarray(rows, dtype=np.int64)
        counts = None if self.counts is None else self.counts[chosen]
        return replace(self, names=tuple(self.names[row] for row in chosen), means=self.means[chosen], counts=counts)


@dataclass(frozen=True)
class _Table:
    rows: Iterator[tuple[int, list[str]]]  # line number and cells
    parse: Callable[[list[str]], tuple[str, list[float]]]  # cells to name and votes, or name and [mean]
    grades: tuple[float, ...] | None


def read_ratings(path: str | Path, scale: tuple[float, float] = SCALE) -> Ratings:
    """The ratings in AVA.txt as distributed, or in a CSV table with a header; the first non-empty line decides which.

    AVA.txt has one row per image and no header: index, image id, votes for 1 to 10, two tags, challenge. A table is
    separated by commas, semicolons, or tabs; `EXPECTED_COLUMNS` lists its columns. Votes take precedence over mean
    ratings. Invalid rows and repeated images become `problems`; the first row of an image counts.

    Raises:
        UserError: the file is not readable as UTF-8 text, columns are missing or ambiguous, grades are outside the
            scale, no rows or fewer than half of them are usable, or the scale is not two ascending numbers.
    """
    path, (low, high) = Path(path), scale
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UserError(f"--scale: found {low:g} {high:g}, expected the lowest and the highest possible rating")
    text, digest = read_text(path, "AVA.txt or a CSV table with a header")
    table = _open_table(path, text, scale)
    rated, problems = _collect(table)
    _refuse_mostly_bad(path, len(rated), problems, scale)
    names, values = tuple(rated), np.array(list(rated.values()), dtype=np.float64)
    if table.grades is None:
        return Ratings(names, values[:, 0], None, None, scale, digest, tuple(problems))
    grades = np.array(table.grades)
    means = np.clip(values @ grades / values.sum(axis=1), grades[0], grades[-1])  # rounding may exceed the range
    return Ratings(names, means, values, grades, scale, digest, tuple(problems))


def _open_table(path: Path, text: str, scale: tuple[float, float]) -> _Table:
    lines = io.StringIO(text, newline=None)
    first = next((line for line in lines if line.strip()), None)
    if first is None:
        raise UserError(f"{path}: the file is empty; expected AVA.txt or a CSV table with a header")
    fields = first.lower().split()
    whole = sum(field.isdigit() for field in fields)
    if whole > len(fields) / 2 and IMAGE_COLUMNS.isdisjoint(fields):
        _refuse_grades(path, AVA_GRADES, scale)
        lines.seek(0)
        rows = ((number, line.split()) for number, line in enumerate(lines, start=1))
        return _Table((row for row in rows if row[1]), _parse_ava, AVA_GRADES)
    return _open_csv(path, text, scale)


def _open_csv(path: Path, text: str, scale: tuple[float, float]) -> _Table:
    rows = table_rows(path, text)
    _, header = next(rows, (0, []))
    columns = [cell.strip().lower() for cell in header]
    image = [index for index, column in enumerate(columns) if column in IMAGE_COLUMNS]
    means = [index for index, column in enumerate(columns) if column in MEAN_COLUMNS]
    grades = [
        (float(match[1]), index) for index, column in enumerate(columns) if (match := COUNT_COLUMN.fullmatch(column))
    ]
    has_counts = len(grades) > 1
    if len(image) != 1 or (not has_counts and len(means) != 1) or len(dict(grades)) < len(grades):
        raise UserError(f"{path}: found the columns {shown_columns(header)}; {EXPECTED_COLUMNS}")
    if not has_counts:
        return _Table(rows, partial(_parse_mean, len(header), image[0], means[0], scale), None)
    ordered = sorted(grades)
    values = tuple(grade for grade, _ in ordered)
    _refuse_grades(path, values, scale)
    return _Table(rows, partial(_parse_counts, len(header), image[0], [index for _, index in ordered]), values)


def _refuse_grades(path: Path, grades: tuple[float, ...], scale: tuple[float, float]) -> None:
    if not scale[0] <= min(grades) <= max(grades) <= scale[1]:
        raise UserError(
            f"{path}: found votes for the ratings {min(grades):g} to {max(grades):g}, expected them within "
            f"{scale[0]:g} to {scale[1]:g}; use --scale LOW HIGH"
        )


def _collect(table: _Table) -> tuple[dict[str, list[float]], list[Problem]]:
    """The values by name, and the problems."""
    rated: dict[str, list[float]] = {}
    problems = []
    for line, cells in table.rows:
        try:
            name, values = table.parse(cells)
        except ValueError as error:
            problems.append(Problem(ProblemKind.BAD_ROW, f"line {line}", str(error)))
            continue
        if name in rated:
            same = rated[name] == values
            kind = ProblemKind.DUPLICATE_ROW if same else ProblemKind.CONFLICTING_ROW
            detail = f"line {line} has {'the same' if same else 'different'} ratings for it; the first row counts"
            problems.append(Problem(kind, name, detail))
        else:
            rated[name] = values
    return rated, problems


def _refuse_mostly_bad(path: Path, rated: int, problems: list[Problem], scale: tuple[float, float]) -> None:
    if not rated and not problems:
        raise UserError(f"{path}: found no rows; expected a row for each rated image")
    unusable = [problem for problem in problems if problem.kind != ProblemKind.DUPLICATE_ROW]
    if len(unusable) > rated:
        all_problems(
            examples(unusable),
            f"{path}: {len(unusable)} of {rated + len(problems)} rows are not usable; expected one row per image and "
            f"ratings from {scale[0]:g} to {scale[1]:g}; for another scale use --scale LOW HIGH; the first are:",
        )


def _parse_ava(cells: list[str]) -> tuple[str, list[float]]:
    if len(cells) != AVA_COLUMNS:
        raise ValueError(f"found {len(cells)} columns, expected {AVA_COLUMNS}")
    if not _is_whole("".join(cells)):
        odd = next(cell for cell in cells if not _is_whole(cell))
        raise ValueError(f"found {reprlib.repr(odd)}, expected whole numbers of 0 or more")
    return cells[1], _votes(cells[2:12])


def _is_whole(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _parse_counts(width: int, image: int, columns: list[int], cells: list[str]) -> tuple[str, list[float]]:
    name = _name(width, image, cells)
    counts = [cells[column] for column in columns]
    for count in counts:
        if not (number := _number(count)).is_integer() or number < 0:
            raise ValueError(f"found {reprlib.repr(count)} votes, expected a whole number of 0 or more")
    return name, _votes(counts)


def _parse_mean(
    width: int, image: int, column: int, scale: tuple[float, float], cells: list[str]
) -> tuple[str, list[float]]:
    name, mean = _name(width, image, cells), _number(cells[column])
    if not scale[0] <= mean <= scale[1]:
        raise ValueError(f"found the rating {mean:g}, expected {scale[0]:g} to {scale[1]:g}")
    return name, [mean]


def _name(width: int, image: int, cells: list[str]) -> str:
    if len(cells) != width:
        raise ValueError(f"found {len(cells)} columns, expected {width}")
    if not (name := cells[image].strip()):
        raise ValueError("found no image name")
    return name


def _number(cell: str) -> float:
    try:
        number = float(cell)
    except ValueError:
        raise ValueError(f"found {reprlib.repr(cell)}, expected a number") from None
    if not math.isfinite(number):
        raise ValueError(f"found {reprlib.repr(cell)}, expected a finite number")
    return number


def _votes(cells: list[str]) -> list[float]:
    votes = list(map(float, cells))
    if not 0 < (total := sum(votes)) <= MAX_VOTES:
        raise ValueError(f"found {total:g} votes, expected 1 to {MAX_VOTES:,}")
    return votes
