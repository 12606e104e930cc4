"""Compare two runs, or two steps of a run: paired differences over the images of the cells that they share."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from finetune_monitor.base.errors import UserError
from finetune_monitor.record.alarms import alarms_of
from finetune_monitor.record.columns import SIDE, ScoreColumn
from finetune_monitor.record.evaluation import Evaluation, ScoredImage, estimate_change, of_column, seeds, values_of
from finetune_monitor.record.grid import ELSEWHERE, MAY_DIFFER, WHICH_CELLS
from finetune_monitor.record.history import RunHistory
from finetune_monitor.record.scales import scale
from finetune_monitor.stats.estimate import MISSING, ROUNDING, Estimate, direction, shown

PHOTOS_IN_WORDS = {"references": "reference photos", "held_out": "held-out photos"}

WHAT_INTERVALS_KNOW = (
    "The intervals show how much the differences would vary with other images from the same weights. They do not cover "
    "other training runs: the same settings with a different seed may differ as much."
)


@dataclass(frozen=True)
class Moment:
    """One evaluation of a run."""

    history: RunHistory
    evaluation: Evaluation

    @property
    def alarms(self) -> list[str]:
        """The alarms of the evaluation, in sentences."""
        return alarms_of(self.evaluation, self.history.columns)


@dataclass(frozen=True)
class Difference:
    """One score at two moments, over the shared cells that were measured in both.

    first, second: means over these cells; NaN if there are none.
    change: the mean of second minus first per image, with its interval; `missing` counts shared cells without a pair.
    higher_is_better: None for side columns, and if the runs disagree.
    caution: why the two are not on the same scale; None if they are.
    is_same: whether every image scored the same at both moments.
    """

    name: str
    first: float
    second: float
    change: Estimate
    higher_is_better: bool | None
    caution: str | None = None
    is_same: bool = False


@dataclass(frozen=True)
class Comparison:
    """Two moments, the number of cells that they share, and every score that images have in both.

    not_of_images: the scores of entire evaluations, such as `leakage`, which have no paired differences.
    """

    first: Moment
    second: Moment
    shared: int
    differences: tuple[Difference, ...]
    only_in_one: tuple[str, ...]
    not_of_images: tuple[str, ...]

    @property
    def caution(self) -> str | None:
        """Why images of the same cell may not belong together; None if they do."""
        runs = [moment.history for moment in (self.first, self.second)]
        is_same = runs[0].output_dir.resolve() == runs[1].output_dir.resolve()
        return None if is_same or runs[0].grid.sampler != ELSEWHERE else MAY_DIFFER


def at_step(history: RunHistory, step: int) -> Moment:
    """The evaluation at a step.

    Raises:
        UserError: there was none; lists the evaluated steps.
    """
    if evaluation := history.at(step):
        return Moment(history, evaluation)
    steps = ", ".join(str(evaluation.step) for evaluation in history.evaluations)
    raise UserError(f"{history.output_dir}: step {step} was not evaluated; expected one of {steps or 'none yet'}")


def compare(first: Moment, second: Moment) -> Comparison:
    """Paired differences, second minus first, of every score that images have in both.

    Raises:
        UserError: the runs share no cell, or the grid of one of them is damaged.
    """
    a, b = first.evaluation.by_content, second.evaluation.by_content
    same = [key for key in a if key in b]
    others = _other_sampling(first.history, second.history)
    if others or not same:
        why = f"their sampling differs ({', '.join(others)})" if others else "no prompt and seed is in both"
        raise UserError(
            f"{first.history.output_dir} and {second.history.output_dir}: the runs share no cell of their grids, "
            f"because {why}; only images with the same prompt, seed, and sampling can be compared"
        )
    of_a, of_b = _compared(first), _compared(second)
    pairs = [(a[key], b[key]) for key in same]
    differences = tuple(_difference(name, first, second, pairs) for name in of_a if name in of_b)
    alone = tuple(name for name in dict.fromkeys([*of_a, *of_b]) if name not in of_a or name not in of_b)
    known = dict.fromkeys(name for moment in (first, second) for name in _with_mean(moment, moment.evaluation.scores))
    whole = tuple(name for name in known if name not in of_a and name not in of_b)
    return Comparison(first, second, len(same), differences, alone, whole)


def verdict(found: Difference) -> str:
    """A sentence on whether the images show a difference, and whether it is an improvement."""
    change = found.change
    if change.n == 0:
        return "no image was measured in both"
    if found.is_same:
        return "the same in every image"
    sign = "higher" if change.mean > 0 else "lower"
    by = f"{sign} by {shown(_turned(change))}" if abs(change.mean) > ROUNDING else "no difference on average"
    if direction(change) is None:
        these = "the only image that was measured in both" if change.n == 1 else f"these {change.n} images"
        return f"{by} in {these}, which may be chance"
    if not direction(change):
        return f"no significant difference in these {change.n} images: {shown(change)} is compatible with none"
    return f"the second is {by}{_for_better(found)}"


def _compared(moment: Moment) -> list[str]:
    """The columns of a moment's images that have a mean."""
    return _with_mean(moment, dict.fromkeys(name for image in moment.evaluation.images for name in image.scores))


