"""The results of one evaluation: a score per image, and a mean with its interval; pure data and statistics."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

import numpy as np

from finetune_monitor.record.columns import SIDE, ScoreColumn
from finetune_monitor.record.grid import Cell, CellContent
from finetune_monitor.stats.estimate import MISSING, Estimate, FloatArray
from finetune_monitor.stats.intervals import Draws, share_change, t_change, t_interval, wilson


class StopReason(str, Enum):
    """Why a training run ended; the record holds the value, and people read `words`."""

    words: str

    def __new__(cls, value: str, words: str) -> "StopReason":
        member = str.__new__(cls, value)
        member._value_, member.words = value, words
        return member

    PLATEAU = "plateau", "the score no longer rises"
    PATIENCE = "patience", "the score stopped improving"
    TARGET = "target", "the target was reached"
    GUARD = "guard", "a score crossed its limit"
    DIVERGENCE = "divergence", "the training has diverged"
    NEVER_MEASURED = "never_measured", "the score could not be measured in any evaluation (was no face found?)"
    MAX_STEPS = "max_steps", "the last step was reached"
    NOT_FINITE = "loss_not_finite", "the loss was no longer finite; the last checkpoint before that is kept"
    REQUESTED = "requested", "it was stopped by request; run the same command to continue"
    FAILED = "failed", "the training loop raised an error"
    INTERRUPTED = "interrupted", "it was interrupted; run the same command to resume"

    def __str__(self) -> str:
        return str(self.value)


def as_reason(text: str | None) -> StopReason | str | None:
    """The recorded reason; a user's own rule may return any text."""
    known: dict[str, StopReason] = {each.value: each for each in StopReason}
    return known.get(text, text) if text else None


def why(reason: StopReason | str | None, detail: str = "") -> str:
    """The reason in words, with the rule's detail; None means that the training loop simply ended."""
    if reason is None:
        return "the training loop ended"
    words = reason.words if isinstance(reason, StopReason) else str(reason)
    return f"{words}: {detail}" if detail else words


@dataclass(frozen=True)
class Decision:
    """What the stopping rules say after an evaluation.

    detail: what the stopping rule saw, with its numbers.
    best_step: where the smoothed curve of the first rule's metric is best.
    best_score: the value of the smoothed curve at the best step.
    rejected_from: the first of the steps up to this one that crossed a limit, none of which can be the best.
    """

    stop: bool = False
    reason: StopReason | str | None = None
    best_step: int | None = None
    detail: str = ""
    best_score: float | None = None
    rejected_from: int | None = None

    @property
    def why(self) -> str:
        """Why training ends, in words."""
        return why(self.reason, self.detail)


