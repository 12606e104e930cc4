"""From a sweep's config to its trials: each with its own name and complete config, checked before the start."""

import copy
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from finetune_monitor.base.errors import UserError, all_problems
from finetune_monitor.base.files import write_atomic
from finetune_monitor.base.sections import problems_of
from finetune_monitor.base.text_keys import holds_text
from finetune_monitor.base.yaml_files import read_yaml
from finetune_monitor.monitor.keeping import BEST
from finetune_monitor.record.run_directory import RUN
from finetune_monitor.record.sweep_directory import CONFIGS, TRIALS, SweepState, TrialRecord
from finetune_monitor.sweep.spec import ONE_VALUE_FOR_ALL, SweepConfig, flat, is_number
from finetune_monitor.sweep.trials.naming import alike, search_name, trial_name
from finetune_monitor.training.config import Config, recorded_config, validated

UNCOMPARED = (
    "output_dir",
    "train.resume",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "data.workers",
    "monitor.sinks",
    "monitor.hooks",
    "monitor.keep",
    "monitor.report",
)
"""Keys that may change in the config of a trial that has started: nothing that its scores depend on."""

LENGTH = "the length of a sweep cannot change, because finished trials would no longer be comparable; "


@dataclass(frozen=True)
class SweepPlan:
    """A sweep, the content of its base config, and its trials: all of them, or those that a search has started earlier.

    set_aside: known trials that are not among them.
    """

    spec: SweepConfig
    base: Mapping[str, Any]
    trials: tuple[TrialRecord, ...]
    set_aside: tuple[TrialRecord, ...] = ()

    @property
    def folder(self) -> Path:
        return self.spec.output_dir

    def content(self, trial: TrialRecord) -> dict[str, Any]:
        """The trial's config, without validation."""
        content = copy.deepcopy(dict(self.base))
        seed = {} if trial.seed is None else {"seed": trial.seed}
        person = self.spec.people.get(trial.person, {}) if trial.person is not None else {}
        own = {"output_dir": str(self.folder / TRIALS / trial.name), "train.resume": "auto"}
        if "keep" not in (content.get("monitor") or {}):
            _put(content, "monitor.keep", BEST)  # the weights of every step of every trial would fill the disk
        for key, value in {**self.spec.set, **person, **trial.settings, **seed, **own}.items():
            _put(content, key, value)
        return content

    def config_text(self, trial: TrialRecord) -> str:
        """The trial's config as YAML, with every default spelled out; unchanged if it is not valid."""
        try:
            return self.validated(trial).to_yaml()
        except ValidationError:
            return yaml.safe_dump(self.content(trial), sort_keys=False, allow_unicode=True)

    def write_config(self, trial: TrialRecord) -> None:
        """Write the trial's complete config, so that the file can be run by itself; only the owner may read it."""
        path = self.folder / CONFIGS / f"{trial.name}.yaml"
        write_atomic(path, self.config_text(trial).encode())

    def searched(self, settings: Mapping[str, Any]) -> TrialRecord:
        """The trial for a search's suggestion; its name does not depend on the order of the settings."""
        settings = dict(sorted(settings.items()))
        person, seed = next(iter(self.spec.people), None), next(iter(self.spec.seeds), None)
        return TrialRecord(search_name(settings, person, seed), settings, person, seed)

    @property
    def goals(self) -> dict[str, str]:
        """The metrics that trials are judged by, by purpose: `search`, `early_termination`."""
        rules = {"search": self.spec.search, "early_termination": self.spec.early_termination}
        return {name: rule.metric or self._first.best_metric for name, rule in rules.items() if rule is not None}

    @property
    def shown_metrics(self) -> list[str]:
        """The main scores; the one that determines the best trial comes first."""
        return self._first.main_columns

    def max_steps(self, trial: TrialRecord) -> int:
        """The number of steps of a trial; that of the first trial if a search suggests an invalid config."""
        try:
            return self.validated(trial).train.max_steps
        except ValidationError:
            return self._first.train.max_steps

    @property
    def longest(self) -> int:
        """The number of steps of the longest possible trial."""
        trials = (*self.trials, *(_corners(self) if self.spec.search else ()))
        return max(map(self.max_steps, trials), default=self._first.train.max_steps)

    @property
    def grace_steps(self) -> int:
        """The step before which no trial is stopped early."""
        rule = self.spec.early_termination
        return (rule.grace_steps if rule else None) or self._first.monitor.every

    @property
    def _first(self) -> Config:
        return self.validated(self.trials[0] if self.trials else self.searched(_first_settings(self.spec)))

    def validated(self, trial: TrialRecord) -> Config:
        """The trial's config.

        Raises:
            ValidationError: a value is not valid.
        """
        return validated(self.content(trial), self.spec.base.parent)


