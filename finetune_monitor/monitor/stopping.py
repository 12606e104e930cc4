"""Rules over evaluations: which step is best, and whether training goes on."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.evaluation import Decision, Evaluation, StopReason, as_reason, best_step, measured


@runtime_checkable
class StoppingRule(Protocol):
    """Decides from the whole history, so that a resumed run decides as if it had never been interrupted.

    metric: the column that it watches; the first rule's says which step is best.
    """

    @property
    def metric(self) -> str: ...

    def decide(self, history: Sequence[Evaluation], higher_is_better: bool) -> StopReason | str | None:
        """Why training ends now; None where it goes on. A text is recorded and shown as it is."""
        ...


@dataclass(frozen=True)
class Patience:
    """Stop after `patience` evaluations in a row that did not beat the best by more than `min_delta`.

    An evaluation in which the metric was not measured neither counts nor starts the count anew.

    Raises:
        ValueError: `patience` below 1 or `min_delta` below 0.
    """

    name: ClassVar[str] = "patience"

    metric: str = "face_similarity"
    patience: int = 4
    min_delta: float = 0.005

    def __post_init__(self) -> None:
        if self.patience < 1:
            raise ValueError(f"Patience.patience: found {self.patience}, expected 1 or more evaluations")
        if self.min_delta < 0:
            raise ValueError(f"Patience.min_delta: found {self.min_delta:g}, expected 0 or more")

    def decide(self, history: Sequence[Evaluation], higher_is_better: bool = True) -> StopReason | None:
        best, waited = -math.inf, 0
        for _, mean in measured(history, self.metric, higher_is_better):
            best, waited = (mean, 0) if mean > best + self.min_delta else (best, waited + 1)
        return StopReason.PATIENCE if waited >= self.patience else None


def decide(
    history: Sequence[Evaluation], rules: Sequence[StoppingRule], metric: str, columns: Mapping[str, ScoreColumn]
) -> Decision:
    """Ask every rule; the first that wants to stop gives the reason. `metric` names the best step's metric.

    Where that metric was never measured after step 0 the reason is `never_measured`, and training goes on.
    """
    best = best_step(history, metric, _is_better_higher(columns, metric))
    for rule in rules:
        reason = rule.decide(history, _is_better_higher(columns, rule.metric))
        if reason is not None:
            return Decision(True, as_reason(reason), best)
    blind = best is None and any(evaluation.step > 0 for evaluation in history)
    return Decision(False, StopReason.NEVER_MEASURED if blind else None, best)


def _is_better_higher(columns: Mapping[str, ScoreColumn], name: str) -> bool:
    """Where nothing is said of a column, as if more were better."""
    return columns.get(name, ScoreColumn()).higher_is_better is not False
