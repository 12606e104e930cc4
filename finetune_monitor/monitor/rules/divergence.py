"""Stop when training has diverged."""

import math
from dataclasses import dataclass
from typing import ClassVar

from finetune_monitor.monitor.rules.watching import at_least, last_ones
from finetune_monitor.monitor.stopping import Stop, Watched
from finetune_monitor.record.evaluation import Evaluation, StopReason, has_failed


@dataclass(frozen=True)
class Divergence:
    """Stop when training has diverged: the loss is not finite, or the score can no longer be measured.

    Args:
        evaluations: stop after this many evaluations in a row in which the score cannot be measured on any image,
            although it was measured before; those in which its metric or rendering failed do not count. The loss is
            checked at every step for which the loop passes it (`on_step_end(step, loss=...)`; train.py always does).

    Raises:
        ValueError: `evaluations` is below 1.
    """

    name: ClassVar[str] = "divergence"

    metric: str = "face_similarity"
    evaluations: int = 2

    def __post_init__(self) -> None:
        at_least(self, evaluations=1)

    def decide(self, watched: Watched) -> Stop | None:
        if watched.loss is not None and not math.isfinite(watched.loss):
            return Stop(StopReason.DIVERGENCE, f"the loss is {watched.loss}")
        tried = [each for each in watched.history if not has_failed(each, self.metric, watched.columns)]
        measured = [self._is_measured(evaluation) for evaluation in tried]
        if len(measured) <= self.evaluations or not any(measured) or any(measured[-self.evaluations :]):
            return None
        return Stop(
            StopReason.DIVERGENCE,
            f"{self.metric} was measured before, but in no image of {last_ones(self.evaluations)}",
        )

    def _is_measured(self, evaluation: Evaluation) -> bool:
        found = evaluation.scores.get(self.metric)
        return found is not None and found.n > 0
