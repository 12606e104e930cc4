"""Fit a head on rated images and report on it, or evaluate an existing head on rated images."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.extras import require
from finetune_monitor.base.files import claim, sha256
from finetune_monitor.base.paths import check_folder
from finetune_monitor.base.version import __version__
from finetune_monitor.metrics.aesthetic_head import check_fit, find_head, read_head, save_head, scale_of
from finetune_monitor.models.clip import ClipSource, resolve_clip
from finetune_monitor.stats.estimate import MISSING
from finetune_monitor.studies.aesthetic_head.dataset import RatedImages, load_rated_images
from finetune_monitor.studies.aesthetic_head.fitting import Fitted, Targets, fit_head, predict
from finetune_monitor.studies.aesthetic_head.ratings import Ratings, read_ratings
from finetune_monitor.studies.aesthetic_head.report import Measured, Predictions, measure, write_report
from finetune_monitor.studies.aesthetic_head.settings import FitSettings
from finetune_monitor.studies.aesthetic_head.splits import (
    Lists,
    Split,
    folds,
    listed_rows,
    make_split,
    wanted_rows,
    without_test,
)
from finetune_monitor.studies.rating_problems import Problem, left_out, write_problems

HEAD, PLAIN, CONSTANT = "head", "unbalanced", "constant"
"""The names of the predictors in a report."""

CONSTANT_NOTE = f"The {CONSTANT} predicts the mean of the same ratings that it is evaluated on for every image."

FIGURES = ("matplotlib", "the figures of an aesthetic head's report")

HEAD_FILE, REPORT = "head.safetensors", "report.json"


@dataclass(frozen=True)
class ExperimentInputs:
    """The rated images, and the CLIP that embeds them.

    ratings: AVA.txt or a CSV file. images: folder with the images. store: folder of the embeddings.
    clip, pretrained: the arguments of `resolve_clip`.
    scale: lowest and highest possible rating.
    workers: processes that read images.
    """

    ratings: Path
    images: Path
    clip: str
    pretrained: str | None
    store: Path
    scale: tuple[float, float]
    device: str
    workers: int

    def read(self) -> Ratings:
        """The ratings, after checking the images' folder, so that typos are reported before CLIP is downloaded."""
        check_folder(self.images, "the folder with the rated images")
        return read_ratings(self.ratings, self.scale)

    def load(self, ratings: Ratings, clip: ClipSource) -> RatedImages:
        return load_rated_images(ratings, self.images, clip, self.store, self.device, self.workers)


@dataclass(frozen=True)
class ExperimentOutcome:
    """The numbers of a report, how many images and rows of each kind were left out, and caveats."""

    measured: Measured
    left_out: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Found:
    """A head, and predictions for images (`rows` of the data) by heads that had not seen them."""

    fitted: Fitted
    split: Split
    rows: Int[np.ndarray, "n"]
    scores: dict[str, Float[np.ndarray, "n"]]


def fit(
    inputs: ExperimentInputs,
    output: Path,
    settings: FitSettings,
    lists: Lists,
    fold_count: int | None = None,
    notice: str | None = None,
) -> ExperimentOutcome:
    """Fit a head and write `head.safetensors`, the report, and `problems.csv` to the folder `output`.

    With balancing, a second head is fitted without it for comparison. With `fold_count`, the report is based on
    predictions by heads that have not seen the image (cross-validation), and the head in the file is fitted on all
    images except those used for early stopping.

    Args:
        notice: shown wherever the head's scores appear.

    Raises:
        UserError: `output` already holds a head or a report, or the input is not usable.
    """
    require(*FIGURES)
    ratings = inputs.read()
    if settings.loss == "histogram":
        _check_votes(inputs.ratings, ratings)
    _check_folds(fold_count, len(ratings))
    rows, unlisted = wanted_rows(ratings.names, lists)
    claim(output, (HEAD_FILE, REPORT))
    clip = resolve_clip(inputs.clip, inputs.pretrained)
    data = inputs.load(ratings.take(rows), clip)
    data.problems.extend(unlisted)
    experiment = _Experiment(data, settings, inputs.device)
    found = experiment.held_out(lists) if fold_count is None else experiment.cross_validated(fold_count)
    predictions = _predictions(data, found.scores, found.rows)
    measured = measure(predictions)
    facts = {**_made_with(inputs, clip, data), **_fitted_with(settings, found, fold_count)}
    notes = {"notice": notice} if notice else {}
    save_head(output / HEAD_FILE, found.fitted.head, {**facts, **notes, "scores": _agreement(measured)})
    images = [data.paths[row] for row in found.rows]
    title = f"Aesthetic head {output.resolve().name}"
    return _write_report(output, title, predictions, measured, facts, images, data.problems, list(notes.values()))


