"""Rules over evaluations: which step is best, and whether training goes on."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.curve import Point, best_of, points
from finetune_monitor.record.evaluation import Decision, Evaluation, StopReason, as_reason
from finetune_monitor.record.grid import PromptGrid
from finetune_monitor.stats.estimate import Estimate

FEWEST_SEEDS = 2
"""That a rule may watch: of one draw of noise nobody knows how much it moves by chance."""


@dataclass(frozen=True)
class Stop:
    """That training ends now.

    reason: one of the known ones, or a text of the rule's own, which is recorded and shown as it is.
    detail: what was seen, with its numbers, in a sentence without a full stop.
    """

    reason: StopReason | str
    detail: str = ""


@dataclass(frozen=True)
class Watched:
    """What a rule decides from: the whole history, so that a resumed run decides as if it had not been interrupted.

    columns: what is known of each column of scores.
    ceilings: scores of the real photos against each other, by column.
    loss: of the last step, where the training loop tells it.
    """

    history: Sequence[Evaluation]
    columns: Mapping[str, ScoreColumn] = field(default_factory=dict)
    ceilings: Mapping[str, Estimate] = field(default_factory=dict)
    loss: float | None = None

    def points(self, metric: str, prompts: Sequence[int] | None = None) -> list[Point]:
        """The evaluations of a score that count, over the whole grid or over some of its prompts."""
        return points(self.history, metric, prompts)

    def sign(self, metric: str) -> float:
        """1 where more is better, -1 where less is; 1 where nothing is said of the column."""
        return 1.0 if self.columns.get(metric, ScoreColumn()).more_is_better else -1.0


@runtime_checkable
class StoppingRule(Protocol):
    """Decides whether training ends.

    metric: the column that it watches; the first rule's says which step is best.
    """

    @property
    def metric(self) -> str: ...

    def decide(self, watched: Watched) -> Stop | str | None:
        """That training ends now, and why; None where it goes on."""
        ...


def decide(
    watched: Watched,
    rules: Sequence[StoppingRule],
    metric: str,
    failed: Callable[[StoppingRule, Exception], None] | None = None,
) -> Decision:
    """Ask every rule; the first that wants to stop gives the reason. `metric` names the best step's metric.

    A rule that fails, or returns neither a `Stop` nor a text, is told to `failed` and stops nothing. Where the metric
    was never measured after step 0 the reason is `never_measured`, and training goes on.
    """
    best = best_of(watched.history, metric, watched.sign(metric) > 0)
    step, score = best if best is not None else (None, None)
    for rule in rules:
        try:
            stop = _asked(rule, watched)
        except Exception as error:
            if failed is None:
                raise
            failed(rule, error)
            continue
        if stop is not None:
            return Decision(True, as_reason(stop.reason), step, stop.detail, score)
    blind = best is None and any(evaluation.step > 0 for evaluation in watched.history)
    return Decision(False, StopReason.NEVER_MEASURED if blind else None, step, best_score=score)


def _asked(rule: StoppingRule, watched: Watched) -> Stop | None:
    found: object = rule.decide(watched)
    if found is None or isinstance(found, Stop):
        return found
    if not isinstance(found, str) or not found:
        raise ValueError(f"decide: found {found!r}, expected a Stop, a text or None")
    return Stop(found)


def check_rules(
    rules: Sequence[StoppingRule],
    grid: PromptGrid,
    columns: Mapping[str, ScoreColumn],
    ceilings: Mapping[str, Estimate] | None = None,
) -> None:
    """See that the grid and the metrics can serve every rule.

    Args:
        ceilings: None where they are not known yet.

    Raises:
        ValueError: names every rule that they cannot serve, and why.
    """
    found = [
        f"stopping.{index}.{problem}"
        for index, rule in enumerate(rules)
        for problem in problems_of_rule(rule, grid, columns, ceilings)
    ]
    if found:
        raise ValueError("; ".join(found))


def problems_of_rule(
    rule: StoppingRule,
    grid: PromptGrid,
    columns: Mapping[str, ScoreColumn],
    ceilings: Mapping[str, Estimate] | None = None,
) -> list[str]:
    """Why the grid and the metrics cannot serve a rule, each reason led by the option that it is about."""
    places = getattr(rule, "prompts", None)
    count = len(grid.prompts)
    if strange := [place for place in places or () if place >= count]:
        return [f"prompts: found {strange[0]}, expected 0 to {count - 1}: the grid has {count} prompts, counted from 0"]
    draws = {seed for place in (range(count) if places is None else places) for seed in grid.seeds_of(place)}
    problems = []
    if len(draws) < FEWEST_SEEDS:
        problems.append(
            f"metric: the rule watches images of {len(draws)} seed, expected {FEWEST_SEEDS} or more to tell a change "
            "from chance; raise images_per_prompt, or leave the rule out"
        )
    low, high = columns.get(rule.metric, ScoreColumn()).bounds
    for option in ("score", "level"):
        found = getattr(rule, option, None)
        if found is not None and not low <= found <= high:
            problems.append(f"{option}: found {found:g}, expected {low:g} to {high:g}, the bounds of {rule.metric}")
    if getattr(rule, "share", None) is not None and ceilings is not None and rule.metric not in _known(ceilings):
        names = ", ".join(_known(ceilings)) or "no metric"
        problems.append(f"share: {rule.metric} has no ceiling that a way leads to, {names} has; name a score instead")
    return problems


def _known(ceilings: Mapping[str, Estimate]) -> list[str]:
    return [name for name, ceiling in ceilings.items() if not math.isnan(ceiling.mean)]
