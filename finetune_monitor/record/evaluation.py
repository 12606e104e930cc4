"""What one evaluation found: a score an image, and a mean with its interval; pure data and statistics."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from finetune_monitor.record.grid import Cell
from finetune_monitor.stats.estimate import MISSING, Estimate
from finetune_monitor.stats.statistics import bootstrap_mean


class StopReason(str, Enum):
    """Why a training ended; the value is what the record holds."""

    PATIENCE = "patience"
    NEVER_MEASURED = "never_measured"
    MAX_STEPS = "max_steps"
    NOT_FINITE = "loss_not_finite"
    INTERRUPTED = "interrupted"


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


def summarize(images: Sequence[ScoredImage]) -> dict[str, Estimate]:
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


REASONS = {
    StopReason.PATIENCE: "the score stopped improving",
    StopReason.NEVER_MEASURED: "the score could not be measured in any evaluation (no face found?)",
    StopReason.MAX_STEPS: "the last step was reached",
    StopReason.NOT_FINITE: "the loss was no longer a finite number; the last checkpoint before is kept",
    StopReason.INTERRUPTED: "it was interrupted; run the same command to resume",
}


MEASURED_SHARE = 0.5
"""An evaluation counts only where at least this share of its images could be measured: one lucky face is no score."""


def measured(history: Sequence[Evaluation], metric: str, higher_is_better: bool) -> list[tuple[int, float]]:
    """(step, mean) of the evaluations that count, the mean turned so that more is better."""
    sign = 1.0 if higher_is_better else -1.0
    found = ((evaluation.step, evaluation.scores.get(metric)) for evaluation in history)
    return [(step, sign * estimate.mean) for step, estimate in found if estimate is not None and counts(estimate)]


def counts(estimate: Estimate) -> bool:
    """Whether enough images were measured for the mean to be compared."""
    total = estimate.n + estimate.missing
    return total > 0 and math.isfinite(estimate.mean) and estimate.n >= MEASURED_SHARE * total


def best_step(history: Sequence[Evaluation], metric: str, higher_is_better: bool = True) -> int | None:
    """The earliest step with the best mean; None where nothing was measured."""
    pairs = measured(history, metric, higher_is_better)
    return max(pairs, key=lambda pair: (pair[1], -pair[0]))[0] if pairs else None
