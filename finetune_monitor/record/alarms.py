"""Alarms: scores beyond a level that indicates a problem with the training, whatever the curve looks like."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from finetune_monitor.base.text import shortened, visible
from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.curve import counts, is_worse
from finetune_monitor.record.evaluation import Evaluation, by_prompt
from finetune_monitor.stats.estimate import ROUNDING, Estimate, shown

LONGEST_PROMPT = 80
"""Characters of a prompt in the text of an alarm."""

ENOUGH_IMAGES = 4
"""So many measured images can sound an alarm even if most show nothing to measure, such as a second face: four are the
fewest of which the entire interval of a share can be above 0.5."""


def alarms(history: Sequence[Evaluation], columns: Mapping[str, ScoreColumn]) -> tuple[str, ...]:
    """The columns whose alarm sounds at the last evaluation.

    An alarm sounds if the entire interval is beyond the level, or if the means of two consecutive evaluations are, so
    that chance alone does not trigger it. Step 0, the untouched model, never sounds an alarm, nor does an evaluation of
    which too few images were measured (`is_enough`). An evaluation on request only continues an alarm, or sounds one by
    itself: a few steps after another one, its images are nearly the same, and confirm nothing.
    """
    trained = [evaluation for evaluation in history if evaluation.step > 0]
    if not trained:
        return ()
    levels = levels_of(columns)
    signs = {name: 1.0 if columns[name].more_is_better else -1.0 for name in levels}
    known = {name: [_known(each.scores.get(name), columns[name]) for each in trained] for name in levels}
    if trained[-1].on_request:
        sounding = trained[-2].alarms if len(trained) > 1 else ()
        known = {name: scores if name in sounding else scores[-1:] for name, scores in known.items()}
    return tuple(name for name, level in levels.items() if is_worse(known[name], level, signs[name]))


def is_enough(score: Estimate, column: ScoreColumn) -> bool:
    """Whether enough images were measured for an alarm: at least half of them, or four, and never a single one.

    A score of an entire evaluation may be one value, unless it is that of the images of a prompt.
    """
    is_single = score.n == 1 and (column.over != "run" or column.worst_of != "")
    return not is_single and (counts(score) or score.n >= ENOUGH_IMAGES)


def _known(score: Estimate | None, column: ScoreColumn) -> Estimate | None:
    return score if score is not None and is_enough(score, column) else None


def levels_of(columns: Mapping[str, ScoreColumn]) -> dict[str, float]:
    """The level of each column that has an alarm."""
    return {name: column.alarm for name, column in columns.items() if column.alarm is not None}


def alarm_in_words(name: str, evaluation: Evaluation, column: ScoreColumn) -> str:
    """The text of an alarm, with its numbers, and the prompt if the score is that of a single one."""
    score, prompt = evaluation.scores[name], _worst_prompt(evaluation, name, column)
    about = _about(prompt) if prompt else ""
    return f"{name} is {shown(score)}{about}, {side_of_alarm(column)} {column.alarm:g}: {column.says}"


def _about(prompt: str) -> str:
    return f' for "{visible(shortened(" ".join(prompt.split()), LONGEST_PROMPT))}"'


def without_prompts(text: str, evaluations: Iterable[Evaluation]) -> str:
    """A text with alarms of these evaluations, without the prompts that the alarms name."""
    for prompt in {image.cell.prompt for evaluation in evaluations for image in evaluation.images}:
        text = text.replace(_about(prompt), "")
    return text


def without_advice(alarm: str, column: ScoreColumn) -> str:
    """The text of an alarm without what it means, for an alarm that has been explained."""
    return alarm.removesuffix(f": {column.says}")


def _worst_prompt(evaluation: Evaluation, name: str, column: ScoreColumn) -> str:
    """The prompt whose mean the score is; "" if the score is not that of a prompt, or the record does not tell."""
    score = evaluation.scores[name].mean
    means = by_prompt(evaluation, column.worst_of) if column.worst_of else {}
    return next((prompt for prompt, found in means.items() if abs(found.mean - score) < ROUNDING), "")


def side_of_alarm(column: ScoreColumn) -> Literal["below", "above"]:
    """The side of its level on which an alarm sounds."""
    return "below" if column.more_is_better else "above"


def alarms_by_column(evaluation: Evaluation, columns: Mapping[str, ScoreColumn]) -> dict[str, str]:
    """The texts of an evaluation's alarms, by column."""
    levels = levels_of(columns)
    known = [name for name in evaluation.alarms if name in levels and name in evaluation.scores]
    return {name: alarm_in_words(name, evaluation, columns[name]) for name in known}


def alarms_of(evaluation: Evaluation, columns: Mapping[str, ScoreColumn]) -> list[str]:
    """The texts of an evaluation's alarms."""
    return list(alarms_by_column(evaluation, columns).values())
