"""When evaluations come, and when they are put off."""

import pytest

from finetune_monitor.monitor import budget
from finetune_monitor.monitor.budget import Budget


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when a test says so."""
    now = [0.0]
    monkeypatch.setattr(budget.time, "monotonic", lambda: now[0])

    def advance(seconds):
        now[0] += seconds

    return advance


def evaluated_steps(pace, clock, steps, seconds_a_step, cost, start=0):
    """Train step by step and note which are evaluated."""
    found = []
    for step in range(start + 1, steps + 1):
        clock(seconds_a_step)
        if pace.crosses(step) and pace.is_affordable(step):
            clock(cost)
            pace.train_from(step, step, cost)
            found.append(step)
    return found


@pytest.mark.parametrize(
    ("max_overhead", "cost", "expected"),
    [
        (None, 100.0, [10, 20, 30, 40, 50, 60]),
        (0.5, 10.0, [10, 20, 30, 40, 50, 60]),  # ten steps of a second for ten seconds: half of the time
        (0.25, 10.0, [30, 60]),
        (0.05, 10.0, []),
    ],
)
def test_evaluations_come_as_often_as_the_budget_allows(clock, max_overhead, cost, expected):
    pace = Budget(10, max_overhead)
    pace.train_from(0, 0, cost)
    assert evaluated_steps(pace, clock, 60, 1.0, cost) == expected


def test_a_resumed_run_counts_the_steps_before_it(clock):
    """The last evaluation was at step 10, the checkpoint at 25: at step 30 it has paid for the next one."""
    pace = Budget(10, 0.34)
    pace.train_from(25, 10, 10.0)
    assert evaluated_steps(pace, clock, 30, 1.0, 10.0, start=25) == [30]


def test_a_resumed_run_makes_up_for_an_interrupted_evaluation_and_for_no_postponed_one():
    for step, is_due in ((25, False), (30, True)):
        pace = Budget(10, 0.34)
        pace.train_from(step, 10, 10.0)
        assert pace.crosses(step) == is_due


@pytest.mark.parametrize(
    ("max_overhead", "interval", "share"), [(None, 300, 1 / 4), (0.2, 600, 1 / 7), (0.1, 900, 0.1)]
)
def test_the_interval_is_known_beforehand(max_overhead, interval, share):
    pace = Budget(300, max_overhead)
    pace.train_from(0, 0, 10.0)
    assert pace.interval(0.1) == interval
    assert pace.share(interval, 0.1) == pytest.approx(share)


def test_what_the_first_evaluation_costs_holds_back_none(clock):
    """It compiles and loads; only the next one tells what all others will cost."""
    pace = Budget(10, 0.1)
    pace.train_from(0, 0, 1000.0, warm=False)
    clock(10)
    assert pace.is_affordable(10)
    pace.train_from(10, 10, 20.0)
    clock(10)
    assert not pace.is_affordable(20)


def test_a_step_that_an_interrupted_run_did_not_judge_is_judged(clock):
    pace = Budget(10, 0.1)
    pace.train_from(20, 10, 1000.0)
    assert pace.crosses(20)
    assert pace.is_affordable(20)


def test_a_step_is_evaluated_once(clock):
    pace = Budget(5)
    assert not pace.crosses(0)
    assert pace.crosses(5)
    pace.train_from(5, 5, 1.0)
    assert not pace.crosses(5)
    assert not pace.crosses(7)


@pytest.mark.parametrize(("every", "max_overhead"), [(0, None), (1, 0.0), (1, 1.0), (1, 5)])
def test_what_makes_no_sense_is_refused(every, max_overhead):
    with pytest.raises(ValueError, match="found"):
        Budget(every, max_overhead)
