"""What the rules decide together, and what must never count."""

import pytest

from finetune_monitor import Patience
from finetune_monitor.monitor.stopping import Stop, Watched, decide
from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.evaluation import Evaluation, StopReason
from finetune_monitor.stats.estimate import MISSING, Estimate

NAN = MISSING


def watched(*means: float, higher: bool | None = True) -> Watched:
    estimates = [Estimate(m, m, m, 0 if m != m else 4, 4 if m != m else 0) for m in means]
    history = [Evaluation(300 * i, None, 0.0, {"x": estimate}) for i, estimate in enumerate(estimates)]
    return Watched(history, {"x": ScoreColumn(higher)})


def test_the_first_rule_that_stops_gives_the_reason_and_its_numbers():
    rules = [Patience("x", patience=9), Patience("x", patience=1)]
    decision = decide(watched(0.3, 0.2), rules, "x")
    assert (decision.stop, decision.reason, decision.best_step) == (True, StopReason.PATIENCE, 0)
    assert decision.best_score == pytest.approx(0.3)
    assert decision.why.startswith("the score stopped improving: 1 evaluation in a row did not beat the best x, 0.300")


def test_the_step_at_which_a_guard_stops_is_not_the_best():
    decision = decide(watched(0.1, 0.3, 0.5, 0.9), [Always(Stop(StopReason.GUARD, "copying is 0.25", 900))], "x")
    assert (decision.stop, decision.reason, decision.best_step) == (True, StopReason.GUARD, 600)


def test_a_metric_that_is_never_measured_has_its_own_reason_and_does_not_stop():
    blind = decide(watched(NAN, NAN, NAN, NAN), [Patience("x", patience=1)], "x")
    assert (blind.stop, blind.reason, blind.best_step) == (False, StopReason.NEVER_MEASURED, None)
    assert decide(watched(NAN), [], "x").reason is None


class Always:
    """A rule with a reason of its own."""

    metric = "x"

    def __init__(self, found: Stop | str) -> None:
        self._found = found

    def decide(self, watched: Watched) -> Stop | str | None:
        return self._found if len(watched.history) > 1 else None


@pytest.mark.parametrize("found", ["five o'clock", Stop("five o'clock", "it is 17:02")])
def test_a_rule_of_the_users_own_may_give_any_reason(found):
    decision = decide(watched(0.3, 0.2), [Always(found)], "x")
    assert (decision.stop, decision.reason) == (True, "five o'clock")
    assert decision.why in ("five o'clock", "five o'clock: it is 17:02")


def test_a_column_of_which_lower_is_better_is_judged_so():
    rules = [Patience("x", patience=2)]
    falling = (0.9, 0.5, 0.4, 0.3)
    assert not decide(watched(*falling, higher=False), rules, "x").stop
    assert decide(watched(*falling), rules, "x").stop
