"""A model's score of each labeled image: from the records of the runs that generated them, or from a table."""

import math
import reprlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune_monitor.base.csv_files import read_text, shown_columns, table_rows
from finetune_monitor.base.errors import EXAMPLES_NAMED, UserError, all_problems
from finetune_monitor.base.files import sha256
from finetune_monitor.base.image_names import IMAGE_COLUMNS
from finetune_monitor.metrics.thresholds import weights_of
from finetune_monitor.record.history import RunHistory, read_run
from finetune_monitor.stats.estimate import MISSING
from finetune_monitor.studies.labeling.tasks import Task

PERSON_COLUMN = "person"

GREATEST = 1e100
"""The largest score that figures and sums can handle."""
EXPECTED = (
    f"expected one column of images ({', '.join(sorted(IMAGE_COLUMNS))}) and one of scores, named after the metric or "
    f"the only other one; a column {PERSON_COLUMN} can state who each image shows"
)


@dataclass(frozen=True)
class ModelScores:
    """A model's scores of images.

    by_image: by image_id, or by the name in a table; NaN if not measurable.
    persons: who each image shows; empty if unknown.
    weights: the weights behind the scores; None if unknown.
    """

    by_image: Mapping[str, float]
    persons: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, Any] | None = None


def recorded_scores(tasks: Sequence[Task], metric: str) -> ModelScores:
    """The scores of a plan's tasks from the records of their runs.

    Raises:
        UserError: a run is missing or lacks the score or an image, lower scores are better in one, or the runs were
            measured with different weights; lists all problems.
    """
    histories, problems = {}, []
    for run in dict.fromkeys(task.run for task in tasks if task.run is not None):
        try:
            histories[run] = read_run(run)
        except UserError as error:
            problems.append(str(error))
    problems += [problem for run, history in histories.items() for problem in _unfit(run, history, metric)]
    all_problems(problems, f"{metric}: the scores in the runs' records are not usable:")
    weights: dict[Path | None, dict[str, Any]] = {
        run: weights_of(history.weights.get(metric, {})) for run, history in histories.items()
    }
    first = next(iter(weights), None)
    if others := [str(run) for run in weights if weights[run] != weights[first]]:
        raise UserError(
            f"{metric}: {first} and {', '.join(others)} were measured with different weights, so their scores are "
            "not comparable; make a plan for each"
        )
    found = {run: _by_cell(history, metric) for run, history in histories.items()}
    cells = {task.image_id: found[task.run].get((task.step, task.cell), MISSING) for task in tasks if task.run}
    return ModelScores(cells, {}, weights[first] if first else None)


def read_scores(path: Path, metric: str) -> ModelScores:
    """Scores from a CSV table with a header; an empty cell is an image that could not be measured.

    Raises:
        UserError: the file cannot be read, columns are missing or ambiguous, an image occurs twice with different
            scores or persons, or cells are not numbers; lists every invalid row.
    """
    text, _ = read_text(path, "a CSV table with a header")
    rows = table_rows(path, text)
    _, header = next(rows, (0, []))
    image, score, person = _columns(path, header, metric)
    scores: dict[str, float] = {}
    persons: dict[str, str] = {}
    problems = []
    for line, cells in rows:
        try:
            name, value = _scored(cells, len(header), image, score)
        except ValueError as error:
            problems.append(f"line {line}: {error}")
            continue
        if name in scores and not _same(scores[name], value):
            problems.append(f"line {line}: found a second, different score for {reprlib.repr(name)}")
        scores[name] = value
        who = cells[person] if person is not None else ""
        if who and persons.setdefault(name, who) != who:
            problems.append(f"line {line}: found a second, different person for {reprlib.repr(name)}")
    all_problems(problems[:EXAMPLES_NAMED], f"{path}: {len(problems)} rows are not usable; the first are:")
    return ModelScores(scores, persons)