def _with_mean(moment: Moment, names: Iterable[str]) -> list[str]:
    return [name for name in names if moment.history.columns.get(name, SIDE).role != "note"]


def _turned(change: Estimate) -> Estimate:
    """The size of a change."""
    if change.mean >= 0:
        return change
    return Estimate(-change.mean, -change.high, -change.low, change.n, change.missing)


def _for_better(found: Difference) -> str:
    if found.higher_is_better is None or found.caution:
        return ""
    return ", which is better" if (found.change.mean > 0) == found.higher_is_better else ", which is worse"


def _difference(name: str, first: Moment, second: Moment, pairs: list[tuple[ScoredImage, ScoredImage]]) -> Difference:
    kept = {image.cell.content for image in of_column([after for _, after in pairs], name)}
    pairs = [pair for pair in pairs if pair[1].cell.content in kept]
    values = np.stack([values_of([pair[side] for pair in pairs], name) for side in (0, 1)], axis=1)
    draws, measured = seeds([after for _, after in pairs]), values[~np.isnan(values).any(axis=1)]
    means = measured.mean(axis=0) if len(measured) else (MISSING, MISSING)
    return Difference(
        name,
        float(means[0]),
        float(means[1]),
        estimate_change(values[:, 1] - values[:, 0], draws, _column(name, first, second)),
        _direction(name, first.history, second.history),
        _caution(name, first.history, second.history),
        len(measured) > 0 and np.array_equal(measured[:, 0], measured[:, 1]),
    )


def _column(name: str, first: Moment, second: Moment) -> ScoreColumn:
    """The description of a column: one of a share only if both runs say so."""
    described = [moment.history.columns.get(name, SIDE) for moment in (first, second)]
    return min(described, key=lambda column: column.is_share)


def _other_sampling(first: RunHistory, second: RunHistory) -> list[str]:
    """The sampling settings that differ between the runs, in words."""
    a, b = _sampling(first), _sampling(second)
    return [f"{key}: {a.get(key)} and {b.get(key)}" for key in {**a, **b} if a.get(key) != b.get(key)]


def _sampling(history: RunHistory) -> dict[str, Any]:
    return {key: value for key, value in asdict(history.grid).items() if key not in WHICH_CELLS}


def _direction(name: str, first: RunHistory, second: RunHistory) -> bool | None:
    a, b = (history.main_columns.get(name) for history in (first, second))
    same = a is not None and b is not None and a.direction_json() == b.direction_json()
    return a.higher_is_better if a is not None and same else None


def _caution(name: str, first: RunHistory, second: RunHistory) -> str | None:
    """Why the runs' scores of this name are not on the same scale."""
    a, b = scale(name, first), scale(name, second)
    changed = [PHOTOS_IN_WORDS.get(key, key) for key in {**a, **b} if a.get(key) != b.get(key)]
    return f"the runs' scores are not on the same scale: different {', '.join(changed)}" if changed else None
