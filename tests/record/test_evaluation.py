"""Means with intervals, and missing values that are not zeros."""

import json
import math

import pytest

from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.evaluation import ScoredImage, summarize
from finetune_monitor.record.grid import PromptGrid
from finetune_monitor.stats.estimate import Estimate

NAN = float("nan")


def images(values: list[float], grid: PromptGrid) -> list[ScoredImage]:
    return [ScoredImage(cell, None, {"x": value}) for cell, value in zip(grid.cells, values, strict=True)]


def test_missing_values_leave_the_mean_alone_and_are_counted():
    found = summarize(images([0.2, NAN, 0.4, NAN], PromptGrid(["a"])), {})["x"]
    assert found.mean == pytest.approx(0.3)
    assert (found.n, found.missing) == (2, 2)


def test_nothing_measured_is_missing_and_becomes_null():
    found = summarize(images([NAN, NAN], PromptGrid(["a"], images_per_prompt=2)), {})["x"]
    assert math.isnan(found.mean)
    assert found.to_json() == {"mean": None, "low": None, "high": None, "n": 0, "missing": 2}
    back = Estimate.from_json(json.loads(json.dumps(found.to_json())))
    assert math.isnan(back.mean)
    assert (back.n, back.missing) == (0, 2)


def test_images_of_one_seed_are_one_draw_of_noise():
    """Two prompts from the same two seeds: the seeds' means are the sample, and their number is the sample size."""
    values = [0.1, 0.5, 0.3, 0.7]
    shared = summarize(images(values, PromptGrid(["a", "b"], seeds=[0, 1])), {})["x"]
    of_the_means = summarize(images([0.2, 0.6], PromptGrid(["a"], images_per_prompt=2)), {})["x"]
    assert (shared.low, shared.high) == pytest.approx((of_the_means.low, of_the_means.high))
    own = summarize(images(values, PromptGrid(["a", "b"], images_per_prompt=2)), {})["x"]
    assert own.high - own.low < shared.high - shared.low


def test_one_seed_for_all_prompts_gives_no_interval():
    found = summarize(images([0.5, 0.6, 0.7], PromptGrid(["a", "b", "c"], seeds=[0])), {})["x"]
    assert found.mean == pytest.approx(0.6)
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_no_interval_reaches_where_no_score_can_be():
    found = summarize(images([0.9, 1.0, 1.0, 1.0], PromptGrid(["a"])), {"x": ScoreColumn(bounds=(-1.0, 1.0))})["x"]
    assert found.low < found.mean
    assert found.high == 1.0


def test_a_share_of_all_images_is_not_certain():
    """Four faces in four images: the share may be no more than half (Wilson's interval)."""
    found = summarize(images([1.0] * 4, PromptGrid(["a"])), {"x": ScoreColumn(is_share=True)})["x"]
    assert (found.mean, found.low, found.high) == pytest.approx((1.0, 0.5101, 1.0), abs=1e-4)


def test_an_image_without_a_column_counts_as_missing_in_it():
    first, second = PromptGrid(["a"], [0, 1]).cells
    found = summarize([ScoredImage(first, None, {"x": 1.0, "y": 2.0}), ScoredImage(second, None, {"x": 3.0})], {})
    assert found["x"].mean == 2.0
    assert (found["y"].n, found["y"].missing) == (1, 1)
