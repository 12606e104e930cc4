"""Figures are well-formed SVG that draws the numbers where they are."""

import math
from xml.etree.ElementTree import Element, fromstring

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_monitor.stats.estimate import Estimate
from finetune_monitor.studies.agreement_report import figures

NAN = float("nan")
RANDOM = np.random.default_rng(0)
SCORES = RANDOM.normal(0.5, 0.2, 200)
LABELS = np.clip(3 + 4 * (SCORES - 0.5) + RANDOM.normal(0, 0.4, 200), 1, 5)
THRESHOLDS = np.array([0.25, 0.4, 0.6, np.inf])
NOTHING = np.zeros(0)


def parts(drawn: str, tag: str, css: str) -> list[Element]:
    """Elements whose class begins with `css`."""
    return [part for part in fromstring(drawn).iter(tag) if part.get("class", "").startswith(css)]


def numbers(drawn: list[Element], name: str) -> list[float]:
    return [float(part.get(name)) for part in drawn]


def words(drawn: str) -> list[str]:
    return [text.text for text in fromstring(drawn).iter("text")]


def test_the_scatter_draws_a_dot_an_image_and_the_thresholds_between():
    drawn = figures.scatter(SCORES, LABELS, THRESHOLDS, np.array([0.3, np.inf, np.inf, np.inf]))
    dots = parts(drawn, "circle", "point")
    assert len(dots) == 200
    order = np.argsort(SCORES)
    assert (np.diff(np.array(numbers(dots, "cx"))[order]) >= 0).all()
    assert np.corrcoef(numbers(dots, "cy"), LABELS)[0, 1] == pytest.approx(-1, abs=1e-3)
    lines = parts(drawn, "line", "threshold")
    assert len(lines) == 3
    for threshold, line in zip(THRESHOLDS, lines, strict=False):
        below = np.array(numbers(dots, "cx")) < float(line.get("x1"))
        assert (below == (threshold > SCORES)).mean() > 0.99
    assert len(parts(drawn, "line", "other")) == 1


def test_the_scatter_shows_the_mean_label_of_each_star():
    drawn = figures.scatter(SCORES, LABELS, THRESHOLDS, NOTHING)
    bars = parts(drawn, "line", "mean")
    star = np.searchsorted(THRESHOLDS, SCORES, side="right")
    means = [LABELS[star == index].mean() for index in range(4)]
    heights = numbers(bars, "y1")
    assert len(bars) == 4  # no image has five stars
    assert np.corrcoef(heights, means)[0, 1] == pytest.approx(-1, abs=1e-4)
    assert [text for text in words(drawn) if text.endswith("★")] == ["1★", "2★", "3★", "4★"]


def test_what_lacks_a_score_or_a_label_is_left_out():
    scores, labels = np.array([0.1, NAN, 0.3, 0.4]), np.array([1.0, 2.0, NAN, 4.0])
    drawn = figures.scatter(scores, labels, NOTHING, NOTHING)
    assert len(parts(drawn, "circle", "point")) == 2
    assert "of 2 images" in fromstring(drawn).get("aria-label")
    assert not parts(drawn, "line", "threshold")


def test_many_images_are_thinned_out_and_the_same_again():
    scores = RANDOM.normal(size=20_000)
    labels = np.full(20_000, 3.0)
    drawn = figures.scatter(scores, labels, NOTHING, NOTHING)
    assert len(parts(drawn, "circle", "point")) == figures.POINTS
    assert drawn == figures.scatter(scores, labels, NOTHING, NOTHING)


@pytest.mark.parametrize("scores", [[], [0.5], [0.0, 0.0], [7.0, 7.0, 7.0], [-1e9, 1e9], [1e-9, 2e-9], [NAN]])
def test_any_scores_make_a_figure_inside_its_frame(scores):
    x = np.array(scores, dtype=float)
    drawn = figures.scatter(x, np.full(len(x), 3.0), np.array([-np.inf, -np.inf, np.inf, np.inf]), NOTHING)
    assert "nan" not in drawn
    assert "inf" not in drawn
    for place in numbers(parts(drawn, "circle", "point"), "cx"):
        assert figures.LEFT <= place <= figures.WIDTH - figures.RIGHT


