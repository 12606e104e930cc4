"""One file a metric; this is the Protocol they share."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from PIL.Image import Image

from finetune_monitor.evaluation import Estimate, FloatArray
from finetune_monitor.grid import Cell


@dataclass(frozen=True)
class MetricInfo:
    """A score's direction and the bounds of one image's value."""

    higher_is_better: bool
    bounds: tuple[float, float]

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "MetricInfo":
        """As `run.json` has it; a bound that is null is none: JSON has no infinity."""
        low, high = found["bounds"]
        bounds = (-math.inf if low is None else float(low), math.inf if high is None else float(high))
        return cls(bool(found["higher_is_better"]), bounds)


@runtime_checkable
class Metric(Protocol):
    """Turns images into scores.

    name: the key everywhere: record, TensorBoard tag, W&B column, stopping rule.
    higher_is_better: the direction, for plots, tables and stopping rules.
    bounds: least and greatest score of one image.

    The direction and the bounds hold for every column of `score`, unless the metric is `Extended`.
    """

    name: str
    higher_is_better: bool
    bounds: tuple[float, float]

    def score(self, images: Sequence[Image], cells: Sequence[Cell]) -> dict[str, FloatArray]:
        """One column a name, one value an image; NaN where an image cannot be measured."""
        ...


@runtime_checkable
class Calibrated(Protocol):
    """A metric that knows the score of the real photos: the ceiling of the generated ones."""

    def ceiling(self) -> Mapping[str, Estimate]: ...


@runtime_checkable
class Described(Protocol):
    """A metric that says which weights and references it measures with, for `run.json`.

    `describe()["notice"]`, where present, is shown wherever the scores are (as "demo scores" are).
    """

    def describe(self) -> Mapping[str, Any]: ...


@runtime_checkable
class Extended(Protocol):
    """A metric with further columns that are shown as its own is: with an interval, a direction and bounds."""

    further: Mapping[str, MetricInfo]


@runtime_checkable
class Illustrated(Protocol):
    """A metric with small pictures of the photos it compares with, by the SHA-256 that `describe` gives them."""

    thumbnails: Mapping[str, Image]


def main_columns(metric: Metric) -> dict[str, MetricInfo]:
    """A metric's own column, then its further ones; side columns (`faces_found`) are not among them."""
    own = {metric.name: MetricInfo(metric.higher_is_better, metric.bounds)}
    return {**own, **metric.further} if isinstance(metric, Extended) else own
