"""The answer of a sweep: every score against the axis and over the steps, verdicts, and their limits."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from finetune_monitor.base.text import counted, visible
from finetune_monitor.record.sweep_directory import SweepState, TrialState, have_ended
from finetune_monitor.report.sweep_answer.alarms import alarms_in_words, alarms_where_best
from finetune_monitor.report.sweep_answer.estimates import Course, Level, change, course, level
from finetune_monitor.report.sweep_answer.notes import notes_on, units_in_words
from finetune_monitor.report.sweep_answer.results import (
    PHOTOS,
    At,
    Axis,
    Result,
    Results,
    Setting,
    Unit,
    in_words,
    read_results,
)
from finetune_monitor.report.sweep_answer.verdicts import (
    NOTHING,
    NOTHING_YET,
    Finding,
    Tone,
    along_axis,
    best_of,
    best_steps,
    shown_change,
    too_few,
)
from finetune_monitor.stats.estimate import Estimate, plain

AT: tuple[At, ...] = ("best", "last")


@dataclass(frozen=True)
class Curves:
    """One metric: against the axis at the best and at the last step, and over the steps for each setting."""

    best: tuple[Level, ...]
    last: tuple[Level, ...]
    steps: tuple[Course, ...]


@dataclass(frozen=True)
class Verdict:
    """The verdict of one metric at the best or the last step, within one combination of the other axes."""

    metric: str
    at: At
    group: int
    text: str
    tone: Tone


@dataclass(frozen=True)
class Answer:
    """Everything that a sweep has found so far.

    search: whether every trial is a separate setting, chosen by a search.
    unit, units: what the intervals are over, as a word and with its number.
    notes: what the intervals cover and what they do not, and which trials they exclude.
    """

    name: str
    axis: Axis
    groups: tuple[str, ...]
    search: bool
    unit: Unit
    units: str
    trials: tuple[Mapping[str, Any], ...]
    curves: Mapping[str, Curves]
    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...]

    @property
    def has_ended(self) -> bool:
        """Whether no trial waits or runs."""
        return have_ended(TrialState(trial["state"]) for trial in self.trials)

    def to_json(self) -> dict[str, Any]:
        """The answer in JSON types; missing values are null."""
        found: dict[str, Any] = plain(asdict(self))
        return found


def find_answer(state: SweepState) -> Answer:
    """Read the trials' run directories and compare them, even while the sweep is running.

    Unfinished trials appear only in the curves over the steps. The notes name missing or damaged run directories.
    """
    return answer_of(read_results(state), str(state.folder))


def answer_of(results: Results, name: str) -> Answer:
    """The answer of trials that have been read; `name` is that of the sweep."""
    curves = {metric: _curves(results, metric) for metric in results.metrics}
    found = [
        (metric, at, group, _warned(results, curves[metric], metric, at, group))
        for metric, at, group in _asked(results)
    ]
    verdicts = tuple(Verdict(metric, at, group, each.text, each.tone) for metric, at, group, each in found)
    return Answer(
        name=name,
        axis=results.axis,
        groups=results.groups,
        search=results.is_search,
        unit=results.unit,
        units=units_in_words(results),
        trials=tuple(map(_trial, results.all)),
        curves=curves,
        verdicts=verdicts,
        notes=notes_on(results, sum(each.intervals for *_, each in found)),
    )


def _asked(results: Results) -> list[tuple[str, At, int]]:
    return [(metric, at, group) for metric in results.metrics for at in AT for group in range(len(results.groups))]


def _curves(results: Results, metric: str) -> Curves:
    best, last = (
        tuple(filter(None, (level(results, setting, metric, at) for setting in results.settings))) for at in AT
    )
    courses = (course(results, setting, metric) for setting in results.settings)
    return Curves(best, last, tuple(each for each in courses if each.steps))


def _warned(results: Results, curves: Curves, metric: str, at: At, group: int) -> Finding:
    """The verdict, with the alarms that sound at the setting it calls best."""
    finding = _finding(results, curves, metric, at, group)
    levels = [level for level in getattr(curves, at) if level.group == group]
    return replace(finding, text=finding.text + alarms_where_best(results, levels, metric))


def _finding(results: Results, curves: Curves, metric: str, at: At, group: int) -> Finding:
    """The verdict over the settings with a score."""
    scored = {each.points[0].trial: each for each in getattr(curves, at) if each.group == group}
    settings = [s for s in results.settings if any(result.index in scored for result in s.results)]
    levels = list(scored.values())

    def compared(first: int, last: int) -> Estimate:
        return change(results, settings[first], settings[last], metric, at)

    if levels and len(results.settings) == 1:
        return Finding(f"it is {shown_change(levels[0].estimate)}", "none", 0)
    is_ordered = results.axis.scale != "category" and not results.is_search
    names = [_name(results, setting.results[0]) for setting in settings]
    if len(names) < 2:
        finding = too_few(names, results.has_ended)
    elif is_ordered:
        values = [float(setting.value) for setting in settings]
        finding = along_axis(values, compared, "photos" if results.axis.key == PHOTOS else "")
    else:
        means = [each.mean for each in levels]
        finding = best_of(names, means, compared, results.metrics[metric].higher_is_better)
    return _with_steps(finding, results, settings, metric) if is_ordered and at == "best" and settings else finding


def _with_steps(finding: Finding, results: Results, settings: Sequence[Setting], metric: str) -> Finding:
    found = [[e.step for r in s.results if (e := results.chosen(r, metric, "best"))] for s in settings]
    best = "highest" if results.metrics[metric].higher_is_better is None else "best"
    return replace(finding, text=f"{finding.text}; {best_steps([float(s.value) for s in settings], found, best)}")


def _name(results: Results, result: Result) -> str:
    """A setting in words; for a search, everything that it chose."""
    if not results.is_search and results.axis.key == PHOTOS and results.axis.scale != "category":
        return counted(int(result.value), "photo")
    if not results.is_search:
        return f"{results.axis.label} {result.value}"
    chosen = (
        f"{key.rpartition('.')[2].replace('_', ' ')} {in_words(value)}" for key, value in result.trial.settings.items()
    )
    return ", ".join(chosen)


def _trial(result: Result) -> dict[str, Any]:
    trial = result.trial
    return {
        "folder": str(result.folder),
        "name": trial.name,
        "state": trial.state,
        "error": trial.error,
        "settings": dict(trial.settings),
        "value": result.value,
        "group": result.group,
        "person": trial.person,
        "seed": trial.seed,
        "step": result.last_step,
        "best_step": result.best_step,
        "alarms": alarms_in_words(result) or None,
    }


def print_answer(answer: Answer) -> None:
    """Print the verdicts and the notes, one line each."""
    from rich.console import Console
    from rich.markup import escape

    say = partial(Console().print, soft_wrap=True, highlight=False)
    say(f"[bold]{escape(visible(answer.name))}[/]: intervals are 95%, over {escape(visible(answer.units))}")
    for verdict in answer.verdicts:
        group = answer.groups[verdict.group]
        where = f"{verdict.metric}, {verdict.at} step" + (f", {group}" if group else "")
        say(f"[bold]{escape(visible(where))}:[/] {escape(visible(verdict.text))}")
    if not answer.verdicts:
        say(NOTHING if answer.has_ended else NOTHING_YET)
    for note in answer.notes:
        say(f"[dim]- {escape(visible(note))}[/]")
