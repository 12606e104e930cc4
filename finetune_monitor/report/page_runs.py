"""Read run directories for a page: their content, and messages about what cannot be read."""

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.json_files import damage_named
from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.curve import resolution
from finetune_monitor.record.evaluation import Evaluation
from finetune_monitor.record.grid import Cell, sampling_in_words
from finetune_monitor.record.history import RunHistory, read_noting
from finetune_monitor.record.kept_weights import KeptWeights, kept_weights
from finetune_monitor.record.reproducible import reproducible_steps
from finetune_monitor.record.run_directory import RUN
from finetune_monitor.record.scales import scale
from finetune_monitor.record.training_log import TrainingRow, merged, read_training
from finetune_monitor.record.verdict import verdict
from finetune_monitor.report.about import Lines, about
from finetune_monitor.report.photo_survey import PhotoSurvey, read_survey
from finetune_monitor.stats.estimate import Estimate

MOST_POINTS = 250
"""Points of a run's loss on the page."""

SHA256 = re.compile("[0-9a-f]{64}")

USED, HELD_OUT = "used", "held_out"
PHOTO_KINDS = {"references": USED, "held_out": HELD_OUT}
"""The kinds of photos in a metric's description, and their names on the page."""


@dataclass(frozen=True)
class Reference:
    """A photo of the person; `sha256` is that of the file's content."""

    kind: str
    file: str
    sha256: str


@dataclass(frozen=True)
class Ending:
    """How a run ended; `reason` is None if it is in progress, or if its training loop simply ended.

    step: the last one of the training; of a run in progress, the last evaluated one.
    """

    ended: bool
    step: int | None
    reason: str | None
    why: str
    best_metric: str | None
    best_step: int | None
    best_score: float | None


@dataclass(frozen=True)
class PageRun:
    """One run, as shown on a page.

    id: 8 hexadecimal digits of the SHA-256 of its resolved path, so that it is the same every time a page is written.
    name: the shortest tail of its path that is unique on the page.
    folder: its path as given.
    cells: the cells of the grid, in order; their ids are safe as file names.
    columns: the description of each score column.
    measured_with: by metric, what it measures with, except reference photos.
    scales: by score, a digest of everything that it depends on; scores of runs with equal digests are comparable.
    nearest: by column that names a photo for each image, the indices of its metric's photos in `references`.
    verdict: sentences on what was reached, and on the smallest change that the grid can detect.
    weights: the weights in its folder, by step.
    problems: sentences on what could not be read.
    training: loss and learning rate; empty if the training loop passed none.
    reproducible: the steps whose images can be rendered again.
    survey: what was found out about the training photos.
    about: settings, models, and libraries in words.
    full_quality: the steps that were rendered at full quality, too; full_sampling: how.
    """

    id: str
    name: str
    folder: Path
    evaluations: tuple[Evaluation, ...]
    cells: tuple[Cell, ...]
    sampling: str
    columns: Mapping[str, ScoreColumn]
    measured_with: Mapping[str, Mapping[str, Any]]
    scales: Mapping[str, str]
    references: tuple[Reference, ...]
    nearest: Mapping[str, tuple[int, ...]]
    ceilings: Mapping[str, Estimate]
    notices: tuple[str, ...]
    hparams: Mapping[str, Any]
    model: str | None
    ending: Ending
    verdict: tuple[str, ...]
    weights: Mapping[int, KeptWeights]
    problems: tuple[str, ...]
    training: tuple[TrainingRow, ...] = ()
    reproducible: tuple[int, ...] = ()
    survey: PhotoSurvey | None = None
    about: Mapping[str, Lines] = field(default_factory=dict)
    full_quality: tuple[Evaluation, ...] = ()
    full_sampling: str = ""


@dataclass(frozen=True)
class Unreadable:
    """A folder with nothing to show, and the reason."""

    folder: Path
    problem: str


def read_runs(run_dirs: Sequence[Path]) -> tuple[list[PageRun], list[Unreadable]]:
    """The runs in these folders, each read once, in the order given; nothing in them is changed.

    Raises:
        UserError: none of the runs can be read.
    """
    folders: dict[Path, Path] = {}
    for folder in run_dirs:
        folders.setdefault(Path(os.path.realpath(folder)), folder)
    places = list(folders)
    names = distinct_tails(places)
    runs, unreadable = [], []
    for place in places:
        try:
            runs.append(_read(folders[place], run_id(place), names[place]))
        except UserError as error:
            unreadable.append(Unreadable(folders[place], str(error)))
    if not runs:
        problems = "\n".join(f"  - {found.problem}" for found in unreadable)
        raise UserError(f"found no readable run, expected at least one:\n{problems}")
    return runs, unreadable