def make_plan(spec: SweepConfig, known: SweepState | None) -> SweepPlan:
    """The sweep's trials; known trials keep their recorded state.

    Args:
        known: the state that an earlier command left in the folder.

    Raises:
        UserError: lists everything that would make a trial fail or that contradicts the known state.
    """
    base = read_yaml(spec.base, partial(holds_text, Config))
    plan = SweepPlan(spec, base, ())
    trials = _searched(plan, known) if spec.search else _product(spec)
    all_problems(_names_alike(trials), f"{spec.output_dir}: several trials would share a folder:")
    before = {trial.name: trial for trial in (*known.trials, *known.set_aside)} if known else {}
    merged = tuple(replace(before.pop(trial.name, trial), settings=trial.settings) for trial in trials)
    plan = SweepPlan(spec, base, merged, tuple(trial for trial in before.values() if trial.attempts))
    all_problems(_problems(plan), f"{spec.output_dir}: the sweep cannot start:")
    all_problems(_changes(plan), f"{spec.output_dir}: some trials have started with a different config:")
    return plan


def _product(spec: SweepConfig) -> list[TrialRecord]:
    combinations = [dict(zip(spec.axes, values, strict=True)) for values in itertools.product(*spec.axes.values())]
    people: list[str | None] = [*spec.people] or [None]
    seeds: list[int | None] = [*spec.seeds] or [None]
    trials = itertools.product(combinations, people, seeds)
    return [TrialRecord(trial_name(*trial), *trial) for trial in trials]


def _names_alike(trials: Sequence[TrialRecord]) -> list[str]:
    return [
        f"{' and '.join(names)}: found the same name for {len(names)} trials, ignoring case; change a "
        "value or a person's name"
        for names in alike(trial.name for trial in trials)
    ]


def _searched(plan: SweepPlan, known: SweepState | None) -> list[TrialRecord]:
    """The trials that a search has started and that are in its space; all trials with a record must be."""
    search = plan.spec.search
    assert search is not None
    trials = [plan.searched(trial.settings) for trial in (known.trials if known else ())]
    within = [trial for trial in trials if _is_within(trial.settings, search.space)]
    all_problems(
        [f"{trial.name}: is not in the space" for trial in trials if trial not in within and _has_begun(plan, trial)],
        f"{plan.folder}: some trials have started with a different search.space; restore it or choose a new output_dir",
    )
    return within


def _has_begun(plan: SweepPlan, trial: TrialRecord) -> bool:
    """Whether a trial has a record; one that failed before that can take a different config."""
    return (plan.folder / TRIALS / trial.name / RUN).exists()


def _is_within(settings: Mapping[str, Any], space: Mapping[str, Any]) -> bool:
    def fits(value: Any, found: Any) -> bool:
        if isinstance(found, list):
            return value in found
        return is_number(value) and found["low"] <= value <= found["high"]

    return settings.keys() == space.keys() and all(fits(settings[key], space[key]) for key in space)


def _first_settings(spec: SweepConfig) -> dict[str, Any]:
    space = spec.search.space if spec.search else {}
    return {key: found[0] if isinstance(found, list) else found["low"] for key, found in space.items()}


def _corners(plan: SweepPlan) -> list[TrialRecord]:
    """Trials to check whether a search's values are allowed: each end of a range and each choice once."""
    first = _first_settings(plan.spec)
    space = plan.spec.search.space if plan.spec.search else {}
    values = {key: found if isinstance(found, list) else [found["low"], found["high"]] for key, found in space.items()}
    return [plan.searched({**first, key: value}) for key in values for value in values[key]]


def _problems(plan: SweepPlan) -> list[str]:
    trials = _corners(plan) if plan.spec.search else plan.trials
    found, configs = _invalid(plan, trials)
    if not found:
        found += (
            _photo_problems(configs) + _class_problems(configs) + _goal_problems(plan, next(iter(configs.values())))
        )
    return found


