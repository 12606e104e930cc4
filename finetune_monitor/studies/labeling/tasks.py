"""A plan's folder: the table of labeling tasks, and the photos to compare with."""

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from finetune_monitor.base.csv_files import csv_text, plain_cell
from finetune_monitor.base.errors import UserError, all_problems
from finetune_monitor.base.files import read_regular, sha256, write_atomic
from finetune_monitor.base.json_files import as_list, as_text, as_whole, damage_named, read_object
from finetune_monitor.base.version import __version__

TASKS, PLAN = "tasks.csv", "plan.json"

PLAN_FORMAT = 1

LONGEST_PATH, LONGEST_NAME = 4095, 255
"""Longest path in bytes that a file system accepts; a longer one means damage."""

TASK_COLUMNS = ("image_id", "metric", "person", "file", "sha256", "run", "step", "cell", "repeat_of")


@dataclass(frozen=True)
class Task:
    """One image to be rated for one metric.

    image_id: opaque, because labelers see it: it does not reveal person, step, prompt, or score.
    metric: the score's name in the record, such as `face_similarity` or `aesthetic`.
    person: who the image is meant to show; the group that folds and bootstrap keep together.
    file: the image at its original path; nothing is copied.
    sha256: of the file when the plan was made.
    run, step, cell: where the record has its score; None for an image that is not from a run.
    repeat_of: the image_id of the same image, if this is a repeat that shows how consistent a labeler is.
    """

    image_id: str
    metric: str
    person: str
    file: Path
    sha256: str
    run: Path | None = None
    step: int | None = None
    cell: str | None = None
    repeat_of: str | None = None


@dataclass(frozen=True)
class LabelingPlan:
    """All tasks, and each person's photos; `seed` also determines every labeler's order.

    digests: the SHA-256 of the photos when the plan was made, as `read_plan` found them.
    """

    tasks: tuple[Task, ...]
    references: Mapping[str, tuple[Path, ...]]
    seed: int
    digests: Mapping[Path, str] = field(default_factory=dict, compare=False)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics in the order of the tasks."""
        return tuple(dict.fromkeys(task.metric for task in self.tasks))

    @cached_property
    def by_id(self) -> dict[str, Task]:
        return {task.image_id: task for task in self.tasks}


def write_plan(folder: Path, plan: LabelingPlan) -> None:
    """Write `tasks.csv` and `plan.json` to `folder`; paths are relative to it, so that both can be moved together."""
    text = csv_text(TASK_COLUMNS, (_row(folder, task) for task in plan.tasks), "\r\n")  # quotes names with either
    references = {person: [_relative(folder, photo) for photo in found] for person, found in plan.references.items()}
    made_by = f"finetune_monitor {__version__}"
    content = {"format": PLAN_FORMAT, "made_by": made_by, "seed": plan.seed, "tasks": len(plan.tasks)}
    photos = {_relative(folder, photo): photo for found in plan.references.values() for photo in found}
    digests = {name: sha256(photo) for name, photo in photos.items() if photo.is_file()}
    about = json.dumps({**content, "references": references, "sha256": digests}, indent=2) + "\n"
    write_atomic(folder / PLAN, about.encode())
    write_atomic(folder / TASKS, text.encode("utf-8", "surrogateescape"))


def read_plan(folder: Path) -> LabelingPlan:
    """The plan in a folder, with absolute paths.

    Raises:
        UserError: it is not a plan's folder, or its files are damaged; lists every invalid row.
    """
    number, seed, references, digests = _read_about(folder)
    rows = _read_rows(folder / TASKS)
    tasks, problems = [], []
    for place, row in enumerate(rows, 2):
        try:
            tasks.append(_task(folder, row))
        except ValueError as error:
            problems.append(f"row {place}: {error}")
    if len(rows) != number:
        problems.append(f"found {len(rows)} rows, expected {number}")
    all_problems([*problems, *_mismatches(tasks)], f"{folder / TASKS}: damaged; make the plan again")
    return LabelingPlan(tuple(tasks), references, seed, digests)


def _read_about(folder: Path) -> tuple[int, int, dict[str, tuple[Path, ...]], dict[Path, str]]:
    """The number of tasks, the seed, the photos, and their SHA-256."""
    path = folder / PLAN
    remedy = "make the plan again"
    found = read_object(path, "a folder written by `finetune-monitor label plan`", remedy)
    with damage_named(path, remedy):
        if found["format"] != PLAN_FORMAT:
            raise UserError(f"{path}: found format {found['format']}, expected {PLAN_FORMAT}; make the plan again")
        references = {person: _photos(folder, photos) for person, photos in found["references"].items()}
        digests = {_absolute(folder, name): str(digest) for name, digest in found.get("sha256", {}).items()}
        return as_whole(found["tasks"]), as_whole(found["seed"]), references, digests


def _read_rows(path: Path) -> list[dict[str, str]]:
    """The table's rows unchanged: a name may contain any byte, so neither text nor newlines are translated."""
    try:
        text = read_regular(path).decode("utf-8", "surrogateescape")
        rows = [
            {name: plain_cell(cell) if isinstance(cell, str) else cell for name, cell in row.items()}
            for row in csv.DictReader(io.StringIO(text, newline=""))
        ]
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; make the plan again") from error
    except csv.Error as error:
        raise UserError(f"{path}: damaged ({error}); make the plan again") from error
    if not rows or set(TASK_COLUMNS) - set(rows[0]):
        raise UserError(f"{path}: expected the columns {', '.join(TASK_COLUMNS)} and at least one row")
    return rows


