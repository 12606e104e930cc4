"""Stop when a score gets worse than a limit."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import ClassVar

from finetune_monitor.monitor.rules.watching import at_least, check_prompts, finite, named
from finetune_monitor.monitor.stopping import Stop, Watched
from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.curve import Point, change_between, holds, is_worse, worse_end
from finetune_monitor.record.evaluation import StopReason
from finetune_monitor.stats.estimate import shown, shown_value


@dataclass(frozen=True)
class Guard:
    """Stop when a score gets worse: by more than `fall` since step 0, or beyond `level`.

    Chance alone must not trigger it: the interval is beyond the level, or the interval of the change since step 0
    excludes 0; or the means of two evaluations in a row are beyond the limit.

    Args:
        fall: how much worse than at step 0 the score may get, in the metric's unit.
        level: the worst score allowed.
        prompts: 0-based indices of the grid's prompts to watch; None for all.

    Raises:
        ValueError: neither `fall` nor `level` is given, one is not finite, `fall` is below 0, or `prompts` are not
            valid indices.
    """

    name: ClassVar[str] = "guard"

    metric: str = "face_similarity"
    fall: float | None = None
    level: float | None = None
    prompts: list[int] | None = None

    def __post_init__(self) -> None:
        if self.fall is None and self.level is None:
            raise ValueError("Guard.fall: found neither fall nor level, expected one or both")
        finite(self, "level")
        if self.fall is not None:
            at_least(self, fall=0)
        check_prompts(self)

    def decide(self, watched: Watched) -> Stop | None:
        found, sign = watched.points(self.metric, self.prompts), watched.sign(self.metric)
        trained = [point for point in found if point.step > 0]
        if not trained:
            return None
        return self._below_level(trained, sign) or self._fallen(found, sign, watched.column(self.metric))

    def _below_level(self, trained: Sequence[Point], sign: float) -> Stop | None:
        if self.level is None or not is_worse([point.score for point in trained], self.level, sign):
            return None
        beyond = [sign * (point.score.mean - self.level) < 0 for point in trained]
        return _stop(trained, beyond, f"{named(self)} is {shown(trained[-1].score)}, the limit was {self.level:g}")

    def _fallen(self, found: Sequence[Point], sign: float, column: ScoreColumn) -> Stop | None:
        first, *trained = found
        if self.fall is None or first.step != 0:
            return None
        beyond = [sign * (first.score.mean - point.score.mean) > self.fall for point in trained]
        change = change_between(first, trained[-1], self.metric, column)
        if not holds(beyond, sure=worse_end(change, -sign) > 0):
            return None
        return _stop(
            trained,
            beyond,
            f"{named(self)} is {shown(trained[-1].score)}, it was {shown_value(first.score.mean)} at step 0 and may "
            f"get worse by at most {self.fall:g}",
        )


def _stop(trained: Sequence[Point], beyond: Sequence[bool], detail: str) -> Stop:
    """The decision to stop; the steps since the score was last within its limit cannot be the best."""
    since = takewhile(lambda pair: pair[1], zip(reversed(trained), reversed(beyond), strict=True))
    return Stop(StopReason.GUARD, detail, min(point.step for point, _ in since))
