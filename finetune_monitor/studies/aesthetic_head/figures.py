"""Figures of how predicted scores relate to people's ratings; each is a pure function of numbers or files."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int
from PIL import Image, ImageOps

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.images import read_image
from finetune_monitor.stats.statistics import Bin

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, DPI = 8.8, 140
"""Inches and dots per inch: 1,232 pixels wide."""

SHEET_DPI = 110
"""Dots per inch of the contact sheet, which would otherwise be a large file."""

SHEET_ROWS, SHEET_COLUMNS, SHEET_SIDE = 6, 5, 240
"""The number of images in the contact sheet, and the side of one in pixels."""

LOOKS = (("#0072B2", "o", "-"), ("#D55E00", "s", "--"), ("#555555", "^", ":"), ("#009E73", "D", "-."))
"""Color (Okabe and Ito 2008, distinguishable with color blindness), marker and line of each series, in turn."""

GRAY = "#C9CDD2"

LONGEST_NAME = 28
"""The maximum length of a predictor's name in a legend."""


def calibration(panels: Mapping[str, Sequence[Bin]], scale: tuple[float, float]) -> "Figure":
    """Mean rating against mean score in bins of the score, one panel per predictor, with image counts below."""
    figure = _new_figure(5.6)
    axes = figure.subplots(
        2, len(panels), sharex=True, sharey="row", squeeze=False, gridspec_kw={"height_ratios": [3.2, 1]}
    )
    limits = _limits([b.middle for bins in panels.values() for b in bins], scale)
    for (name, bins), look, (above, below) in zip(panels.items(), LOOKS, axes.T, strict=False):
        above.plot(limits, limits, color="black", linewidth=1, label="score = rating")
        _means(above, [b.middle for b in bins], bins, look, f"mean rating, {_distance(bins):.2f} off on average")
        above.set_title(_legend_name(name), fontsize=11)
        above.legend(loc="upper left", frameon=False, fontsize=9)
        _counts(below, bins, rotation=90 if len(panels) > 1 else 0)
        below.set_xlabel(f"predicted score, {_span(scale)}")
        below.set_xlim(limits)
    axes[0, 0].set_ylabel(f"mean rating of people, {_span(scale)}")
    figure.suptitle("People's mean rating of the images with a given score", fontsize=13, fontweight="bold")
    return figure


def histograms(
    ratings: Float[np.ndarray, "n"],
    scores: Mapping[str, Float[np.ndarray, "n"]],
    edges: Float[np.ndarray, "bins_and_1"],
    outer: tuple[float, float],
) -> "Figure":
    """Histograms of the ratings and each predictor's scores, with the share of each beyond the bounds `outer`."""
    figure = _new_figure(4.8)
    axes = figure.subplots()
    heights, legend = _shares(ratings, edges), _beyond(ratings, outer)
    axes.stairs(
        100 * heights, edges, fill=True, color=GRAY, label=f"ratings of people (n = {len(ratings):,}): {legend}"
    )
    for (name, found), (color, _, line) in zip(scores.items(), LOOKS, strict=False):
        label = f"{_legend_name(name)}: {_beyond(found, outer)}"
        axes.stairs(100 * _shares(found, edges), edges, color=color, linestyle=line, linewidth=2.2, label=label)
    label = f"5th and 95th percentile of the ratings: {outer[0]:.2f} and {outer[1]:.2f}"
    for bound, shown in zip(outer, (label, None), strict=True):
        axes.axvline(bound, color="black", linewidth=1, linestyle=":", label=shown)
    scale = (float(edges[0]), float(edges[-1]))
    used = np.clip(np.concatenate([ratings, *scores.values()]), *scale)
    axes.set_xlim(_limits(used[~np.isnan(used)].tolist(), scale))
    axes.set_xlabel(f"rating or predicted score, {_span(scale)}")
    axes.set_ylabel("share of the images, %")
    figure.suptitle("Do the scores spread as widely as people's ratings?", fontsize=13, fontweight="bold")
    figure.legend(loc="outside lower center", frameon=False, fontsize=10)
    return figure