def _row(folder: Path, task: Task) -> list[object]:
    places = [_relative(folder, task.file), task.sha256, _relative(folder, task.run)]
    return [task.image_id, task.metric, task.person, *places, task.step, task.cell, task.repeat_of]


def _task(folder: Path, row: Mapping[str, str]) -> Task:
    if None in row or None in row.values():
        raise ValueError(f"found too few or too many columns, expected {len(TASK_COLUMNS)}")
    missing = [name for name in ("image_id", "metric", "person", "file", "sha256") if not row[name]]
    if missing:
        raise ValueError(f"no {', '.join(missing)}")
    return Task(
        row["image_id"],
        row["metric"],
        row["person"],
        _absolute(folder, row["file"]),
        row["sha256"],
        _absolute(folder, row["run"]) if row["run"] else None,
        int(row["step"]) if row["step"] else None,
        row["cell"] or None,
        row["repeat_of"] or None,
    )


def _mismatches(tasks: Sequence[Task]) -> list[str]:
    """Problems across rows: duplicate ids, and repeats of missing images."""
    counts = Counter(task.image_id for task in tasks)
    metrics = {task.image_id: task.metric for task in tasks if task.repeat_of is None}
    twice = [f"image_id {name} occurs {count} times" for name, count in counts.items() if count > 1]
    return twice + [
        f"image_id {task.image_id} repeats {task.repeat_of}, which is not an image of {task.metric}"
        for task in tasks
        if task.repeat_of is not None and metrics.get(task.repeat_of) != task.metric
    ]


def _photos(folder: Path, photos: Any) -> tuple[Path, ...]:
    return tuple(_absolute(folder, as_text(photo)) for photo in as_list(photos))


def _relative(folder: Path, path: Path | None) -> str:
    """The relative path from the folder, following its links or not, whichever has fewer parent steps."""
    if path is None:
        return ""
    base = os.path.realpath(folder)
    ways = [os.path.relpath(place, base) for place in (path, os.path.realpath(path))]
    return min(ways, key=lambda way: way.split(os.sep).count(os.pardir))


def _absolute(folder: Path, path: str) -> Path:
    """The absolute path.

    Raises:
        ValueError: it is not a valid file name.
    """
    name = os.fsencode(path)
    if b"\0" in name or len(name) > LONGEST_PATH or max(map(len, name.split(b"/"))) > LONGEST_NAME:
        raise ValueError(f"found {path[:LONGEST_NAME]!r}, expected a path")
    return Path(os.path.normpath(os.path.join(os.path.realpath(folder), path)))
