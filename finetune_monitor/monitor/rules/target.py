"""Stop when a score is reached."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from finetune_monitor.monitor.rules.watching import check_prompts, finite, named
from finetune_monitor.monitor.stopping import Stop, Watched
from finetune_monitor.record.curve import Point, holds, worse_end
from finetune_monitor.record.evaluation import StopReason
from finetune_monitor.stats.estimate import Estimate, shown, shown_value


@dataclass(frozen=True)
class Target:
    """Stop when a score is reached: `score`, or `share` of the way from the base model to the real photos.

    The target is reached if the entire interval is beyond it, or the means of two evaluations in a row are: one lucky
    evaluation is not enough.

    Args:
        score: the score to reach, in the metric's unit.
        share: the share of the way to reach: 0 is the score at step 0, 1 is the ceiling, which the metric must have.
        prompts: 0-based indices of the grid's prompts to watch; None for all.

    Raises:
        ValueError: not exactly one of `score` and `share` is given, it is out of range, or `prompts` are not valid
            indices.
    """

    name: ClassVar[str] = "target"

    metric: str = "face_similarity"
    score: float | None = None
    share: float | None = None
    prompts: list[int] | None = None

    def __post_init__(self) -> None:
        if (self.score is None) == (self.share is None):
            raise ValueError("Target.score: found both or neither of score and share, expected exactly one")
        finite(self, "score")
        if self.share is not None and not 0 < self.share <= 1:
            raise ValueError(f"Target.share: found {self.share:g}, expected more than 0 and at most 1")
        check_prompts(self)

    def decide(self, watched: Watched) -> Stop | None:
        found = watched.points(self.metric, self.prompts)
        wanted = self._wanted(found, watched.ceilings)
        trained = [point for point in found if point.step > 0]
        if wanted is None or not trained:
            return None
        sign = watched.sign(self.metric)
        beyond = [sign * (point.score.mean - wanted) >= 0 for point in trained]
        if not holds(beyond, sure=worse_end(trained[-1].score, sign) >= sign * wanted):
            return None
        way = f", {100 * self.share:g}% of the way to the photos" if self.share is not None else ""
        return Stop(
            StopReason.TARGET,
            f"{named(self)} is {shown(trained[-1].score)}, the target was {shown_value(wanted)}{way}",
        )

    def _wanted(self, found: Sequence[Point], ceilings: Mapping[str, Estimate]) -> float | None:
        if self.share is None:
            return self.score
        ceiling = ceilings.get(self.metric)
        if ceiling is None or math.isnan(ceiling.mean) or not found or found[0].step != 0:
            return None
        floor = found[0].score.mean
        return floor + self.share * (ceiling.mean - floor)