def errors(panels: Mapping[str, Sequence[Bin]], scale: tuple[float, float]) -> "Figure":
    """Mean absolute error of each predictor in bins of the rating, with image counts below."""
    figure = _new_figure(5.6)
    above, below = figure.subplots(2, sharex=True, gridspec_kw={"height_ratios": [3.2, 1]})
    bins = next(iter(panels.values()))
    shift = 0.12 * (bins[0].high - bins[0].low)  # side by side, so that no interval hides another
    for index, (name, found) in enumerate(panels.items()):
        places = [(b.low + b.high) / 2 + shift * (index - (len(panels) - 1) / 2) for b in found]
        label = f"{_legend_name(name)}: {_mean_of_bins(found):.2f} on average over the bins"
        _means(above, places, found, LOOKS[index % len(LOOKS)], label)
    above.set_ylim(bottom=0)
    above.set_ylabel("mean absolute error, points")
    _counts(below, bins, rotation=0)
    below.set_xlabel(f"mean rating of people, {_span(scale)}")
    below.set_xlim(bins[0].low, bins[-1].high)
    figure.suptitle("Error for low, medium, and high ratings", fontsize=13, fontweight="bold")
    figure.legend(loc="outside lower center", frameon=False, fontsize=10, ncols=min(2, len(panels)))
    return figure


