"""The plot of what an evaluation must cost: time, agreement, and rank correlation, one row per setting."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from benchmarks.cost_report import Agreement

MARKED, EVERYWHERE, ELSEWHERE, GRID = "#c4421a", "#3465a4", "#8f9aa8", "#d8d8d8"
"""Colors: of the marked setting, of those measured in all trainings, and of those measured in some."""


def plot(found: "Sequence[Agreement]", metric: str, marked: str, least: float, file: Path) -> None:
    """Time, share of trainings that agree, and rank correlation of every setting but the reference.

    Args:
        marked: the setting to highlight.
        least: the share of trainings that a setting should reach.
    """
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "cost"
    rows = [each for each in found if not each.is_reference]
    figure, axes = pyplot.subplots(1, 3, figsize=(9.5, 1.3 + 0.3 * len(rows)), sharey=True)
    most = max(len(each.pairs) for each in rows)
    for place, each in enumerate(reversed(rows)):
        color = MARKED if each.name == marked else EVERYWHERE if len(each.pairs) == most else ELSEWHERE
        _time(axes[0], place, each, color)
        _agreement(axes[1], place, each, color)
        _order(axes[2], place, each, metric, color)
    axes[1].axvline(least, color="gray", linestyle=":")
    _finish(axes, [each.name for each in reversed(rows)], marked, least, metric)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)


def _time(axis: Any, place: int, each: "Agreement", color: str) -> None:
    axis.barh(place, each.time, height=0.55, color=color)
    axis.text(each.time + 0.01, place, f"{each.time:.2f}", va="center", fontsize=9)


def _agreement(axis: Any, place: int, each: "Agreement", color: str) -> None:
    share = each.agreeing
    axis.plot([share.low, share.high], [place, place], color=color, linewidth=2)
    axis.plot(share.mean, place, "o", color=color)
    axis.text(1.08, place, f"{round(share.mean * share.n)} of {share.n}", va="center", fontsize=9)


def _order(axis: Any, place: int, each: "Agreement", metric: str, color: str) -> None:
    known = each.correlations(metric)
    axis.plot([min(known), np.mean(known)], [place, place], color=color, linewidth=2)
    axis.plot(min(known), place, "|", color=color, markersize=10)
    axis.plot(np.mean(known), place, "o", color=color)


def _finish(axes: Any, names: Sequence[str], marked: str, least: float, metric: str) -> None:
    titles = ("time of rendering,\nas a share of 50 steps", "trainings that agree,\n95% interval")
    for axis, title in zip(axes, (*titles, f"{metric}: Spearman,\nmean and worst training"), strict=True):
        axis.set_title(title, fontsize=10)
        axis.grid(axis="x", color=GRID)
        axis.set_axisbelow(True)
        axis.tick_params(length=0, labelsize=9)
        for side in ("top", "right", "left"):
            axis.spines[side].set_visible(False)
    axes[0].set_yticks(range(len(names)), names)
    for label in axes[0].get_yticklabels():
        label.set_fontweight("bold" if label.get_text() == marked else "normal")
    axes[0].set_xlim(0, None)
    axes[1].set_xlim(-0.04, 1.45)
    axes[1].text(least, -0.9, f"{least:.0%}", ha="right", va="center", fontsize=8, color="gray")
    axes[1].set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
