"""The recorded results of a sweep's trials so far, ordered by the axis of the answer."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from finetune_monitor.base.errors import UserError
from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.curve import best_of, counts
from finetune_monitor.record.evaluation import Evaluation
from finetune_monitor.record.history import RunHistory, read_noting
from finetune_monitor.record.run_directory import RUN
from finetune_monitor.record.sweep_directory import SweepState, TrialRecord, TrialState, have_ended
from finetune_monitor.stats.estimate import Estimate

PHOTOS = "data.instance_count"

TRAINING_PHOTOS, HELD_OUT_PHOTOS = "references", "held_out"
"""The keys of photos in a metric's weights."""

LOG_FROM = 8
"""The ratio of the largest to the smallest value from which an axis is logarithmic."""

LABELS = {PHOTOS: "number of photos", "": "setting"}
"""Labels of axes whose keys are not self-explanatory."""

ALL = "all trials"
"""The place of every trial if a sweep has no axis."""

At = Literal["best", "last"]
Unit = Literal["person", "seed", "image"]


@dataclass(frozen=True)
class Axis:
    """The axis that the scores are plotted against.

    values: in order: numbers ascending, others as listed in the sweep.
    """

    key: str
    label: str
    values: tuple[float | str, ...]
    scale: Literal["log", "linear", "category"]


@dataclass(frozen=True, eq=False)
class Result:
    """One trial with the content of its run directory.

    index: its place in the plan.
    value, group: its place on the axis, and among the combinations of the other axes.
    history: None if there is no record yet, or if it cannot be read.
    metrics: the main columns of its scores.
    problems: the problems with the record.
    """

    index: int
    trial: TrialRecord
    folder: Path
    value: float | str
    group: int
    history: RunHistory | None
    metrics: Mapping[str, ScoreColumn]
    problems: tuple[str, ...]

    @property
    def evaluations(self) -> tuple[Evaluation, ...]:
        return self.history.evaluations if self.history else ()

    @property
    def last_step(self) -> int | None:
        return self.evaluations[-1].step if self.evaluations else None

    @property
    def best_step(self) -> int | None:
        """The best step by the run's own best metric, after step 0."""
        metric = self.history.best_metric if self.history else None
        return None if metric is None or metric not in self.metrics else self.best_step_by(metric)

    def best_step_by(self, metric: str) -> int | None:
        """The best step by a metric, chosen as in a run, but after step 0, where nothing has been learned."""
        trained = [found for found in self.evaluations if found.step > 0]
        best = best_of(trained, metric, self.metrics[metric].more_is_better)
        return None if best is None else best[0]

    def alarms_at(self, step: int | None) -> tuple[str, ...]:
        """The columns whose alarm sounds at a step; none if there is no such evaluation."""
        return next((found.alarms for found in self.evaluations if found.step == step), ())

    def photos_of(self, column: str, kind: str) -> int:
        """The number of photos that a column compares with, of this kind in its metric's weights."""
        if self.history is None or column not in self.metrics or kind in self.metrics[column].ignores:
            return 0
        return len(self.history.weights.get(self.metrics[column].metric, {}).get(kind, []))


@dataclass(frozen=True)
class Setting:
    """The trials that differ only by person and seed; for a search, each trial is its own setting."""

    group: int
    value: float | str
    results: tuple[Result, ...]


@dataclass(frozen=True)
class Results:
    """All trials of a sweep.

    groups: the combinations of the other axes in words; one empty string if there are none.
    unit: what the trials of a setting differ by, and the intervals are over.
    reached: the last step of the finished trials; None if there are none.
    """

    axis: Axis
    groups: tuple[str, ...]
    unit: Unit
    is_search: bool
    all: tuple[Result, ...]
    reached: int | None

    @property
    def has_ended(self) -> bool:
        """Whether no trial waits or runs."""
        return have_ended(each.trial.state for each in self.all)

    @cached_property
    def metrics(self) -> dict[str, ScoreColumn]:
        """The main columns of all runs; similarity to held-out photos comes first, as only that is the same for all."""
        found = {name: info for result in self.all for name, info in result.metrics.items()}
        return dict(sorted(found.items(), key=lambda item: not self.compares_with(item[0], HELD_OUT_PHOTOS)))

    def compares_with(self, column: str, kind: str) -> bool:
        """Whether any run's column compares with photos of this kind."""
        return any(each.photos_of(column, kind) for each in self.all)

    @cached_property
    def settings(self) -> list[Setting]:
        """The settings by group, then along the axis."""
        if self.is_search:
            found = [Setting(each.group, each.value, (each,)) for each in self.all]
        else:
            places: dict[tuple[int, float | str], list[Result]] = {}
            for each in self.all:
                places.setdefault((each.group, each.value), []).append(each)
            found = [Setting(group, value, tuple(results)) for (group, value), results in places.items()]
        order = {value: place for place, value in enumerate(self.axis.values)}
        return sorted(found, key=lambda setting: (setting.group, order[setting.value]))

    def chosen(self, result: Result, metric: str, at: At) -> Evaluation | None:
        """The evaluation that represents a finished trial; None if there is none, or if too little was measured."""
        if not result.trial.state.is_over or metric not in result.metrics:
            return None
        last = None if self.lags(result) else result.last_step
        step = result.best_step_by(metric) if at == "best" else last
        return next((found for found in counted(result, metric) if found.step == step), None)

    def lags(self, result: Result) -> bool:
        """Whether the trial was stopped for lagging behind before the step that the others reached."""
        last = result.last_step
        stopped = result.trial.state is TrialState.STOPPED_EARLY
        return stopped and (last is None or self.reached is None or last < self.reached)