def examples(images: Sequence[Path], ratings: Float[np.ndarray, "n"], scores: Float[np.ndarray, "n"]) -> "Figure":
    """Images from the lowest to the highest score, then those on which head and people differ most.

    Images that cannot be read or have no score are left out.
    """
    rows = [*_steps(scores), *_disagreements(scores, ratings)]
    figure = _new_figure(1.75 * len(rows) + 0.6, SHEET_DPI)
    figure.suptitle("Images by predicted score (people's mean rating in brackets)", fontsize=13, fontweight="bold")
    axes = figure.subplots(max(1, len(rows)), SHEET_COLUMNS, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for line, (label, chosen) in zip(axes, rows, strict=False):
        line[0].text(-0.12, 0.5, label, transform=line[0].transAxes, rotation=90, ha="right", va="center", fontsize=9)
        for axis, index in zip(line, chosen, strict=False):
            _show_image(axis, images[index], f"{scores[index]:.2f} ({ratings[index]:.2f})")
    return figure


def png(figure: "Figure") -> bytes:
    """A figure as a PNG file; the same figure always gives the same bytes."""
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()


def _new_figure(height: float, dpi: int = DPI, width: float = WIDTH) -> "Figure":
    """An empty figure, with sizes in inches."""
    from matplotlib.figure import Figure  # not pyplot, which has global state

    return Figure(figsize=(width, height), dpi=dpi, layout="constrained", facecolor="white")


def _show_image(axis: "Axes", path: Path, caption: str) -> None:
    """Show an image file with a caption below it; nothing if it cannot be read."""
    try:
        image = read_image(path)
    except UserError:
        return
    square = ImageOps.pad(image, (SHEET_SIDE, SHEET_SIDE), Image.Resampling.LANCZOS, color="white")
    axis.imshow(np.asarray(square))
    axis.annotate(
        caption, (0.5, 0), (0, -4), "axes fraction", textcoords="offset points", ha="center", va="top", fontsize=9
    )


def _legend_name(name: str) -> str:
    """A name that fits in a legend and is not parsed as a formula."""
    short = name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
    return short.replace("$", r"\$")


def _span(scale: tuple[float, float]) -> str:
    return f"{scale[0]:g} to {scale[1]:g}"


def _limits(values: Sequence[float], scale: tuple[float, float]) -> tuple[float, float]:
    """The part of the axis that is in use, plus more than a bin on either side."""
    margin = (scale[1] - scale[0]) / 15
    return (min(values) - margin, max(values) + margin) if values else scale


def _means(axis: "Axes", places: Sequence[float], bins: Sequence[Bin], look: tuple[str, str, str], label: str) -> None:
    color, marker, line = look
    found = [b.estimate for b in bins]
    axis.vlines(places, [e.low for e in found], [e.high for e in found], color=color, linewidth=1.6)
    means = [e.mean for e in found]
    axis.plot(places, means, color=color, marker=marker, linestyle=line, linewidth=1, markersize=5, label=label)
    single = [(place, e.mean) for place, e in zip(places, found, strict=True) if e.n == 1]
    axis.plot(*np.reshape(single, (-1, 2)).T, color=color, marker=marker, linestyle="", markersize=5, mfc="white")
    axis.grid(axis="y", color="#E6E6E6")
    axis.set_axisbelow(True)


def _counts(axis: "Axes", bins: Sequence[Bin], rotation: int) -> None:
    """Plot the images per bin: bars on a logarithmic axis, each with its number above."""
    bars = axis.bar(
        [b.low for b in bins], [b.n for b in bins], [b.high - b.low for b in bins], align="edge", color=GRAY
    )
    axis.bar_label(bars, [f"{b.n:,}" for b in bins], fontsize=7.5, padding=2, rotation=rotation)
    axis.set_yscale("log")
    axis.set_ylim(0.5, 0.5 * (2 * max((b.n for b in bins), default=1)) ** 1.7)  # leaves the upper third for the numbers
    axis.tick_params(left=False, labelleft=False, which="both")
    axis.set_ylabel(f"images\n(n = {sum(b.n for b in bins):,})", fontsize=8)


def _distance(bins: Sequence[Bin]) -> float:
    """The mean distance of an image's bin from the diagonal (expected calibration error, Naeini et al. 2015)."""
    return sum(b.n * abs(b.estimate.mean - b.middle) for b in bins) / max(1, sum(b.n for b in bins))


def _mean_of_bins(bins: Sequence[Bin]) -> float:
    measured = [b.estimate.mean for b in bins if b.estimate.n]
    return sum(measured) / len(measured) if measured else float("nan")


def _shares(x: Float[np.ndarray, "n"], edges: Float[np.ndarray, "bins_and_1"]) -> Float[np.ndarray, "bins"]:
    """The share of the numbers in each bin, 0..1; values beyond the edges count in the outermost bins."""
    measured = x[~np.isnan(x)]
    counts, _ = np.histogram(np.clip(measured, edges[0], edges[-1]), edges)
    return counts / max(1, len(measured))


def _beyond(x: Float[np.ndarray, "n"], outer: tuple[float, float]) -> str:
    measured = x[~np.isnan(x)]
    below, above = (measured < outer[0]).sum(), (measured > outer[1]).sum()
    n = max(1, len(measured))
    return f"{100 * below / n:.1f}% below, {100 * above / n:.1f}% above"


def _steps(scores: Float[np.ndarray, "n"]) -> list[tuple[str, Int[np.ndarray, "some"]]]:
    """At most `SHEET_ROWS` rows of images, evenly spaced in the order of their scores, including both ends."""
    order = np.argsort(scores, kind="stable")[: int((~np.isnan(scores)).sum())]
    starts: Sequence[int] = range(0, len(order), SHEET_COLUMNS)
    if len(starts) > SHEET_ROWS:
        starts = [round(step * (len(order) - SHEET_COLUMNS) / (SHEET_ROWS - 1)) for step in range(SHEET_ROWS)]
    rows = [order[start : start + SHEET_COLUMNS] for start in starts]
    ends = [dict.fromkeys(f"{scores[index]:.1f}" for index in (row[0], row[-1])) for row in rows]
    return [(f"score {' to '.join(found)}", row) for found, row in zip(ends, rows, strict=True)]


def _disagreements(
    scores: Float[np.ndarray, "n"], ratings: Float[np.ndarray, "n"]
) -> list[tuple[str, Int[np.ndarray, "some"]]]:
    """The images that the head scores furthest above and furthest below people's ratings."""
    excess = scores - ratings
    rows = []
    for label, distance in (("furthest above people", excess), ("furthest below people", -excess)):
        order = np.argsort(-distance, kind="stable")[: int((distance > 0).sum())]
        rows.append((label, order[:SHEET_COLUMNS]))
    return [(label, row) for label, row in rows if len(row)]