def evaluate(head: str | Path, inputs: ExperimentInputs, output: Path, only: Path | None = None) -> ExperimentOutcome:
    """Evaluate a head on rated images, all or those in the list `only`, and write the report to `output`.

    Raises:
        UserError: the head was trained on another CLIP, `output` already holds a report, or the input is not usable.
    """
    require(*FIGURES)
    file = find_head(head)
    network, metadata = read_head(file)
    ratings = inputs.read()
    rows, unlisted = (np.arange(len(ratings)), []) if only is None else listed_rows(only, ratings.names)
    claim(output, (HEAD_FILE, REPORT))
    clip = resolve_clip(inputs.clip, inputs.pretrained)
    check_fit(file, network.width, metadata, clip)
    data = inputs.load(ratings.take(rows), clip)
    data.problems.extend(unlisted)
    predictions = _predictions(data, {HEAD: predict(network, data.embeddings)}, np.arange(len(data.paths)))
    facts = {"head": str(head), "head_sha256": sha256(file), **_made_with(inputs, clip, data)}
    name = file.resolve().parent.name if file.name == HEAD_FILE else file.stem
    notes = _doubts(metadata, ratings, only)
    measured = measure(predictions)
    title = f"Aesthetic head {name}"
    return _write_report(output, title, predictions, measured, facts, data.paths, data.problems, notes)


def _check_votes(file: Path, ratings: Ratings) -> None:
    if ratings.counts is None or ratings.grades is None:
        raise UserError(f"{file}: found only mean ratings; the histogram loss needs votes per grade")
    steps = np.diff(ratings.grades)
    if not np.allclose(steps, steps[0]):
        found = ", ".join(f"{grade:g}" for grade in ratings.grades)
        raise UserError(f"{file}: found the grades {found}; the histogram loss needs equal steps")


def _check_folds(count: int | None, images: int) -> None:
    if count is not None and not 2 <= count <= images:
        raise UserError(f"--folds: found {count}, expected 2 or more, and at most one per image ({images} images)")


def _doubts(metadata: Mapping[str, str], ratings: Ratings, only: Path | None) -> list[str]:
    """Caveats for the reader of a head's report."""
    doubts = [metadata["notice"]] if metadata.get("notice") else []
    if metadata.get("data_sha256") == ratings.sha256:
        unless = "" if only is None else ", unless the list names none of them"
        doubts.append(f"The head was fitted on images from this file, so these numbers are optimistic{unless}.")
    if scale_of(metadata) != ratings.scale:
        theirs, ours = (f"{low:g}..{high:g}" for low, high in (scale_of(metadata), ratings.scale))
        doubts.append(
            f"The head's scale is {theirs}, but that of the ratings is {ours}: only the correlations are meaningful."
        )
    return doubts


