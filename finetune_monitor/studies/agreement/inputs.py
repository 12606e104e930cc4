"""Combine ratings, scores, and their plan: one sample per metric, and what was left out of it."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from finetune_monitor.base.errors import UserError, all_problems
from finetune_monitor.base.text import counted
from finetune_monitor.studies.agreement.label_matrix import LabelTable, label_tables, listed, table_notes
from finetune_monitor.studies.agreement.model_scores import (
    ModelScores,
    changed_files,
    matched,
    read_scores,
    recorded_scores,
)
from finetune_monitor.studies.agreement.rating_files import read_rating_files
from finetune_monitor.studies.agreement.settings import StudyInputs
from finetune_monitor.studies.agreement.study import Sample
from finetune_monitor.studies.labeling.storage import RATINGS, RatingStore
from finetune_monitor.studies.labeling.tasks import Task, read_plan
from finetune_monitor.studies.rating_problems import NOTES, Problem

LEAST_LABELERS, LEAST_IMAGES = 3, 10
"""A labeler is compared with the mean of at least two others."""


@dataclass(frozen=True)
class Material:
    """One metric, ready to be studied.

    weights: the weights behind the scores; None if unknown.
    notes: sentences that a reader of the figures should know.
    """

    sample: Sample
    weights: Mapping[str, Any] | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Loaded:
    """All inputs, as read.

    materials: by metric.
    tasks: the plan's tasks by image_id; empty if there is no plan.
    ratings: the number of valid rows, including those that later rows replace.
    problems: rows that were left out.
    """

    materials: Mapping[str, Material]
    tasks: Mapping[str, Task]
    ratings: int
    problems: tuple[Problem, ...]


def load(inputs: StudyInputs) -> Loaded:
    """Read and check all inputs.

    Raises:
        UserError: files cannot be read, the metric or its scores do not exist, or there are too few labelers or images;
            lists the problems of all metrics.
    """
    folders = [path for path in inputs.ratings if path.is_dir()]
    if len(folders) > 1:
        raise UserError(
            f"found the folders {', '.join(map(str, folders))}; expected at most one plan, and files with ratings"
        )
    plan = read_plan(folders[0]) if folders else None
    files = [path for path in inputs.ratings if not path.is_dir()]
    tasks = plan.by_id if plan else {}
    stored = RatingStore(folders[0] / RATINGS).all() if folders else []
    found = read_rating_files(files, inputs.metric, tasks or None)
    ratings = [*stored, *found.ratings]
    if not ratings:
        raise UserError(
            f"{folders[0]}: holds no ratings yet; rate images with "
            f"`finetune-monitor label serve {shlex.quote(str(folders[0]))}`"
        )
    repeats = {name: task.repeat_of for name, task in tasks.items() if task.repeat_of}
    materials, problems = {}, []
    for name, table in _wanted(label_tables(ratings, repeats), inputs.metric).items():
        try:
            materials[name] = _material(table, tasks, inputs)
        except UserError as error:
            problems.append(str(error))
    bad = tuple(each for each in found.problems if each.kind not in NOTES)
    if problems and bad:
        example = f"{bad[0].file.name}, {bad[0].where}: {bad[0].detail}"
        problems.append(f"left out before that: {counted(len(bad), 'unusable rating')}, such as {example}")
    all_problems(problems, "cannot compare labels and scores:")
    odd = tuple(f"{note.file.name}, {note.where}: {note.detail}." for note in found.problems if note.kind in NOTES)
    noted = {name: replace(material, notes=(*material.notes, *odd)) for name, material in materials.items()}
    return Loaded(noted, tasks, len(ratings), bad)


def _wanted(tables: Mapping[str, LabelTable], metric: str | None) -> Mapping[str, LabelTable]:
    if metric is None:
        return tables
    if metric not in tables:
        raise UserError(f"--metric: found {metric}, but the ratings are for {', '.join(tables)}")
    return {metric: tables[metric]}


def _material(table: LabelTable, tasks: Mapping[str, Task], inputs: StudyInputs) -> Material:
    table, notes = _without_changed(table, tasks)
    if inputs.min_coverage:
        complete = table.complete(inputs.min_coverage)
        if left_out := [name for name in table.labelers if name not in complete.labelers]:
            notes.append(
                f"Left out for labeling less than {inputs.min_coverage:.0%} of the images: {listed(left_out)}."
            )
        table = complete
    scores = _scores(table, tasks, inputs)
    values = np.array([scores.by_image[image] for image in table.images])
    scored = [image for image, value in zip(table.images, values, strict=True) if not np.isnan(value)]
    if len(scored) < len(values):
        unscored = [image for image, value in zip(table.images, values, strict=True) if np.isnan(value)]
        has, are = ("has", "is") if len(unscored) == 1 else ("have", "are")
        notes.append(
            f"{len(unscored)} of {len(values)} images {has} no score (no face found, for example) and {are} not "
            f"compared: {listed(unscored)}."
        )
    _check_size(table, len(scored))
    persons = _complete(table, {**{name: task.person for name, task in tasks.items()}, **scores.persons}, scored)
    cells = _complete(table, {name: task.cell for name, task in tasks.items() if task.cell}, scored)
    if persons is None and scores.persons:
        without = [image for image in scored if image not in scores.persons]
        raise UserError(f"{inputs.scores}: found no person for {listed(without)}; give a person for all images or none")
    return Material(Sample(table, values, persons, cells), scores.weights, (*notes, *table_notes(table)))


def _without_changed(table: LabelTable, tasks: Mapping[str, Task]) -> tuple[LabelTable, list[str]]:
    """The table without images whose file has changed since people saw it: the score may belong to another image."""
    changed = changed_files([tasks[image] for image in table.images if image in tasks])
    if not changed:
        return table, []
    kept = np.array([image not in changed for image in table.images])
    if not kept.any():
        raise UserError(f"{table.metric}: the files of all {len(kept)} images are missing or changed; restore the runs")
    note = (
        f"Left out because their files are missing or have changed since the plan was made: {listed(sorted(changed))}."
    )
    return table.only(~np.isnan(table.labels[:, kept]).all(axis=1), kept), [note]


def _scores(table: LabelTable, tasks: Mapping[str, Task], inputs: StudyInputs) -> ModelScores:
    if inputs.scores is not None:
        return matched(read_scores(inputs.scores, table.metric), table.images, tasks)
    chosen = [tasks[image] for image in table.images if image in tasks]
    if not any(task.run for task in chosen):
        raise UserError(f"{table.metric}: no run has recorded scores for these images; give a CSV file with --scores")
    return matched(recorded_scores(chosen, table.metric), table.images, tasks)


def _check_size(table: LabelTable, scored: int) -> None:
    if len(table.labelers) < LEAST_LABELERS:
        raise UserError(
            f"{table.metric}: found {counted(len(table.labelers), 'labeler')} ({', '.join(table.labelers)}), expected "
            f"{LEAST_LABELERS} or more: each is compared with the mean of at least two others"
        )
    if scored < LEAST_IMAGES:
        raise UserError(
            f"{table.metric}: found {scored} images with both labels and a score, expected {LEAST_IMAGES} or more"
        )


def _complete(table: LabelTable, known: Mapping[str, str], needed: Sequence[str]) -> tuple[str, ...] | None:
    """The group of each image; None if it is unknown for any that is needed."""
    if not all(image in known for image in needed):
        return None
    return tuple(known.get(image, "") for image in table.images)
