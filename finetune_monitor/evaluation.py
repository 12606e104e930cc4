"""What one evaluation found: a score an image, and a mean with its interval; pure data and statistics."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
from jaxtyping import Float

from finetune_monitor.grid import Cell

FloatArray = Float[np.ndarray, "n"]
"""One value an image; NaN where an image could not be measured."""

MISSING = float("nan")


class StopReason(str, Enum):
    """Why a training ended; the value is what the record holds."""

    PATIENCE = "patience"
    NEVER_MEASURED = "never_measured"
    MAX_STEPS = "max_steps"
    NOT_FINITE = "loss_not_finite"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Estimate:
    """A mean over the grid with its 95 % bootstrap interval.

    `mean` is NaN where nothing was measured; `low` and `high` are NaN where fewer than two images were.
    """

    mean: float
    low: float
    high: float
    n: int
    missing: int

    def to_json(self) -> dict[str, float | int | None]:
        numbers = {"mean": self.mean, "low": self.low, "high": self.high}
        return {**{key: json_number(value) for key, value in numbers.items()}, "n": self.n, "missing": self.missing}

    def to_value_json(self) -> dict[str, float | int | None]:
        """The same with the name `value`, which suits a correlation too."""
        found = self.to_json()
        return {"value": found.pop("mean"), **found}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Estimate":
        mean, low, high = (from_json_number(found[key]) for key in ("mean", "low", "high"))
        return cls(mean, low, high, int(found["n"]), int(found["missing"]))


@dataclass(frozen=True)
class Decision:
    """What the stopping rules say after an evaluation."""

    stop: bool = False
    reason: StopReason | None = None
    best_step: int | None = None


@dataclass(frozen=True)
class ScoredImage:
    """One generated image: its cell, its file below the run directory (None: not rendered) and its scores."""

    cell: Cell
    file: str | None
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Evaluation:
    """One evaluation: `scores` are means over the grid, `images` stand in the grid's order.

    overhead: share of the wall time since the evaluation before that rendering, scoring and writing took; None for
        the first.
    """

    step: int
    epoch: float | None
    wall_time: float
    scores: Mapping[str, Estimate]
    images: tuple[ScoredImage, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    decision: Decision = Decision()
    overhead: float | None = None


@dataclass(frozen=True)
class RunSummary:
    """How a run ended."""

    evaluations: tuple[Evaluation, ...]
    best_metric: str
    best_step: int | None
    reason: StopReason | None


def json_number(value: float) -> float | None:
    """JSON knows no NaN: missing is null."""
    return None if math.isnan(value) else float(value)


def from_json_number(value: float | None) -> float:
    return MISSING if value is None else float(value)


def bootstrap_mean(values: FloatArray, rounds: int = 2000, level: float = 0.95, seed: int = 0) -> Estimate:
    """Mean of the measured values with a percentile bootstrap interval (Efron 1979), resampling the images.

    The interval speaks of the grid's images: how far the mean would move with other seeds. It knows nothing of
    another training run.
    """
    measured = values[~np.isnan(values)]
    n, missing = len(measured), len(values) - len(measured)
    if n == 0:
        return Estimate(MISSING, MISSING, MISSING, 0, missing)
    if n == 1:
        return Estimate(float(measured[0]), MISSING, MISSING, 1, missing)
    draws = np.random.default_rng(seed).integers(0, n, size=(rounds, n))
    low, high = np.quantile(measured[draws].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(measured.mean()), float(low), float(high), n, missing)


def summarise(images: Sequence[ScoredImage]) -> dict[str, Estimate]:
    """One estimate a score name, over all images of an evaluation."""
    names = dict.fromkeys(name for image in images for name in image.scores)
    return {
        name: bootstrap_mean(np.array([image.scores.get(name, MISSING) for image in images], dtype=np.float64))
        for name in names
    }


def measured_means(evaluations: Sequence[Evaluation], step: int | None) -> dict[str, float]:
    """The means of one step by score name, without those that could not be measured."""
    found = next((evaluation.scores for evaluation in evaluations if evaluation.step == step), {})
    return {name: estimate.mean for name, estimate in found.items() if not math.isnan(estimate.mean)}
