"""Rules over evaluations: which step is best, and whether to go on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from finetune_monitor.record.evaluation import Decision, Evaluation, StopReason, best_step, measured


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
