"""The stopping rules: each on curves that it must stop and on such that it must not, with and without noise."""

import math
import re

import numpy as np
import pytest

from benchmarks.noise import METRIC, history
from benchmarks.signals import CURVES, GRID, rates
from finetune_monitor import Divergence, Guard, Patience, Plateau, PromptGrid, Target
from finetune_monitor.monitor.stopping import Watched, check_rules
from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.evaluation import Evaluation, ScoredImage, StopReason, summarize
from finetune_monitor.stats.estimate import MISSING, Estimate

NAN = MISSING


def evaluations(*means: float, half: float = 0.0, n: int = 4) -> list[Evaluation]:
    found = [Estimate(m, m - half, m + half, 0 if m != m else n, 4 if m != m else 0) for m in means]
    return [Evaluation(300 * i, None, 0.0, {"x": estimate}) for i, estimate in enumerate(found)]


def stops(rule, *means: float, higher: bool = True, half: float = 0.0, ceiling: float = NAN) -> bool:
    ceilings = {"x": Estimate(ceiling, NAN, NAN, 5, 0)}
    return rule.decide(Watched(evaluations(*means, half=half), {"x": ScoreColumn(higher)}, ceilings)) is not None


@pytest.mark.parametrize(
    ("means", "expected"),
    [
        ([0.0, 0.1, 0.2, 0.3], False),
        ([0.0, 0.3, 0.2, 0.2], True),
        ([0.0, 0.3, 0.2], False),
        ([0.0, 0.3, 0.304, 0.302], True),  # better, but by less than min_delta
        ([0.0, 0.3, 0.2, 0.31, 0.2], False),  # an improvement starts the count anew
        ([0.0, 0.3, 0.2, NAN], False),  # what was not measured does not count ...
        ([0.0, 0.3, 0.2, NAN, 0.2], True),  # ... nor start the count anew
        ([NAN, NAN, NAN, NAN], False),
        ([], False),
    ],
)
def test_patience(means, expected):
    assert stops(Patience("x", patience=2, min_delta=0.005), *means) is expected


@pytest.mark.parametrize(
    ("means", "expected"),
    [
        ([0.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5], True),
        ([0.0, 0.5, 0.5, 0.5, 0.5, 0.5], False),  # five after step 0, two windows are six
        ([0.5, 0.5, 0.5, 0.5, 0.5, 0.5], False),  # step 0 is of the base model, and in no window
        ([0.0, 0.4, 0.5, 0.45, 0.44, 0.5, 0.46], False),  # the averages still rise
        ([0.0, 0.1, 0.2, 0.3, 0.3, 0.2, 0.1], True),
        ([0.0, 0.5, 0.5, NAN, 0.5, 0.5, NAN, 0.5], False),  # five that were measured
        ([0.0, 0.5, 0.5, NAN, 0.5, 0.5, NAN, 0.5, 0.5], True),
        ([NAN] * 9, False),
    ],
)
def test_plateau(means, expected):
    assert stops(Plateau("x"), *means) is expected


def test_plateau_waits_for_its_first_step_and_knows_which_way_is_better():
    flat = [0.5] * 8
    assert not stops(Plateau("x", min_steps=2400), *flat)
    assert stops(Plateau("x", min_steps=2100), *flat)
    falling = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]
    assert stops(Plateau("x"), *falling)
    assert not stops(Plateau("x"), *falling, higher=False)


@pytest.mark.parametrize(
    ("rule", "means", "half", "expected"),
    [
        (Target("x", score=0.5), [0.0, 0.4], 0.05, False),
        (Target("x", score=0.5), [0.0, 0.6], 0.05, True),  # the whole interval is beyond
        (Target("x", score=0.5), [0.0, 0.52], 0.05, False),  # once, and within the noise
        (Target("x", score=0.5), [0.0, 0.52, 0.51], 0.05, True),  # twice in a row
        (Target("x", score=0.5), [0.0, 0.52, 0.49, 0.51], 0.05, False),
        (Target("x", score=0.5), [0.9, 0.4], 0.05, False),  # the base model's score is no result
        (Target("x", score=0.5), [0.0, NAN], 0.05, False),
        (Target("x", share=0.5), [0.1, 0.52, 0.51], 0.05, True),  # 0.1 + half of 0.8
        (Target("x", share=0.6), [0.1, 0.52, 0.51], 0.05, False),
    ],
)
def test_target(rule, means, half, expected):
    assert stops(rule, *means, half=half, ceiling=0.9) is expected


def measured(column: ScoreColumn, *scores: float) -> Evaluation:
    """An evaluation at step 300 with a score per image."""
    cells = PromptGrid(["a"], images_per_prompt=len(scores)).cells
    images = tuple(ScoredImage(cell, None, {"x": score}) for cell, score in zip(cells, scores, strict=True))
    return Evaluation(300, None, 0.0, summarize(images, {"x": column}), images)


