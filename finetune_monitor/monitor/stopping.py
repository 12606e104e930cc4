"""Apply rules to evaluations: which step is best, and whether training continues."""

import math
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from numbers import Real
from typing import Protocol, runtime_checkable

from finetune_monitor.base.sections import did_you_mean
from finetune_monitor.base.text import counted
from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.curve import Point, best_of, points, points_of_prompts
from finetune_monitor.record.evaluation import Decision, Evaluation, StopReason, as_reason, scheduled
from finetune_monitor.record.grid import PromptGrid
from finetune_monitor.stats.estimate import Estimate

FEWEST_SEEDS = 2
"""The fewest seeds that a rule accepts: with one draw of noise, variation by chance is unknown."""


@dataclass(frozen=True)
class Stop:
    """A decision to end training now.

    reason: a known reason, or a rule's own text, which is recorded and shown unchanged.
    detail: what the rule saw, with its numbers, as a sentence without its final period.
    rejected_from: the first of the steps up to this one that crossed a limit, none of which can be the best.
    """

    reason: StopReason | str
    detail: str = ""
    rejected_from: int | None = None


@dataclass(frozen=True)
class Watched:
    """The basis of a rule's decision: the entire history, so a resumed run decides as if it had not been interrupted.

    columns: the description of each score column.
    ceilings: scores of the real photos against each other, by column.
    loss: the loss of the last step, if the training loop passes it.
    """

    history: Sequence[Evaluation]
    columns: Mapping[str, ScoreColumn] = field(default_factory=dict)
    ceilings: Mapping[str, Estimate] = field(default_factory=dict)
    loss: float | None = None

    def points(self, metric: str, prompts: Sequence[int] | None = None) -> list[Point]:
        """The evaluations of a score that count, over the entire grid or some of its prompts."""
        if prompts is None:
            return points(self.history, metric)
        return points_of_prompts(self.history, metric, self.column(metric), prompts)

    def sign(self, metric: str) -> float:
        """1 if more is better, -1 if less is; 1 if the column has no description."""
        return 1.0 if self.column(metric).more_is_better else -1.0

    def column(self, metric: str) -> ScoreColumn:
        """The description of a score column."""
        return self.columns.get(metric, ScoreColumn())


@runtime_checkable
class StoppingRule(Protocol):
    """Decides whether training ends.

    metric: the column that it watches; that of the first rule determines the best step.

    If a rule has attributes with the names of those of the rules in `monitor.rules`, they are checked like them:
    `prompts` if it is a list of indices, `score` and `level` if they are numbers.
    """

    @property
    def metric(self) -> str: ...

    def decide(self, watched: Watched) -> Stop | str | None:
        """A decision to end training now, with the reason; None to continue."""
        ...


def decide(
    watched: Watched,
    rules: Sequence[StoppingRule],
    metric: str,
    ask: Callable[[StoppingRule, Callable[[], Stop | None]], Stop | None] = lambda rule, asked: asked(),
) -> Decision:
    """The decision of all rules; the first rule that fires gives the reason. `metric` determines the best step.

    Evaluations on request may be the best, but the rules do not see them: they would come too early.

    If the metric was never measured after step 0, the reason is `never_measured`, and training continues.

    Args:
        ask: calls a rule, which may fail or return neither a `Stop` nor a string; None ignores it.
    """
    considered = replace(watched, history=scheduled(watched.history))
    stops = (ask(rule, partial(_asked, rule, considered)) for rule in rules)
    stop = next((found for found in stops if found is not None), None)
    ended = Decision()
    if stop is not None:
        ended = Decision(True, as_reason(stop.reason), detail=stop.detail, rejected_from=stop.rejected_from)
    history = [*watched.history[:-1], *(replace(each, decision=ended) for each in watched.history[-1:])]
    best = best_of(history, metric, watched.sign(metric) > 0)
    step, score = best if best is not None else (None, None)
    blind = best is None and stop is None and any(evaluation.step > 0 for evaluation in history)
    reason = StopReason.NEVER_MEASURED if blind else ended.reason
    return replace(ended, reason=reason, best_step=step, best_score=score)


