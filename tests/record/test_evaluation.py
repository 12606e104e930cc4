"""Means with intervals, and missing values that are not zeros."""

import json
import math

import numpy as np
import pytest

from finetune_monitor.record.evaluation import ScoredImage, summarize
from finetune_monitor.record.grid import PromptGrid
from finetune_monitor.stats.estimate import Estimate
from finetune_monitor.stats.statistics import bootstrap_mean

NAN = float("nan")


def test_missing_values_leave_the_mean_alone_and_are_counted():
    estimate = bootstrap_mean(np.array([0.2, NAN, 0.4, NAN]))
    assert estimate.mean == pytest.approx(0.3)
    assert (estimate.n, estimate.missing) == (2, 2)


def test_nothing_measured_is_missing_and_becomes_null():
    estimate = bootstrap_mean(np.array([NAN, NAN]))
    assert math.isnan(estimate.mean)
    assert estimate.to_json() == {"mean": None, "low": None, "high": None, "n": 0, "missing": 2}
    back = Estimate.from_json(json.loads(json.dumps(estimate.to_json())))
    assert math.isnan(back.mean)
    assert (back.n, back.missing) == (0, 2)


def test_one_image_has_no_interval():
    estimate = bootstrap_mean(np.array([0.5]))
    assert estimate.mean == 0.5
    assert math.isnan(estimate.low)
    assert math.isnan(estimate.high)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(300):
        estimate = bootstrap_mean(rng.normal(size=30), rounds=400)
        hits += estimate.low <= 0 <= estimate.high
    assert 0.89 <= hits / 300 <= 0.98


def test_the_interval_is_the_same_every_time():
    values = np.arange(8.0)
    assert bootstrap_mean(values) == bootstrap_mean(values)


def test_an_image_without_a_column_counts_as_missing_in_it():
    first, second = PromptGrid(["a"], [0, 1]).cells
    images = [ScoredImage(first, None, {"x": 1.0, "y": 2.0}), ScoredImage(second, None, {"x": 3.0})]
    scores = summarize(images)
    assert scores["x"].mean == 2.0
    assert (scores["y"].n, scores["y"].missing) == (1, 1)
