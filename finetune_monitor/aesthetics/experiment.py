"""The whole way of a head: rated pictures in, head and report out; and an existing head measured on rated pictures."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from finetune_monitor import __version__
from finetune_monitor.aesthetics.dataset import RatedPictures, load_rated_pictures, write_problems
from finetune_monitor.aesthetics.fitting import Fitted, Targets, fit_head, predict
from finetune_monitor.aesthetics.heads import check_fit, find_head, read_head, save_head
from finetune_monitor.aesthetics.ratings import Ratings, count_problems, read_ratings
from finetune_monitor.aesthetics.report import Measured, Predictions, write_report
from finetune_monitor.aesthetics.settings import FitSettings
from finetune_monitor.aesthetics.splits import Split, folds, listed_rows, make_split, read_list, without_test
from finetune_monitor.errors import UserError
from finetune_monitor.evaluation import MISSING
from finetune_monitor.files import sha256
from finetune_monitor.hub import ClipSource

HEAD, PLAIN, CONSTANT = "head", "unbalanced", "constant"
"""Names of the predictors in a report."""

CONSTANT_NOTE = f"The {CONSTANT} says of every picture the mean of the very ratings it is measured on."

FILE, PROBLEMS = "head.safetensors", "problems.csv"


@dataclass(frozen=True)
class Inputs:
    """Where rated pictures come from, and the CLIP they are embedded with.

    ratings: AVA.txt or a CSV. images: folder with the pictures. store: folder of the embeddings.
    scale: least and greatest possible rating.
    workers: processes that read pictures.
    """

    ratings: Path
    images: Path
    clip: ClipSource
    store: Path
    scale: tuple[float, float]
    device: str
    workers: int

    def load(self, ratings: Ratings) -> RatedPictures:
        return load_rated_pictures(ratings, self.images, self.clip, self.store, self.device, self.workers)


@dataclass(frozen=True)
class Lists:
    """Files with the names of the images for each part; None where the pictures' content decides."""

    train: Path | None = None
    validation: Path | None = None
    test: Path | None = None

    def check(self) -> None:
        """Read each of them, so that a wrong path is heard of before anything long begins."""
        for path in (self.train, self.validation, self.test):
            if path is not None:
                read_list(path)


@dataclass(frozen=True)
class Outcome:
    """Every number of a report, and how many pictures and rows of which kind were left out."""

    measured: Measured
    left_out: str


@dataclass(frozen=True)
class _Found:
    """A head, and what was said of pictures (`rows` of the data) by heads that had not seen them."""

    fitted: Fitted
    split: Split
    rows: Int[np.ndarray, "n"]
    scores: dict[str, Float[np.ndarray, "n"]]


def fit(
    inputs: Inputs,
    output: Path,
    settings: FitSettings,
    lists: Lists = Lists(),
    fold_count: int | None = None,
    notice: str | None = None,
) -> Outcome:
    """Fit a head and write `head.safetensors`, the report and `problems.csv` into the folder `output`.

    With balancing, a second head is fitted without it, to compare with. With `fold_count`, what the report measures is
    said by heads that have not seen the picture (cross-validation), and the head in the file is fitted on all pictures
    but those that stop it.

    Args:
        notice: shown wherever the head's scores are.

    Raises:
        UserError: there is a head in `output` already, or the input cannot be used.
    """
    if (output / FILE).exists():
        raise UserError(f"{output}: found {FILE}, which would be overwritten; name another folder, or move it away")
    ratings = read_ratings(inputs.ratings, inputs.scale)
    if settings.loss == "histogram" and ratings.counts is None:
        raise UserError(f"{inputs.ratings}: found mean ratings only; the loss on the histogram needs votes a grade")
    lists.check()
    data = inputs.load(ratings)
    experiment = _Experiment(data, settings, inputs.device)
    found = experiment.held_out(lists) if fold_count is None else experiment.cross_validated(fold_count)
    how = {**_made_with(inputs, data), **_fitted_with(settings, found, fold_count)}
    outcome = _write_report(output, f"Aesthetic head {output.name}", data, found.rows, found.scores, how)
    metadata = {**how, "scores": _agreement(outcome.measured)} | ({"notice": notice} if notice else {})
    save_head(output / FILE, found.fitted.head, metadata)
    return outcome


