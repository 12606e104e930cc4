"""The Pareto front: the steps that nothing beats in both scores, and those that may still join them."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.evaluation import Decision, Evaluation
from finetune_monitor.record.pareto import pareto_columns, pareto_contenders, pareto_front
from finetune_monitor.stats.estimate import MISSING, Estimate

COLUMNS = {
    "face": ScoreColumn(metric="face"),
    "face_held_out": ScoreColumn(metric="face"),
    "face_stars": ScoreColumn(role="stars", of="face", metric="face"),
    "copying": ScoreColumn(False, metric="copying", alarm=0.1),
    "diversity": ScoreColumn(None, metric="diversity"),
    "aesthetic": ScoreColumn(metric="aesthetic"),
    "loss": ScoreColumn(False, metric="loss"),
}


def history(pairs: list[tuple[float, float]], second: str = "aesthetic") -> list[Evaluation]:
    """Evaluations from step 0 on, with the scores of both columns; NaN was not measured."""
    return [
        Evaluation(step, None, 0.0, {name: estimate(value) for name, value in (("face", first), (second, other))})
        for step, (first, other) in enumerate(pairs)
    ]


def estimate(value: float) -> Estimate:
    return Estimate(value, MISSING, MISSING, int(value == value), int(value != value))


@pytest.mark.parametrize("best", ["face", "face_stars", "face_held_out"])
def test_the_second_score_is_of_another_metric_and_has_a_direction_and_no_alarm(best):
    assert pareto_columns(COLUMNS, best) == (best, "aesthetic")


@pytest.mark.parametrize("best", ["diversity", "loss"])
def test_without_two_directions_there_is_no_front(best):
    columns = {name: COLUMNS[name] for name in ("diversity", "loss")}
    assert pareto_columns(columns, best) is None
    assert pareto_front(history([(0.1, 0.2)]), columns, best) is None


def test_the_front_is_of_the_smoothed_curves():
    found = pareto_front(history([(0.1, 0.9), (0.4, 0.6), (0.4, 0.4), (0.8, 0.2)]), COLUMNS, "face")
    assert found.points[0] == (0.1, 0.9)
    assert found.points[2] == pytest.approx((0.5, 0.4))
    assert found.steps == (0, 1, 2, 3)


def test_a_step_that_is_beaten_in_both_is_not_on_it_and_one_without_a_score_has_no_place():
    found = pareto_front(history([(0.1, 0.1), (0.5, 0.5), (MISSING, 0.9), (0.5, MISSING)]), COLUMNS, "face")
    assert set(found.points) == {0, 1}
    assert found.steps == (1,)


def test_less_is_better_where_the_column_says_so():
    columns = {name: COLUMNS[name] for name in ("face", "loss")}
    found = pareto_front(history([(0.1, 0.9), (0.5, 0.5)], "loss"), columns, "face")
    assert found.steps == (1,)


def test_equal_steps_are_both_on_it():
    assert pareto_front(history([(0.1, 0.1), (0.5, 0.5), (0.5, 0.5)]), COLUMNS, "face").steps == (1, 2)


SCORES = st.sampled_from([0.1, 0.3, 0.5, 0.7, MISSING])


@given(st.lists(st.tuples(SCORES, SCORES), min_size=1, max_size=9))
def test_what_is_on_it_was_kept_all_along(pairs):
    kept: set[int] = set()
    for last in range(len(pairs)):
        known = history(pairs[: last + 1])
        kept = (kept | {last}) & set(pareto_contenders(known, COLUMNS, "face"))
        front = pareto_front(known, COLUMNS, "face")
        assert set(front.steps if front else ()) <= kept


def test_steps_that_a_guard_has_rejected_are_not_on_the_front():
    found = history([(0.1, 0.1), (0.5, 0.4), (0.9, 0.9), (0.8, 0.8)])
    ended = replace(found[-1], decision=Decision(True, "guard", rejected_from=2))
    assert pareto_front(found, COLUMNS, "face").steps == (3,)
    front = pareto_front([*found[:-1], ended], COLUMNS, "face")
    assert front.steps == (1,)
    assert set(front.points) == {0, 1, 2, 3}