@dataclass(frozen=True)
class ScoredImage:
    """One generated image: its cell, its file below the run directory (None if not rendered), and its scores."""

    cell: Cell
    file: str | None
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Evaluation:
    """One evaluation: `scores` are means over the grid; `images` are in the grid's order.

    on_request: asked for by a person between two scheduled evaluations; stopping rules do not count it.
    failed: the metrics that failed, or all of them if rendering did; what they did not measure says nothing about the
        training.
    samples: for each score that averages draws of noise instead of images, the values of the draws.
    alarms: the columns whose alarm sounds (`record.alarms`).
    overhead: share of the wall time since the previous evaluation that rendering, scoring, and writing took; None for
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
    alarms: tuple[str, ...] = ()
    samples: Mapping[str, Sequence[float]] = field(default_factory=dict)
    on_request: bool = False
    failed: tuple[str, ...] = ()

    @cached_property
    def by_cell(self) -> Mapping[str, ScoredImage]:
        """The images by cell id."""
        return {image.cell.id: image for image in self.images}

    def covered_by(self, column: str) -> tuple[ScoredImage, ...]:
        """The images that a column covers, looked for once: rules ask for those of the entire history every time."""
        if column not in self._covered:
            self._covered[column] = tuple(of_column(self.images, column))
        return self._covered[column]

    @cached_property
    def _covered(self) -> dict[str, tuple[ScoredImage, ...]]:
        return {}

    @cached_property
    def by_content(self) -> Mapping[CellContent, ScoredImage]:
        """The images by the content of their cell, which identifies it in other runs with the same sampling."""
        return {image.cell.content: image for image in self.images}


def has_failed(evaluation: Evaluation, column: str, columns: Mapping[str, ScoreColumn]) -> bool:
    """Whether the metric of a column failed, so that a missing score says nothing about the training."""
    return (columns.get(column, SIDE).metric or column) in evaluation.failed


def scheduled(history: Sequence[Evaluation]) -> tuple[Evaluation, ...]:
    """The evaluations that were not made on request: those that stopping rules count."""
    return tuple(evaluation for evaluation in history if not evaluation.on_request)


@dataclass(frozen=True)
class RunSummary:
    """How a run ended: what `Decision` holds, and the verdict in sentences (`record.verdict`).

    step: the last one of the training, which may be later than the last evaluation; None if unknown.
    """

    evaluations: tuple[Evaluation, ...]
    best_metric: str
    best_step: int | None
    reason: StopReason | str | None
    detail: str = ""
    best_score: float | None = None
    verdict: tuple[str, ...] = ()
    step: int | None = None

    @property
    def why(self) -> str:
        """Why the run ended, in words."""
        return why(self.reason, self.detail)


def summarize(images: Sequence[ScoredImage], columns: Mapping[str, ScoreColumn]) -> dict[str, Estimate]:
    """One estimate per column over its images in an evaluation; images that share a seed are one draw of noise."""
    names = dict.fromkeys(name for image in images for name in image.scores)
    known = {name: columns.get(name, SIDE) for name in names}
    return {name: estimate_mean(images, name, column) for name, column in known.items() if column.role != "note"}


def summarize_samples(
    samples: Mapping[str, Sequence[float]], columns: Mapping[str, ScoreColumn]
) -> dict[str, Estimate]:
    """One estimate per column, over its draws."""
    return {
        name: t_interval(np.array(values), bounds=columns.get(name, SIDE).bounds) for name, values in samples.items()
    }


def of_column(images: Sequence[ScoredImage], name: str) -> list[ScoredImage]:
    """The images that a column covers: those of the subject's prompts, or the probes."""
    kinds = {image.cell.is_probe for image in images if name in image.scores}
    return [image for image in images if image.cell.is_probe in kinds]


def by_prompt(evaluation: Evaluation, name: str) -> dict[str, Estimate]:
    """The mean of a column over the images of each prompt, for the prompts of which any image was measured."""
    images: dict[str, list[ScoredImage]] = {}
    for image in of_column(evaluation.images, name):
        images.setdefault(image.cell.prompt, []).append(image)
    found = {prompt: t_interval(values_of(own, name), seeds(own)) for prompt, own in images.items()}
    return {prompt: mean for prompt, mean in found.items() if mean.n}


def values_of(images: Sequence[ScoredImage], name: str) -> FloatArray:
    """The score of each image; NaN if it was not measured."""
    return np.array([image.scores.get(name, MISSING) for image in images], dtype=np.float64)


def seeds(images: Sequence[ScoredImage]) -> Draws:
    """For each image, the index of its seed: the draw of noise that it belongs to."""
    places: dict[int, int] = {}
    return np.array([places.setdefault(image.cell.seed, len(places)) for image in images], dtype=np.int64)


def estimate_mean(images: Sequence[ScoredImage], name: str, column: ScoreColumn) -> Estimate:
    """The mean of a column over its images, with its interval: that of a share where it is one."""
    own = of_column(images, name)
    values, draws = values_of(own, name), seeds(own)
    return wilson(values, draws) if column.is_share else t_interval(values, draws, column.bounds)


def estimate_change(differences: FloatArray, draws: Draws, column: ScoreColumn) -> Estimate:
    """The mean paired difference of a column's images, with its interval: that of a share where it is one."""
    return share_change(differences, draws) if column.is_share else t_change(differences, draws)


def measured_means(evaluations: Sequence[Evaluation], step: int | None) -> dict[str, float]:
    """The means at one step by score name, without those that could not be measured."""
    found = next((evaluation.scores for evaluation in evaluations if evaluation.step == step), {})
    return {name: estimate.mean for name, estimate in found.items() if not math.isnan(estimate.mean)}
