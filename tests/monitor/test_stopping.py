"""Patience, the best step, and what must never count."""

import pytest

from finetune_monitor import Patience
from finetune_monitor.monitor.stopping import decide
from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.evaluation import Evaluation, StopReason, best_step
from finetune_monitor.stats.estimate import MISSING, Estimate

NAN = MISSING


def history(*means: float, n: int = 4, missing: int = 0) -> list[Evaluation]:
    estimates = [Estimate(m, m, m, 0 if m != m else n, 4 if m != m else missing) for m in means]
    return [Evaluation(300 * i, None, 0.0, {"x": estimate}) for i, estimate in enumerate(estimates)]


@pytest.mark.parametrize(
    ("means", "reason"),
    [
        ([0.0, 0.1, 0.2, 0.3], None),
        ([0.0, 0.3, 0.2, 0.2], StopReason.PATIENCE),
        ([0.0, 0.3, 0.2], None),
        ([0.0, 0.3, 0.304, 0.302], StopReason.PATIENCE),  # better, but by less than min_delta
        ([0.0, 0.3, 0.2, 0.31, 0.2], None),  # an improvement starts the count anew
        ([0.0, 0.3, 0.2, NAN], None),  # what was not measured does not count ...
        ([0.0, 0.3, 0.2, NAN, 0.2], StopReason.PATIENCE),  # ... nor start the count anew
        ([NAN, NAN], None),
        ([NAN, NAN, NAN, NAN], None),
        ([], None),
    ],
)
def test_patience(means, reason):
    assert Patience("x", patience=2, min_delta=0.005).decide(history(*means), True) == reason


def test_lower_can_be_better():
    falling = history(0.9, 0.5, 0.4, 0.3)
    assert Patience("x", patience=2).decide(falling, False) is None
    assert Patience("x", patience=2).decide(falling, True) == StopReason.PATIENCE
    assert best_step(falling, "x", False) == 900


def test_the_best_step_is_the_earliest_of_equals_and_never_a_missing_one():
    assert best_step(history(NAN, 0.2, 0.3, 0.3, NAN), "x") == 600
    assert best_step(history(NAN, NAN), "x") is None


def test_a_mean_over_few_of_the_images_is_never_the_best():
    lucky = [*history(0.1, 0.2), *history(0.0, 0.0, 0.9, n=1, missing=3)[2:]]
    assert best_step(lucky, "x") == 300


def test_the_first_rule_that_stops_gives_the_reason():
    rules = [Patience("x", patience=9), Patience("x", patience=1)]
    decision = decide(history(0.3, 0.2), rules, "x", {"x": ScoreColumn(True)})
    assert (decision.stop, decision.reason, decision.best_step) == (True, StopReason.PATIENCE, 0)


def test_a_metric_that_is_never_measured_has_its_own_reason_and_does_not_stop():
    blind = decide(history(NAN, NAN, NAN, NAN), [Patience("x", patience=1)], "x", {})
    assert (blind.stop, blind.reason, blind.best_step) == (False, StopReason.NEVER_MEASURED, None)
    assert decide(history(NAN), [], "x", {}).reason is None


@pytest.mark.parametrize("arguments", [{"patience": 0}, {"min_delta": -1}])
def test_a_rule_that_makes_no_sense_is_refused(arguments):
    with pytest.raises(ValueError, match=r"Patience\.(patience|min_delta): found"):
        Patience(**arguments)


class Always:
    """A rule with a reason of its own."""

    metric = "x"

    def decide(self, history, higher_is_better) -> str | None:
        return "five o'clock" if len(history) > 1 else None


def test_a_rule_of_the_users_own_may_give_any_reason():
    decision = decide(history(0.3, 0.2), [Always()], "x", {})
    assert (decision.stop, decision.reason) == (True, "five o'clock")


def test_a_column_of_which_lower_is_better_is_judged_so():
    rules = [Patience("x", patience=2)]
    falling = history(0.9, 0.5, 0.4, 0.3)
    assert not decide(falling, rules, "x", {"x": ScoreColumn(False)}).stop
    assert decide(falling, rules, "x", {"x": ScoreColumn(True)}).stop
