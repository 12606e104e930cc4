"""What a monitor concludes: the alarms, which step is best, and whether training continues."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from finetune_monitor.base import distributed
from finetune_monitor.metrics import Descriptions
from finetune_monitor.monitor.evaluator import WarnOnce
from finetune_monitor.monitor.stopping import Stop, StoppingRule, Watched, decide
from finetune_monitor.monitor.user_code import UserCode
from finetune_monitor.record.alarms import alarms
from finetune_monitor.record.evaluation import Decision, Evaluation, StopReason, scheduled
from finetune_monitor.stats.estimate import Estimate


class Judge:
    """Asks the rules after every evaluation; every process gets the decision of the first.

    Args:
        best_metric: the column that determines the best step.

    Attributes:
        decision: the decision on the evaluations so far.
    """

    def __init__(
        self,
        rules: Sequence[StoppingRule],
        described: Descriptions,
        best_metric: str,
        code: UserCode,
        warn: WarnOnce,
    ) -> None:
        self._rules, self._best_metric = rules, best_metric
        self._columns, self._ceilings = described.columns, described.ceilings
        self._code, self._warn = code, warn
        self._loss: float | None = None
        self._is_stopped = False
        self.decision = Decision()

    def judged(
        self, evaluation: Evaluation, earlier: Sequence[Evaluation], derived: Mapping[str, Estimate]
    ) -> Evaluation:
        """The evaluation with the scores that depend on the entire history, the alarms, and the decision."""
        evaluation = replace(evaluation, scores={**evaluation.scores, **derived})
        evaluation = replace(evaluation, alarms=alarms((*scheduled(earlier), evaluation), self._columns))
        return replace(evaluation, decision=self.decide((*earlier, evaluation)))

    def decide(self, history: Sequence[Evaluation]) -> Decision:
        """The decision of the rules, or of a person; a resumed run uses its current rules."""
        watched = Watched(history, self._columns, self._ceilings, self._loss)
        found = distributed.gather(decide(watched, self._rules, self._best_metric, self._ask))[0]
        if self._is_stopped:
            found = replace(found, stop=True, reason=StopReason.REQUESTED, detail="")
        self.decision = found
        return found

    def stop(self, history: Sequence[Evaluation]) -> None:
        """End training because a person has asked for it."""
        self._is_stopped = True
        self.decide(history)

    def watch_loss(self, loss: float, history: Sequence[Evaluation]) -> None:
        """Share one loss among all processes: the first that is not finite, or that of the first process."""
        found = distributed.gather(loss)
        self._loss = watched = next((each for each in found if not math.isfinite(each)), found[0])
        if not math.isfinite(watched):
            self._code.begin()
            self.decide(history)

    def _ask(self, rule: StoppingRule, asked: Callable[[], Stop | None]) -> Stop | None:
        """Ask a rule; if it fails, it is ignored with one warning."""
        name = type(rule).__name__
        return self._code.call(
            asked, lambda why: self._warn(f"rule {name}", f"stopping rule {name} failed and is ignored: {why}")
        )