class _Experiment:
    """Fits heads on parts of the images, and scores the others with them."""

    def __init__(self, data: RatedImages, settings: FitSettings, device: str) -> None:
        ratings = data.ratings
        self.data, self.device = data, device
        self.targets = Targets(ratings.means, ratings.scale, ratings.counts, ratings.grades)
        self.settings = {HEAD: settings} | ({PLAIN: settings.unbalanced()} if settings.balance != "none" else {})

    def held_out(self, lists: Lists) -> _Found:
        """A head fitted on the training part, with predictions for the test part."""
        split = make_split(self.data.ratings.names, self.data.digests, lists)
        heads = {name: self._fit(name, split) for name in self.settings}
        return _Found(heads[HEAD], split, split.test, self._predict(heads, split.test))

    def cross_validated(self, count: int) -> _Found:
        """Predictions for every image by heads that were fitted without its fold; the head itself is fitted on all."""
        fold_of = folds(self.data.digests, count)
        scores = {name: np.full(len(fold_of), MISSING) for name in self.settings}
        for fold in range(count):
            split = self._without_test(np.flatnonzero(fold_of != fold))
            rows = np.flatnonzero(fold_of == fold)
            heads = {name: self._fit(name, split) for name in self.settings}
            for name, found in self._predict(heads, rows).items():
                scores[name][rows] = found
        rows = np.arange(len(fold_of))
        split = self._without_test(rows)
        return _Found(self._fit(HEAD, split), split, rows, scores)

    def _fit(self, name: str, split: Split) -> Fitted:
        settings, data = self.settings[name], self.data
        return fit_head(data.embeddings, self.targets, split.train, split.validation, settings, self.device)

    def _predict(self, heads: Mapping[str, Fitted], rows: Int[np.ndarray, "n"]) -> dict[str, Float[np.ndarray, "n"]]:
        return {name: predict(fitted.head, self.data.embeddings[rows]) for name, fitted in heads.items()}

    def _without_test(self, rows: Int[np.ndarray, "n"]) -> Split:
        names, digests = self.data.ratings.names, self.data.digests
        inner = without_test([names[row] for row in rows], [digests[row] for row in rows])
        return replace(inner, train=rows[inner.train], validation=rows[inner.validation])


def _predictions(
    data: RatedImages, scores: Mapping[str, Float[np.ndarray, "n"]], rows: Int[np.ndarray, "n"]
) -> Predictions:
    """Scores of the images in `rows`, with people's ratings and the constant."""
    ratings = data.ratings.means[rows]
    names = tuple(data.ratings.names[row] for row in rows)
    return Predictions(names, ratings, {**scores, CONSTANT: np.full(len(rows), ratings.mean())}, data.ratings.scale)


def _write_report(
    output: Path,
    title: str,
    predictions: Predictions,
    measured: Measured,
    facts: Mapping[str, str],
    images: Sequence[Path],
    problems: Sequence[Problem],
    notes: Sequence[str],
) -> ExperimentOutcome:
    """Write the report, and the list of everything that was left out."""
    write_problems(output, problems, ("kind", "image", "detail"))
    facts = {**facts, "left out": left_out(problems)}
    write_report(output, title, predictions, measured, facts, images, [*notes, CONSTANT_NOTE])
    return ExperimentOutcome(measured, left_out(problems), tuple(notes))


def _made_with(inputs: ExperimentInputs, clip: ClipSource, data: RatedImages) -> dict[str, str]:
    """CLIP and data, for the head's metadata and the report."""
    low, high = data.ratings.scale
    return {
        "clip": clip.id,
        "clip_sha256": clip.sha256,
        "data": f"{inputs.ratings.name}: {len(data.paths)} rated images",
        "data_sha256": data.ratings.sha256,
        "scale": f"{low:g}..{high:g}",
    }


def _fitted_with(settings: FitSettings, found: _Found, fold_count: int | None) -> dict[str, str]:
    split = found.split
    parts = {"train": split.train, "validation": split.validation, "test": split.test}
    return {
        "split": ", ".join(f"{len(rows)} {name}" for name, rows in parts.items() if len(rows)),
        "split_sha256": split.sha256,
        "measured": f"{fold_count}-fold cross-validation" if fold_count else f"on the {len(split.test)} test images",
        "loss": settings.loss,
        "balance": settings.balance,
        "seed": str(settings.seed),
        "rounds": f"{found.fitted.best_round} of {len(found.fitted.losses)}",
        "made_by": f"finetune_monitor {__version__}",
    }


def _agreement(measured: Measured) -> str:
    """The head's agreement with people as JSON: value and 95% interval of each statistic."""
    found = measured.overall[HEAD]
    return json.dumps({"srcc": found.srcc.to_json(), "plcc": found.plcc.to_json(), "mae": found.mae.to_json()})
