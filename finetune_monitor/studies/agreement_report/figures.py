"""Draw the report's figures as SVG with colors from the page's style sheet, for light and dark mode."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TypeAlias
from xml.etree.ElementTree import Element, SubElement, tostring

import numpy as np
from jaxtyping import Float

from finetune_monitor.metrics.thresholds import HIGHEST, LOWEST, STEPS
from finetune_monitor.stats.estimate import Estimate

Scale: TypeAlias = Callable[[float], float]
"""Maps a number to its position in the figure."""

POINTS = 3000
"""The maximum number of dots in a figure; of more images, a random sample is shown."""

WIDTH, HEIGHT = 440, 310
LEFT, RIGHT, TOP, BOTTOM = 40, 12, 40, 40
"""Space around the axes."""

STAR = 18
"""The width needed for a star's label."""

STRIP = 220
"""The width of an interval's strip."""


def scatter(
    scores: Float[np.ndarray, "samples"],
    labels: Float[np.ndarray, "samples"],
    thresholds: Float[np.ndarray, "borders"],
    others: Float[np.ndarray, "other_borders"],
) -> str:
    """A plot of score against people's mean label, with thresholds as lines and the mean label at each star as a bar.

    thresholds: the chosen ones, empty if there are none; others: those of the other method, dotted.
    """
    present = ~np.isnan(scores) & ~np.isnan(labels)
    x, y = scores[present], labels[present]
    figure = _figure(WIDTH, HEIGHT, f"Score against people's mean label of {len(x):,} images")
    low, high = _limits(x)
    across, up = _scale(low, high, LEFT, WIDTH - RIGHT), _scale(LOWEST - 0.2, HIGHEST + 0.2, HEIGHT - BOTTOM, TOP)
    _axes(figure, across, round_ticks(low, high), up, [float(step) for step in STEPS], "score", "mean label")
    for value in others[np.isfinite(others)]:
        _line(figure, across(value), TOP, across(value), HEIGHT - BOTTOM, "other")
    for place in _drawn(len(x)):
        _dot(figure, across(x[place]), up(y[place]), 2.6, "point")
    if len(thresholds):
        _stars(figure, x, y, thresholds, across, up)
    return _text_of(figure)


def histogram(series: Mapping[str, Sequence[float]]) -> str:
    """A histogram of the share of each step from 1 to 5, in percent, with the series side by side."""
    figure = _figure(WIDTH, HEIGHT, "Share of each step: " + ", ".join(series))
    highest = max((share for shares in series.values() for share in shares if not math.isnan(share)), default=0)
    top = max(0.1, math.ceil(highest * 10 + 0.5) / 10)
    up = _scale(0, top, HEIGHT - BOTTOM, TOP)
    across = _scale(LOWEST - 0.5, HIGHEST + 0.5, LEFT, WIDTH - RIGHT)
    ticks = [tick for tick in round_ticks(0, top) if tick <= top]
    _axes(figure, across, [float(step) for step in STEPS], up, ticks, "label or stars", "share, %", percent=True)
    width = 0.8 / max(1, len(series))
    for index, shares in enumerate(series.values()):
        for step, share in zip(STEPS, shares, strict=True):
            _bar(figure, across, up, step - 0.4 + width * index, width, share, index)
    return _text_of(figure)


def strip(estimate: Estimate, limits: tuple[float, float], kind: str, reference: float = math.nan) -> str:
    """A dot with its interval on a bare axis with `limits`; lines mark 0 and the reference."""
    figure = _figure(STRIP, 20, "", css="strip")
    across = _scale(*limits, 6, STRIP - 6)
    if limits[0] <= 0 <= limits[1]:
        _line(figure, across(0), 0, across(0), 20, "zero")
    if not math.isnan(reference):
        _line(figure, across(reference), 0, across(reference), 20, "reference")
    if not math.isnan(estimate.low):
        _line(figure, across(estimate.low), 10, across(estimate.high), 10, f"range {kind}")
    if not math.isnan(estimate.mean):
        _dot(figure, across(estimate.mean), 10, 4.5, f"dot {kind}")
    return _text_of(figure)


def strip_axis(limits: tuple[float, float]) -> str:
    """The numbers above the strips."""
    figure = _figure(STRIP, 16, "", css="strip")
    across = _scale(*limits, 6, STRIP - 6)
    for value in round_ticks(*limits, count=4):
        _words(figure, across(value), 12, f"{value:g}", "middle")
    return _text_of(figure)


def strip_limits(estimates: Sequence[Estimate]) -> tuple[float, float]:
    """Limits from the lowest bound, or slightly below 0, to 1, for all strips of a table."""
    lows = [value for each in estimates for value in (each.mean, each.low) if not math.isnan(value)]
    return math.floor(10 * min([-0.1, *lows])) / 10, 1.0