def matched(scores: ModelScores, images: Sequence[str], tasks: Mapping[str, Task]) -> ModelScores:
    """The scores by image_id. A table can name an image by its id, its file's path, or the end of either.

    Raises:
        UserError: none of the images has a score, or one score matches several images.
    """
    ends = _by_end(scores.by_image)
    found = {image: _name(image, tasks.get(image), scores.by_image, ends) for image in images}
    if not any(found.values()):
        raise UserError(
            f"none of the {len(images)} labeled images has a score; looked for {reprlib.repr(images[0])}, but the "
            f"scores are for {_examples(scores.by_image)}; expected the same names in both"
        )
    shared = [name for name, count in Counter(filter(None, found.values())).items() if count > 1]
    if shared:
        several = [image for image, name in found.items() if name == shared[0]]
        raise UserError(
            f"the score for {reprlib.repr(shared[0])} matches {_examples(several)}; name the images in the table by "
            "their ids or by more of their paths"
        )
    by_image = {image: scores.by_image[name] if name else MISSING for image, name in found.items()}
    persons = {image: scores.persons[name] for image, name in found.items() if name and name in scores.persons}
    return ModelScores(by_image, persons, scores.weights)


def changed_files(tasks: Sequence[Task]) -> set[str]:
    """The image_ids whose file is missing or has changed since people saw it."""
    return {task.image_id for task in tasks if not task.file.is_file() or sha256(task.file) != task.sha256}


def _unfit(run: Path, history: RunHistory, metric: str) -> list[str]:
    column = history.main_columns.get(metric)
    if column is None:
        return [f"{run}: has no scores of {metric}; found {', '.join(history.main_columns) or 'none'}"]
    return (
        []
        if column.higher_is_better
        else [f"{run}: a lower {metric} is better there, but stars need higher to be better"]
    )


def _by_cell(history: RunHistory, metric: str) -> dict[tuple[int | None, str | None], float]:
    return {
        (evaluation.step, image.cell.id): image.scores.get(metric, MISSING)
        for evaluation in history.evaluations
        for image in evaluation.images
    }


def _columns(path: Path, header: list[str], metric: str) -> tuple[int, int, int | None]:
    """The positions of image, score, and person."""
    names = [cell.lower() for cell in header]
    images = [place for place, name in enumerate(names) if name in IMAGE_COLUMNS]
    person = names.index(PERSON_COLUMN) if PERSON_COLUMN in names else None
    others = [place for place in range(len(names)) if place not in (*images, person)]
    scores = [place for place in others if names[place] == metric.lower()] or others
    if len(images) != 1 or len(scores) != 1:
        raise UserError(f"{path}: found the columns {shown_columns(header)}; {EXPECTED}")
    return images[0], scores[0], person


def _scored(cells: list[str], width: int, image: int, score: int) -> tuple[str, float]:
    if len(cells) != width:
        raise ValueError(f"found {len(cells)} columns, expected {width}")
    try:
        value = float(cells[score]) if cells[score] else MISSING
    except ValueError:
        raise ValueError(f"found {reprlib.repr(cells[score])}, expected a number") from None
    if abs(value) > GREATEST:
        raise ValueError(f"found {reprlib.repr(cells[score])}, expected a number of at most {GREATEST:g}")
    return cells[image], value


def _examples(names: Iterable[str]) -> str:
    return ", ".join(map(reprlib.repr, list(names)[:EXAMPLES_NAMED]))


def _same(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))


def _by_end(names: Iterable[str]) -> dict[tuple[str, ...], str | None]:
    """Every end of each name's path, mapped to the name; None if several names share it."""
    found: dict[tuple[str, ...], str | None] = {}
    for name in names:
        for end in _ends(name):
            found[end] = None if end in found else name
    return found


def _ends(name: str) -> list[tuple[str, ...]]:
    """The ends of a path, longest first."""
    parts = tuple(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))
    return [parts[start:] for start in range(len(parts))]


def _name(
    image: str, task: Task | None, known: Mapping[str, float], ends: Mapping[tuple[str, ...], str | None]
) -> str | None:
    """The table's name for an image: one of the two names ends with the other."""
    for name in [image] if task is None else [image, str(task.file), str(task.file.resolve())]:
        if name in known:
            return name
        own = _ends(name)
        if own and (longer := ends.get(own[0])):
            return longer
        for end in own:
            if (other := ends.get(end)) and _ends(other)[0] == end:
                return other
    return None