def test_two_equal_images_of_four_do_not_reach_a_target_at_once():
    rule, column = Target("x", score=0.5), ScoreColumn()
    lucky = measured(column, 0.9, 0.9, NAN, NAN)
    assert rule.decide(Watched([lucky], {"x": column})) is None
    assert rule.decide(Watched([lucky, lucky], {"x": column})) is not None
    assert rule.decide(Watched([measured(column, 0.9, 0.91, 0.89, 0.9)], {"x": column})) is not None


def test_the_share_of_a_few_images_of_a_prompt_does_not_reach_a_target_at_once():
    column = ScoreColumn(bounds=(0.0, 1.0), is_share=True)
    found = Watched([measured(column, 1.0, 1.0)], {"x": column})
    assert Target("x", score=0.9, prompts=[0]).decide(found) is None
    assert Target("x", score=0.3, prompts=[0]).decide(found) is not None


def test_a_share_of_the_way_to_no_ceiling_is_never_reached():
    assert not stops(Target("x", share=0.1), 0.1, 0.9, 0.9)


@pytest.mark.parametrize(
    ("rule", "means", "expected"),
    [
        (Guard("x", fall=0.2), [0.8, 0.7, 0.65], False),
        (Guard("x", fall=0.2), [0.8, 0.55, 0.7], False),
        (Guard("x", fall=0.2), [0.8, 0.7, 0.55, 0.5], True),
        (Guard("x", level=0.5), [0.8, 0.4], True),  # the interval is beyond
        (Guard("x", level=0.5), [0.8, 0.48, 0.7], False),
        (Guard("x", level=0.5), [0.8, 0.48, 0.47], True),
        (Guard("x", level=0.5), [0.8, NAN, NAN], False),
        (Guard("x", fall=0.2), [NAN, 0.2, 0.1], False),  # nothing to fall from
    ],
)
def test_guard(rule, means, expected):
    assert stops(rule, *means, half=0.05) is expected


@pytest.mark.parametrize(
    ("rule", "means", "expected"),
    [
        (Guard("x", level=0.5), [0.8, 0.7, 0.4], 600),
        (Guard("x", level=0.5), [0.8, 0.48, 0.47], 300),
        (Guard("x", level=0.5), [0.8, 0.48, 0.6, 0.4], 900),
        (Guard("x", fall=0.2), [0.8, 0.7, 0.55, 0.5], 600),
    ],
)
def test_a_guard_rejects_the_steps_since_the_score_was_last_within_its_limit(rule, means, expected):
    found = rule.decide(Watched(evaluations(*means, half=0.05), {"x": ScoreColumn(True)}))
    assert found.rejected_from == expected


def test_a_guard_fires_at_once_where_the_images_leave_no_doubt():
    for curve, expected in (([0.6, 0.1], True), ([0.6, 0.55], False)):
        found = history(np.random.default_rng(0), curve, GRID)
        assert (Guard(METRIC, fall=0.2).decide(Watched(found)) is not None) is expected


def test_divergence():
    assert stops(Divergence("x"), 0.1, 0.4, NAN, NAN)
    assert not stops(Divergence("x"), 0.1, 0.4, NAN)
    assert not stops(Divergence("x"), NAN, NAN, NAN, NAN)  # never measured: that has a reason of its own
    assert stops(Divergence("x", evaluations=1), 0.1, NAN)
    for loss, expected in ((0.1, False), (None, False), (math.nan, True), (math.inf, True)):
        found = Divergence("x").decide(Watched(evaluations(0.1), loss=loss))
        assert (found is not None) is expected


def test_each_rule_says_what_it_saw_with_its_numbers():
    found = history(np.random.default_rng(1), [0.1, *[0.5] * 7], GRID)
    expected = {
        Plateau(METRIC, min_delta=0.2): (StopReason.PLATEAU, "over the last 3 evaluations"),
        Patience(METRIC, patience=2, min_delta=0.3): (StopReason.PATIENCE, "6 evaluations in a row"),
        Target(METRIC, score=0.3): (StopReason.TARGET, "the target was 0.300"),
        Guard(METRIC, level=0.9): (StopReason.GUARD, "the limit was 0.9"),
    }
    for rule, (reason, words) in expected.items():
        stop = rule.decide(Watched(found))
        assert stop.reason == reason
        assert words in stop.detail
        assert METRIC in stop.detail


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (Plateau("x", window=1), r"x averaged 0\.300 over the last evaluation and 0\.500 over the one before, which"),
        (Divergence("x", evaluations=1), "in no image of the last evaluation$"),
    ],
)
def test_a_rule_about_one_evaluation_says_so(rule, said):
    means = (0.5, NAN) if isinstance(rule, Divergence) else (0.1, 0.5, 0.3)
    found = rule.decide(Watched(evaluations(*means), {"x": ScoreColumn(True)}))
    assert re.search(said, found.detail)


