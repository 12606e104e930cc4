"""The `agree` command's work: from labels and scores to a report and thresholds."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finetune_monitor.base.files import claim
from finetune_monitor.base.image_names import locate_images
from finetune_monitor.metrics.thresholds import Thresholds, write_thresholds
from finetune_monitor.stats.resampling import ROUNDS
from finetune_monitor.studies.agreement.inputs import Loaded, Material, load
from finetune_monitor.studies.agreement.label_matrix import describe_labelers
from finetune_monitor.studies.agreement.settings import StudyInputs, StudySettings
from finetune_monitor.studies.agreement.study import ReportSection, Study, study
from finetune_monitor.studies.agreement_report.files import write_report
from finetune_monitor.studies.labeling.tasks import Task
from finetune_monitor.studies.rating_problems import PROBLEMS, left_out, write_problems

REPORTS = ("report.html", "report.md", "report.json", "predictions.csv")

THRESHOLDS = "thresholds.json"


@dataclass(frozen=True)
class AgreementOutcome:
    """The results: one report section per metric, and a sentence on the rows that were left out."""

    sections: Sequence[ReportSection]
    left_out: str


def agree(inputs: StudyInputs, settings: StudySettings, output: Path, images: Path | None = None) -> AgreementOutcome:
    """Compare scores with labels, and write the report and any thresholds to `output`.

    Args:
        images: the folder with the images, if there is no plan; None shows no images.

    Raises:
        UserError: `output` already holds a report, or the input is not usable; lists all problems.
    """
    loaded = load(inputs)
    sections = [_section(material, loaded, images, settings) for material in loaded.materials.values()]
    claim(output, (*REPORTS, THRESHOLDS, PROBLEMS))
    write_problems(output, loaded.problems, ("kind", "file", "where", "detail"))
    weights = [material.weights for material in loaded.materials.values()]
    pairs = [(each.study, found) for each, found in zip(sections, weights, strict=True) if not each.study.refused]
    if pairs:
        write_thresholds(output / THRESHOLDS, [_thresholds(*pair) for pair in pairs])
    write_report(output, sections, _facts(inputs, settings, loaded))
    return AgreementOutcome(sections, left_out(loaded.problems))


def _section(material: Material, loaded: Loaded, images: Path | None, settings: StudySettings) -> ReportSection:
    sample, tasks = material.sample, loaded.tasks
    planned = [tasks[image] for image in sample.table.images if image in tasks]
    files = {task.image_id: task.file for task in planned}
    if images is not None:
        located = zip(sample.table.images, locate_images(sample.table.images, images), strict=True)
        files |= {image: path for image, path in located if path is not None}
    return ReportSection(
        study(sample, settings),
        describe_labelers(sample.table),
        material.notes,
        files or None,
        {task.image_id: _caption(task) for task in planned} or None,
    )


def _caption(task: Task) -> str:
    parts = [task.person, f"step {task.step}" if task.step is not None else None, task.cell]
    return ", ".join(part for part in parts if part)


def _facts(inputs: StudyInputs, settings: StudySettings, loaded: Loaded) -> dict[str, str]:
    return {
        "ratings": f"{loaded.ratings:,} from {', '.join(map(str, inputs.ratings))}",
        "rows left out": left_out(loaded.problems),
        "scores": str(inputs.scores) if inputs.scores else "the runs' records",
        "resamples": f"{ROUNDS:,}",
        **{name: str(value) for name, value in asdict(settings).items()},
    }


def _thresholds(found: Study, weights: Mapping[str, Any] | None) -> Thresholds:
    table, scored = found.sample.table, ~np.isnan(found.sample.scores)
    return Thresholds(
        table.metric,
        found.buckets[found.method],
        found.method,
        found.power,
        len(table.labelers),
        int(scored.sum()),
        int((~np.isnan(table.labels[:, scored])).sum()),
        weights,
    )