def _invalid(plan: SweepPlan, trials: Sequence[TrialRecord]) -> tuple[list[str], dict[str, Config]]:
    """The problems of the trials' configs, one line each, and the valid configs."""
    problems: dict[str, list[str]] = {}
    configs = {}
    for trial in trials:
        try:
            configs[trial.name] = plan.validated(trial)
        except ValidationError as error:
            for problem in problems_of(error, Config):
                problems.setdefault(problem, []).append(trial.name)
    return [_placed(plan, problem, names, len(trials)) for problem, names in problems.items()], configs


def _placed(plan: SweepPlan, problem: str, names: Sequence[str], total: int) -> str:
    """A problem with the trials that have it, or with the base config if all do."""
    if len(names) == total:
        return f"{plan.spec.base}, with the sweep's settings: {problem}"
    more = f" and {len(names) - 1} more" if names[1:] else ""
    return f"{names[0]}{more}: {problem}"


def _photo_problems(configs: Mapping[str, Config]) -> list[str]:
    from finetune_monitor.training.photos import choose_photos

    problems: dict[str, None] = {}
    seen = set()
    for config in configs.values():
        chosen = (config.data.instance_images, config.data.instance_count, config.data.held_out)
        if chosen not in seen:
            seen.add(chosen)
            try:
                choose_photos(config.data)
            except UserError as error:
                problems[str(error).replace("\n", "\n    ")] = None
    return list(problems)


def _class_problems(configs: Mapping[str, Config]) -> list[str]:
    """Problems with shared class images: the first trial would generate them for trials with a different source."""
    found: dict[Path, set[tuple[str, tuple[str, ...]]]] = {}
    for config in configs.values():
        if config.prior_preservation and config.data.class_images is not None:
            found.setdefault(config.data.class_images, set()).add((config.model, config.data.class_prompts))
    return [
        f"data.class_images: found {folder} for {len(sources)} combinations of model and data.class_prompt, expected a "
        "folder for each, because the first trial would generate for all; vary them under people, each with its own "
        "data.class_images, or set train.prior_loss_weight to 0"
        for folder, sources in found.items()
        if len(sources) > 1
    ]


def _goal_problems(plan: SweepPlan, config: Config) -> list[str]:
    """Problems with the goals: stopping rules must accept a metric, and early termination must have an effect."""
    problems = [] if config.monitor.enabled else [f"monitor.enabled: {ONE_VALUE_FOR_ALL['monitor.enabled']}"]
    for place, metric in plan.goals.items():
        if problem := config.unmeasured(metric):
            problems.append(f"{place}.metric: {problem}")
    if plan.spec.early_termination and plan.grace_steps >= plan.longest:
        problems.append(
            f"early_termination.grace_steps: found {plan.grace_steps}, expected less than train.max_steps, which is "
            f"at most {plan.longest}: otherwise no trial would ever be stopped"
        )
    return problems


def _changes(plan: SweepPlan) -> list[str]:
    """Trials that have started and whose config has changed since, with the keys."""
    problems = []
    for trial in plan.trials:
        path = plan.folder / CONFIGS / f"{trial.name}.yaml"
        if not path.exists() or not _has_begun(plan, trial):
            continue
        try:
            before = _compared(recorded_config(path)[0])
        except UserError as error:
            problems.append(f"{trial.name}: {error}")
            continue
        now = _compared(plan.validated(trial))
        changed = [
            f"{key} was {before.get(key)!r}, is now {now.get(key)!r}"
            for key in {**before, **now}
            if before.get(key) != now.get(key)
        ]
        if changed:
            why = LENGTH if before.get("train.max_steps") != now.get("train.max_steps") else ""
            problems.append(f"{trial.name}: {'; '.join(changed)}; {why}restore it or choose a new output_dir")
    return problems


def _compared(config: Config) -> dict[str, Any]:
    found = flat(config.model_dump(mode="json"))
    return {key: value for key, value in found.items() if not f"{key}.".startswith(tuple(f"{k}." for k in UNCOMPARED))}


def _put(content: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key in place."""
    *parents, last = key.split(".")
    for parent in parents:
        inner = content.get(parent)
        content[parent] = dict(inner) if isinstance(inner, dict) else {}
        content = content[parent]
    content[last] = value
