"""Run the trials with Ray Tune: which, in which order, with what resources, and how they are stopped or suggested."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from finetune_monitor.record.progress import Progress, read_quietly, rows
from finetune_monitor.record.sweep_directory import TRIALS, TrialRecord
from finetune_monitor.sweep.ledger import Ledger
from finetune_monitor.sweep.plan import SweepPlan
from finetune_monitor.sweep.spec import SearchConfig
from finetune_monitor.sweep.trials.supervisor import SCRATCH, Site
from finetune_monitor.sweep.trials.trial import PERSON, SEED, SITE, TRIAL, SupervisedTrial, name_of

GOAL = "goal/"
"""The key of a goal's metric in a result."""

TRIES = 100
"""Number of repeated suggestions in a row after which the space counts as exhausted."""


def run_trials(
    plan: SweepPlan,
    ledger: Ledger,
    site: Site,
    resources: Mapping[str, float],
    callback: tune.Callback,
    stopper: tune.Stopper,
) -> None:
    """Run every unfinished trial; returns when all have ended, or when `stopper` ends the sweep."""
    over = [trial for trial in ledger if trial.state.is_over]
    todo = [trial for trial in ledger if not trial.state.is_over]
    searcher = _searcher(plan, todo, over, site) if plan.spec.search else None
    search = plan.spec.search
    tune.run(  # not tune.Tuner, which pickles the callbacks
        SupervisedTrial,
        name="tune",
        config=_space(plan, todo, site),
        num_samples=max(search.trials, len(over) + len(todo)) - len(over) if search else 1,
        resources_per_trial=dict(resources),
        search_alg=searcher,
        scheduler=make_scheduler(plan, [*ledger]),
        stop=stopper,
        callbacks=[callback],
        max_failures=plan.spec.retries,
        raise_on_failed_trial=False,
        storage_path=str(Path(site.folder) / SCRATCH),
        trial_name_creator=_id,
        trial_dirname_creator=_id,
        verbose=0,
    )


def _id(trial: Any) -> str:
    return str(trial.trial_id)


def _space(plan: SweepPlan, todo: Sequence[TrialRecord], site: Site) -> dict[str, Any]:
    """The names of the trials as a grid; for a search, what all its trials share."""
    if plan.spec.search is None:
        return {SITE: site.to_json(), TRIAL: tune.grid_search([trial.name for trial in todo])}
    alike = plan.searched({})
    return {SITE: site.to_json(), PERSON: alike.person, SEED: alike.seed}


def make_scheduler(plan: SweepPlan, trials: Sequence[TrialRecord]) -> "ByName | None":
    """ASHA (Li et al. 2020), fed with the trials' recorded results; None if trials are not stopped early.

    Its replies to these results are ignored: each of these trials has already continued or stopped.
    """
    rule = plan.spec.early_termination
    if rule is None:
        return None
    metric = plan.goals["early_termination"]
    asha = AsyncHyperBandScheduler(
        time_attr="step",
        metric=GOAL + metric,
        mode="max",
        max_t=plan.longest,
        grace_period=plan.grace_steps,
        reduction_factor=rule.reduction,
        stop_last_trials=False,  # a trial that has passed a rung is not judged at lower ones or at the same one again
    )
    scheduler = ByName(asha)
    for trial in trials:
        stand_in: Any = SimpleNamespace(config={TRIAL: trial.name})
        nobody: Any = None  # the scheduler does not use its controller
        scheduler.on_trial_add(nobody, stand_in)
        for row in _recorded(plan, trial, metric):
            scheduler.on_trial_result(nobody, stand_in, {"step": row.step, GOAL + metric: row.goal[metric]})
    return scheduler


class ByName(FIFOScheduler):
    """Passes trials to ASHA by name, which is the same in every command, unlike Tune's identifiers."""

    def __init__(self, asha: AsyncHyperBandScheduler):
        super().__init__()  # type: ignore[no-untyped-call]  # mypy's list of exceptions misses super()
        self._asha = asha

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self._asha.on_trial_add(tune_controller, _named(trial))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        return self._asha.on_trial_result(tune_controller, _named(trial), result)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        self._asha.on_trial_complete(tune_controller, _named(trial), result)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        self._asha.on_trial_remove(tune_controller, _named(trial))


def _named(trial: Any) -> Any:
    return SimpleNamespace(trial_id=name_of(trial.config))


def _recorded(plan: SweepPlan, trial: TrialRecord, metric: str) -> list[Progress]:
    history = read_quietly(plan.folder / TRIALS / trial.name)
    return rows(history, [metric]) if history is not None else []


def _searcher(plan: SweepPlan, todo: Sequence[TrialRecord], over: Sequence[TrialRecord], site: Site) -> Searcher:
    """Optuna's TPE (Bergstra et al. 2011), fed with the finished trials; unfinished ones are run first."""
    search = plan.spec.search
    assert search is not None
    metric = plan.goals["search"]
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    searcher = OptunaSearch(
        space=_distributions(search),
        metric=GOAL + metric,
        mode="max",
        points_to_evaluate=[dict(trial.settings) for trial in todo],
        seed=len(todo) + len(over),  # reusing the first seed would suggest the first settings again
    )
    for trial in over:
        found = _recorded(plan, trial, metric)
        if found and found[-1].goal[metric] == found[-1].goal[metric]:
            searcher.add_evaluated_point(dict(trial.settings), found[-1].goal[metric])
    return Distinct(searcher, [trial.settings for trial in over])


def _distributions(search: SearchConfig) -> dict[str, Any]:
    def distribution(found: Any) -> Any:
        if isinstance(found, list):
            return CategoricalDistribution(found)
        low, high, log = found["low"], found["high"], found.get("log", False)
        kind = IntDistribution if isinstance(low, int) and isinstance(high, int) else FloatDistribution
        return kind(low, high, log=log)

    return {key: distribution(found) for key, found in search.space.items()}


class Distinct(Searcher):
    """Passes on another searcher's suggestions without duplicates: repeating a training run would show nothing new."""

    def __init__(self, searcher: Searcher, known: Sequence[Mapping[str, Any]]):
        super().__init__(metric=searcher.metric, mode=searcher.mode)
        self._searcher, self._known = searcher, [dict(settings) for settings in known]
        self._asked: dict[str, str] = {}

    def suggest(self, trial_id: str) -> Any:
        for attempt in range(TRIES):
            asked = trial_id if attempt == 0 else f"{trial_id}-{attempt}"
            found = self._searcher.suggest(asked)
            if not isinstance(found, dict):
                return found
            if found not in self._known:
                self._known.append(found)
                self._asked[trial_id] = asked
                return found
            self._searcher.on_trial_complete(asked, error=True)
        return Searcher.FINISHED

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self._searcher.on_trial_result(self._asked[trial_id], result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self._searcher.on_trial_complete(self._asked[trial_id], result, error)

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: only the trials' records are kept."""

    def restore(self, checkpoint_path: str) -> None:
        """See `save`."""
