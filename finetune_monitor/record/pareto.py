"""The Pareto front of two scores: the steps that no other step beats in both."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import chain

from finetune_monitor.base.text import some_of
from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.curve import rejected_steps, smoothed_curve
from finetune_monitor.record.evaluation import Evaluation

Pair = tuple[float, float]


@dataclass(frozen=True)
class ParetoFront:
    """Two scores at every step that has both, and the steps that no other step beats in both.

    The values are those of the smoothed curves, one of which determines the best step.

    columns: the score that determines the best step, and the second one.
    points: the values at each step.
    steps: the front, by step; 0 is the untouched model. Steps that crossed the limit of the guard that ended the run
        are not on it.
    """

    columns: tuple[str, str]
    points: Mapping[int, Pair]
    steps: tuple[int, ...]

    def __str__(self) -> str:
        """The steps in words, without the untouched model."""
        steps = some_of([str(step) for step in self.steps if step]) or "none but the base model"
        return f"{steps} (no other step is better in both {self.columns[0]} and {self.columns[1]})"


def pareto_columns(columns: Mapping[str, ScoreColumn], best_metric: str) -> tuple[str, str] | None:
    """The score that determines the best step, and the first score of another metric; None if there is no second one.

    Both have a direction. A score with an alarm has a limit of its own and is not a second goal.
    """
    first = columns.get(best_metric, ScoreColumn())
    if first.higher_is_better is None:
        return None
    others = [name for name, column in columns.items() if _is_goal(column) and column.metric != first.metric]
    return (best_metric, others[0]) if others else None


def _is_goal(column: ScoreColumn) -> bool:
    return column.role == "score" and column.higher_is_better is not None and column.alarm is None


def pareto_front(
    history: Sequence[Evaluation], columns: Mapping[str, ScoreColumn], best_metric: str
) -> ParetoFront | None:
    """The front over all evaluations so far; None without a second score, or if no step has both."""
    pair = pareto_columns(columns, best_metric)
    if pair is None:
        return None
    curves = [dict(smoothed_curve(history, name)) for name in pair]
    points = {step: (value, curves[1][step]) for step, value in curves[0].items() if step in curves[1]}
    if not points:
        return None
    return ParetoFront(pair, points, _best_of_both(points, columns, pair, rejected_steps(history)))


def pareto_contenders(
    history: Sequence[Evaluation],
    columns: Mapping[str, ScoreColumn],
    best_metric: str,
    rejectable_from: Iterable[int] = (),
) -> tuple[int, ...]:
    """The steps that are on the front now or may be with the next evaluation.

    The newest smoothed value of each score changes with the next evaluation. Until then its step may neither be left
    out nor beat another one; nor may a step beat others that a guard may still reject.

    Args:
        rejectable_from: the first step that each guard may reject with the next evaluation.
    """
    found = pareto_front(history, columns, best_metric)
    if found is None:
        return ()
    newest = {smoothed_curve(history, name)[-1][0] for name in found.columns}
    apart = {*newest, *rejected_steps(history)}
    open_steps = ({step for step in found.points if step >= first} for first in rejectable_from)
    fronts = (_best_of_both(found.points, columns, found.columns, apart | each) for each in (set(), *open_steps))
    return tuple(sorted({*newest, *chain.from_iterable(fronts)}))


def _best_of_both(
    points: Mapping[int, Pair], columns: Mapping[str, ScoreColumn], pair: tuple[str, str], apart: Collection[int]
) -> tuple[int, ...]:
    """The front of all steps but those that are left apart."""
    signs = [1.0 if columns.get(name, ScoreColumn()).more_is_better else -1.0 for name in pair]
    signed = {
        step: (signs[0] * first, signs[1] * second) for step, (first, second) in points.items() if step not in apart
    }
    front = _unbeaten(set(signed.values()))
    return tuple(sorted(step for step, own in signed.items() if own in front))


def _unbeaten(pairs: Set[Pair]) -> Set[Pair]:
    """The pairs than which no other is at least as good in both scores."""
    front, highest = set(), -math.inf
    for pair in sorted(pairs, reverse=True):  # by the first score, so that only the second must be higher than before
        if pair[1] > highest:
            front.add(pair)
            highest = pair[1]
    return front
