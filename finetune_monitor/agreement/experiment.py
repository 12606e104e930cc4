"""The whole of `agree`: labels and scores in; a report and thresholds out."""

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finetune_monitor.aesthetics.ratings import locate_images
from finetune_monitor.agreement.labels import describe_labelers
from finetune_monitor.agreement.loading import Inputs, Loaded, Material, load
from finetune_monitor.agreement.report import Section, write_report
from finetune_monitor.agreement.rows import Problem
from finetune_monitor.agreement.study import Study, study
from finetune_monitor.agreement.tasks import Task
from finetune_monitor.agreement.thresholds import Thresholds, write_thresholds
from finetune_monitor.files import claim, write_atomic
from finetune_monitor.markdown import encoded

REPORT, THRESHOLDS, PROBLEMS = "report.html", "thresholds.json", "problems.csv"


@dataclass(frozen=True)
class Settings:
    """How labels and scores are compared: `method`, `power` and `seed` as `study.study` takes them."""

    method: str = "least_cost"
    power: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """What was found: a section of the report a metric, and in words the rows that could not be used."""

    sections: Sequence[Section]
    left_out: str


def agree(inputs: Inputs, output: Path, settings: Settings, images: Path | None = None) -> Outcome:
    """Compare, and write the report, and the thresholds where there are any, into `output`.

    Args:
        images: folder with the pictures, where no plan says where they lie; None shows none.

    Raises:
        UserError: `output` holds a report already, or the input cannot be used; lists everything.
    """
    loaded = load(inputs)
    claim(output, (REPORT, THRESHOLDS))
    sections = [_section(material, loaded, settings, images) for material in loaded.materials.values()]
    write_report(output, sections, _facts(inputs, loaded, settings))
    _write_problems(output / PROBLEMS, loaded.problems)
    starred = [section.study for section in sections if not section.study.refused]
    if starred:
        weights = {name: material.weights for name, material in loaded.materials.items()}
        write_thresholds(output / THRESHOLDS, [_thresholds(study, weights) for study in starred])
    return Outcome(sections, _left_out(loaded.problems))


def _section(material: Material, loaded: Loaded, settings: Settings, images: Path | None) -> Section:
    sample, tasks = material.sample, loaded.tasks
    chosen = [tasks[image] for image in sample.table.images if image in tasks]
    pictures = {task.image_id: task.file for task in chosen}
    if images is not None:
        located = zip(sample.table.images, locate_images(sample.table.images, images), strict=True)
        pictures |= {image: path for image, path in located if path is not None}
    return Section(
        study(sample, settings.method, settings.power, settings.seed),
        describe_labelers(sample.table),
        material.notes,
        pictures or None,
        {task.image_id: _caption(task) for task in chosen} or None,
    )


def _caption(task: Task) -> str:
    parts = [task.person, f"step {task.step}" if task.step is not None else None, task.cell]
    return ", ".join(part for part in parts if part)


def _facts(inputs: Inputs, loaded: Loaded, settings: Settings) -> dict[str, str]:
    return {
        "ratings": f"{loaded.ratings:,} from {', '.join(path.name for path in inputs.ratings)}",
        "rows left out": _left_out(loaded.problems),
        "scores": inputs.scores.name if inputs.scores else "the runs' records",
        "thresholds": f"{settings.method}, distances to the power {settings.power:g}",
        "seed": str(settings.seed),
    }


def _left_out(problems: Sequence[Problem]) -> str:
    counts = Counter(problem.kind.value for problem in problems)
    listed = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    return f"{listed} (see {PROBLEMS})" if listed else "nothing"


def _thresholds(found: Study, weights: Mapping[str, Mapping[str, Any] | None]) -> Thresholds:
    table, scored = found.sample.table, ~np.isnan(found.sample.scores)
    return Thresholds(
        table.metric,
        found.buckets[found.method],
        found.method,
        found.power,
        len(table.labelers),
        int(scored.sum()),
        int((~np.isnan(table.labels[:, scored])).sum()),
        weights[table.metric],
    )


def _write_problems(file: Path, problems: Sequence[Problem]) -> None:
    """All rows that were left out, and why, as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["kind", "file", "where", "detail"])
    writer.writerows((problem.kind.value, problem.file.name, problem.where, problem.detail) for problem in problems)
    write_atomic(file, encoded(text.getvalue()))
