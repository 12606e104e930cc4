"""Rules over evaluations: which step is best, and whether to go on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from finetune_monitor.evaluation import Decision, Estimate, Evaluation, StopReason

MEASURED_SHARE = 0.5
"""An evaluation counts only where at least this share of its images could be measured: one lucky face is no score."""


@runtime_checkable
class StoppingRule(Protocol):
    """Decides from the whole history, so that a resumed run decides as if it had never been interrupted."""

    @property
    def metric(self) -> str: ...

    def decide(self, history: Sequence[Evaluation], higher_is_better: bool) -> StopReason | None: ...


@dataclass(frozen=True)
class Patience:
    """Stop after `patience` evaluations in a row that did not beat the best by more than `min_delta`.

    An evaluation in which the metric was not measured neither counts nor starts the count anew.
    """

    metric: str = "face_similarity"
    patience: int = 4
    min_delta: float = 0.005

    def __post_init__(self) -> None:
        if self.patience < 1 or self.min_delta < 0:
            raise ValueError(f"{self}: expected patience of 1 or more and min_delta of 0 or more")

    def decide(self, history: Sequence[Evaluation], higher_is_better: bool = True) -> StopReason | None:
        best, waited = -math.inf, 0
        for _, mean in measured(history, self.metric, higher_is_better):
            best, waited = (mean, 0) if mean > best + self.min_delta else (best, waited + 1)
        return StopReason.PATIENCE if waited >= self.patience else None


def measured(history: Sequence[Evaluation], metric: str, higher_is_better: bool) -> list[tuple[int, float]]:
    """(step, mean) of the evaluations that count, the mean turned so that more is better."""
    sign = 1.0 if higher_is_better else -1.0
    found = ((evaluation.step, evaluation.scores.get(metric)) for evaluation in history)
    return [(step, sign * estimate.mean) for step, estimate in found if estimate is not None and counts(estimate)]


def counts(estimate: Estimate) -> bool:
    """Whether enough images were measured for the mean to be compared."""
    total = estimate.n + estimate.missing
    return total > 0 and math.isfinite(estimate.mean) and estimate.n >= MEASURED_SHARE * total


def best_step(history: Sequence[Evaluation], metric: str, higher_is_better: bool = True) -> int | None:
    """The earliest step with the best mean; None where nothing was measured."""
    pairs = measured(history, metric, higher_is_better)
    return max(pairs, key=lambda pair: (pair[1], -pair[0]))[0] if pairs else None


def decide(
    history: Sequence[Evaluation], rules: Sequence[StoppingRule], metric: str, directions: dict[str, bool]
) -> Decision:
    """Ask every rule; the first that wants to stop gives the reason. `metric` names the best step's metric.

    Where that metric was never measured after step 0 the reason is `never_measured`, and training goes on.
    """
    best = best_step(history, metric, directions.get(metric, True))
    for rule in rules:
        reason = rule.decide(history, directions.get(rule.metric, True))
        if reason is not None:
            return Decision(True, reason, best)
    blind = best is None and any(evaluation.step > 0 for evaluation in history)
    return Decision(False, StopReason.NEVER_MEASURED if blind else None, best)
