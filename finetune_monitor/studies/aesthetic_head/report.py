"""Report how close predicted scores come to people's ratings: the numbers, and a page with figures."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from finetune_monitor.base.csv_files import csv_text
from finetune_monitor.base.files import write_atomic
from finetune_monitor.base.text import encoded, escaped, table
from finetune_monitor.stats.estimate import Estimate, shown
from finetune_monitor.stats.statistics import Bin, binned, interval, mae, mean, plcc, srcc
from finetune_monitor.studies.aesthetic_head import figures
from finetune_monitor.studies.aesthetic_head.figures import png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REPORT_BINS = 20
"""The number of bins over the scale: half points for 0 to 10."""

OUTER = (0.05, 0.95)
"""The quantiles of the ratings below and above which a rating counts as extreme."""

CRITICISM = (
    "Such ratings favor Western and realist photographs ([arXiv 2601.09896](https://arxiv.org/abs/2601.09896)), and so "
    "does a head that is fitted to them: a low score is not a verdict on another style."
)
FEW_IMAGES = "Intervals over fewer than about ten images are too narrow: so few do not show how much others would vary."
HOW_TO_READ = {
    "calibration.png": "On the diagonal, scores match the ratings. Lines: 95% intervals; hollow: one image.",
    "histograms.png": "Scores that are compressed toward the middle have a narrower outline than the gray ratings.",
    "errors.png": "Lower is better; a head that stays close to the mean errs less in the middle and more outside.",
    "examples.png": "Do the rows improve from top to bottom? The last rows show where head and people differ most.",
}
"""The figures, in the page's order."""


@dataclass(frozen=True)
class Predictions:
    """Rated images with each predictor's scores.

    names: one per image.
    ratings: people's mean rating of each, on `scale`.
    scores: by predictor, in the ratings' unit; NaN if an image could not be scored. The first is the head itself; it is
        compared with the next one that is not constant.
    scale: the lowest and highest rating that people could give.

    Raises:
        ValueError: there are no images or predictors, lengths differ, a rating is missing, or a score is infinite.
    """

    names: tuple[str, ...]
    ratings: Float[np.ndarray, "n"]
    scores: Mapping[str, Float[np.ndarray, "n"]]
    scale: tuple[float, float]

    def __post_init__(self) -> None:
        lengths = {len(self.names), len(self.ratings), *map(len, self.scores.values())}
        if len(lengths) > 1 or not self.names or not self.scores:
            raise ValueError(f"expected as many names as ratings and scores, at least one; found {sorted(lengths)}")
        if not np.isfinite(self.ratings).all() or any(np.isinf(scores).any() for scores in self.scores.values()):
            raise ValueError("a rating is missing, or a number is infinite")

    @property
    def head(self) -> str:
        return next(iter(self.scores))

    @property
    def compared(self) -> tuple[str, ...]:
        """The head, and the first other predictor that is not constant, if there is one."""
        others = [name for name in self.scores if name != self.head and _varies(self.scores[name])]
        return (self.head, *others[:1])

    @property
    def edges(self) -> Float[np.ndarray, "21"]:
        """The edges of equal bins over the scale, as exact decimals, so that a rating of 1.6 is on an edge."""
        edges: np.ndarray = np.linspace(*self.scale, REPORT_BINS + 1).round(10)
        return edges

    def error(self, name: str) -> Float[np.ndarray, "n"]:
        """The absolute error of a predictor for each image."""
        error: np.ndarray = np.abs(self.scores[name] - self.ratings)
        return error


@dataclass(frozen=True)
class Agreement:
    """One predictor against people: correlations (-1..1), mean absolute error, and the share of extreme scores."""

    srcc: Estimate
    plcc: Estimate
    mae: Estimate
    outer: Estimate


@dataclass(frozen=True)
class Measured:
    """Every table of the report.

    overall: by predictor.
    outer: the ratings' quantiles `OUTER`; `outer_ratings`: share of the ratings beyond them, 0..1.
    error_by_rating: mean absolute error in bins of the rating, by predictor.
    difference: error of the head minus that of the predictor it is compared with, image by image, and its mean in bins
        of the rating; None if there is no other.
    error_by_score: mean absolute error of the head in bins of its own score.
    rating_by_score: mean rating in bins of the predictor's score, for the head and the one it is compared with.
    """

    overall: dict[str, Agreement]
    outer: tuple[float, float]
    outer_ratings: float
    error_by_rating: dict[str, list[Bin]]
    difference: Estimate | None
    difference_by_rating: list[Bin]
    error_by_score: list[Bin]
    rating_by_score: dict[str, list[Bin]]