def share_bar(shares: Sequence[float]) -> str:
    """The shares of 1 to 5 as one bar, darker for higher; empty if there are none."""
    told = ", ".join(f"{step}: {share:.0%}" for step, share in zip(STEPS, shares, strict=True) if not math.isnan(share))
    figure = _figure(120, 14, f"Share of each: {told}", css="shares")
    left = 0.0
    for step, share in zip(STEPS, shares, strict=True):
        if share > 0:
            _rectangle(figure, left, 0, 120 * share, 14, f"label{step}")
            left += 120 * share
    return _text_of(figure)


def _scale(low: float, high: float, start: float, end: float) -> Scale:
    slope = (end - start) / (high - low)
    return lambda value: start + (float(value) - low) * slope


def _limits(x: Float[np.ndarray, "n"]) -> tuple[float, float]:
    """Limits slightly wider than the range; a default if there is no range."""
    low, high = (float(x.min()), float(x.max())) if len(x) else (0.0, 1.0)
    margin = 0.04 * (high - low) or max(1e-6, abs(low) * 0.05) or 0.5
    return low - margin, high + margin


def _drawn(n: int) -> Sequence[int]:
    return range(n) if n <= POINTS else np.sort(np.random.default_rng(0).permutation(n)[:POINTS]).tolist()


def round_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers inside the range, about `count` of them."""
    raw = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def _axes(
    figure: Element,
    across: Scale,
    x_ticks: Sequence[float],
    up: Scale,
    y_ticks: Sequence[float],
    x_name: str,
    y_name: str,
    percent: bool = False,
) -> None:
    for value in y_ticks:
        _line(figure, LEFT, up(value), WIDTH - RIGHT, up(value), "grid")
        _words(figure, LEFT - 7, up(value) + 4, f"{100 * value:.0f}" if percent else f"{value:g}", "end")
    for value in x_ticks:
        _words(figure, across(value), HEIGHT - BOTTOM + 16, f"{value:g}", "middle")
    _line(figure, LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM, "axis")
    _words(figure, (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x_name, "middle", "name")
    _words(figure, 4, 13, y_name, "start", "name")


def _stars(
    figure: Element,
    x: Float[np.ndarray, "n"],
    y: Float[np.ndarray, "n"],
    thresholds: Float[np.ndarray, "borders"],
    across: Scale,
    up: Scale,
) -> None:
    """Draw the chosen thresholds, the stars' labels between them, and each star's mean label."""
    low, high = _limits(x)
    edges = np.clip([low, *thresholds, high], low, high)
    for value in thresholds[np.isfinite(thresholds)]:
        _line(figure, across(value), TOP, across(value), HEIGHT - BOTTOM, "threshold")
    place = np.searchsorted(thresholds, x, side="right")
    for index, (left, right) in enumerate(pairwise(edges)):
        inside = y[place == index]
        if len(inside):
            _line(figure, across(left), up(inside.mean()), across(right), up(inside.mean()), "mean")
            if across(right) - across(left) >= STAR:
                _words(figure, (across(left) + across(right)) / 2, TOP - 5, f"{LOWEST + index}★", "middle", "star")


def _bar(figure: Element, across: Scale, up: Scale, left: float, width: float, share: float, index: int) -> None:
    if math.isnan(share):
        return
    top, right = up(share), across(left + width)
    _rectangle(figure, across(left), top, right - across(left) - 1.5, HEIGHT - BOTTOM - top, f"series{index}")
    _words(figure, (across(left) + right - 1.5) / 2, top - 3, f"{100 * share:.0f}", "middle", "count")


def _figure(width: float, height: float, told: str, css: str = "chart") -> Element:
    """told: the text for screen readers; empty if the numbers are next to the figure."""
    heard = {"role": "img", "aria-label": told} if told else {"aria-hidden": "true"}
    return Element("svg", {"viewBox": f"0 0 {width:g} {height:g}", "class": css, **heard})


def _line(figure: Element, x1: float, y1: float, x2: float, y2: float, css: str) -> None:
    SubElement(figure, "line", {"x1": _at(x1), "y1": _at(y1), "x2": _at(x2), "y2": _at(y2), "class": css})


def _dot(figure: Element, x: float, y: float, radius: float, css: str) -> None:
    SubElement(figure, "circle", {"cx": _at(x), "cy": _at(y), "r": _at(radius), "class": css})


def _rectangle(figure: Element, x: float, y: float, width: float, height: float, css: str) -> None:
    size = {"width": _at(max(width, 0)), "height": _at(max(height, 0))}
    SubElement(figure, "rect", {"x": _at(x), "y": _at(y), **size, "class": css})


def _words(figure: Element, x: float, y: float, text: str, anchor: str, css: str = "tick") -> None:
    found = SubElement(figure, "text", {"x": _at(x), "y": _at(y), "text-anchor": anchor, "class": css})
    found.text = text


def _at(value: float) -> str:
    return f"{value:.1f}"


def _text_of(figure: Element) -> str:
    return tostring(figure, encoding="unicode")
