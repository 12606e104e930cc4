"""Whether cheaper images come to the same verdict: curves, alarms, stops, and best steps, on the same weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float

from finetune_monitor.metrics import Derives, Metric, describe, unwrapped
from finetune_monitor.monitor.stopping import StoppingRule, Watched, decide
from finetune_monitor.record.alarms import alarms
from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.curve import change_between, changes, points, smoothed_curve
from finetune_monitor.record.evaluation import Decision, Evaluation, ScoredImage, StopReason, of_column, summarize
from finetune_monitor.stats.estimate import Estimate, FloatArray
from finetune_monitor.stats.intervals import t_interval
from finetune_monitor.stats.statistics import srcc

SEED = 0


@dataclass(frozen=True)
class Verdict:
    """What the rules decide.

    stop: the step at which they end the training; None: never.
    best: the best step at that time.
    """

    stop: int | None
    best: int | None
    reason: StopReason | str | None = None


@dataclass(frozen=True)
class Record:
    """The evaluations of one training with one setting, as the monitor would have recorded them.

    rules: the stopping rules; the metric of the first decides which step is best.
    """

    evaluations: tuple[Evaluation, ...]
    columns: Mapping[str, ScoreColumn]
    rules: Sequence[StoppingRule]

    @property
    def metric(self) -> str:
        return self.rules[0].metric

    @cached_property
    def verdict(self) -> "Verdict":
        return verdict(self.evaluations, self.columns, self.rules)

    @property
    def alarms(self) -> set[tuple[int, str]]:
        """Every alarm: its step and its column."""
        return {(found.step, name) for found in self.evaluations for name in found.alarms}

    def curve(self, column: str) -> Float[np.ndarray, " steps"]:
        """The means over the steps; NaN where there is none."""
        found = [each.scores.get(column) for each in self.evaluations]
        return np.array([np.nan if each is None else each.mean for each in found])

    def with_images(self, chosen: Sequence[int]) -> "Record":
        """The same with the images at these positions, some of which may be there several times."""
        found = []
        for each in self.evaluations:
            images = tuple(_as_draw(each.images[place], draw) for draw, place in enumerate(chosen))
            found.append(replace(each, images=images, scores=summarize(images, self.columns)))
        return Record(tuple(found), self.columns, self.rules)

    def is_as_good(self, step: int | None, best: int | None) -> bool:
        """Whether a step is the best one or its images cannot be told from those of the best: the interval has 0."""
        by_step = {each.step: each for each in points(self.evaluations, self.metric)}
        if step == best or step not in by_step or best not in by_step:
            return step == best
        change = change_between(by_step[best], by_step[step], self.metric, self.columns[self.metric])
        return change.low <= 0 <= change.high

    def lost(self, step: int | None) -> float:
        """How much worse a step is than the best one, by the smoothed curve; 0 if either was not measured."""
        score, best = dict(smoothed_curve(self.evaluations, self.metric)), self.verdict.best
        sign = 1.0 if self.columns[self.metric].more_is_better else -1.0
        return sign * (score[best] - score[step]) if best in score and step in score else 0.0


def as_record(
    images: Mapping[int, Sequence[ScoredImage]],
    metrics: Sequence[Metric],
    rules: Sequence[StoppingRule],
) -> Record:
    """A record from the scores of images, by step."""
    columns = {name: column for metric in metrics for name, column in describe(metric).columns.items()}
    history: list[Evaluation] = []
    for step, own in images.items():
        found = Evaluation(step, None, 0.0, summarize(own, columns), tuple(own))
        derived = {k: v for metric in metrics for k, v in _derived(metric, [*history, found]).items()}
        found = replace(found, scores={**found.scores, **derived})
        history.append(replace(found, alarms=alarms([*history, found], columns)))
    return Record(tuple(history), columns, rules)


def _derived(metric: Metric, history: Sequence[Evaluation]) -> Mapping[str, Estimate]:
    inner: Any = unwrapped(metric)
    found: Mapping[str, Estimate] = inner.derive(history) if isinstance(inner, Derives) else {}
    return found


def _as_draw(image: ScoredImage, draw: int) -> ScoredImage:
    """An image as if its noise were a draw of its own, so that it may be there twice."""
    return replace(image, cell=replace(image.cell, seed=draw))


def verdict(
    history: Sequence[Evaluation], columns: Mapping[str, ScoreColumn], rules: Sequence[StoppingRule]
) -> Verdict:
    """Where the rules would have stopped, and the best step at that time."""
    found = Decision()
    for count in range(2, len(history) + 1):
        found = decide(Watched(history[:count], columns), rules, rules[0].metric)
        if found.stop:
            return Verdict(history[count - 1].step, found.best_step, found.reason)
    return Verdict(None, found.best_step)


def subject(record: Record) -> list[int]:
    """The positions of the images of the subject's prompts."""
    return [place for place, image in enumerate(record.evaluations[0].images) if not image.cell.is_probe]