def _asked(rule: StoppingRule, watched: Watched) -> Stop | None:
    found: object = rule.decide(watched)
    stop = Stop(found) if isinstance(found, str) else found
    if stop is None:
        return None
    if not isinstance(stop, Stop) or not isinstance(stop.reason, str) or not isinstance(stop.detail, str):
        raise ValueError(f"decide: found {reprlib.repr(found)}, expected a Stop, a string, or None")
    if not stop.reason:
        raise ValueError("decide: found an empty reason, expected a Stop, a string, or None")
    return stop


def rejectable_from(
    rules: Sequence[StoppingRule], history: Sequence[Evaluation], columns: Mapping[str, ScoreColumn]
) -> set[int]:
    """The first step that each rule may reject with the next evaluation: the last one that it could count.

    Evaluations since then that lack its score are rejected with it.
    """
    considered = Watched(scheduled(history), columns)
    found = (considered.points(rule.metric, _prompts_of(rule)) for rule in rules)
    return {known[-1].step for known in found if known}


def check_rules(
    rules: Sequence[StoppingRule],
    grid: PromptGrid,
    columns: Mapping[str, ScoreColumn],
    ceilings: Mapping[str, Estimate] | None = None,
) -> None:
    """Check that every rule watches a column that a metric describes, and works with the grid and the metrics.

    Args:
        ceilings: None if not known yet.

    Raises:
        ValueError: lists every rule that does not, with the reason.
    """
    found = [
        f"stopping.{index}.{problem}"
        for index, rule in enumerate(rules)
        for problem in _unmeasured(rule, columns) or problems_of_rule(rule, grid, columns, ceilings)
    ]
    if found:
        raise ValueError("; ".join(found))


def _unmeasured(rule: StoppingRule, columns: Mapping[str, ScoreColumn]) -> list[str]:
    return [] if rule.metric in columns else [f"metric: {not_described(rule.metric, list(columns))}"]


def problems_of_rule(
    rule: StoppingRule,
    grid: PromptGrid,
    columns: Mapping[str, ScoreColumn],
    ceilings: Mapping[str, Estimate] | None = None,
) -> list[str]:
    """The reasons why a rule does not work with the grid and the metrics, each starting with the option concerned."""
    places, count = _prompts_of(rule), len(grid.prompts)
    if strange := [place for place in places or () if place >= count]:
        has = f"the grid has {counted(count, 'prompt')}, counted from 0"
        return [f"prompts: found {strange[0]}, expected 0 to {count - 1}: {has}"]
    draws = {seed for place in (range(count) if places is None else places) for seed in grid.seeds_of(place)}
    problems = []
    if len(draws) < FEWEST_SEEDS:
        problems.append(
            f"metric: the rule watches images of {len(draws)} seed, expected {FEWEST_SEEDS} or more to distinguish a "
            "change from chance; raise images_per_prompt or leave the rule out"
        )
    low, high = columns.get(rule.metric, ScoreColumn()).bounds
    for option in ("score", "level"):
        found = getattr(rule, option, None)
        if isinstance(found, Real) and not low <= float(found) <= high:
            problems.append(f"{option}: found {found:g}, expected {low:g} to {high:g}, the bounds of {rule.metric}")
    if getattr(rule, "share", None) is not None and ceilings is not None and rule.metric not in _known(ceilings):
        names = ", ".join(_known(ceilings)) or "no metric"
        problems.append(f"share: {rule.metric} has no ceiling ({names} has one); set score instead")
    return problems


def _prompts_of(rule: StoppingRule) -> list[int] | None:
    """The indices of the prompts that a rule watches; None for all, or if `prompts` means something else."""
    found = getattr(rule, "prompts", None)
    is_list = isinstance(found, Sequence) and all(isinstance(place, int) for place in found)
    return list(found) if is_list and found else None


def not_measured(column: str, given: Sequence[str]) -> str:
    """The message that a rule watches a column that a config's metrics do not have."""
    return f"found {column!r}, expected one of {', '.join(given)}{did_you_mean(column, given)}"


def not_described(column: str, given: Sequence[str]) -> str:
    """The message that a rule watches a column that no metric describes, perhaps one of the user's own."""
    hint = "a metric describes its other columns in its attribute columns, each with a ScoreColumn"
    return f"{not_measured(column, given)}; {hint}"


def _known(ceilings: Mapping[str, Estimate]) -> list[str]:
    return [name for name, ceiling in ceilings.items() if not math.isnan(ceiling.mean)]
