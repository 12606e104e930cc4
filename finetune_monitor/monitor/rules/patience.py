"""Stop when no evaluation has beaten the best one for a while."""

import math
from dataclasses import dataclass
from typing import ClassVar

from finetune_monitor.base.text import counted
from finetune_monitor.monitor.rules.watching import at_least, check_prompts, named
from finetune_monitor.monitor.stopping import Stop, Watched
from finetune_monitor.record.evaluation import StopReason
from finetune_monitor.stats.estimate import shown_value


@dataclass(frozen=True)
class Patience:
    """Stop after `patience` evaluations in a row that did not beat the best by more than `min_delta`.

    An evaluation in which the metric was not measured neither counts nor resets the count.

    Args:
        prompts: 0-based indices of the grid's prompts to watch; None for all.

    Raises:
        ValueError: `patience` is below 1, `min_delta` is below 0, or `prompts` are not valid indices.
    """

    name: ClassVar[str] = "patience"

    metric: str = "face_similarity"
    patience: int = 4
    min_delta: float = 0.005
    prompts: list[int] | None = None

    def __post_init__(self) -> None:
        at_least(self, patience=1, min_delta=0)
        check_prompts(self)

    def decide(self, watched: Watched) -> Stop | None:
        sign, best, step, waited = watched.sign(self.metric), -math.inf, 0, 0
        for point in watched.points(self.metric, self.prompts):
            value = sign * point.score.mean
            better = value > best + self.min_delta
            best, step, waited = (value, point.step, 0) if better else (best, step, waited + 1)
        if waited < self.patience:
            return None
        return Stop(
            StopReason.PATIENCE,
            f"{counted(waited, 'evaluation')} in a row did not beat the best {named(self)}, {shown_value(sign * best)} "
            f"at step {step}, by more than {self.min_delta:g}",
        )
