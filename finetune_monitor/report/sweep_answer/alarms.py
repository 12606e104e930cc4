"""The alarms in a sweep: at a trial's best and last steps, and where a score is best."""

from collections import Counter
from collections.abc import Iterator, Sequence

from finetune_monitor.report.sweep_answer.estimates import Level
from finetune_monitor.report.sweep_answer.results import Result, Results, in_words


def alarms_in_words(result: Result) -> str:
    """Text such as `copying, leakage (last step)`: an alarm without a step sounds at both the best and the last one."""
    best, last = result.alarms_at(result.best_step), result.alarms_at(result.last_step)
    named = [f"{name} (best step)" if name not in last else name for name in best]
    return ", ".join([*named, *(f"{name} (last step)" for name in last if name not in best)])


def alarm_notes(results: Results) -> Iterator[str]:
    """A note for each trial in which an alarm sounds."""
    found = ((each.trial.name, alarms_in_words(each)) for each in results.all)
    return (f"{name}: alarms: {words}" for name, words in found if words)


def alarms_where_best(results: Results, levels: Sequence[Level], metric: str) -> str:
    """A clause on the alarms that sound in the trials of the best level; empty if there are none."""
    sign = 1.0 if results.metrics[metric].more_is_better else -1.0
    best = max(levels, key=lambda level: sign * level.mean, default=None)
    points = best.points if best else ()
    counts = Counter(name for point in points for name in results.all[point.trial].alarms_at(point.step))
    named = [f"{name} in {count} of {len(points)} trials" for name, count in counts.items()]
    listed = ", ".join(counts if len(points) == 1 else named)
    return f"; but alarms sound{_where(results, best, metric)}: {listed}" if best and counts else ""


def _where(results: Results, best: Level, metric: str) -> str:
    """The place of the best level, unless the verdict has already named it."""
    if len(results.settings) == 1:
        return ""
    is_named = results.is_search or results.axis.scale == "category"
    what = "highest" if results.metrics[metric].higher_is_better is None else "best"
    return f" where it is {what}" + ("" if is_named else f" ({results.axis.label} {in_words(best.value)})")
