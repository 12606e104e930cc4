"""Thresholds that turn a metric's scores into 1 to 5 stars, and the file that stores them for other runs."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from pydantic import ConfigDict, Field, ValidationError, model_validator

from finetune_monitor.base.errors import UserError, all_problems
from finetune_monitor.base.files import write_atomic
from finetune_monitor.base.sections import Section, problems_of
from finetune_monitor.base.version import __version__
from finetune_monitor.stats.estimate import FloatArray

LOWEST, HIGHEST = 1, 5
"""The steps of the Likert scale."""

STEPS = np.arange(LOWEST, HIGHEST + 1)

THRESHOLDS_FORMAT = 1

LARGEST_FILE = 1_000_000
"""In bytes; a metric takes less than a thousand."""

NOT_WEIGHTS = ("references", "held_out", "prompts", "notice", "thresholds")
"""Keys of a metric's description that its scores do not depend on."""


@dataclass(frozen=True)
class Buckets:
    """Four ascending thresholds, and their cost on the samples that they were fitted to.

    thresholds: a score at or above the k-th means at least step k + 1; -inf and inf if the steps beyond are empty.
    cost: the sum of |step - label|^power over samples and labels.
    """

    thresholds: Float[np.ndarray, "4"]
    cost: float

    def steps(self, scores: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        """1 to 5 for each score; NaN for a missing one."""
        found = LOWEST + np.searchsorted(self.thresholds, scores, side="right")
        return np.where(np.isnan(scores), np.nan, found)


@dataclass(frozen=True)
class Thresholds:
    """The thresholds that turn one metric's scores into stars.

    buckets: the thresholds, in the score's own unit, and their cost on the labels that they were fitted to.
    method: `least_cost` or `marginals`.
    power: the exponent of the distance between stars and labels.
    labelers, images, labels: how many they were fitted on.
    weights: the weights behind the scores, as from `weights_of`; None if unknown.
    """

    metric: str
    buckets: Buckets
    method: str
    power: float
    labelers: int
    images: int
    labels: int
    weights: Mapping[str, Any] | None

    def stars(self, scores: FloatArray) -> FloatArray:
        """1 to 5 for each image; NaN if there is no score."""
        return self.buckets.steps(scores)


def weights_of(description: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a metric's description that determines what a score means: its weights with their SHA-256."""
    return {key: value for key, value in description.items() if key not in NOT_WEIGHTS}


def write_thresholds(path: Path, found: Sequence[Thresholds]) -> None:
    """Write `thresholds.json`; a threshold beyond all scores is null."""
    metrics = {each.metric: _to_json(each) for each in found}
    content = {"format": THRESHOLDS_FORMAT, "made_by": f"finetune_monitor {__version__}", "metrics": metrics}
    write_atomic(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def read_thresholds(path: str | Path) -> dict[str, Thresholds]:
    """Thresholds by metric.

    Raises:
        UserError: the file cannot be read, or has problems, which are all listed.
    """
    expected = "expected a thresholds.json written by `finetune-monitor agree`"
    try:
        with Path(path).open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; {expected}") from error
    if len(content) > LARGEST_FILE:
        raise UserError(f"{path}: larger than {LARGEST_FILE / 1e6:g} MB; {expected}")
    try:
        rows = _File.model_validate_json(content).metrics
    except ValidationError as error:
        all_problems(problems_of(error, _File), f"{path}: damaged, or a different file; {expected}; run it again:")
        raise
    return {metric: row.to_thresholds(metric) for metric, row in rows.items()}


def buckets_json(found: Buckets) -> dict[str, Any]:
    """Thresholds and cost for JSON; a threshold beyond all scores is null, and `empty_below` counts those below."""
    thresholds = [None if math.isinf(value) else float(value) for value in found.thresholds]
    return {"thresholds": thresholds, "empty_below": int(np.isneginf(found.thresholds).sum()), "cost": found.cost}


def _to_json(found: Thresholds) -> dict[str, Any]:
    return {
        **buckets_json(found.buckets),
        "method": found.method,
        "power": found.power,
        "labelers": found.labelers,
        "images": found.images,
        "labels": found.labels,
        "weights": None if found.weights is None else dict(found.weights),
    }


class _Row(Section):
    """One metric's thresholds in the format of the file; keys of later versions are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore")

    thresholds: list[float | None] = Field(min_length=4, max_length=4)
    empty_below: int = Field(ge=0, le=4)
    cost: float = Field(ge=0)
    method: str
    power: float = Field(gt=0)
    labelers: int = Field(ge=1)
    images: int = Field(ge=1)
    labels: int = Field(ge=1)
    weights: dict[str, Any] | None

    @model_validator(mode="after")
    def _ascend(self) -> "_Row":
        values = self._values()
        if values != sorted(values) or values.count(-math.inf) != self.empty_below:
            raise ValueError(f"expected four ascending thresholds, the first {self.empty_below} of them null")
        return self

    def to_thresholds(self, metric: str) -> Thresholds:
        buckets = Buckets(np.array(self._values()), self.cost)
        return Thresholds(
            metric, buckets, self.method, self.power, self.labelers, self.images, self.labels, self.weights
        )

    def _values(self) -> list[float]:
        beyond = [-math.inf if index < self.empty_below else math.inf for index in range(4)]
        return [other if value is None else value for value, other in zip(self.thresholds, beyond, strict=True)]


class _File(Section):
    """The entire file; keys of later versions are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore")

    format: Literal[1]
    metrics: dict[str, _Row] = Field(min_length=1)
