"""What is to be labelled: the table of tasks and the photos to compare with, as a plan's folder holds them."""

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_monitor import __version__
from finetune_monitor.errors import UserError, all_problems
from finetune_monitor.files import write_atomic

TASKS, PLAN = "tasks.csv", "plan.json"

FORMAT = 1

COLUMNS = ("image_id", "metric", "person", "file", "sha256", "run", "step", "cell", "repeat_of")


@dataclass(frozen=True)
class Task:
    """One image to be rated for one metric.

    image_id: opaque: a labeler sees it, and it says nothing of person, step, prompt or score.
    metric: the score's name in the record, such as `face_similarity` or `aesthetic`.
    person: whom the image is meant to show; the group that folds and bootstrap keep together.
    file: the image, where it lies; nothing is copied.
    sha256: of the file when the plan was made.
    run, step, cell: where the record has its score; None for a picture that is no run's.
    repeat_of: the image_id of the same picture, where this is a repeat that shows how steady a labeler is.
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
class Plan:
    """All tasks, and each person's photos; `seed` also decides every labeler's order."""

    tasks: tuple[Task, ...]
    references: Mapping[str, tuple[Path, ...]]
    seed: int

    @property
    def metrics(self) -> tuple[str, ...]:
        """In the tasks' order."""
        return tuple(dict.fromkeys(task.metric for task in self.tasks))

    @property
    def by_id(self) -> dict[str, Task]:
        return {task.image_id: task for task in self.tasks}


def write_plan(folder: Path, plan: Plan) -> None:
    """Write `tasks.csv` and `plan.json` into `folder`; paths are relative to it, so that both may move together."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for task in plan.tasks:
        places = [_relative(folder, task.file), task.sha256, _relative(folder, task.run)]
        writer.writerow([task.image_id, task.metric, task.person, *places, task.step, task.cell, task.repeat_of])
    references = {person: [_relative(folder, photo) for photo in found] for person, found in plan.references.items()}
    content = {"format": FORMAT, "made_by": f"finetune_monitor {__version__}", "seed": plan.seed}
    about = json.dumps({**content, "references": references}, indent=2) + "\n"
    write_atomic(folder / PLAN, about.encode())
    write_atomic(folder / TASKS, text.getvalue().encode("utf-8", "surrogateescape"))


def read_plan(folder: Path) -> Plan:
    """Read a plan's folder.

    Raises:
        UserError: it is no plan's folder, or its files are damaged; lists every row that does not fit.
    """
    about = _read_about(folder / PLAN)
    try:
        text = (folder / TASKS).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise UserError(f"{folder / TASKS}: {error.strerror}; make the plan again") from error
    rows = list(csv.DictReader(io.StringIO(text)))
    if not rows or set(COLUMNS) - set(rows[0]):
        raise UserError(f"{folder / TASKS}: expected the columns {', '.join(COLUMNS)} and at least one row")
    tasks, problems = [], []
    for number, row in enumerate(rows, 2):
        try:
            tasks.append(_task(folder, row))
        except (TypeError, ValueError, AttributeError) as error:
            problems.append(f"row {number}: {error}")
    counts = Counter(task.image_id for task in tasks)
    problems += [f"image_id {name} stands {count} times" for name, count in counts.items() if count > 1]
    all_problems(problems, f"{folder / TASKS}: damaged; make the plan again")
    references = {
        person: tuple(_absolute(folder, photo) for photo in photos) for person, photos in about["references"].items()
    }
    return Plan(tuple(tasks), references, about["seed"])


def _task(folder: Path, row: Mapping[str, str]) -> Task:
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


def _read_about(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
        if found["format"] != FORMAT:
            raise UserError(f"{path}: found format {found['format']}, expected {FORMAT}; make the plan again")
        return {"seed": int(found["seed"]), "references": dict(found["references"])}
    except OSError:
        raise UserError(
            f"{path.parent}: found no {path.name}; expected a folder of `finetune-monitor label plan`"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: damaged ({error!r}); make the plan again") from None


def _relative(folder: Path, path: Path | None) -> str:
    return "" if path is None else Path(os.path.relpath(path, folder)).as_posix()


def _absolute(folder: Path, path: str) -> Path:
    return Path(os.path.normpath(folder / path))
