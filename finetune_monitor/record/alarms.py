"""Alarms: scores beyond a level at which something is wrong with the training, whatever its curve looks like."""

import math
from collections.abc import Mapping, Sequence

from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.evaluation import Evaluation
from finetune_monitor.stats.estimate import Estimate, shown


def alarms(history: Sequence[Evaluation], columns: Mapping[str, ScoreColumn]) -> tuple[str, ...]:
    """The columns whose alarm sounds at the last evaluation.

    It sounds where the whole interval is beyond the level, or where the means of two evaluations in a row are: chance
    alone must not do it. Step 0, the untouched model, sounds none.
    """
    trained = [evaluation.scores for evaluation in history if evaluation.step > 0]
    if not trained:
        return ()
    return tuple(name for name, column in columns.items() if _sounds(column, [found.get(name) for found in trained]))


def alarm_in_words(name: str, score: Estimate, column: ScoreColumn) -> str:
    """What is wrong, with the numbers."""
    beyond = "below" if column.higher_is_better else "above"
    return f"{name} is {shown(score)}, {beyond} {column.alarm:g}: {column.says}"


def alarms_of(evaluation: Evaluation, columns: Mapping[str, ScoreColumn]) -> list[str]:
    """Every alarm of an evaluation in words."""
    known = [name for name in evaluation.alarms if name in columns and name in evaluation.scores]
    return [alarm_in_words(name, evaluation.scores[name], columns[name]) for name in known]


def _sounds(column: ScoreColumn, scores: Sequence[Estimate | None]) -> bool:
    if column.alarm is None or not scores or scores[-1] is None:
        return False
    sign = 1.0 if column.higher_is_better else -1.0
    beyond = [score is not None and sign * (score.mean - column.alarm) < 0 for score in scores[-2:]]
    nearest = scores[-1].high if column.higher_is_better else scores[-1].low
    is_sure = not math.isnan(nearest) and sign * (nearest - column.alarm) < 0
    return beyond[-1] and (is_sure or beyond == [True, True])
