"""The smoothed curve, its best step, the way to the photos, and the smallest change that a grid shows."""

import math
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.noise import METRIC, history
from finetune_monitor.record.columns import SIDE, ScoreColumn
from finetune_monitor.record.curve import (
    best_of,
    change_between,
    contenders,
    points,
    points_of_prompts,
    resolution,
    smoothed,
    way,
    ways,
)
from finetune_monitor.record.evaluation import Decision, Evaluation, ScoredImage, StopReason, summarize
from finetune_monitor.record.grid import PromptGrid
from finetune_monitor.stats.estimate import MISSING, Estimate
from finetune_monitor.stats.intervals import WHAT_THEY_KNOW

NAN = MISSING
GRID = PromptGrid(["a", "b"])


def evaluations(*means: float, n: int = 4, missing: int = 0) -> list[Evaluation]:
    estimates = [Estimate(m, m, m, 0 if m != m else n, 4 if m != m else missing) for m in means]
    return [Evaluation(300 * i, None, 0.0, {"x": estimate}) for i, estimate in enumerate(estimates)]


def test_each_mean_is_drawn_half_way_to_its_neighbors_and_step_0_is_left_alone():
    found = smoothed(points(evaluations(0.1, 0.4, 0.8, 0.6), "x"))
    assert found == pytest.approx([0.1, (0.8 + 0.8) / 3, (0.4 + 1.6 + 0.6) / 4, (1.2 + 0.8) / 3])


def test_the_best_step_is_that_of_the_smoothed_curve():
    lucky = evaluations(0.0, 0.3, 0.62, 0.3, 0.55, 0.6, 0.55)
    assert best_of(lucky, "x") == (1500, pytest.approx((0.55 + 1.2 + 0.55) / 4))
    assert best_of(evaluations(0.9, 0.5, 0.4, 0.3), "x", higher_is_better=False)[0] == 900


def test_the_best_step_is_the_earliest_of_equals_and_never_a_missing_one():
    assert best_of(evaluations(NAN, 0.3, 0.3, 0.3, NAN), "x") == (300, pytest.approx(0.3))
    assert best_of(evaluations(NAN, NAN), "x") is None


def test_a_mean_over_few_of_the_images_is_never_the_best():
    lucky = [*evaluations(0.1, 0.2), *evaluations(0.0, 0.0, 0.9, n=1, missing=3)[2:]]
    assert best_of(lucky, "x")[0] == 300


def test_a_step_that_crossed_a_guards_limit_is_never_the_best():
    *before, last = evaluations(0.1, 0.3, 0.5, 0.9)
    stopped = [*before, replace(last, decision=Decision(True, StopReason.GUARD, rejected_from=900))]
    twice = [*before, replace(last, decision=Decision(True, StopReason.GUARD, rejected_from=600))]
    assert (best_of(twice, "x")[0], contenders(twice, "x")) == (300, [300, 900])
    assert best_of([*before, last], "x")[0] == 900
    assert best_of(stopped, "x") == (600, pytest.approx((0.3 + 1.0 + 0.9) / 4))
    assert 600 in contenders(stopped, "x")
    assert contenders([*stopped, replace(last, step=1200)], "x") == [600, 1200]


