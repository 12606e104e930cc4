"""Scores of a setting and differences between two settings, with intervals over what the sweep repeats."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.curve import changes
from finetune_monitor.record.evaluation import Evaluation, estimate_change
from finetune_monitor.report.sweep_answer.results import NOTHING, At, Result, Results, Setting, Unit, counted
from finetune_monitor.stats.estimate import MISSING, Estimate, FloatArray
from finetune_monitor.stats.intervals import t_change, t_interval

Replicate = tuple[str | None, int | None]
"""Person and seed of a trial."""


@dataclass(frozen=True)
class Point:
    """One trial's score, and its step."""

    trial: int
    score: float
    step: int


@dataclass(frozen=True)
class Level:
    """A setting's score at the best or the last step; `units` counts what the interval is over."""

    group: int
    value: float | str
    mean: float
    low: float
    high: float
    units: int
    points: tuple[Point, ...]

    @property
    def estimate(self) -> Estimate:
        return Estimate(self.mean, self.low, self.high, self.units, 0)


@dataclass(frozen=True)
class Course:
    """A setting's score over the steps; `units` counts what has reached each step."""

    group: int
    value: float | str
    steps: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    units: tuple[int, ...]


def level(results: Results, setting: Setting, metric: str, at: At) -> Level | None:
    """A setting's score; None if none of its trials has one."""
    found = [(result, results.chosen(result, metric, at)) for result in setting.results]
    there = {result: evaluation for result, evaluation in found if evaluation is not None}
    if not there:
        return None
    scored = {result: evaluation.scores[metric] for result, evaluation in there.items()}
    whole = _whole(scored, results.unit, results.metrics[metric].bounds)
    points = tuple(Point(result.index, scored[result].mean, there[result].step) for result in there)
    return Level(setting.group, setting.value, whole.mean, whole.low, whole.high, _units(scored, results.unit), points)


def course(results: Results, setting: Setting, metric: str) -> Course:
    """A setting's score at every step that one of its trials has reached."""
    by_step: dict[int, dict[Result, Estimate]] = {}
    for result in setting.results:
        for evaluation in counted(result, metric):
            by_step.setdefault(evaluation.step, {})[result] = evaluation.scores[metric]
    steps = sorted(by_step)
    bounds = results.metrics[metric].bounds
    whole = [_whole(by_step[step], results.unit, bounds) for step in steps]
    mean, low, high = (tuple(getattr(each, name) for each in whole) for name in ("mean", "low", "high"))
    units = tuple(_units(by_step[step], results.unit) for step in steps)
    return Course(setting.group, setting.value, tuple(steps), mean, low, high, units)


def change(results: Results, first: Setting, second: Setting, metric: str, at: At) -> Estimate:
    """How much higher the second setting scores: paired differences over the units that both have.

    A person or a seed is compared with itself, after averaging the seeds that both settings share. For two single
    training runs, images of the same cells are compared.
    """
    one, other = (_replicates(results, setting, metric, at) for setting in (first, second))
    common = [key for key in one if key in other]
    if results.unit == "image":
        column = results.metrics[metric]
        return _over_cells(one[common[0]], other[common[0]], metric, column) if common else NOTHING
    differences = {key: other[key].scores[metric].mean - one[key].scores[metric].mean for key in common}
    return t_change(_by_unit(differences, results.unit))


def _replicates(results: Results, setting: Setting, metric: str, at: At) -> dict[Replicate, Evaluation]:
    found = ((_replicate(result), results.chosen(result, metric, at)) for result in setting.results)
    return {key: evaluation for key, evaluation in found if evaluation is not None}


def _replicate(result: Result) -> Replicate:
    return result.trial.person, result.trial.seed


def _over_cells(first: Evaluation, second: Evaluation, metric: str, column: ScoreColumn) -> Estimate:
    if column.over == "run":  # a single value of an evaluation, which no image has
        return Estimate(second.scores[metric].mean - first.scores[metric].mean, MISSING, MISSING, 1, 0)
    return estimate_change(*changes(first.images, second.images, metric), column)


def _whole(scored: Mapping[Result, Estimate], unit: Unit, bounds: tuple[float, float]) -> Estimate:
    """The mean over the units, with its interval clipped to the metric's bounds."""
    if unit == "image":
        return next(iter(scored.values()))
    found = t_interval(_by_unit({_replicate(result): each.mean for result, each in scored.items()}, unit))
    low, high = (float(np.clip(each, bounds[0], bounds[1])) for each in (found.low, found.high))
    return Estimate(found.mean, low, high, found.n, found.missing)


def _units(scored: Mapping[Result, Estimate], unit: Unit) -> int:
    """The number of units behind a mean; for a single training run, its measured images."""
    if unit == "image":
        return next(iter(scored.values())).n
    return len(_by_unit({_replicate(result): each.mean for result, each in scored.items()}, unit))


def _by_unit(values: Mapping[Replicate, float], unit: Unit) -> FloatArray:
    """One value per person or seed; the seeds of a person are averaged first."""
    place = 0 if unit == "person" else 1
    found: dict[object, list[float]] = {}
    for key, value in values.items():
        found.setdefault(key[place], []).append(value)
    return np.array([np.mean(each) for each in found.values()], dtype=np.float64)