def run_id(place: Path) -> str:
    """The id of the run with this resolved path."""
    return hashlib.sha256(os.fsencode(place)).hexdigest()[:8]


def distinct_tails(paths: Sequence[Path]) -> dict[Path, str]:
    """For each of these distinct paths, its shortest unique tail."""
    longest = max((len(path.parts) for path in paths), default=0)
    found: dict[Path, str] = {}
    for length in range(1, longest + 1):
        tails = {path: path.parts[-length:] for path in paths}
        counts: dict[tuple[str, ...], int] = {}
        for tail in tails.values():
            counts[tail] = counts.get(tail, 0) + 1
        found |= {path: str(Path(*tail)) for path, tail in tails.items() if path not in found and counts[tail] == 1}
    return found


def photo_count(run: PageRun) -> int | None:
    """The number of training photos: from the config of train.py, or otherwise the number of reference photos."""
    count = run.hparams.get("data.instance_count")
    if isinstance(count, int) and not isinstance(count, bool):
        return count
    if "data.instance_images" not in run.hparams:
        return None
    return len({reference.sha256 for reference in run.references if reference.kind == USED}) or None


def _read(folder: Path, identity: str, name: str) -> PageRun:
    history, problems = read_noting(folder)
    with damage_named(f"{folder / RUN}: weights"):
        references = tuple(dict.fromkeys(photo for found in history.weights.values() for photo in _references(found)))
    found = _described(history, identity, name, problems, references)
    return _with(_with(found, "training", _training), "survey", read_survey)


def _with(run: PageRun, name: str, read: Callable[[Path], Any]) -> PageRun:
    """The run with what this reads; what cannot be read is noted, and everything else is still shown."""
    try:
        return replace(run, **{name: read(run.folder)})
    except UserError as error:
        return replace(run, problems=(*run.problems, str(error)))


def _training(run_dir: Path) -> tuple[TrainingRow, ...]:
    """The rows, at most about `MOST_POINTS` of them."""
    rows = read_training(run_dir)
    return tuple(merged(rows, math.ceil(rows[-1].step / MOST_POINTS)) if len(rows) > MOST_POINTS else rows)


def _described(
    history: RunHistory, identity: str, name: str, problems: tuple[str, ...], references: tuple[Reference, ...]
) -> PageRun:
    apart, kept = {*PHOTO_KINDS, "notice"}, kept_weights(history.output_dir)
    scored = dict.fromkeys(score for found in history.evaluations for score in found.scores)
    return PageRun(
        identity,
        name,
        history.output_dir,
        history.evaluations,
        history.grid.cells,
        sampling_in_words(history.grid),
        history.columns,
        {metric: {k: v for k, v in found.items() if k not in apart} for metric, found in history.weights.items()},
        {score: _digest(scale(score, history)) for score in scored},
        references,
        _nearest(history, references),
        history.ceilings,
        history.notices,
        history.hparams,
        history.model,
        Ending(
            history.has_ended,
            history.last_step,
            history.reason,
            history.why,
            history.best_metric,
            history.best_step,
            history.best_score,
        ),
        sentences(history),
        kept,
        problems,
        reproducible=reproducible_steps(history, kept),
        about=about(history),
        full_quality=history.full_quality,
        full_sampling=sampling_in_words(history.grid.at_full_quality),
    )


def _nearest(history: RunHistory, references: Sequence[Reference]) -> dict[str, tuple[int, ...]]:
    naming = {name: column.metric for name, column in history.columns.items() if column.likeness}
    photos = {name: _references(history.weights.get(metric, {})) for name, metric in naming.items()}
    return {
        name: tuple(references.index(photo) for photo in found if photo.kind == USED) for name, found in photos.items()
    }


def sentences(history: RunHistory) -> tuple[str, ...]:
    """The verdict, and the smallest change that the grid can detect."""
    metric = history.best_metric or ""
    shows = resolution(history.evaluations, metric)
    found = (f"{metric}: {shows}.",) if shows else ()
    return (*verdict(history).sentences, *found)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _references(found: Mapping[str, Any]) -> list[Reference]:
    photos = [(kind, photo) for key, kind in PHOTO_KINDS.items() for photo in found.get(key) or ()]
    references = [Reference(kind, str(photo["file"]), str(photo["sha256"])) for kind, photo in photos]
    strange = [reference.sha256 for reference in references if not SHA256.fullmatch(reference.sha256)]
    if strange:
        raise ValueError(f"references: found {strange[0]!r}, which is not a SHA-256")
    return references