def measure(predictions: Predictions) -> Measured:
    """Every number of the report; takes about three seconds per predictor for 20,000 images."""
    ratings, scores, edges = predictions.ratings, predictions.scores, predictions.edges
    low, high = (float(bound) for bound in np.quantile(ratings, OUTER))
    difference = _difference(predictions)
    return Measured(
        overall={name: _agreement(scores[name], ratings, low, high) for name in scores},
        outer=(low, high),
        outer_ratings=float(_beyond(ratings, low, high).mean()),
        error_by_rating={name: binned(predictions.error(name), ratings, edges) for name in scores},
        difference=None if difference is None else interval(mean, difference),
        difference_by_rating=[] if difference is None else binned(difference, ratings, edges),
        error_by_score=binned(predictions.error(predictions.head), scores[predictions.head], edges),
        rating_by_score={name: binned(ratings, scores[name], edges) for name in predictions.compared},
    )


def write_report(
    folder: Path,
    title: str,
    predictions: Predictions,
    measured: Measured,
    facts: Mapping[str, str],
    images: Sequence[Path] | None,
    notes: Sequence[str] = (),
) -> None:
    """Write `report.md`, `report.json`, `predictions.csv`, and the figures to `folder`.

    facts: facts about the data and the head, by name. images: the files of `predictions.names`, for `examples.png`;
        None if there are none to show.

    Raises:
        ValueError: the numbers of images and names differ.
    """
    if images is not None and len(images) != len(predictions.names):
        raise ValueError(f"expected {len(predictions.names)} images, found {len(images)}")
    drawn = _draw(predictions, measured, images)
    for name, figure in drawn.items():
        write_atomic(folder / name, png(figure))
    numbers = {"title": title, "facts": dict(facts), **to_json(predictions, measured), "notes": list(notes)}
    write_atomic(folder / "report.json", (json.dumps(numbers, indent=2, allow_nan=False) + "\n").encode())
    write_atomic(folder / "predictions.csv", encoded(_csv(predictions)))
    page = _page(title, predictions, measured, facts, list(drawn), notes)
    write_atomic(folder / "report.md", encoded(page))


def to_json(predictions: Predictions, measured: Measured) -> dict[str, Any]:
    """The tables as plain values; missing values are None."""
    return {
        "scale": list(predictions.scale),
        "images": len(predictions.names),
        "predictors": {
            name: {key: estimate.to_value_json() for key, estimate in vars(agreement).items()}
            for name, agreement in measured.overall.items()
        },
        "outer": {"low": measured.outer[0], "high": measured.outer[1], "share_of_ratings": measured.outer_ratings},
        "error_by_rating": {name: _bins_json(bins) for name, bins in measured.error_by_rating.items()},
        "error_difference": {
            "between": list(predictions.compared),
            "all": measured.difference.to_value_json() if measured.difference else None,
            "by_rating": _bins_json(measured.difference_by_rating),
        },
        "error_by_score": _bins_json(measured.error_by_score),
        "rating_by_score": {name: _bins_json(bins) for name, bins in measured.rating_by_score.items()},
    }


def _varies(scores: Float[np.ndarray, "n"]) -> bool:
    return len(np.unique(scores[~np.isnan(scores)])) > 1


def _beyond(x: Float[np.ndarray, "n"], low: float, high: float) -> Float[np.ndarray, "n"]:
    """1 if a number is beyond the bounds, 0 if it is not, NaN if it is missing."""
    return np.where(np.isnan(x), np.nan, (x < low) | (x > high))


def _agreement(scores: Float[np.ndarray, "n"], ratings: Float[np.ndarray, "n"], low: float, high: float) -> Agreement:
    return Agreement(
        srcc=interval(srcc, scores, ratings),
        plcc=interval(plcc, scores, ratings),
        mae=interval(mae, scores, ratings),
        outer=interval(mean, _beyond(scores, low, high)),
    )


def _difference(predictions: Predictions) -> Float[np.ndarray, "n"] | None:
    if len(predictions.compared) < 2:
        return None
    first, second = predictions.compared
    difference: np.ndarray = predictions.error(first) - predictions.error(second)
    return difference


def _draw(predictions: Predictions, measured: Measured, images: Sequence[Path] | None) -> "dict[str, Figure]":
    ratings, scores, scale = predictions.ratings, predictions.scores, predictions.scale
    compared = {name: scores[name] for name in predictions.compared}
    drawn = {
        "calibration.png": figures.calibration(measured.rating_by_score, scale),
        "histograms.png": figures.histograms(ratings, compared, predictions.edges, measured.outer),
        "errors.png": figures.errors(measured.error_by_rating, scale),
    }
    if images is not None:
        drawn["examples.png"] = figures.examples(images, ratings, scores[predictions.head])
    return drawn