def evaluate(head: str | Path, inputs: Inputs, output: Path, only: Path | None = None) -> Outcome:
    """Measure a head on rated pictures, all or those in the list `only`, and write the report into `output`.

    Raises:
        UserError: the head was trained on another CLIP, or the input cannot be used.
    """
    file = find_head(head)
    network, metadata = read_head(file)
    check_fit(file, network.width, metadata, inputs.clip, sha256(inputs.clip.file))
    data = inputs.load(read_ratings(inputs.ratings, inputs.scale))
    rows = np.arange(len(data.paths))
    if only is not None:
        rows, unlisted = listed_rows(only, data.ratings.names)
        data.problems.extend(unlisted)
    notes = [metadata["notice"]] if metadata.get("notice") else []
    if metadata.get("data_sha256") == data.ratings.sha256 and only is None:
        notes.append("The head was fitted on pictures of this very file: these numbers flatter it.")
    facts = {"head": str(head), "head_sha256": sha256(file), **_made_with(inputs, data)}
    scores = {HEAD: predict(network, data.embeddings[rows])}
    return _write_report(output, f"Aesthetic head {Path(head).stem}", data, rows, scores, facts, notes)


class _Experiment:
    """Fits heads on parts of the pictures and lets them score the others."""

    def __init__(self, data: RatedPictures, settings: FitSettings, device: str) -> None:
        ratings = data.ratings
        self.data, self.device = data, device
        self.targets = Targets(ratings.means, ratings.scale, ratings.counts, ratings.grades)
        self.settings = {HEAD: settings} | ({PLAIN: settings.unbalanced()} if settings.balance != "none" else {})

    def held_out(self, lists: Lists) -> _Found:
        """Fitted on the training part, measured on the test part."""
        split, unlisted = make_split(
            self.data.ratings.names, self.data.digests, lists.train, lists.validation, lists.test
        )
        self.data.problems.extend(unlisted)
        heads = {name: self._fit(name, split) for name in self.settings}
        return _Found(heads[HEAD], split, split.test, self._predict(heads, split.test))

    def cross_validated(self, count: int) -> _Found:
        """Every picture scored by heads that were fitted without its fold; the head itself is fitted on all."""
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


def _write_report(
    output: Path,
    title: str,
    data: RatedPictures,
    rows: Int[np.ndarray, "n"],
    scores: Mapping[str, Float[np.ndarray, "n"]],
    facts: Mapping[str, str],
    notes: Sequence[str] = (),
) -> Outcome:
    """The report on the pictures in `rows`, and the list of all that was left out."""
    ratings = data.ratings.means[rows]
    names, pictures = zip(*((data.ratings.names[row], data.paths[row]) for row in rows), strict=True)
    predictions = Predictions(
        names, ratings, {**scores, CONSTANT: np.full(len(rows), ratings.mean())}, data.ratings.scale
    )
    write_problems(output / PROBLEMS, data.problems)
    counts = ", ".join(f"{count} {kind.value}" for kind, count in count_problems(data.problems).items())
    left_out = f"{counts} (see {PROBLEMS})" if counts else "nothing"
    facts = {**facts, "left out": left_out}
    return Outcome(write_report(output, title, predictions, facts, pictures, [*notes, CONSTANT_NOTE]), left_out)


def _made_with(inputs: Inputs, data: RatedPictures) -> dict[str, str]:
    """CLIP and data, as the head's metadata and the report name them."""
    low, high = data.ratings.scale
    return {
        "clip": inputs.clip.id,
        "clip_sha256": data.clip_sha256,
        "data": f"{inputs.ratings.name}: {len(data.paths)} rated pictures",
        "data_sha256": data.ratings.sha256,
        "scale": f"{low:g}..{high:g}",
    }


def _fitted_with(settings: FitSettings, found: _Found, fold_count: int | None) -> dict[str, str]:
    split = found.split
    parts = {"train": split.train, "validation": split.validation, "test": split.test}
    return {
        "split": ", ".join(f"{len(rows)} {name}" for name, rows in parts.items() if len(rows)),
        "split_sha256": split.sha256,
        "measured": f"{fold_count}-fold cross-validation" if fold_count else f"on the {len(split.test)} test pictures",
        "loss": settings.loss,
        "balance": settings.balance,
        "seed": str(settings.seed),
        "rounds": f"{found.fitted.best_round} of {len(found.fitted.losses)}",
        "made_by": f"finetune_monitor {__version__}",
    }


def _agreement(measured: Measured) -> str:
    """The head's agreement with people as JSON: value and 95 % interval of each statistic."""
    found = measured.overall[HEAD]
    return json.dumps({"srcc": found.srcc.to_json(), "plcc": found.plcc.to_json(), "mae": found.mae.to_json()})
