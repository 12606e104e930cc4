"""Answers from a CSV table: long, with one row per answer, or wide, with one column per labeler."""

import reprlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from finetune_monitor.base.csv_files import shown_columns, table_rows
from finetune_monitor.base.errors import UserError
from finetune_monitor.studies.agreement.rating_rows import RatingRow, is_label
from finetune_monitor.studies.labeling.ratings import RATING_COLUMNS
from finetune_monitor.studies.rating_problems import Problem, ProblemKind

OTHER_NAMES = {
    "image_id": ("image", "file", "filename", "item", "task_id"),
    "labeler": ("labeller", "rater", "annotator", "evaluator", "worker", "worker_id", "user", "participant"),
    "metric": ("question", "dimension", "task"),
    "label": ("rating", "score", "value", "answer"),
    "timestamp": ("time", "date", "created_at"),
    "duration_ms": (),
}
"""Names that other tools use for the columns of the long CSV, in their own spelling."""

EXPECTED_COLUMNS = (
    "expected one column per labeler and one of images, or one column each of "
    + ", ".join(f"{name} ({', '.join(OTHER_NAMES[name])})" for name in ("image_id", "labeler", "label"))
    + f", and at most one of metric ({', '.join(OTHER_NAMES['metric'])})"
)

NO_LABELERS = frozenset({"cell", "epoch", "height", "id", "index", "seed", "step", "width"})
"""Columns of whole numbers that are not ratings."""

Cells = tuple[int, list[str]]
"""The line number where a row ends, and its stripped cells."""


def read_table(path: Path, text: str, metric: str | None) -> Iterator[RatingRow | Problem]:
    """Every answer in a table separated by commas, semicolons, or tabs, and the problems with its rows.

    metric: the question, if no column states it.

    Raises:
        UserError: columns are missing or ambiguous, the metric is not stated, or the file is damaged.
    """
    rows = table_rows(path, text)
    first = next(rows, None)
    if first is None:
        raise UserError(f"{path}: the file is empty; expected ratings as CSV or as Label Studio's JSON")
    header = first[1]
    places = _places(path, header)
    if "image_id" in places and places.keys().isdisjoint({"labeler", "label"}):
        return _wide(path, header, places, list(rows), metric)
    if not {"image_id", "labeler", "label"} <= places.keys():
        raise UserError(f"{path}: found the columns {shown_columns(header)}; {EXPECTED_COLUMNS}")
    _require_metric(path, header, places, metric)
    return _long(path, header, places, rows, metric)


def _places(path: Path, header: list[str]) -> dict[str, int]:
    """The positions of the columns of the long CSV; the standard name takes precedence over other tools' names."""
    names = [cell.lower() for cell in header]
    places = {}
    for column in RATING_COLUMNS:
        found = [place for place, name in enumerate(names) if name == column]
        found = found or [place for place, name in enumerate(names) if name in OTHER_NAMES[column]]
        if len(found) > 1:
            both = " and ".join(reprlib.repr(header[place]) for place in found[:2])
            raise UserError(
                f"{path}: found the columns {shown_columns(header)}, of which both {both} could be the {column}; "
                f"expected one; rename one of them, or call the right one {column}"
            )
        places.update(dict.fromkeys([column], found[0]) if found else {})
    return places


def _require_metric(path: Path, header: list[str], places: dict[str, int], metric: str | None) -> None:
    if "metric" not in places and not metric:
        raise UserError(
            f"{path}: found the columns {shown_columns(header)}, none of which states the metric; expected a column "
            f"metric ({', '.join(OTHER_NAMES['metric'])}); add one or use --metric"
        )


def _long(
    path: Path, header: list[str], places: dict[str, int], rows: Iterator[Cells], metric: str | None
) -> Iterator[RatingRow | Problem]:
    for number, cells in rows:
        if len(cells) != len(header):
            yield _wrong_width(path, number, cells, header)
            continue
        values = {"metric": metric or "", **{column: cells[place] for column, place in places.items()}}
        yield RatingRow(f"line {number}", **values)


def _wide(
    path: Path, header: list[str], places: dict[str, int], rows: list[Cells], metric: str | None
) -> Iterator[RatingRow | Problem]:
    fitting = [cells for _, cells in rows if len(cells) == len(header)]
    others = [place for place in range(len(header)) if place not in places.values()]
    named = [place for place in others if header[place] and header[place].lower() not in NO_LABELERS]
    labelers = [place for place in named if _holds_labels([cells[place] for cells in fitting])]
    if len(labelers) < 2:
        raise UserError(f"{path}: found the columns {shown_columns(header)}; {EXPECTED_COLUMNS}")
    names = [header[place] for place in labelers]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"{path}: found two columns {reprlib.repr(twice)}; expected one per labeler; rename one")
    _require_metric(path, header, places, metric)
    ignored = [
        Problem(
            ProblemKind.IGNORED_COLUMN, f"column {header[place] or place + 1}", "not recognized as a labeler's", path
        )
        for place in others
        if place not in labelers and any(cells[place] for cells in fitting)
    ]
    return chain(ignored, _wide_rows(path, header, places, rows, labelers, metric))


def _wide_rows(
    path: Path, header: list[str], places: dict[str, int], rows: list[Cells], labelers: list[int], metric: str | None
) -> Iterator[RatingRow | Problem]:
    for number, cells in rows:
        if len(cells) != len(header):
            yield _wrong_width(path, number, cells, header)
            continue
        asked = cells[places["metric"]] if "metric" in places else metric or ""
        for place in labelers:
            if cells[place]:
                where = f"line {number}, column {header[place]}"
                yield RatingRow(where, cells[places["image_id"]], header[place], asked, cells[place])


def _holds_labels(cells: list[str]) -> bool:
    """Whether more than half of the non-empty cells hold labels."""
    filled = [cell for cell in cells if cell]
    return sum(is_label(cell) for cell in filled) > len(filled) / 2


def _wrong_width(path: Path, number: int, cells: list[str], header: list[str]) -> Problem:
    detail = f"found {len(cells)} columns, expected {len(header)}"
    return Problem(ProblemKind.BAD_ROW, f"line {number}", detail, path)
