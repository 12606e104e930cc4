"""Alarms: scores beyond a level that indicates a problem with the training, whatever the curve looks like."""

from collections.abc import Mapping, Sequence
from typing import Literal

from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.curve import is_worse
from finetune_monitor.record.evaluation import Evaluation
from finetune_monitor.stats.estimate import Estimate, shown


def alarms(history: Sequence[Evaluation], columns: Mapping[str, ScoreColumn]) -> tuple[str, ...]:
    """The columns whose alarm sounds at the last evaluation.

    An alarm sounds if the entire interval is beyond the level, or if the means of two consecutive evaluations are, so
    that chance alone does not trigger it. Step 0, the untouched model, never sounds an alarm.
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
    """The text of an alarm, with its numbers."""
    return f"{name} is {shown(score)}, {side_of_alarm(column)} {column.alarm:g}: {column.says}"


def side_of_alarm(column: ScoreColumn) -> Literal["below", "above"]:
    """The side of its level on which an alarm sounds."""
    return "below" if column.more_is_better else "above"


def alarms_by_column(evaluation: Evaluation, columns: Mapping[str, ScoreColumn]) -> dict[str, str]:
    """The texts of an evaluation's alarms, by column."""
    scores, levels = evaluation.scores, levels_of(columns)
    known = [name for name in evaluation.alarms if name in levels and name in scores]
    return {name: alarm_in_words(name, scores[name], columns[name]) for name in known}


def alarms_of(evaluation: Evaluation, columns: Mapping[str, ScoreColumn]) -> list[str]:
    """The texts of an evaluation's alarms."""
    return list(alarms_by_column(evaluation, columns).values())
