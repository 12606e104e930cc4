"""Which file at which strength is best, how certain that is, and which others it is not significantly better than."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finetune_monitor.base.text import counted
from finetune_monitor.record.alarms import alarms_of
from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.curve import Point, change_between, points, smoothed_curve
from finetune_monitor.record.evaluation import Evaluation
from finetune_monitor.record.history import RunHistory
from finetune_monitor.report.sweep_answer.verdicts import Change, best_of, shown_change, tone_of
from finetune_monitor.stats.estimate import Estimate, shown

MOST_NAMED = 5
"""The number of files that a sentence names; it only counts the rest."""

BASE = "the base model"


@dataclass(frozen=True)
class Candidate:
    """One evaluation that may be the best. `level`: its score on the smoothed curve of its run."""

    name: str
    evaluation: Evaluation
    point: Point
    level: float
    columns: Mapping[str, ScoreColumn]


def verdict(runs: Sequence[tuple[RunHistory, Mapping[int, str]]], has_base: bool) -> list[str]:
    """Sentences about what is best by the metric that determines the best step.

    Every other candidate is compared with the best one on the images that both have.

    Args:
        runs: each record, and a description of each of its steps.
        has_base: step 0 is the untouched base model.
    """
    metric = next((history.best_metric for history, _ in runs if history.best_metric), None)
    if metric is None:
        return ["nothing was scored"]
    found = _candidates(runs, metric, has_base)
    if not found:
        return [f"{metric} could not be measured in enough images, so there is no best file (was no face found?)"]
    higher = found[0].columns.get(metric, ScoreColumn()).more_is_better
    best = max(found, key=lambda each: each.level if higher else -each.level)
    if len(found) == 1:
        alone = f"{best.name}: {metric} {shown(best.point.score)}; there is nothing to compare it with"
        return [alone, *_alarms(best)]
    names, levels = [each.name for each in found], [each.level for each in found]
    first = f"by {metric}, {best_of(names, levels, _change(found, metric), higher).text}"
    others = [each for each in found if each is not best]
    sign = 1.0 if higher else -1.0
    leads = [_lead(other, best, metric, sign) for other in others]
    against = _against_base(best, found, metric, sign)
    return [first, *_open_ones(others, leads), *against, *_caution(leads), *_alarms(best)]


def _caution(leads: Sequence[Estimate]) -> list[str]:
    intervals = sum(not math.isnan(lead.low) for lead in leads)
    if intervals < 2:
        return []
    each = f"each of these {intervals} paired intervals has 95% confidence on its own"
    return [f"{each}; the best of many owes part of its lead to chance"]


def _candidates(runs: Sequence[tuple[RunHistory, Mapping[int, str]]], metric: str, has_base: bool) -> list[Candidate]:
    """Every evaluation that counts; the base model once."""
    found: list[Candidate] = []
    for history, names in runs:
        levels = dict(smoothed_curve(history.evaluations, metric))
        for point in points(history.evaluations, metric):
            is_base = has_base and point.step == 0
            if is_base and any(each.name == BASE for each in found):
                continue
            evaluation = history.at(point.step)
            assert evaluation is not None
            name = BASE if is_base else names.get(point.step, f"step {point.step}")
            found.append(Candidate(name, evaluation, point, levels[point.step], history.columns))
    return found


def _change(found: Sequence[Candidate], metric: str) -> Change:
    column = found[0].columns.get(metric, ScoreColumn())
    return lambda first, last: change_between(found[first].point, found[last].point, metric, column)


def _lead(other: Candidate, best: Candidate, metric: str, sign: float) -> Estimate:
    """How much better the best one is, on the images that both have."""
    change = change_between(other.point, best.point, metric, best.columns.get(metric, ScoreColumn()))
    low, high = sorted((sign * change.low, sign * change.high))
    return Estimate(sign * change.mean, low, high, change.n, change.missing)


def _open_ones(others: Sequence[Candidate], leads: Sequence[Estimate]) -> list[str]:
    names = [other.name for other, lead in zip(others, leads, strict=True) if tone_of(lead) != "rise"]
    if not names:
        return ["all others are significantly worse"]
    more = f" and {counted(len(names) - MOST_NAMED, 'other')}" if len(names) > MOST_NAMED else ""
    return [f"it is not significantly better than {', '.join(names[:MOST_NAMED])}{more}"]


def _against_base(best: Candidate, found: Sequence[Candidate], metric: str, sign: float) -> list[str]:
    """Whether the best file is better than the base model, or otherwise any other file is."""
    base = next((each for each in found if each.name == BASE), None)
    if base is None:
        return []
    gains = [(each.name, _lead(base, each, metric, sign)) for each in (best, *found) if each is not base]
    better = next(((name, gain) for name, gain in gains if tone_of(gain) == "rise"), None)
    if better is not None:
        name, gain = better
        return [f"{'it' if name == best.name else name} is better than {BASE} by {shown_change(gain)}"]
    if best is base:
        return [f"no file is better than {BASE}"]
    return [f"these images do not show that any file is better than {BASE}"]


def _alarms(best: Candidate) -> list[str]:
    return [f"ALARM: {alarm}" for alarm in alarms_of(best.evaluation, best.columns)]
