"""Alarms: scores beyond a level at which something is wrong with the training, whatever its curve looks like."""

from collections.abc import Mapping, Sequence
from typing import Literal

from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.curve import is_worse
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
    levels = levels_of(columns)
    signs = {name: 1.0 if columns[name].more_is_better else -1.0 for name in levels}
    return tuple(
        name for name, level in levels.items() if is_worse([found.get(name) for found in trained], level, signs[name])
    )


def levels_of(columns: Mapping[str, ScoreColumn]) -> dict[str, float]:
    """The level of each column that has an alarm."""
    return {name: column.alarm for name, column in columns.items() if column.alarm is not None}


def alarm_in_words(name: str, score: Estimate, column: ScoreColumn) -> str:
    """What is wrong, with the numbers."""
    return f"{name} is {shown(score)}, {side_of_alarm(column)} {column.alarm:g}: {column.says}"


def side_of_alarm(column: ScoreColumn) -> Literal["below", "above"]:
    """On which side of its level an alarm sounds."""
    return "below" if column.more_is_better else "above"


def alarms_by_column(evaluation: Evaluation, columns: Mapping[str, ScoreColumn]) -> dict[str, str]:
    """Every alarm of an evaluation in words, by the column that sounds it."""
    scores, levels = evaluation.scores, levels_of(columns)
    known = [name for name in evaluation.alarms if name in levels and name in scores]
    return {name: alarm_in_words(name, scores[name], columns[name]) for name in known}


def alarms_of(evaluation: Evaluation, columns: Mapping[str, ScoreColumn]) -> list[str]:
    """Every alarm of an evaluation in words."""
    return list(alarms_by_column(evaluation, columns).values())