@settings(max_examples=100, deadline=None)
@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e6))
def test_ticks_are_few_round_and_inside(low, width):
    ticks = figures.round_ticks(low, low + width)
    assert len(ticks) <= 8
    assert all(low - 1e-6 * width <= tick <= low + width * (1 + 1e-6) for tick in ticks)


def test_the_histogram_has_a_bar_a_step_and_series_as_high_as_its_share():
    series = {"people": [0.1, 0.2, 0.4, 0.2, 0.1], "stars": [0.0, 0.5, 0.5, 0.0, 0.0]}
    drawn = figures.histogram(series)
    for index, shares in enumerate(series.values()):
        heights = numbers(parts(drawn, "rect", f"series{index}"), "height")
        np.testing.assert_allclose(np.array(heights) / max(heights), np.array(shares) / max(shares), atol=0.01)
    assert [text for text in words(drawn) if text == "50"]
    assert fromstring(drawn).get("aria-label").endswith("people, stars")


def test_a_histogram_of_nothing_is_a_figure():
    assert not parts(figures.histogram({"people": [NAN] * 5}), "rect", "series")


def test_a_strip_draws_the_estimate_between_its_bounds():
    drawn = figures.strip(Estimate(0.5, 0.4, 0.7, 10, 0), (-0.1, 1.0), "model", 0.5)
    (line,), (dot,), (reference,) = (
        parts(drawn, *which) for which in (("line", "range"), ("circle", "dot"), ("line", "reference"))
    )
    assert float(line.get("x1")) < float(dot.get("cx")) < float(line.get("x2"))
    assert reference.get("x1") == dot.get("cx")
    assert len(parts(drawn, "line", "zero")) == 1
    share = (float(dot.get("cx")) - float(line.get("x1"))) / (float(line.get("x2")) - float(line.get("x1")))
    assert share == pytest.approx(1 / 3, abs=0.02)


@pytest.mark.parametrize("estimate", [Estimate(NAN, NAN, NAN, 0, 0), Estimate(0.3, NAN, NAN, 1, 0)])
def test_what_is_not_known_is_not_drawn(estimate):
    drawn = figures.strip(estimate, (-0.1, 1.0), "people")
    assert not parts(drawn, "line", "range")
    assert len(parts(drawn, "circle", "dot")) == (not math.isnan(estimate.mean))
    assert "nan" not in drawn


def test_strips_share_limits_that_hold_every_interval():
    found = [Estimate(0.5, 0.4, 0.6, 5, 0), Estimate(-0.2, -0.34, 0.1, 5, 0), Estimate(NAN, NAN, NAN, 0, 0)]
    assert figures.strip_limits(found) == (-0.4, 1.0)
    assert figures.strip_limits([]) == (-0.1, 1.0)
    assert {"0", "1"} <= set(words(figures.strip_axis((-0.1, 1.0))))


def test_a_bar_of_shares_is_filled_and_told():
    drawn = figures.share_bar((0.25, 0.0, 0.25, 0.5, 0.0))
    bars = [part for step in range(1, 6) for part in parts(drawn, "rect", f"label{step}")]
    assert numbers(bars, "width") == [30, 30, 60]
    assert numbers(bars, "x") == [0, 30, 60]
    assert fromstring(drawn).get("aria-label") == "Share of each: 1: 25%, 2: 0%, 3: 25%, 4: 50%, 5: 0%"


def test_a_name_is_text_and_no_markup():
    name = '<script>"&'
    assert fromstring(figures.histogram({name: [0.2] * 5})).get("aria-label").endswith(name)