def test_a_rule_can_watch_some_prompts():
    """The first prompt's images get better to the end, the second's stay as they are."""
    still = history(np.random.default_rng(2), [0.1, *[0.5] * 6], PromptGrid(["a", "b"], images_per_prompt=8))
    rising = [
        Evaluation(each.step, None, 0.0, each.scores, tuple(_raised(image, index) for image in each.images))
        for index, each in enumerate(still)
    ]
    assert Plateau(METRIC, prompts=[0]).decide(Watched(rising)) is None
    stop = Plateau(METRIC, prompts=[1], min_delta=0.1).decide(Watched(rising))
    assert "face_similarity of prompt 1 averaged" in stop.detail


def _raised(image, index):
    if image.cell.prompt == "b":
        return image
    return type(image)(image.cell, None, {METRIC: image.scores[METRIC] + 0.2 * index})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Patience(patience=0), r"Patience\.patience: found 0, expected 1 or more"),
        (lambda: Patience(min_delta=-1), r"Patience\.min_delta: found -1"),
        (lambda: Plateau(window=0), r"Plateau\.window: found 0"),
        (lambda: Plateau(min_delta=math.nan), r"Plateau\.min_delta: found nan"),
        (lambda: Plateau(min_steps=-300), r"Plateau\.min_steps: found -300"),
        (lambda: Plateau(prompts=[]), r"Plateau\.prompts: found \[\]"),
        (lambda: Plateau(prompts=[-1]), r"Plateau\.prompts: found \[-1\]"),
        (lambda: Plateau(prompts=[0, 0]), r"Plateau\.prompts: found \[0, 0\]"),
        (lambda: Target(), r"Target\.score: found both or neither"),
        (lambda: Target(score=0.5, share=0.5), r"Target\.score: found both or neither"),
        (lambda: Target(share=1.2), r"Target\.share: found 1\.2"),
        (lambda: Guard(), r"Guard\.fall: found neither"),
        (lambda: Guard(fall=-0.1), r"Guard\.fall: found -0\.1"),
        (lambda: Plateau(min_delta=math.inf), r"Plateau\.min_delta: found inf, expected a finite number"),
        (lambda: Target(score=math.nan), r"Target\.score: found nan, expected a finite number"),
        (lambda: Guard(fall=math.inf), r"Guard\.fall: found inf, expected a finite number"),
        (lambda: Guard(level=-math.inf), r"Guard\.level: found -inf, expected a finite number"),
        (lambda: Divergence(evaluations=0), r"Divergence\.evaluations: found 0"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


@pytest.mark.parametrize(
    ("rule", "grid", "said"),
    [
        (Plateau(prompts=[4]), GRID, "found 4, expected 0 to 3"),
        (Plateau(), PromptGrid(["a"], images_per_prompt=1), "watches images of 1 seed"),
        (Plateau(), PromptGrid(["a", "b"], seeds=[3]), "watches images of 1 seed"),
        (Plateau(prompts=[1]), PromptGrid(["a", "b"], images_per_prompt=1), "watches images of 1 seed"),
        (Target(score=1.5), GRID, "score: found 1.5, expected -1 to 1"),
        (Guard(level=-2), GRID, "level: found -2, expected -1 to 1"),
        (Target(share=0.5), GRID, "face_similarity has no ceiling"),
    ],
)
def test_a_rule_that_grid_or_metrics_cannot_serve_is_refused(rule, grid, said):
    columns = {METRIC: ScoreColumn(bounds=(-1.0, 1.0))}
    with pytest.raises(ValueError, match=said):
        check_rules([rule], grid, columns, {METRIC: Estimate(NAN, NAN, NAN, 1, 0)})
    check_rules([Plateau(), Target(share=0.5)], GRID, columns, {METRIC: Estimate(0.8, 0.7, 0.9, 5, 0)})


@pytest.mark.slow
@pytest.mark.parametrize("curve", CURVES, ids=str)
def test_the_default_rule_and_the_smoothed_curve_keep_to_their_published_rates(curve):
    """As benchmarks/SIGNALS.md has them from 2,000 runs; 400 here, with tolerances of about three standard errors."""
    found = rates(Plateau(METRIC), CURVES[curve], runs=400, seed=11)
    if curve == "slow rise":
        assert found.early <= 0.04
        assert found.lost <= 0.05
    if curve == "overfitting":
        assert found.lost <= 0.07
    if curve == "plateau":
        assert found.unstopped <= 0.08
    assert abs(found.bias) <= (0.035 if curve == "plateau" else 0.025)
