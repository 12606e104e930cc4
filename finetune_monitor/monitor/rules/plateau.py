"""Stop when the last evaluations are on average no better than the ones before: the default rule."""

import math
from dataclasses import dataclass
from typing import ClassVar

from finetune_monitor.monitor.rules.watching import at_least, check_prompts, last_ones, named
from finetune_monitor.monitor.stopping import Stop, Watched
from finetune_monitor.record.evaluation import StopReason
from finetune_monitor.stats.estimate import shown_value


@dataclass(frozen=True)
class Plateau:
    """Stop when the last `window` evaluations are on average at most `min_delta` better than the `window` before.

    Step 0 is not included. As measured in benchmarks/SIGNALS.md, it mistakes a slow rise for a plateau less often
    than patience does, because it compares averages rather than single evaluations.

    Args:
        min_steps: never stop before this step.
        prompts: 0-based indices of the grid's prompts to watch; None for all.

    Raises:
        ValueError: `window` is below 1, `min_delta` or `min_steps` is below 0, or `prompts` are not valid indices.
    """

    name: ClassVar[str] = "plateau"

    metric: str = "face_similarity"
    window: int = 3
    min_delta: float = 0.005
    min_steps: int = 0
    prompts: list[int] | None = None

    def __post_init__(self) -> None:
        at_least(self, window=1, min_delta=0, min_steps=0)
        check_prompts(self)

    def decide(self, watched: Watched) -> Stop | None:
        trained = [point for point in watched.points(self.metric, self.prompts) if point.step > 0]
        if len(trained) < 2 * self.window or trained[-1].step < self.min_steps:
            return None
        means = [point.score.mean for point in trained]
        last = math.fsum(means[-self.window :]) / self.window
        before = math.fsum(means[-2 * self.window : -self.window]) / self.window
        if watched.sign(self.metric) * (last - before) > self.min_delta:
            return None
        return Stop(
            StopReason.PLATEAU,
            f"{named(self)} averaged {shown_value(last)} over {last_ones(self.window)} and {shown_value(before)} over "
            f"the {'one' if self.window == 1 else self.window} before, which is not an improvement by more than "
            f"{self.min_delta:g}",
        )
