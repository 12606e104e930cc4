"""What one evaluation found: a score an image, and a mean with its interval; pure data and statistics."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

import numpy as np

from finetune_monitor.record.grid import Cell, CellContent
from finetune_monitor.stats.estimate import MISSING, Estimate
from finetune_monitor.stats.statistics import bootstrap_mean

MEASURED_SHARE = 0.5
"""An evaluation counts only where at least this share of its images could be measured: one lucky face is no score."""


class StopReason(str, Enum):
    """Why a training ended; the value is what the record holds, `words` is what people read."""

    words: str

    def __new__(cls, value: str, words: str) -> "StopReason":
        member = str.__new__(cls, value)
        member._value_, member.words = value, words
        return member

    PATIENCE = "patience", "the score stopped improving"
    NEVER_MEASURED = "never_measured", "the score could not be measured in any evaluation (no face found?)"
    MAX_STEPS = "max_steps", "the last step was reached"
    NOT_FINITE = "loss_not_finite", "the loss was no longer a finite number; the last checkpoint before is kept"
    INTERRUPTED = "interrupted", "it was interrupted; run the same command to resume"

    def __str__(self) -> str:
        return str(self.value)


def as_reason(text: str | None) -> StopReason | str | None:
    """A reason as the record holds it; a rule of the user's own may give any text."""
    known: dict[str, StopReason] = {each.value: each for each in StopReason}
    return known.get(text, text) if text else None


def why(reason: StopReason | str | None) -> str:
    """The reason in words; None is a loop that just ended."""
    if reason is None:
        return "the training loop ended"
    return reason.words if isinstance(reason, StopReason) else str(reason)


@dataclass(frozen=True)
class Decision:
    """What the stopping rules say after an evaluation."""

    stop: bool = False
    reason: StopReason | str | None = None
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

    @cached_property
    def by_cell(self) -> Mapping[str, ScoredImage]:
        """The images by the id of their cell."""
        return {image.cell.id: image for image in self.images}

    @cached_property
    def by_content(self) -> Mapping[CellContent, ScoredImage]:
        """The images by what makes their cell the same in another run of the same sampling."""
        return {image.cell.content: image for image in self.images}


@dataclass(frozen=True)
class RunSummary:
    """How a run ended."""

    evaluations: tuple[Evaluation, ...]
    best_metric: str
    best_step: int | None
    reason: StopReason | str | None


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