def counted(result: Result, metric: str) -> Iterator[Evaluation]:
    """The trial's evaluations in which enough images were measured."""
    return (found for found in result.evaluations if counts(found.scores.get(metric, NOTHING)))


NOTHING = Estimate(float("nan"), float("nan"), float("nan"), 0, 0)


def read_results(state: SweepState) -> Results:
    """Read every trial's run directory, even while the sweep is running."""
    keys = _varied(state) or list(state.choices)[:1] or [""]  # over people or seeds only: one place for all trials
    axis = _axis(state, keys[0])
    is_search = bool(state.config.get("search"))
    named = [_words(trial.settings, () if is_search else keys[1:]) for trial in state.trials]
    groups = tuple(dict.fromkeys(named)) or ("",)
    found = tuple(
        _result(state, index, trial, _place(trial.settings.get(axis.key, ALL), axis.scale), groups.index(name))
        for index, (trial, name) in enumerate(zip(state.trials, named, strict=True))
    )
    finished = [each.last_step for each in found if each.trial.state is TrialState.FINISHED]
    return Results(axis, groups, _unit(state), is_search, found, max(filter(None, finished), default=None))


def in_words(value: Any) -> str:
    """A setting's value as text."""
    return value if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else json.dumps(value)


def _varied(state: SweepState) -> list[str]:
    """The axes, or the keys of the search, in which trials differ."""
    found = {key: {in_words(trial.settings.get(key, ALL)) for trial in state.trials} for key in state.choices}
    return [key for key, values in found.items() if len(values) > 1]


def _axis(state: SweepState, key: str) -> Axis:
    found = [trial.settings.get(key, ALL) for trial in state.trials]
    numeric = bool(found) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in found)
    label = LABELS[key] if key in LABELS else key.rpartition(".")[2].replace("_", " ")
    if not numeric:
        return Axis(key, label, tuple(dict.fromkeys(_place(value, "category") for value in found)), "category")
    values = tuple(sorted(set(found)))
    space = state.choices.get(key)
    asked = isinstance(space, Mapping) and bool(space.get("log"))
    wide = values[0] > 0 and values[-1] / values[0] >= LOG_FROM
    return Axis(key, label, values, "log" if asked or wide else "linear")


def _place(value: Any, scale: str) -> Any:
    return in_words(value) if scale == "category" else value


def _words(settings: Mapping[str, Any], keys: Sequence[str]) -> str:
    return ", ".join(f"{key}={in_words(settings.get(key))}" for key in keys)


def _unit(state: SweepState) -> Unit:
    if len({trial.person for trial in state.trials}) > 1:
        return "person"
    return "seed" if len({trial.seed for trial in state.trials}) > 1 else "image"


def _result(state: SweepState, index: int, trial: TrialRecord, value: Any, group: int) -> Result:
    folder = state.run_dir(trial)
    history, problems = _read(folder, trial.state)
    try:
        metrics = history.main_columns if history else {}
    except UserError as error:
        history, metrics, problems = None, {}, (str(error),)
    return Result(index, trial, folder, value, group, history, metrics, problems)


def _read(folder: Path, state: TrialState) -> tuple[RunHistory | None, tuple[str, ...]]:
    """The record and its problems; an unfinished trial may not have one yet."""
    if not state.is_over and not (folder / RUN).exists():
        return None, ()
    try:
        return read_noting(folder)
    except (UserError, OSError) as error:
        return None, (str(error),)