def rank_correlation(found: Record, reference: Record, column: str) -> float:
    """Spearman's correlation of a score over the steps that both have."""
    pair = np.stack([found.curve(column), reference.curve(column)])
    known = pair[:, ~np.isnan(pair).any(axis=0)]
    return float(srcc(*known)) if known.shape[1] > 2 else np.nan


def bias(found: Record, reference: Record, column: str) -> FloatArray:
    """The mean difference from the reference of each image over the steps; NaN where it was never measured."""
    pairs = zip(found.evaluations, reference.evaluations, strict=True)
    together = np.stack([changes(theirs.images, own.images, column)[0] for own, theirs in pairs])
    known = (~np.isnan(together)).sum(axis=0)
    means: FloatArray = np.divide(np.nansum(together, axis=0), known, out=np.full(len(known), np.nan), where=known > 0)
    return means


def deviation(found: Record, reference: Record, column: str) -> float:
    """The largest difference between two means at the same step."""
    return float(np.nanmax(np.abs(found.curve(column) - reference.curve(column))))


def noise(reference: Record, column: str) -> float:
    """Half the median width of the 95% intervals of the means."""
    widths = [each.scores[column].high - each.scores[column].low for each in reference.evaluations]
    return float(np.nanmedian(widths)) / 2


@dataclass(frozen=True)
class Compared:
    """One decision compared with that of the reference.

    same_stop: stopped at the same evaluation, or both never.
    near_stop: at most one evaluation apart.
    same_best: the same best step.
    as_good: a best step that the reference cannot tell from its own.
    lost: how much worse the best step is than that of the reference, by its smoothed curve.
    """

    same_stop: bool
    near_stop: bool
    same_best: bool
    as_good: bool
    lost: float

    @property
    def strictly(self) -> bool:
        return self.same_stop and self.same_best

    @property
    def agrees(self) -> bool:
        return self.same_stop and self.as_good


def compared(found: Record, other: Record, reference: Record) -> Compared:
    """A record's decisions and those of another one; the reference says what a different best step costs."""
    mine, theirs = found.verdict, other.verdict
    return Compared(
        same_stop=mine.stop == theirs.stop,
        near_stop=abs(_place(found, mine.stop) - _place(other, theirs.stop)) <= 1,
        same_best=mine.best == theirs.best,
        as_good=reference.is_as_good(mine.best, theirs.best),
        lost=reference.lost(mine.best),
    )


def _place(record: Record, stop: int | None) -> int:
    """Which evaluation a stop is; without one, that after the last."""
    steps = [each.step for each in record.evaluations]
    return len(steps) if stop is None else steps.index(stop)


def resampled(found: Record, reference: Record, rounds: int) -> list[Compared]:
    """Decisions on images drawn with replacement, the same for both records."""
    rng, places = np.random.default_rng(SEED), subject(reference)
    draws = [rng.choice(places, len(places)).tolist() for _ in range(rounds)]
    return [compared(found.with_images(chosen), reference.with_images(chosen), reference) for chosen in draws]


def other_seeds(reference: Record, rounds: int) -> list[Compared]:
    """The same for two draws of images of the reference: how well it agrees with itself."""
    rng, places = np.random.default_rng(SEED), subject(reference)
    pairs = [[rng.choice(places, len(places)).tolist() for _ in range(2)] for _ in range(rounds)]
    return [compared(reference.with_images(one), reference.with_images(two), reference) for one, two in pairs]


def over_trainings(values: Sequence[FloatArray]) -> Estimate:
    """The mean of images of several trainings, with its interval; an image has the same noise in all of them."""
    return t_interval(np.concatenate(values), np.concatenate([np.arange(len(each)) for each in values]))


def covers(record: Record, column: str) -> bool:
    """Whether a score is of images, and of those of the subject."""
    return bool(of_column(record.evaluations[0].images, column)) and record.columns[column].is_main