def test_the_weights_that_must_be_kept_are_those_of_two_steps_whatever_comes():
    """The best step is always one of the contenders, and each was the newest or a contender before."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        means, held = rng.random(9), set()
        for count in range(1, 10):
            found = evaluations(*means[:count])
            wanted = contenders(found, "x")
            newest = found[-1].step
            assert set(wanted) <= held | {newest}
            assert best_of(found, "x")[0] in wanted
            assert len(wanted) <= 2
            held = set(wanted)


def test_a_change_is_over_the_cells_that_both_have():
    first, second = history(np.random.default_rng(1), [0.1, 0.5], GRID)
    pair = points([first, second], METRIC)
    change = change_between(*pair, METRIC, SIDE)
    assert change.mean == pytest.approx(pair[1].score.mean - pair[0].score.mean)
    assert change.low < 0.4 < change.high


SHARE = ScoreColumn(True, (0.0, 1.0), is_share=True)


def measured(column: ScoreColumn, *rows: list[float]) -> list[Evaluation]:
    """Evaluations with these scores of each image; each image has its own seed."""
    cells = PromptGrid(["a"], images_per_prompt=len(rows[0])).cells
    images = [
        tuple(ScoredImage(cell, None, {"x": score}) for cell, score in zip(cells, row, strict=True)) for row in rows
    ]
    return [Evaluation(300 * i, None, 0.0, summarize(own, {"x": column}), own) for i, own in enumerate(images)]


def test_a_share_that_changes_in_every_image_is_not_certain():
    found = change_between(*points(measured(SHARE, [0.0] * 12, [1.0] * 12), "x"), "x", SHARE)
    assert (found.mean, found.low, found.high) == pytest.approx((1.0, 0.587, 1.0), abs=5e-4)


def test_the_change_of_a_share_is_over_the_images_measured_in_both():
    found = change_between(*points(measured(SHARE, [0.0, NAN, 0.0, 1.0], [1.0, 1.0, NAN, 1.0]), "x"), "x", SHARE)
    assert (found.mean, found.n, found.missing) == (0.5, 2, 2)
    assert found.low < 0 < found.high <= 1


def test_the_share_of_some_prompts_is_not_certain_if_all_their_images_agree():
    [found] = points_of_prompts(measured(SHARE, [1.0] * 4), "x", SHARE, [0])
    assert 0.5 < found.score.low < 0.6


def test_what_differs_by_rounding_alone_does_not_vary():
    history = measured(SIDE, [0.7, 0.6], [0.9, 0.8])  # 0.9 - 0.7 and 0.8 - 0.6 differ by 1e-16
    assert resolution(history, "x") is None
    change = change_between(*points(history, "x"), "x", SIDE)
    assert (change.mean, change.low, change.high) == pytest.approx((0.2, NAN, NAN), nan_ok=True)


def test_some_prompts_alone_can_be_watched():
    found = history(np.random.default_rng(0), [0.1, 0.5], GRID)
    second = points_of_prompts(found, METRIC, SIDE, [1])[1]
    assert {image.cell.prompt for image in second.images} == {"b"}
    assert second.score.mean == pytest.approx(np.mean([image.scores[METRIC] for image in found[1].images[4:]]))
    assert second.score.n == 4


def test_the_score_of_the_best_step_is_optimistic_and_readers_are_told():
    rng, plateau = np.random.default_rng(3), [0.0, *[0.5] * 8]
    runs = [history(rng, plateau, GRID) for _ in range(30)]
    found = [next(each for each in run if each.step == best_of(run, METRIC)[0]).scores[METRIC].mean for run in runs]
    assert 0.02 < np.mean(found) - 0.5 < 0.1
    assert "its own is slightly optimistic" in WHAT_THEY_KNOW


def test_how_far_the_best_step_came():
    found = history(np.random.default_rng(1), [0.1, 0.5], PromptGrid(["a", "b"], images_per_prompt=50))
    ceiling = Estimate(0.9, 0.85, 0.95, 8, 0)
    share = way(*found, METRIC, ceiling)
    assert share.low < 0.5 < share.high
    assert ways(found, 300, {METRIC: ceiling}) == {METRIC: share}
    assert ways(found, 0, {METRIC: ceiling}) == {}
    assert ways(found, 300, {METRIC: Estimate(NAN, NAN, NAN, 1, 0)}) == {}


def test_the_smallest_change_comes_from_how_the_same_cells_move():
    """About 2.9 standard errors of a paired difference (two-sided 5%, power 80%, large samples)."""
    many = PromptGrid(["a", "b"], images_per_prompt=200)
    found = resolution(history(np.random.default_rng(2), [0.0, 0.4, 0.5, 0.5, 0.5], many), METRIC)
    expected = 2.8 * np.sqrt(2 * (0.102**2 + 0.087**2) / 400)
    assert found.change == pytest.approx(expected, rel=0.05)
    assert found.with_more == pytest.approx(found.change / 2, rel=0.01)
    assert "with 400 images this grid can detect a change of 0.027; with 1600 images, 0.013" in str(found)


def test_images_that_could_not_be_measured_detect_nothing():
    many = PromptGrid(["a", "b"], images_per_prompt=200)
    whole = history(np.random.default_rng(2), [0.0, 0.4, 0.5, 0.5, 0.5], many)
    lacking = [
        replace(each, images=tuple(replace(i, scores={}) if i.cell.index % 2 else i for i in each.images), scores={})
        for each in whole
    ]
    half = [replace(each, scores=summarize(each.images, {})) for each in lacking]
    assert resolution(half, METRIC).change == pytest.approx(math.sqrt(2) * resolution(whole, METRIC).change, rel=0.1)


def test_from_one_evaluation_the_smallest_change_is_a_guess_and_from_one_seed_there_is_none():
    start = history(np.random.default_rng(2), [0.0], GRID)
    assert resolution(start, METRIC).is_guess
    hurried = [*start, *(replace(start[0], step=step, on_request=True) for step in (1, 2, 3))]
    assert resolution(hurried, METRIC) == resolution(start, METRIC)
    assert "estimated from one evaluation" in str(resolution(start, METRIC))
    assert resolution(history(np.random.default_rng(2), [0.0, 0.3], PromptGrid(["a", "b"], seeds=[0])), METRIC) is None
    assert resolution([], METRIC) is None