def _bins_json(bins: Sequence[Bin]) -> list[dict[str, Any]]:
    return [
        {"low": b.low, "high": b.high, "middle": b.middle, "n": b.n, "mean": b.estimate.to_value_json()} for b in bins
    ]


def _csv(predictions: Predictions) -> str:
    columns = (predictions.ratings, *predictions.scores.values())
    rows = (
        [name, *("" if np.isnan(number) else f"{number:.4f}" for number in numbers)]
        for name, *numbers in zip(predictions.names, *columns, strict=True)
    )
    return csv_text(["name", "rating", *predictions.scores], rows, "\r\n")


def _page(
    title: str,
    predictions: Predictions,
    measured: Measured,
    facts: Mapping[str, str],
    drawn: Sequence[str],
    notes: Sequence[str],
) -> str:
    low, high = predictions.scale
    parts = [
        f"# {escaped(title)}",
        f"How close the scores of *{escaped(predictions.head)}* come to people's mean ratings of "
        f"{len(predictions.names):,} images, from {low:g} to {high:g}. Brackets contain 95% bootstrap intervals over "
        "these images, which do not cover another training run; — marks what cannot be computed.",
        _facts_table(facts),
        _overall_section(predictions, measured),
        _rating_section(predictions, measured),
        _score_section(predictions, measured),
        "## Figures",
        *(f"![{name.removesuffix('.png')}]({name})\n\n{HOW_TO_READ[name]}" for name in drawn),
        "## Notes",
        "\n".join(f"- {line}" for line in [*map(escaped, notes), FEW_IMAGES, CRITICISM]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _overall_section(predictions: Predictions, measured: Measured) -> str:
    low, high = measured.outer
    rows = [
        [escaped(name), *map(shown, (a.srcc, a.plcc, a.mae)), shown(a.outer, ".1%"), _count(a.mae)]
        for name, a in measured.overall.items()
    ]
    return (
        "## Agreement\n\nSRCC and PLCC are the rank and the linear correlation (higher is better), MAE the mean "
        "absolute error in points of the scale (lower is better). *Extreme* is the share of the scores below "
        f"{low:.2f} or above {high:.2f}, where {measured.outer_ratings:.1%} of the ratings lie.\n\n"
        + table(["predictor", "SRCC ↑", "PLCC ↑", "MAE ↓", "extreme", "images"], rows)
    )


def _rating_section(predictions: Predictions, measured: Measured) -> str:
    by_bin = list(zip(*measured.error_by_rating.values(), strict=True))
    rows = [
        [_range(bins[0], predictions.scale), f"{bins[0].n:,}", *(shown(b.estimate) for b in bins)] for bins in by_bin
    ]
    rows.append(["all", f"{len(predictions.names):,}", *(shown(a.mae) for a in measured.overall.values())])
    header = ["rating", "images", *map(escaped, predictions.scores)]
    if measured.difference is not None:
        header.append(" minus ".join(map(escaped, predictions.compared)))
        differences = [*(b.estimate for b in measured.difference_by_rating), measured.difference]
        rows = [[*row, shown(found, "+.3f")] for row, found in zip(rows, differences, strict=True)]
    explained = "MAE in bins of the rating."
    if measured.difference is not None:
        explained += " The last column is the difference of the errors on the same images: below 0, the head is better."
    return f"## Error by rating\n\n{explained}\n\n{table(header, rows)}"


def _score_section(predictions: Predictions, measured: Measured) -> str:
    rows = [
        [_range(error, predictions.scale), f"{error.n:,}", shown(rating.estimate), shown(error.estimate)]
        for error, rating in zip(measured.error_by_score, measured.rating_by_score[predictions.head], strict=True)
    ]
    return (
        f"## What a score means\n\nMean rating and MAE in bins of the score of *{escaped(predictions.head)}*.\n\n"
        + table(["score", "images", "mean rating", "MAE"], rows)
    )


def _facts_table(facts: Mapping[str, str]) -> str:
    rows = [[escaped(key), escaped(value)] for key, value in facts.items()]
    return table(["fact", "value"], rows, ["---", "---"]) if rows else ""


def _range(found: Bin, scale: tuple[float, float]) -> str:
    """The name of a bin; the outermost bins are open."""
    if found.low == scale[0]:
        return f"under {found.high:g}"
    if found.high == scale[1]:
        return f"{found.low:g} or more"
    return f"{found.low:g} to {found.high:g}"


def _count(estimate: Estimate) -> str:
    return f"{estimate.n:,} ({estimate.missing:,} missing)" if estimate.missing else f"{estimate.n:,}"
