"""One file a metric; this is the Protocol they share."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

from PIL.Image import Image

from finetune_monitor.record.grid import Cell
from finetune_monitor.stats.estimate import Estimate, FloatArray


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
    """A metric with small images of the photos it compares with, by the SHA-256 that `describe` gives them."""

    thumbnails: Mapping[str, Image]


def main_columns(metric: Metric) -> dict[str, MetricInfo]:
    """A metric's own column, then its further ones; side columns (`faces_found`) are not among them."""
    own = {metric.name: MetricInfo(metric.higher_is_better, metric.bounds)}
    return {**own, **metric.further} if isinstance(metric, Extended) else own


def measured_with(metrics: Sequence[Metric]) -> dict[str, Any]:
    """What decides whether scores can be compared: the metrics, their weights and their references."""
    return {
        "metrics": {name: asdict(info) for name, info in columns(metrics).items()},
        "weights": {m.name: dict(m.describe()) for m in metrics if isinstance(m, Described)},
    }


def columns(metrics: Sequence[Metric]) -> dict[str, MetricInfo]:
    """Direction and bounds of everything that is shown as a metric."""
    return {name: info for metric in metrics for name, info in main_columns(metric).items()}


def check_names(metrics: Sequence[Metric]) -> None:
    names = [name for metric in metrics for name in main_columns(metric)]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"metrics: found {names}, expected at least one, and each name once")
